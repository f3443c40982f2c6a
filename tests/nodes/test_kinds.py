"""What a MODEL is taken for: by its patches, by the file names in the graph, and what the nodes make of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from test_guidance_patches import SCHEDULES, core_node


def loader(name):
    return {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}}


def lora(name, model, **more):
    return {"class_type": "LoraLoader", "inputs": {"lora_name": name, "model": [model, 0], "clip": [model, 1], **more}}


def optimize(model):
    return {"class_type": "DreamerXLOptimize", "inputs": {"model": [model, 0], "prompt": ["5", 0], "seed": 1}}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        (None, ("eps", False, "", False)),
        ("lcm", ("eps", False, "its LCM sampling", False)),
        ("v, zero terminal SNR", ("v", True, "", False)),
        ("eps, zero terminal SNR", ("eps", True, "", False)),
        ("edm", ("edm", False, "", False)),
        ("edm of Playground 2.5", ("edm", False, "", True)),
        ("v of CosXL", ("v", False, "", False)),
        ("flow", ("flow", False, "", False)),
    ],
)
def test_patches_say_what_a_model_is(ours, loaded, patch, expected):
    model = loaded[0]
    if patch is not None:
        schedules = SCHEDULES | {"flow": ("model_advanced", "ModelSamplingSD3", (3.0,))}
        module, node, args = schedules[patch]
        model = core_node(module, node, model, *args)
    kind = ours("nodes.host.kind").kind_of(model)
    assert (kind.prediction, kind.zero_terminal_snr, kind.few_step, kind.playground) == expected


GRAPHS = {
    "a checkpoint": ({"1": loader("juggernautLightning.safetensors"), "9": optimize("1")}, "juggernautLightning"),
    "a LoRA behind another": (
        {
            "1": loader("sd_xl_base_1.0.safetensors"),
            "2": lora("dmd2_sdxl_4step_lora.safetensors", "1", strength_model=0.8),
            "3": lora("gold.safetensors", "2", strength_model=1.0),
            "9": optimize("3"),
        },
        "dmd2_sdxl_4step_lora",
    ),
    "a LoRA of weight 0": (
        {
            "1": loader("sd_xl_base_1.0.safetensors"),
            "2": lora("lcm-lora-sdxl.safetensors", "1", strength_model=0),
            "9": optimize("2"),
        },
        "",
    ),
    "several LoRAs in one node": (
        {
            "1": loader("sd_xl_base_1.0.safetensors"),
            "2": {
                "class_type": "Power Lora Loader (rgthree)",
                "inputs": {
                    "lora_1": {"on": False, "lora": "turbo.safetensors", "strength": 1},
                    "lora_2": {"on": True, "lora": "sub/Hyper-SDXL-8steps-lora.safetensors", "strength": 1},
                    "model": ["1", 0],
                },
            },
            "9": optimize("2"),
        },
        "Hyper-SDXL-8steps-lora",
    ),
    "a stack with switches": (
        {
            "1": loader("sd_xl_base_1.0.safetensors"),
            "2": {
                "class_type": "CR LoRA Stack",
                "inputs": {
                    "switch_1": "Off",
                    "lora_name_1": "lcm-lora-sdxl.safetensors",
                    "model_weight_1": 1.0,
                    "switch_2": "On",
                    "lora_name_2": "dmd2_sdxl_4step.safetensors",
                    "model_weight_2": 0,
                    "clip_weight_2": 1.0,
                    "lora_stack": None,
                    "model": ["1", 0],
                },
            },
            "9": optimize("2"),
        },
        "",
    ),
    "a LoRA in the prompt": (
        {
            "1": loader("sd_xl_base_1.0.safetensors"),
            "2": {
                "class_type": "Lora tag loader",
                "inputs": {
                    "text": "a cat <lora:lcm:0.0> <lora:gold:0.5.> <lora:sdxl_lightning_8step_lora:1>",
                    "model": ["1", 0],
                },
            },
            "9": optimize("2"),
        },
        "sdxl_lightning_8step_lora",
    ),
    "a strength of 0 from another node": (
        {
            "1": loader("sd_xl_base_1.0.safetensors"),
            "3": {"class_type": "PrimitiveFloat", "inputs": {"value": 0.0}},
            "2": lora("lcm-lora-sdxl.safetensors", "1", strength_model=["3", 0]),
            "9": optimize("2"),
        },
        "",
    ),
    "a name from another node": (
        {
            "3": {"class_type": "PrimitiveString", "inputs": {"value": "sd_xl_turbo_1.0.safetensors"}},
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ["3", 0]}},
            "9": optimize("1"),
        },
        "sd_xl_turbo_1.0",
    ),
    "a picture that another model drew": (
        {
            "1": loader("sd_xl_base_1.0.safetensors"),
            "5": loader("sd_xl_turbo_1.0.safetensors"),
            "6": {"class_type": "KSampler", "inputs": {"model": ["5", 0]}},
            "7": {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0], "vae": ["5", 2]}},
            "2": {"class_type": "IPAdapter of somebody", "inputs": {"model": ["1", 0], "image": ["7", 0]}},
            "9": optimize("2"),
        },
        "",
    ),
    "a subgraph's node": (
        {"7:1": loader("sd_xl_turbo_1.0.safetensors"), "9": optimize("7:1")},
        "sd_xl_turbo_1.0",
    ),
    "another branch": (
        {"1": loader("sd_xl_base_1.0.safetensors"), "5": loader("sd_xl_turbo_1.0.safetensors"), "9": optimize("1")},
        "",
    ),
    "a loop": ({"1": lora("a.safetensors", "2"), "2": lora("b.safetensors", "1"), "9": optimize("1")}, ""),
    "a node that is not in the graph": ({"1": loader("sd_xl_turbo_1.0.safetensors")}, ""),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_file_names_in_the_graph_say_whether_it_was_distilled(ours, loaded, name):
    from comfy_execution.graph import DynamicPrompt

    graph, expected = GRAPHS[name]
    assert ours("nodes.host.kind").kind_of(loaded[0], DynamicPrompt(graph), "9").few_step == expected


def test_nodes_that_another_node_expanded_to_are_looked_at(ours, loaded):
    from comfy_execution.graph import DynamicPrompt

    graph = DynamicPrompt({"1": loader("sd_xl_turbo_1.0.safetensors"), "9": {"class_type": "Loop", "inputs": {}}})
    graph.add_ephemeral_node("9.0.3", optimize("1"), "9", "9")
    assert ours("nodes.host.kind").kind_of(loaded[0], graph, "9.0.3").few_step == "sd_xl_turbo_1.0"


def test_optimize_fits_its_settings_and_says_so(ours, loaded):
    """Unless they were touched."""
    from comfy_execution.graph import DynamicPrompt

    nodes = ours("nodes.optimize")
    hidden = SimpleNamespace(dynprompt=DynamicPrompt(GRAPHS["a checkpoint"][0]), unique_id="9")
    config = nodes.build_config("official")
    made, fit = nodes.fitted_to(loaded[0], config, hidden, None, {"seed": 3})
    assert made.guidance.method.cfg == 1.5
    assert "juggernautLightning" in fit.note
    own = {"guidance.cfg": 4.0}
    made, _ = nodes.fitted_to(loaded[0], nodes.build_config("official", own), hidden, own)
    assert made.guidance.method.cfg == 4.0


def test_rescale_is_rescalecfgs(ours, loaded):
    """The same guided noise as ComfyUI's node makes it, of an eps and of a v MODEL."""
    from dreamer_core.guidance import GuidanceConditioning, guided_noise
    from dreamer_core.guidance.rescale import with_rescale

    with torch.inference_mode():
        encoded = ours("nodes.host.conditioning").HostTextEncoder(loaded[1]).encode_text(["a red mug", "blurry"])
    positive, negative = (encoded.map(lambda t, i=i: t[i : i + 1].clone()) for i in (0, 1))
    cond = GuidanceConditioning(positive, negative, negative)
    x = 4.0 * torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    load = ours("nodes.host.sdxl").loaded_teacher

    def guided(model, share):
        with torch.inference_mode(False), load(model, loaded[2], views=1, resolution=128) as (teacher, _):
            return guided_noise(with_rescale(teacher, share), x, 3.0, cond, 7.5)[0]

    module, node, args = SCHEDULES["v, zero terminal SNR"]
    for model in (loaded[0], core_node(module, node, loaded[0], *args)):
        expected = guided(core_node("model_advanced", "RescaleCFG", model, 0.7), 0.0)
        torch.testing.assert_close(guided(model, 0.7), expected, atol=2e-4, rtol=2e-4)
        assert (expected - guided(model, 0.0)).abs().max() > 1e-3
