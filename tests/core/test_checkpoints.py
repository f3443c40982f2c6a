"""What a model file or folder is, told from synthetic headers; no tensor is ever read."""

import json
import struct

import pytest

from dreamer_core.errors import InputError
from dreamer_core.teachers.safetensors_header import BrokenFileError, content_key, read_header
from dreamer_core.teachers.sdxl.checkpoints import CheckpointKind as Kind
from dreamer_core.teachers.sdxl.checkpoints import identify, require

U = "model.diffusion_model."
TEXT_1 = "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight"
TEXT_2 = "conditioner.embedders.1.model.token_embedding.weight"
VAE = {"first_stage_model.encoder.conv_out.weight": (8, 512, 3, 3)}
UNET_XL = {
    f"{U}input_blocks.0.0.weight": (320, 4, 3, 3),
    f"{U}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
    f"{U}label_emb.0.0.weight": (1280, 2816),
}
TEXTS = {TEXT_1: (49408, 768), TEXT_2: (49408, 1280)}


def unet_of(context, channels=4):
    return {
        f"{U}input_blocks.0.0.weight": (320, channels, 3, 3),
        f"{U}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, context),
    }


def write(path, shapes, metadata=None, data=True):
    """A safetensors file of uint8 zeros; with `data` False only its header."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 1
        for n in shape:
            size *= n
        header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    if metadata:
        header["__metadata__"] = metadata
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        if data:
            file.truncate(8 + len(raw) + end)  # sparse: costs no disk
    return path


SINGLE_FILES = {
    "sdxl": (UNET_XL | TEXTS | VAE, Kind.SDXL),
    "sdxl without VAE": (UNET_XL | TEXTS, Kind.SDXL_NO_VAE),
    "sdxl without text encoders": (UNET_XL | VAE, Kind.SDXL_NO_TEXT),
    "sdxl unet": (UNET_XL, Kind.SDXL_UNET),
    "sdxl diffusers unet": (
        {
            "conv_in.weight": (320, 4, 3, 3),
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
            "add_embedding.linear_1.weight": (1280, 2816),
        },
        Kind.SDXL_UNET,
    ),
    "sdxl inpainting": (UNET_XL | TEXTS | VAE | {f"{U}input_blocks.0.0.weight": (320, 9, 3, 3)}, Kind.SDXL_EDIT),
    "refiner": (
        unet_of(1280) | {f"{U}label_emb.0.0.weight": (1536, 2560), "conditioner.embedders.0.model.ln": (1,)} | VAE,
        Kind.SDXL_REFINER,
    ),
    "playground": (UNET_XL | TEXTS | VAE | {"edm_mean": (1, 4, 1, 1)}, Kind.SDXL_EDM),
    "cosxl": (UNET_XL | TEXTS | VAE | {"edm_vpred.sigma_max": (1,)}, Kind.SDXL_EDM),
    "scaled fp8": (UNET_XL | TEXTS | VAE | {f"{U}out.2.scale_weight": (1,)}, Kind.QUANTISED),
    "sd1": (unet_of(768) | VAE, Kind.SD1),
    "sd2": (unet_of(1024) | VAE, Kind.SD2),
    "sd3": ({f"{U}joint_blocks.0.x_block.attn.qkv.weight": (4, 4)}, Kind.SD3),
    "flux": ({"double_blocks.0.img_attn.qkv.weight": (4, 4)}, Kind.FLUX),
    "flux in a checkpoint": ({f"{U}double_blocks.0.img_attn.qkv.weight": (4, 4)} | VAE, Kind.FLUX),
    "wan": ({f"{U}blocks.0.self_attn.q.weight": (4, 4)}, Kind.OTHER_MODEL),
    "kohya lora": ({"lora_unet_input_blocks_4_1_proj_in.lora_down.weight": (4, 640)}, Kind.LORA),
    "peft lora": ({"unet.down_blocks.1.attentions.0.proj_in.lora_A.weight": (4, 640)}, Kind.LORA),
    "old diffusers lora": ({"unet.mid_block.attn1.processor.to_q_lora.down.weight": (4, 640)}, Kind.LORA),
    "loha": ({"lora_unet_mid_block.hada_w1_a": (4, 4)}, Kind.LORA),
    "lokr": ({"lora_unet_mid_block.lokr_w1": (4, 4)}, Kind.LORA),
    "vae": ({"encoder.conv_out.weight": (8, 512, 3, 3), "decoder.conv_in.weight": (512, 4, 3, 3)}, Kind.VAE),
    "flux vae": ({"encoder.conv_out.weight": (32, 512, 3, 3)}, Kind.OTHER_VAE),
    "taesd": ({"encoder.layers.0.weight": (64, 3, 3, 3), "decoder.layers.1.weight": (64, 4, 3, 3)}, Kind.TINY_VAE),
    "controlnet": ({"control_model.input_blocks.0.0.weight": (4, 4)}, Kind.CONTROLNET),
    "diffusers controlnet": ({"controlnet_cond_embedding.conv_in.weight": (4, 4)}, Kind.CONTROLNET),
    "clip": ({"text_model.encoder.layers.0.mlp.fc1.weight": (4, 4)}, Kind.TEXT_ENCODER),
    "flat clip": ({"encoder.layers.0.self_attn.q_proj.weight": (4, 4)}, Kind.TEXT_ENCODER),
    "t5": ({"encoder.block.0.layer.0.SelfAttention.q.weight": (4, 4)}, Kind.TEXT_ENCODER),
    "embedding": ({"clip_g": (8, 1280), "clip_l": (8, 768)}, Kind.EMBEDDING),
    "something else": ({"weight": (3,)}, Kind.UNKNOWN),
    "no tensors": ({}, Kind.UNKNOWN),
}


@pytest.mark.parametrize("name", SINGLE_FILES)
def test_single_files_by_their_tensor_names(name, tmp_path):
    shapes, kind = SINGLE_FILES[name]
    assert identify(write(tmp_path / "model.safetensors", shapes)).kind is kind


OTHER_FILES = {
    "model.gguf": (b"GGUF\x03\x00\x00\x00" + bytes(64), Kind.GGUF),
    "zip.ckpt": (b"PK\x03\x04" + bytes(64), Kind.PICKLE),
    "old.ckpt": (b"\x80\x02}q\x00." + bytes(64), Kind.PICKLE),
    "renamed.safetensors": (b"PK\x03\x04" + bytes(64), Kind.PICKLE),
    "splat.ply": (b"ply\nformat binary_little_endian 1.0\n", Kind.PLY),
    "empty.safetensors": (b"", Kind.BROKEN),
    "page.safetensors": (b"<!DOCTYPE html><html>" + bytes(64), Kind.BROKEN),
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:", Kind.BROKEN),
    "noise.safetensors": (bytes(range(256)), Kind.BROKEN),
    "short.safetensors": (b"\x01\x02", Kind.BROKEN),
    "list.safetensors": (struct.pack("<Q", 2) + b"[]", Kind.BROKEN),
    "bad.safetensors": (struct.pack("<Q", 11) + b'{"a": null}', Kind.BROKEN),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_files_that_are_no_safetensors(name, tmp_path):
    content, kind = OTHER_FILES[name]
    (tmp_path / name).write_bytes(content)
    assert identify(tmp_path / name).kind is kind


def test_a_header_whose_length_looks_like_a_pickle_is_still_read(tmp_path):
    raw = b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'.ljust(0x0280)
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    assert read_header(tmp_path / "a.safetensors").shapes == {"a": (0,)}


def test_files_cut_short_say_how_much_is_there(tmp_path):
    path = write(tmp_path / "cut.safetensors", {"a": (1000,), "b": (2000,)})
    whole = path.stat().st_size
    for size in (whole - 1, whole - 500, 30, 8):
        with path.open("r+b") as file:
            file.truncate(size)
        found = identify(path)
        assert found.kind is Kind.BROKEN
        assert f"cut short or damaged ({size:,} bytes" in found.looks_like
    with pytest.raises(InputError, match="download it again"):
        require(found, "--model", "an SDXL checkpoint", (Kind.SDXL,))


DAMAGED = {
    "bytes behind the end": {"data_offsets": [0, 3]},
    "a hole before the tensor": {"data_offsets": [1, 5]},
    "more numbers than bytes": {"shape": [5]},
    "a shape that overflows": {"shape": [1 << 40, 1 << 40]},
    "an unknown type": {"dtype": "X7"},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_headers_that_do_not_fit_their_file_are_refused(name, tmp_path):
    """No loader takes such a file either; here it costs no reading of tensors."""
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} | DAMAGED[name]
    raw = json.dumps({"a": entry}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4 + ("hole" in name)))
    with pytest.raises(BrokenFileError, match="damaged"):
        read_header(tmp_path / "a.safetensors")


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "F64", "BOOL"])
def test_types_that_numpy_lacks_are_read(dtype, tmp_path):
    size = {"BF16": 2, "F64": 8}.get(dtype, 1)
    raw = json.dumps({"a": {"dtype": dtype, "shape": [2, 3], "data_offsets": [0, 6 * size]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(6 * size))
    assert read_header(tmp_path / "a.safetensors").shapes == {"a": (2, 3)}


def test_a_missing_path_and_an_empty_folder(tmp_path):
    assert identify(tmp_path / "nothing.safetensors").kind is Kind.MISSING
    assert identify(tmp_path).kind is Kind.EMPTY_FOLDER


def diffusers_folder(root, pipeline="StableDiffusionXLPipeline", unet=None, without=()):
    root.mkdir()
    (root / "model_index.json").write_text(json.dumps({"_class_name": pipeline, "text_encoder": ["t", "C"]}))
    configs = {
        "unet": unet or {"in_channels": 4},
        "vae": {"a": 1},
        "text_encoder": {"a": 1},
        "text_encoder_2": {"a": 1},
    }
    for name, config in configs.items():
        if name not in without:
            (root / name).mkdir()
            (root / name / "config.json").write_text(json.dumps(config))
            write(root / name / "model.safetensors", {"a": (1,)})
    for name in ("tokenizer", "tokenizer_2"):
        (root / name).mkdir()
    return root


def test_diffusers_folders(tmp_path):
    def kind(name, **options):
        return identify(diffusers_folder(tmp_path / name, **options)).kind

    assert kind("xl") is Kind.SDXL_FOLDER
    assert kind("xl img2img", pipeline="StableDiffusionXLImg2ImgPipeline") is Kind.SDXL_FOLDER
    assert kind("refiner", unet={"cross_attention_dim": 1280}) is Kind.SDXL_REFINER
    assert kind("inpaint", unet={"in_channels": 9}) is Kind.SDXL_EDIT
    assert kind("no vae", without=["vae"]) is Kind.SDXL_NO_VAE
    assert kind("no text", without=["text_encoder_2"]) is Kind.OTHER_FOLDER
    assert kind("sd1", pipeline="StableDiffusionPipeline") is Kind.SD1
    assert kind("sd2", pipeline="StableDiffusionPipeline", unet={"cross_attention_dim": 1024}) is Kind.SD2
    assert kind("sd3", pipeline="StableDiffusion3Pipeline") is Kind.SD3
    assert kind("flux", pipeline="FluxPipeline") is Kind.FLUX
    assert kind("wan", pipeline="WanPipeline") is Kind.OTHER_MODEL
    assert "WanPipeline" in identify(tmp_path / "wan").looks_like


def test_a_diffusers_folder_with_missing_pickled_or_cut_weights(tmp_path):
    folder = diffusers_folder(tmp_path / "xl")
    weights = folder / "unet" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    found = identify(folder)
    assert found.kind is Kind.BROKEN
    assert "unet/model.safetensors" in found.looks_like
    weights.unlink()
    assert identify(folder).kind is Kind.OTHER_FOLDER
    (folder / "unet" / "model.bin").write_bytes(whole)
    assert identify(folder).kind is Kind.PICKLE


def test_parts_of_a_model_as_folders(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"_class_name": "AutoencoderKL", "latent_channels": 4}))
    write(tmp_path / "model.safetensors", {"a": (1,)})
    assert identify(tmp_path).kind is Kind.VAE_FOLDER
    config.write_text(json.dumps({"_class_name": "AutoencoderKL", "latent_channels": 16}))
    assert identify(tmp_path).kind is Kind.OTHER_VAE
    config.unlink()
    assert identify(tmp_path).kind is Kind.OTHER_FOLDER
    assert "model.safetensors" in identify(tmp_path).looks_like  # says which file to give instead


def test_require_names_the_field_what_came_and_what_to_do(tmp_path):
    found = identify(write(tmp_path / "my.safetensors", unet_of(768) | VAE))
    with pytest.raises(InputError) as error:
        require(found, "--model", "an SDXL checkpoint", (Kind.SDXL,))
    assert error.value.field == "--model"
    assert "expected an SDXL checkpoint" in str(error.value)
    assert "Stable Diffusion 1.x" in str(error.value)
    assert "my.safetensors" in str(error.value)
    assert require(found, "--model", "any", (Kind.SD1,)) is found


def test_the_header_is_all_that_is_read_and_carries_the_metadata(tmp_path):
    path = write(tmp_path / "a.safetensors", {"x.y": (2, 3), "x.z": (5,)}, {"modelspec.prediction_type": "v"})
    header = read_header(path)
    assert header.shapes == {"x.y": (2, 3), "x.z": (5,)}
    assert header.stripped("x.").shapes == {"y": (2, 3), "z": (5,)}
    assert header.metadata == {"modelspec.prediction_type": "v"}
    with pytest.raises(BrokenFileError):
        read_header(write(tmp_path / "b.safetensors", {"x": (9,)}, data=False))


def test_the_content_key_changes_with_the_content(tmp_path):
    a = write(tmp_path / "a.safetensors", {"x": (300_000,)})
    b = write(tmp_path / "b.safetensors", {"x": (300_000,)})
    assert content_key(a) == content_key(b)
    with b.open("r+b") as file:
        file.seek(1000)
        file.write(b"\x01")
    assert content_key(a) != content_key(b)
