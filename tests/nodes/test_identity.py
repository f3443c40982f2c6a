"""What a run is known by: whatever changes the result changes the key, nothing else does, and the rest is not kept."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
import threading
import types
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TO_V = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_v.weight"
FACTOR = 1.0
FACTORS = {"all": [1.0]}


class Slotted:
    __slots__ = ("weight",)

    def __init__(self, weight):
        self.weight = weight


class Patch:
    """As of an IP-Adapter: what counts lies in lists of dicts of tensors."""

    def __init__(self, weight, **more):
        self.entries = [{"weight": weight, "cond": torch.ones(2, 3), "options": {"sigmas": (0.0, 1.0), **more}}]
        self.calls = 0

    def __call__(self, q, k, v, extra_options):
        logging.getLogger(__name__).debug("called")
        return q * self.entries[0]["weight"], k, v


class Counting(Patch):
    called = 0

    def __call__(self, q, k, v, extra_options):
        Counting.called += 1
        return super().__call__(q, k, v, extra_options)


@dataclass
class Settings:
    weight: float


class Colour(Enum):
    RED = 1
    BLUE = 2


def keywords(weight):
    def patch(x, *, factor=weight):
        return x * factor

    return patch


def closure(weight):
    def outer():
        def inner():
            return weight

        return inner

    return outer()


def nested(weight, depth=60):
    return [nested(weight, depth - 1)] if depth else weight


def cyclic(weight):
    first, second = SimpleNamespace(weight=1), SimpleNamespace(weight=weight)
    first.other, second.other = second, first
    return first


def network(weight):
    layer = torch.nn.Linear(2, 2)
    for parameter in layer.parameters():
        torch.nn.init.constant_(parameter, 1.0)
    layer.strength = weight
    return layer


def hooked(factor):
    layer = network(1.0)
    layer.register_forward_hook(functools.partial(print, factor))
    return layer


def local_class(weight):
    class Made:
        def factor(self):
            return weight

    return Made()


def reading(weight):
    """A function of no module, which reads a global."""
    return types.FunctionType((lambda: weight_of_all).__code__, {"weight_of_all": weight})  # noqa: F821


def reading_within(weight):
    return types.FunctionType((lambda: lambda: weight_of_all).__code__, {"weight_of_all": weight})  # noqa: F821


def merged(index, value):
    weight = torch.zeros(300, 300)
    weight.view(-1)[index] = value
    return weight


def masked(hidden):
    return np.ma.array([1, 2], mask=[hidden, False])


DIFFERENT = {
    "kinds of numbers": [1, 1.0, True, "1", b"1", 1 + 0j, None, -1, np.float32(1), np.float64(1), np.int64(1)],
    "kinds of containers": [[1], (1,), {1}, frozenset({1}), {1: None}, [[1]], "[1]", OrderedDict({1: None})],
    "nesting": [[[1], 2], [[1, 2]], [1, [2]], [[], 1, 2], ["a", "b"], ["ab"], ["a\0b"]],
    "mappings": [{"a": 1}, {"b": 1}, {"a": "1"}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, defaultdict(int, {"a": 1})],
    "not a number": [float("nan"), float("inf"), 0.0, -0.0],
    "arrays": [np.ones(2), np.zeros(2), np.ones(2, np.float32), np.ones((1, 2)), np.array(["a"], object)],
    "masked arrays": [masked(True), masked(False)],
    "tensors": [torch.ones(2), torch.ones(2).double(), torch.ones(1, 2), torch.zeros(2), torch.ones(2).bfloat16()],
    "one value of a tensor": [merged(0, 0.0), merged(7, 1.0), merged(8, 1.0), merged(8, 1.01), merged(89_999, 1.0)],
    "partials": [functools.partial(round, 1), functools.partial(round, 2), functools.partial(round, ndigits=1)],
    "keyword-only defaults": [keywords(1.0), keywords(-3.0)],
    "slots": [Slotted(1.0), Slotted(-3.0)],
    "bound methods": [Slotted(1.0).__init__, Slotted(-3.0).__init__, Patch(1.0).__call__, Patch(-3.0).__call__],
    "built-in methods": [[1].append, [2].append, [1].pop, "a".join, len, torch.relu, torch.abs, np.add, np.multiply],
    "closures": [closure(1.0), closure(-3.0)],
    "depth": [nested(1.0), nested(-3.0), nested(1.0, 61)],
    "cycles": [cyclic(1.0), cyclic(-3.0)],
    "objects": [Patch(1.0), Patch(-3.0), Patch(1.0, t=1), SimpleNamespace(weight=1.0)],
    "dataclasses and enums": [Settings(1.0), Settings(-3.0), Colour.RED, Colour.BLUE, Path("a"), Path("b")],
    "code": [lambda x: x + 1, lambda x: x - 1, lambda x: x + 2, lambda x: x.real, lambda x: x.imag, lambda x=1: x],
    "globals": [reading(w) for w in (1.0, -3.0, [1.0], [-3.0], torch.ones(1))],
    "globals of inner functions": [reading_within(w) for w in (1.0, -3.0)],
    "networks": [network(1.0), network(-3.0), hooked(1.0), hooked(-3.0), torch.nn.Linear(2, 2).eval()],
    "local classes": [local_class(1.0), local_class(-3.0)],
    "types": [Slotted, Patch, Colour, int, torch.float16, torch.bfloat16, torch.device("cpu"), torch.nn.Linear],
    "generators of random numbers": [torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)],
}


@pytest.fixture
def digest(ours):
    """Digests of values that must be describable."""
    description = ours("nodes.host.description").Description

    def found(value):
        made = description()
        result = made.of(value, "here")
        assert made.unknown == []
        return result

    return found


@pytest.mark.parametrize("group", DIFFERENT)
def test_what_differs_has_another_digest(digest, group):
    values = DIFFERENT[group]
    assert len({digest(value) for value in values}) == len(values)
    assert [digest(value) for value in values] == [digest(value) for value in values]


@pytest.mark.parametrize("make", [keywords, closure, nested, cyclic, Patch, Slotted, network, local_class, hooked])
def test_what_is_made_the_same_way_has_the_same_digest(digest, make):
    assert digest(make(2.0)) == digest(make(2.0)) != digest(make(3.0))


def test_sharing_moving_and_the_order_of_sets_do_not_count(digest):
    part = [torch.ones(3)]
    assert digest([part, part]) == digest([[torch.ones(3)], [torch.ones(3)]])
    assert digest(torch.ones(4, 6).t()) == digest(torch.ones(6, 4))
    assert digest({"a", 1, (2, 3)}) == digest({(2, 3), "a", 1})
    layer = network(1.0)
    before = digest(layer)
    layer.forward = layer.forward  # what is left where an object patch was taken off
    assert digest(layer) == before


def test_notes_of_the_host_count_on_its_own_layers_only(digest):
    import comfy.ops

    layer = comfy.ops.manual_cast.Linear(2, 2)
    torch.nn.init.ones_(layer.weight)
    before = digest(layer)
    layer.comfy_cast_weights = not layer.comfy_cast_weights
    layer._v_signature = "loaded"
    assert digest(layer) == before
    others = network(1.0)
    before = digest(others)
    others.comfy_cast_weights = True
    assert digest(others) != before


def test_functions_and_classes_of_a_module_count_what_they_refer_to(digest, monkeypatch):
    """A digest differs for whatever a module's function or class reads, and comes back with it."""
    module = sys.modules[__name__]
    changes = [
        (scaled, module, "FACTOR", -3.0),
        (scaled, module, "FACTOR", [torch.ones(2)]),
        (through, module, "FACTORS", {"all": [-3.0]}),
        (through, FACTORS["all"], 0, -3.0),
        (through, module, "scaled", lambda x: x),
        (through, scaled, "__code__", (lambda x: x).__code__),
        (with_default, with_default.__defaults__[0], 0, -3.0),
        (Patch, Patch, "__call__", lambda self, q, k, v, extra_options: (q, k, v)),
        (Counting, Patch, "__call__", lambda self, q, k, v, extra_options: (q, k, v)),
        (Counting(1.0), Counting, "called", [7]),
        (Tabled, Tabled.TABLE["a"], 0, -3.0),
        (torch.nn.Linear, torch.nn.Linear, "forward", lambda self, x: x),
    ]
    for value, owner, name, new in changes:
        before = digest(value)
        if isinstance(owner, list):
            old, owner[name] = owner[name], new
        else:
            monkeypatch.setattr(owner, name, new)
        assert digest(value) != before, (value, name)
        monkeypatch.undo()
        if isinstance(owner, list):
            owner[name] = old
        assert digest(value) == before, (value, name)
    assert digest(scaled) != digest(through)


def scaled(x):
    return FACTOR * x


def through(x):
    return scaled(x) * FACTORS["all"][0]


def with_default(x, factors=[1.0]):  # noqa: B006
    return x * factors[0]


class Tabled:
    TABLE = {"a": [1.0]}  # noqa: RUF012


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ((i for i in range(3)), "generator"),
        (iter([1, 2]), "list_iterator"),
        (memoryview(b"abc"), "memoryview"),
        (sys._getframe(), "frame"),
        (__import__("random").Random(0), "random.Random"),
        (torch.ones(1, device="meta"), "torch.Tensor without plain values"),
        (torch.ones(2, 2).to_sparse(), "torch.Tensor without plain values"),
        (sys.__stdout__, "_io.TextIOWrapper"),
    ],
)
def test_what_cannot_be_described_is_named(ours, value, name):
    found = ours("nodes.host.description").Description()
    found.of([{"deep": (value,)}], "the model")
    assert found.unknown == [f"{name} in the model"]
    key = ours("nodes.host.identity").Key()
    key.add("the model", [value])
    assert key.content() == (None, (f"{name} in the model",))
    assert key.content().note == f"not resumable: {name} in the model cannot be identified"


def test_errors_and_endless_nesting_are_unknown_too(ours):
    class Hostile:
        @property
        def __dict__(self):
            raise ValueError("no")

    found = ours("nodes.host.description").Description()
    found.of(nested(1, 200), "a")
    assert found.unknown == []
    endless = []
    for _ in range(100_000):
        endless = [endless]
    found.of(endless, "b")
    found.of(Hostile(), "c")
    assert found.unknown == ["something nested too deeply in b", "ValueError in c"]
    while endless:
        endless = endless.pop()


def test_locks_and_loggers_do_not_stop_a_run(digest):
    assert digest([threading.Lock(), __import__("logging").getLogger("a")])


def test_the_same_in_another_process(ours, tmp_path):
    """Every LoRA of ComfyUI carries a set; the hash seed must not decide."""
    code = f"""
import importlib.util, sys, types
spec = importlib.util.spec_from_file_location("description", {str(ROOT / "nodes/host/description.py")!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
names = [f"lora_unet_{{i}}.alpha" for i in range(50)]
def patch(x, known=frozenset(names)):
    return x in {{"a", "b", "c", "d"}}, patch
adapter = types.SimpleNamespace(loaded_keys=set(names), kinds={{int, float, str}}, patch=patch, mixed={{("a", 1), "b"}})
found = module.Description()
print(found.of(adapter, "here").hex(), found.unknown)
"""
    results = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        results.add(done.stdout)
    assert len(results) == 1
    assert results.pop().endswith(" []\n")


@pytest.fixture
def model(loaded):
    return loaded[0]


@pytest.fixture
def identify(ours):
    def found(model):
        key = ours("nodes.host.identity").Key()
        ours("nodes.host.identity").add_model(key, model)
        return key.content()

    return found


def test_a_patch_like_an_ip_adapter(identify, model):
    def patched(weight):
        clone = model.clone()
        clone.set_model_attn2_patch(Patch(weight))
        return clone

    assert identify(patched(1.0)) == identify(patched(1.0)) != identify(patched(-3.0))
    assert identify(patched(1.0)).name is not None


def core_node(module, name, *args, **more):
    """The MODEL that a node of ComfyUI gives."""
    import importlib

    node = getattr(importlib.import_module(module), name)
    if hasattr(node, "FUNCTION"):
        return getattr(node(), node.FUNCTION)(*args, **more)[0]
    return node.execute(*args, **more).args[0]


CORE = {
    "ModelSamplingDiscrete": (
        "model_advanced",
        [("eps", True), ("v_prediction", False), ("lcm", False), ("x0", False)],
    ),
    "ModelSamplingContinuousEDM": (
        "model_advanced",
        [("eps", 120.0, 0.002), ("edm", 120.0, 0.002), ("eps", 80.0, 1.0)],
    ),
    "RescaleCFG": ("model_advanced", [(0.7,), (0.5,)]),
    "ModelComputeDtype": ("model_advanced", [("fp32",), ("bf16",)]),
    "FreeU": ("freelunch", [(1.1, 1.2, 0.9, 0.2), (1.1, 1.2, 0.9, 0.3)]),
    "FreeU_V2": ("freelunch", [(1.1, 1.2, 0.9, 0.2), (1.0, 1.2, 0.9, 0.2)]),
    "PatchModelAddDownscale": (
        "model_downscale",
        [(3, 2.0, 0.0, 0.35, True, "bicubic", "bicubic"), (3, 2.0, 0.0, 0.5, True, "bicubic", "bicubic")],
    ),
    "PerturbedAttentionGuidance": ("pag", [(3.0,), (2.0,)]),
    "SelfAttentionGuidance": ("sag", [(0.5, 2.0), (0.5, 3.0)]),
    "HyperTile": ("hypertile", [(256, 2, 0, False), (128, 2, 0, False)]),
    "TomePatchModel": ("tomesd", [(0.3,), (0.4,)]),
    "NAGuidance": ("nag", [(5.0, 0.5, 1.5), (5.0, 0.5, 2.5)]),
    "DifferentialDiffusion": ("differential_diffusion", [(1.0,), (0.5,)]),
}


@pytest.mark.parametrize("name", CORE)
def test_core_nodes_stay_reusable(identify, model, name):
    module, choices = CORE[name]
    plain, found = identify(model), []
    assert plain.unknown == ()
    for choice in choices:
        first, second = (core_node(f"comfy_extras.nodes_{module}", name, model, *choice) for _ in range(2))
        assert identify(first).unknown == ()
        assert identify(first) == identify(second)
        found.append(identify(first))
    assert len({plain, *found}) == len(choices) + 1
    assert identify(model) == plain


def test_merges(identify, loaded, ours, miniature):
    model, other = loaded[0], ours("nodes.host.starter").load_starter(miniature)[0]
    with torch.inference_mode():
        other.model.diffusion_model.out[2].weight.data.view(-1)[17] += 0.01
    kinds = [
        core_node("comfy_extras.nodes_model_merging", "ModelMergeSimple", model, source, ratio)
        for source in (other, model)
        for ratio in (0.0, 0.99, 1.0)
    ]
    found = {identify(model), identify(other), *map(identify, kinds)}
    assert len(found) == 8
    assert all(identity.unknown == () for identity in found)


def with_lora(model, scale=1.0):
    import comfy.lora
    import comfy.sd

    name = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_v"
    assert name in comfy.lora.model_lora_keys_unet(model.model, {})
    weights = {"lora_down": torch.full((4, 128), 0.1), "lora_up": torch.full((128, 4), 0.1 * scale)}
    lora = {f"{name}.{k}.weight": v for k, v in weights.items()} | {f"{name}.alpha": torch.tensor(4.0)}
    return lora


def test_loras_by_content_and_strength(identify, model):
    import comfy.sd

    for load in (comfy.sd.load_lora_for_models, comfy.sd.load_bypass_lora_for_models):
        made = lambda strength, scale=1.0, load=load: load(model, None, with_lora(model, scale), strength, 1.0)[0]
        found = [identify(m) for m in (model, made(1.0), made(0.9), made(1.0, 1.001))]
        assert len(set(found)) == 4
        assert identify(made(1.0)) == found[1]
        assert all(identity.unknown == () for identity in found)


def test_the_same_while_loaded(identify, ours, loaded):
    """ComfyUI writes patches into the network that all clones share, and puts the original aside."""
    import comfy.sd

    model, _, vae = loaded
    patched = comfy.sd.load_lora_for_models(model, None, with_lora(model), 1.0, 1.0)[0]
    patched = core_node("comfy_extras.nodes_model_advanced", "ModelSamplingDiscrete", patched, "lcm", False)
    patched.add_object_patch("diffusion_model.out.2.forward", keywords(1.0))
    patched.add_object_patch("manual_cast_dtype", torch.float32)
    before = identify(model), identify(patched)
    assert before[0] != before[1]
    host = ours("nodes.host.sdxl")
    with torch.inference_mode(False), host.loaded_teacher(patched, vae, views=1, resolution=64):
        assert not torch.equal(dict(model.model.state_dict())[TO_V], model.backup[TO_V].weight)
        # as dynamic memory does it with the buffers of the network as it is patched
        model.backup_buffers["model_sampling.sigmas"] = model.model.model_sampling.sigmas
        model.model.model_sampling.sigmas = model.model.model_sampling.sigmas.clone()
        assert (identify(model), identify(patched)) == before
        model.backup_buffers.clear()
    assert (identify(model), identify(patched)) == before
    with torch.inference_mode(False), host.loaded_teacher(model, vae, views=1, resolution=64):
        assert (identify(model), identify(patched)) == before


def test_every_field_of_a_model_counts(identify, model):
    import comfy.patcher_extension as extension

    def changed(change):
        clone = model.clone()
        change(clone)
        return identify(clone)

    def additional(m, w):
        other = model.clone()
        other.add_patches({TO_V: ("diff", (torch.ones(128, 128),))}, w)
        m.set_additional_models("control", [other])

    run = extension.WrappersMP.DIFFUSION_MODEL
    changes = [
        lambda m, w: m.add_wrapper(run, closure(w)),
        lambda m, w: m.add_wrapper_with_key(run, "mine", closure(w)),
        lambda m, w: m.add_callback(extension.CallbacksMP.ON_PRE_RUN, closure(w)),
        lambda m, w: m.set_attachments("mine", Patch(w)),
        lambda m, w: m.set_injections("mine", [extension.PatcherInjection(closure(w), closure(0))]),
        lambda m, w: m.add_weight_wrapper(TO_V, closure(w)),
        lambda m, w: m.add_patches({TO_V: ("diff", (torch.ones(128, 128),))}, w),
        lambda m, w: m.add_object_patch("mine", Patch(w)),
        lambda m, w: m.model_options["transformer_options"].update(mine=w),
        lambda m, w: extension.add_wrapper_with_key(run, "mine", closure(w), m.model_options, is_model_options=True),
        lambda m, w: m.set_model_unet_function_wrapper(closure(w)),
        additional,
    ]
    plain = identify(model)
    for change in changes:
        one, again, other = (changed(functools.partial(change, w=w)) for w in (1.0, 1.0, -3.0))
        assert one == again
        assert len({one, other, plain}) == 3
        assert one.unknown == other.unknown == ()


def test_layers_changed_in_place_count(identify, ours, miniature):
    """Seamless tiling sets attributes of layers and leaves the weights alone."""
    first, second = (ours("nodes.host.starter").load_starter(miniature)[0] for _ in range(2))
    assert identify(first) == identify(second)
    second.model.diffusion_model.out[2].padding_mode = "circular"
    assert identify(first) != identify(second)


@pytest.fixture
def run(ours, execute, loaded, tmp_path, monkeypatch):
    """DreamerXLOptimize with a MODEL; returns the splat, the steps it made and what it said."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    node, progress = ours("nodes.running"), ours("nodes.host.progress")
    said, made = [], []
    monkeypatch.setattr(node, "say", lambda text, _: said.append(text))
    monkeypatch.setattr(progress, "say", lambda text, _: said.append(text))
    loop = ours("dreamer_core.optimize.run")
    core = loop.optimize

    def counting(*args):
        for report in core(*args):
            made.append(report.step)
            yield report

    monkeypatch.setattr(loop, "optimize", counting)
    inputs = {
        "vae": loaded[2],
        "prompt": execute("DreamerXLPrompt", clip=loaded[1], prompt="a red mug").args[0],
        "splat": execute("DreamerXLInitialize", source={"source": "sphere", "count": 100}).args[0],
    }
    small = {"preset": "starter", "steps": 1, "views": 1, "resolution": 64, "seed": 0, "final_views": 1}

    def call(model):
        made.clear()
        said.clear()
        splat = execute("DreamerXLOptimize", model=model, **inputs, **small, cleanup="off").args[0]
        return splat, list(made), list(said)

    return call


def test_another_weight_is_another_run(run, model, caplog):
    """The patch of the second run takes part, and its result is its own."""
    caplog.set_level(logging.DEBUG, __name__)
    results = []
    for weight in (1.0, -3.0):
        patched = model.clone()
        patched.set_model_attn2_patch(Patch(weight))
        caplog.clear()
        splat, made, said = run(patched)
        assert made == [0]
        assert any(record.name == __name__ for record in caplog.records)
        assert not any("not resumable" in text for text in said)
        results.append(splat)
    assert not torch.equal(results[0].positions, results[1].positions)


def test_a_model_that_changes_while_it_runs_is_said_to(run, model, tmp_path, monkeypatch):
    patched = model.clone()
    patched.set_model_attn2_patch(Counting(1.0))
    _, made, said = run(patched)
    assert made == [0]
    assert said[-1].startswith("not resumable: something in the model changes while it runs")
    assert list(tmp_path.rglob("*.safetensors")) == []
    monkeypatch.setattr(Counting, "called", 0)  # as in a new process
    assert run(patched)[1] == [0]


def test_a_run_that_nobody_can_identify_is_not_kept_and_says_so(run, model, tmp_path):
    patched = model.clone()
    patched.model_options["transformer_options"]["mine"] = (i for i in range(3))
    note = "not resumable: generator in the model's options cannot be identified"
    for _ in range(2):
        _, made, said = run(patched)
        assert made == [0]
        assert said[0].startswith(note)
        assert said[-1].startswith("step 1/1 ")
        assert f" · {note}" in said[-1]
        assert list(tmp_path.rglob("*.safetensors")) == []
    _, made, said = run(model)
    assert made == [0]
    assert not any("not resumable" in text for text in said)
    assert run(model)[1] == []
