"""Distilled layouts and quantised weights of single files through ComfyUI's loaders, and how well they agree."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

GGUF = os.environ.get("COMFYUI_GGUF_PATH")
"""A copy of github.com/city96/ComfyUI-GGUF, whose loader makes MODELs of .gguf files."""
NF4 = os.environ.get("COMFYUI_NF4_PATH")
"""A copy of github.com/silveroxides/ComfyUI_bnb_nf4_fp4_Loaders."""
SIGMA = 3.0
KINDS = ("checkpoints", "diffusion_models", "loras")


@pytest.fixture(scope="module")
def tiny(host, tmp_path_factory):
    """Writes a checkpoint of a layout into ComfyUI's checkpoints folder; its path."""
    import comfy.supported_models
    import folder_paths
    import tiny_checkpoint

    folder, known = tmp_path_factory.mktemp("checkpoints"), list(comfy.supported_models.models)
    tiny_checkpoint.register()
    for kind in KINDS:
        folder_paths.add_model_folder_path(kind, str(folder))

    def save(layout="SDXL"):
        path = folder / f"{layout}.safetensors"
        with torch.inference_mode(False):
            return path if path.exists() else tiny_checkpoint.save_checkpoint(path, layout=layout)

    yield save
    comfy.supported_models.models[:] = known
    for kind in KINDS:
        folder_paths.folder_names_and_paths[kind][0].remove(str(folder))


def plain_noise(model, x, sigma, cond):
    """Predicted noise of the prompt by the network itself, called as SDXL's is, without any of our code."""
    import comfy.model_management as mm

    mm.load_models_gpu([model])
    inner = model.model
    with torch.inference_mode():
        found = inner.apply_model(
            x,
            x.new_full((len(x),), sigma),
            c_crossattn=cond.tokens.expand(len(x), -1, -1),
            y=inner.encode_adm(
                pooled_output=cond.pooled.expand(len(x), -1), width=128, height=128, device=x.device
            ).expand(len(x), -1),
        )
        return ((x - found) / sigma).clone()


@pytest.fixture
def noise(ours):
    """A function that gives the noise that our teacher finds for a MODEL, and what the network itself says."""

    def found(model, clip, vae):
        with torch.inference_mode():
            cond = ours("nodes.host.conditioning").HostTextEncoder(clip).encode_text(["a red mug"])
        cond = cond.map(lambda t: t.clone())
        x = SIGMA * torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        request = ours("dreamer_core.teachers.teacher").Request(x, SIGMA, cond.expand(2), "positive")
        size = {"width": 128, "height": 128}
        load = ours("nodes.host.sdxl").loaded_teacher
        with torch.inference_mode(False), load(model, vae, views=2, resolution=128, sizes=size) as (teacher, _):
            (eps,) = teacher.predict([request])
        return eps, plain_noise(model, x, SIGMA, cond)

    return found


@pytest.mark.parametrize("layout", ["SDXL", "SSD-1B", "Vega", "KOALA-700M", "KOALA-1B"])
def test_distilled_layouts_load_and_predict(ours, tiny, noise, layout):
    """Through Dreamer XL Loader; the same noise as the network says when it is called by itself."""
    import tiny_checkpoint

    with torch.inference_mode():
        model, clip, vae = ours("nodes.loader").load_checkpoint(tiny(layout).name)
    config = model.model.model_config.unet_config
    for name, value in tiny_checkpoint.LAYOUTS[layout].items():
        assert config[name] == value
    found, expected = noise(model, clip, vae)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert found.std() > 0.05


def quantised(path, target, scaled):
    """The file with its UNet's linear weights in eight bits; with `scaled`, each with a scale of its own."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    for name, value in list(tensors.items()):
        linear = name.startswith("model.diffusion_model.") and name.endswith(".weight") and value.ndim == 2
        if not linear or min(value.shape) < 64:
            continue
        scale = value.abs().max().float() / 448.0 if scaled else torch.tensor(1.0)
        tensors[name] = (value.float() / scale).to(torch.float8_e4m3fn)
        if scaled:
            tensors[name.replace(".weight", ".scale_weight")] = scale
    if scaled:
        tensors["model.diffusion_model.scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file(tensors, target)
    return target


@pytest.mark.parametrize("scaled", [False, True])
def test_eight_bits_predict_nearly_the_same(ours, tiny, noise, scaled):
    """fp8 with and without scales: loaded by ComfyUI, noise within the rounding of three mantissa bits."""
    path = tiny()
    small = quantised(path, path.with_name(f"fp8_{scaled}.safetensors"), scaled)
    load = ours("nodes.loader").load_checkpoint
    with torch.inference_mode():
        whole, other = load(path.name), load(small.name)
    expected, _ = noise(*whole)
    found, plain = noise(*other)
    torch.testing.assert_close(found, plain, atol=2e-3, rtol=2e-3)
    difference = (found - expected).norm() / expected.norm()
    assert 1e-4 < difference < 0.1


def pack(folder, name):
    """A custom node pack as a module."""
    spec = importlib.util.spec_from_file_location(
        name, Path(folder) / "__init__.py", submodule_search_locations=[folder]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def unet_of(path):
    from safetensors.torch import load_file

    prefix = "model.diffusion_model."
    return {k.removeprefix(prefix): v.float() for k, v in load_file(path).items() if k.startswith(prefix)}


@pytest.fixture(scope="module")
def load_gguf(tiny):
    """Loads the tiny checkpoint's UNet in Q8_0, times `factor`, by ComfyUI-GGUF's own loader."""
    if GGUF is None:
        pytest.skip("needs ComfyUI-GGUF: set COMFYUI_GGUF_PATH to a copy of it, and install gguf")
    gguf = pytest.importorskip("gguf")
    nodes = pack(GGUF, "comfyui_gguf").NODE_CLASS_MAPPINGS

    def load(factor=1.0):
        path = tiny().with_name(f"tiny-{factor}-Q8_0.gguf")
        writer = gguf.GGUFWriter(path, "sdxl")
        for name, value in unet_of(tiny()).items():
            kind = gguf.GGMLQuantizationType.F32
            if value.ndim == 2 and value.shape[-1] % 32 == 0:
                kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(factor * value.numpy(), kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with torch.inference_mode():
            return nodes["UnetLoaderGGUF"]().load_unet(path.name)[0]

    return load


@pytest.fixture(scope="module")
def gguf_model(load_gguf):
    return load_gguf()


def test_gguf_predicts_nearly_the_same(ours, tiny, noise, gguf_model):
    with torch.inference_mode():
        whole = ours("nodes.loader").load_checkpoint(tiny().name)
    expected, _ = noise(*whole)
    found, plain = noise(gguf_model, *whole[1:])
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
    assert 1e-5 < (found - expected).norm() / expected.norm() < 0.05


def test_gguf_with_a_lora(ours, tiny, noise, gguf_model):
    """The LoRA takes effect as on the whole weights, and the MODEL is itself again afterwards."""
    import tiny_checkpoint

    import nodes

    path = tiny().with_name("lora.safetensors")
    tiny_checkpoint.save_lora(path)
    with torch.inference_mode():
        whole = ours("nodes.loader").load_checkpoint(tiny().name)
        patched = [
            nodes.LoraLoaderModelOnly().load_lora_model_only(m, path.name, 1.0)[0] for m in (whole[0], gguf_model)
        ]
    before, _ = noise(gguf_model, *whole[1:])
    expected, _ = noise(patched[0], *whole[1:])
    found, _ = noise(patched[1], *whole[1:])
    after, _ = noise(gguf_model, *whole[1:])
    assert (found - before).norm() / before.norm() > 0.02
    assert (found - expected).norm() / expected.norm() < 0.05
    torch.testing.assert_close(after, before)


def test_gguf_models_have_an_identity(ours, load_gguf, gguf_model):
    """The same file has the same name, other bytes another: runs can be resumed."""
    identity = ours("nodes.host.identity")

    def content(model):
        key = identity.Key()
        identity.add_model(key, model)
        return key.content()

    first = content(gguf_model)
    assert first.name is not None, first.note
    assert content(load_gguf()).name == content(gguf_model.clone()).name == first.name
    assert content(load_gguf(1.5)).name != first.name


def test_nf4_predicts_nearly_the_same(ours, tiny, noise):
    """The pack packs weights as they come to a GPU; here they are packed by the same code without one."""
    if NF4 is None:
        pytest.skip("needs ComfyUI_bnb_nf4_fp4_Loaders: set COMFYUI_NF4_PATH to a copy of it, and install bitsandbytes")
    pytest.importorskip("bitsandbytes")
    loaders = pack(NF4, "comfyui_nf4").NODE_CLASS_MAPPINGS
    with torch.inference_mode():
        whole = ours("nodes.loader").load_checkpoint(tiny().name)
        small = loaders["CheckpointLoaderNF4"]().load_checkpoint(tiny().name, "nf4")
        packed = [m for m in small[0].model.modules() if hasattr(getattr(m, "weight", None), "bnb_quantized")]
        assert packed
        for layer in packed:
            layer.weight._quantize(torch.device("cpu"))
            layer.quant_state = layer.weight.quant_state
    expected, _ = noise(*whole)
    found, plain = noise(*small)
    torch.testing.assert_close(found, plain, atol=2e-3, rtol=2e-3)
    assert 1e-4 < (found - expected).norm() / expected.norm() < 0.3
    key = ours("nodes.host.identity").Key()
    ours("nodes.host.identity").add_model(key, small[0])
    assert key.content().name is not None, key.content().note
