"""Every unusable model, VAE and tokenizer is refused in one line that names the option; a right one is never."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamer_core.errors import InputError
from dreamer_core.teachers.sdxl.loading import load_sdxl

pytestmark = pytest.mark.usefixtures("single_threaded")


def refusal(model, **options):
    """The message of the InputError that loading ends with, and its field."""
    with pytest.raises(InputError) as error:
        load_sdxl(model, **options)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(f"{error.value.field}: expected ")
    return error.value.field, text


@pytest.fixture
def tensors(tiny_sdxl_file):
    return load_file(tiny_sdxl_file)


@pytest.fixture
def place(tiny_sdxl_file, tmp_path):
    """Saves tensors as a checkpoint with tokenizers beside it."""

    def save(tensors, name="model.safetensors", **options):
        for folder in ("tokenizer", "tokenizer_2"):
            shutil.copytree(tiny_sdxl_file.parent / folder, tmp_path / folder, dirs_exist_ok=True)
        save_file(tensors, tmp_path / name, **options)
        return tmp_path / name

    return save


def test_paths_that_hold_no_model(tmp_path):
    assert refusal(tmp_path / "none.safetensors")[0] == "--model"
    assert "a path that does not exist (none.safetensors)" in refusal(tmp_path / "none.safetensors")[1]
    assert "an empty folder" in refusal(tmp_path)[1]
    (tmp_path / "old.ckpt").write_bytes(b"PK\x03\x04" + bytes(100))
    assert "convert it to .safetensors" in refusal(tmp_path / "old.ckpt")[1]
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(100))
    assert "a GGUF file" in refusal(tmp_path / "m.gguf")[1]
    (tmp_path / "splat.ply").write_bytes(b"ply\nformat ascii 1.0\n")
    assert "--init" in refusal(tmp_path / "splat.ply")[1]


def test_a_file_cut_short(tiny_sdxl_file, tmp_path):
    whole = tiny_sdxl_file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    field, text = refusal(tmp_path / "cut.safetensors")
    assert field == "--model"
    assert "cut short" in text
    assert "download it again" in text


def test_models_of_other_families_and_parts(place, tensors, tiny_sdxl_dir):
    small = torch.zeros(1)
    u = "model.diffusion_model."
    unet = {n: v for n, v in tensors.items() if n.startswith(u)}
    sd1 = {f"{u}input_blocks.0.0.weight": small, f"{u}input_blocks.1.1.attn2.to_k.weight": torch.zeros(1, 768)}
    cases = {
        "a Flux checkpoint": {"double_blocks.0.img_attn.qkv.weight": small},
        "a Stable Diffusion 1.x checkpoint": sd1,
        "a LoRA": {"lora_unet_a.lora_down.weight": small},
        "a VAE": {"encoder.conv_out.weight": torch.zeros(8, 1, 3, 3)},
        "without text encoders and VAE": unet,
        "without its text encoders": {n: v for n, v in tensors.items() if not n.startswith("conditioner.")},
        "--vae": {n: v for n, v in tensors.items() if not n.startswith("first_stage_model.")},
        "EDM": {**tensors, "edm_mean": small},
    }
    for says, content in cases.items():
        field, text = refusal(place(content))
        assert field == "--model"
        assert says in text, text
    assert "--vae beside" in refusal(tiny_sdxl_dir / "vae")[1]
    assert "UNet alone" in refusal(tiny_sdxl_dir / "unet")[1]


def test_checkpoints_with_tensors_missing_or_misshapen(place, tensors):
    u = "model.diffusion_model."
    for name, part in (
        (f"{u}output_blocks.0.0.in_layers.2.weight", "unet"),
        ("conditioner.embedders.1.model.ln_final.weight", "text_encoder_2"),
        ("conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc2.bias", "text_encoder"),
    ):
        text = refusal(place({n: v for n, v in tensors.items() if n != name}))[1]
        assert f"whose {part} lacks 1 tensors" in text, text
    text = refusal(place({n: v for n, v in tensors.items() if n != "first_stage_model.encoder.norm_out.bias"}))[1]
    assert "whose vae lacks 1 tensors" in text
    without_middle = {n: v for n, v in tensors.items() if "middle_block" not in n}
    assert "cannot be read as one" in refusal(place(without_middle))[1]
    wrong = {**tensors, f"{u}middle_block.0.in_layers.2.weight": torch.zeros(64, 32, 3, 3)}
    assert "whose unet has [64, 32, 3, 3] where SDXL has [64, 64, 3, 3]" in refusal(place(wrong))[1]
    deeper = {**tensors, f"{u}input_blocks.5.1.transformer_blocks.2.norm1.weight": torch.zeros(64)}
    assert "whose unet has 1 tensors too many" in refusal(place(deeper))[1]


def test_vaes_that_are_none(tiny_sdxl_dir, tmp_path):
    save_file({"encoder.conv_out.weight": torch.zeros(32, 1, 3, 3)}, tmp_path / "flux.safetensors")
    save_file({"encoder.conv_out.weight": torch.zeros(8, 1, 3, 3)}, tmp_path / "half.safetensors")
    save_file(
        {"encoder.layers.0.weight": torch.zeros(1), "decoder.layers.1.weight": torch.zeros(1)},
        tmp_path / "t.safetensors",
    )
    cases = {
        "flux.safetensors": "not 4 latent channels",
        "half.safetensors": "cannot be read as one",
        "t.safetensors": "config.json",
        "none.safetensors": "does not exist",
    }
    for name, says in cases.items():
        field, text = refusal(tiny_sdxl_dir, vae=tmp_path / name)
        assert field == "--vae"
        assert says in text


def test_a_folder_whose_weights_lack_a_tensor(tiny_sdxl_dir, tmp_path):
    """The libraries would fill it with noise."""
    for part, file, name in (
        ("unet", "diffusion_pytorch_model.safetensors", "conv_out.bias"),
        ("text_encoder", "model.safetensors", "final_layer_norm.bias"),
        ("vae", "diffusion_pytorch_model.safetensors", "encoder.conv_in.bias"),
    ):
        folder = shutil.copytree(tiny_sdxl_dir, tmp_path / part)
        weights = load_file(folder / part / file)
        weights = {n: v for n, v in weights.items() if not n.endswith(name)}
        save_file(weights, folder / part / file, {"format": "pt"})
        field, text = refusal(folder)
        assert field == "--model"
        assert f"{part}/ lacks 1 tensors" in text


def test_a_vae_folders_weights_file_stands_for_the_folder(tiny_sdxl_dir, tmp_path):
    weights = tiny_sdxl_dir / "vae" / "diffusion_pytorch_model.safetensors"
    assert load_sdxl(tiny_sdxl_dir, vae=weights).describe()["vae"] == "vae"
    shutil.copy(weights, tmp_path / "vae.safetensors")  # without its config.json
    assert "cannot be read as one" in refusal(tiny_sdxl_dir, vae=tmp_path / "vae.safetensors")[1]


def test_a_sd1_vae_folder_is_warned_of(tiny_sdxl_dir, tmp_path, caplog):
    shutil.copytree(tiny_sdxl_dir / "vae", tmp_path / "vae")
    config = tmp_path / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "scaling_factor": 0.18215}))
    load_sdxl(tiny_sdxl_dir, vae=tmp_path / "vae")
    assert "Stable Diffusion 1.x" in caplog.text


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_missing_tokenizer_says_what_to_get_and_where_to_put_it(tiny_sdxl_file, empty_cache, tmp_path):
    alone = tmp_path / "alone" / "model.safetensors"
    alone.parent.mkdir()
    shutil.copy(tiny_sdxl_file, alone)
    field, text = refusal(alone)
    assert field == "--tokenizer"
    for says in ("vocab.json", "merges.txt", "stabilityai/stable-diffusion-xl-base-1.0", "beside the checkpoint"):
        assert says in text
    field, text = refusal(alone, tokenizer=tmp_path / "alone")
    assert field == "--tokenizer"
    assert "vocab.json" in text
    broken = tmp_path / "alone" / "tokenizer"
    broken.mkdir()
    (broken / "vocab.json").write_text("{")
    (broken / "merges.txt").write_text("")
    assert "cannot be read" in refusal(alone)[1]
    shutil.rmtree(broken)
    shutil.copytree(tiny_sdxl_file.parent / "tokenizer", broken)
    assert load_sdxl(alone).encode_text(["a"]).tokens.shape == (1, 77, 96)


def test_a_tokenizer_in_the_local_cache_is_found(tiny_sdxl_file, empty_cache, tmp_path):
    alone = tmp_path / "alone" / "model.safetensors"
    alone.parent.mkdir()
    shutil.copy(tiny_sdxl_file, alone)
    repository = empty_cache / "models--openai--clip-vit-large-patch14"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(tiny_sdxl_file.parent / "tokenizer", repository / "snapshots" / ("0" * 40))
    assert load_sdxl(alone).encode_text(["a"]).tokens.shape == (1, 77, 96)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prediction_type": "sample"}, "an epsilon or v_prediction model"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "a scaled_linear noise schedule"),
        ({"_class_name": "EDMEulerScheduler"}, "EDM"),
    ],
)
def test_parameterisations_it_cannot_drive(change, says, tiny_sdxl_dir, tmp_path):
    folder = shutil.copytree(tiny_sdxl_dir, tmp_path / "sdxl")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    field, text = refusal(folder)
    assert field == "--model"
    assert says in text
