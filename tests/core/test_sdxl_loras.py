"""LoRAs in diffusers', peft's and kohya's formats, merged by weight * alpha / rank * B A; and what is refused."""

import json

import pytest
import torch
from lora_files import MODULES, expected_change, factors, write_kohya, write_peft
from safetensors.torch import load_file, save_file

from dreamer_core.errors import InputError
from dreamer_core.teachers.sdxl.loading import load_sdxl
from dreamer_core.teachers.sdxl.loras import read_lora

pytestmark = pytest.mark.usefixtures("single_threaded")


def weights(sdxl):
    """{(part, module): weight} of a loaded SDXL; the first text encoder's names with `text_model`, as in files."""
    parts = {
        "unet": sdxl._unet,
        "text_encoder": sdxl._towers[0].model,
        "text_encoder_2": sdxl._towers[1].model,
    }
    out = {}
    for part, module in parts.items():
        for name, value in module.state_dict().items():
            module_name = name.removesuffix(".weight")
            if part != "unet" and not module_name.startswith("text_"):
                module_name = f"text_model.{module_name}"
            out[part, module_name] = value
    return out


@pytest.fixture(scope="module")
def plain(tiny_sdxl_dir):
    return load_sdxl(tiny_sdxl_dir)


@pytest.fixture(scope="module")
def pairs(plain):
    have = weights(plain)
    keys = [(part, module) for part, modules in MODULES.items() for module in modules]
    return factors({key: tuple(have[key].shape) for key in keys})


def check_change(before, after, expected):
    before, after = weights(before), weights(after)
    for key, value in before.items():
        torch.testing.assert_close(after[key], value + expected.get(key, 0.0), rtol=1e-5, atol=1e-5)
    assert set(expected) <= set(before)


@pytest.mark.parametrize("writer", [write_kohya, write_peft])
@pytest.mark.parametrize("weight", [1.0, -0.35, 0.0])
def test_every_format_changes_exactly_its_layers_in_proportion(writer, weight, plain, pairs, tiny_sdxl_dir, tmp_path):
    path = writer(tmp_path / "style.safetensors", pairs)
    check_change(plain, load_sdxl(tiny_sdxl_dir, loras=[(path, weight)]), expected_change(pairs, weight))


def test_a_lora_changes_prediction_and_prompts_and_weight_zero_does_not(plain, pairs, tiny_sdxl_dir, tmp_path):
    path = write_kohya(tmp_path / "style.safetensors", pairs)
    x, sigma = torch.randn(1, 4, 8, 8), torch.ones(1)
    cond = plain.encode_text(["a cube"])
    changed = load_sdxl(tiny_sdxl_dir, loras=[(path, 1.0)])
    assert float((changed.eps(x, sigma, cond) - plain.eps(x, sigma, cond)).abs().max()) > 1e-3
    assert float((changed.encode_text(["a cube"]).tokens - cond.tokens).abs().max()) > 1e-3
    assert float((changed.encode_text(["a cube"]).pooled - cond.pooled).abs().max()) > 1e-3
    same = load_sdxl(tiny_sdxl_dir, loras=[(path, 0.0)])
    assert torch.equal(same.eps(x, sigma, cond), plain.eps(x, sigma, cond))


def test_several_loras_add_up_and_a_single_file_takes_them_too(plain, pairs, tiny_sdxl_file, tmp_path):
    shapes = {key: (up.shape[0], down.shape[1]) for key, (down, up) in pairs.items()}
    other = factors(shapes, seed=1)
    first = write_kohya(tmp_path / "a.safetensors", pairs)
    second = write_peft(tmp_path / "b.safetensors", other)
    both = load_sdxl(tiny_sdxl_file, loras=[(first, 0.5), (second, 2.0)])
    one, two = expected_change(pairs, 0.5), expected_change(other, 2.0)
    check_change(plain, both, {key: one[key] + two[key] for key in one})
    described = both.describe()["loras"]
    assert [(entry["file"], entry["weight"]) for entry in described] == [("a.safetensors", 0.5), ("b.safetensors", 2.0)]


PROJ_IN = "middle_block_1_proj_in"


def lora(width, module="input_blocks_4_1_transformer_blocks_0_attn2_to_k"):
    name = f"lora_unet_{module}"
    return {f"{name}.lora_down.weight": torch.zeros(4, width), f"{name}.lora_up.weight": torch.zeros(64, 4)}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (lora(768), "Stable Diffusion 1.x"),
        (lora(1024), "Stable Diffusion 2.x"),
        (lora(2048), "a LoRA for SDXL (cross-attention width 2048, this model's is 96)"),
        (lora(64, "input_blocks_4_1_transformer_blocks_0_attn7_to_q"), "none of whose layers"),
        (lora(33, "input_blocks_4_1_transformer_blocks_0_attn1_to_q"), "does not fit"),
        ({"transformer.blocks.0.lora_A.weight": torch.zeros(4, 4)}, "none of whose layers"),
        (lora(64, PROJ_IN) | {f"lora_unet_{PROJ_IN}.dora_scale": torch.ones(63)}, "does not fit"),
        ({f"lora_unet_{PROJ_IN}.oft_R.weight": torch.zeros(4, 6)}, "without a layer of a known kind"),
        (
            lora(64, PROJ_IN)
            | {
                "unet.mid_block.attentions.0.proj_in.lora_A.weight": torch.ones(4, 64),
                "unet.mid_block.attentions.0.proj_in.lora_B.weight": torch.ones(64, 4),
            },
            "holds a layer twice, as lora_unet_middle_block_1_proj_in and unet.mid_block.attentions.0.proj_in",
        ),
        ({f"lora_unet_{PROJ_IN}.oft_blocks": torch.zeros(4, 4, 4)}, "of the kind OFT"),
        ({f"lora_unet_{PROJ_IN}.a1.weight": torch.zeros(4, 4)}, "of the kind GLoRA"),
        ({f"lora_unet_{PROJ_IN}.lokr_w1": torch.zeros(4, 4)}, "half of a layer missing"),
        (
            {f"lora_unet_{PROJ_IN}.lokr_w1": torch.zeros(4, 4), f"lora_unet_{PROJ_IN}.lokr_w2": torch.zeros(4, 4)},
            "not fit",
        ),
        ({f"lora_unet_{PROJ_IN}.diff_b": torch.zeros(7)}, "does not fit"),
        ({"lora_unet_middle_block_1_proj_in.lora_down.weight": torch.zeros(4, 64)}, "half of a layer missing"),
        ({"lora_unet_mid.hada_w1_a": torch.zeros(4, 4)}, "none of whose layers"),
        ({"encoder.conv_out.weight": torch.zeros(8, 2, 3, 3)}, "a VAE"),
        (lora(64, PROJ_IN) | {f"lora_unet_{PROJ_IN}.lora_up.weight": torch.ones(64, 5)}, "does not fit"),
        (lora(64, PROJ_IN) | {f"lora_unet_{PROJ_IN}.lora_up.weight": torch.ones(64, 4, 3, 3)}, "does not fit"),
    ],
)
def test_what_is_not_for_this_model_is_refused_in_one_line(tensors, says, tiny_sdxl_dir, tmp_path):
    path = tmp_path / "wrong.safetensors"
    save_file(tensors, path)
    with pytest.raises(InputError) as error:
        load_sdxl(tiny_sdxl_dir, loras=[(path, 1.0)])
    text = str(error.value)
    assert error.value.field == "--lora"
    assert says in text
    assert "wrong.safetensors" in text
    assert "\n" not in text


LAYER = "mid_block.attentions.0.proj_in"
PEFT = "lora_adapter_metadata"


def peft_file(path, metadata=None, **tensors):
    """A LoRA of the UNet's `mid_block.attentions.0.proj_in`, rank 4, as diffusers names it."""
    factors = {"lora_A.weight": torch.full((4, 64), 0.5), "lora_B.weight": torch.ones(64, 4)}
    factors |= {name.replace("__", "."): value for name, value in tensors.items()}
    save_file({f"unet.{LAYER}.{name}": value for name, value in factors.items()}, path, metadata)
    return path


DEEP = "[" * 100_000
HANGS = "(a+)+(.*.*.*.*)*$"


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ("[]", "a JSON object as lora_adapter_metadata, got '[]'"),
        ('"words"', "a JSON object as lora_adapter_metadata, got '\"words\"'"),
        ("{broken", "a JSON object as lora_adapter_metadata, got '{broken'"),
        (DEEP, "a JSON object as lora_adapter_metadata, got '[[["),
        ({"unet.lora_alpha": "8"}, "a finite number as 'unet.lora_alpha', got '8'"),
        ({"unet.lora_alpha": [8]}, "a finite number as 'unet.lora_alpha', got [8]"),
        ({"unet.lora_alpha": float("nan")}, "a finite number as 'unet.lora_alpha', got nan"),
        ({"unet.lora_alpha": 10**400}, "a finite number as 'unet.lora_alpha', got 1000"),
        ({"unet.lora_alpha": 8, "unet.use_rslora": "no"}, "true or false as unet.use_rslora, got 'no'"),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": ["proj_in"]}, "a JSON object as unet.alpha_pattern, got ['proj_"),
        ({"unet.alpha_pattern": {"proj_in": "4"}}, "a finite number as 'unet.alpha_pattern.proj_in', got '4'"),
        (
            {"unet.lora_alpha": 8, "unet.alpha_pattern": {HANGS: 4}},
            f"names of layers in unet.alpha_pattern, got {HANGS!r}",
        ),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"*": 4}}, "names of layers in unet.alpha_pattern, got '*'"),
        (
            {"unet.lora_alpha": 8, "unet.alpha_pattern": {"a\nb": 4}},
            "names of layers in unet.alpha_pattern, got 'a\\nb'",
        ),
    ],
)
def test_metadata_of_another_kind_is_refused_in_one_line(metadata, says, tmp_path):
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    path = peft_file(tmp_path / "odd.safetensors", {PEFT: text})
    check_one_line(path, says)


def check_one_line(path, says):
    with pytest.raises(InputError) as error:
        read_lora(path)
    text = str(error.value)
    assert text.startswith(f"--lora: expected {says}")
    assert path.name in text
    assert "\n" not in text
    assert len(text) < 400


UNREADABLE = "an SDXL LoRA (.safetensors), got a file that cannot be read"


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"alpha": torch.ones(2)}, f"a finite number as 'unet.{LAYER}.alpha', got [2]"),
        ({"alpha": torch.tensor(float("inf"))}, f"a finite number as 'unet.{LAYER}.alpha', got inf"),
        ({"alpha": torch.tensor(True)}, f"a finite number as 'unet.{LAYER}.alpha', got True"),
        ({"lora_A__weight": torch.ones(64)}, "a matrix of finite real numbers as 'unet.mid_block"),
        ({"lora_A__weight": torch.tensor(1.0)}, "a matrix of finite real numbers as 'unet.mid_block"),
        ({"lora_A__weight": torch.ones(0, 64), "lora_B__weight": torch.ones(64, 0)}, "a matrix of finite real numbers"),
        ({"lora_A__weight": torch.ones(4, 64, dtype=torch.int8)}, "a matrix of finite real numbers as 'unet.mid_block"),
        ({"lora_B__weight": torch.full((64, 4), float("nan"))}, "a matrix of finite real numbers as 'unet.mid_block"),
    ],
)
def test_tensors_of_another_kind_are_refused_in_one_line(tensors, says, tmp_path):
    check_one_line(peft_file(tmp_path / "odd.safetensors", **tensors), says)


def test_a_header_that_only_safetensors_refuses_is_one_line(tmp_path):
    path = peft_file(tmp_path / "odd.safetensors")
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"F32"', b'"Q32"'))
    check_one_line(path, UNREADABLE)


@pytest.mark.parametrize(
    ("patterns", "alpha"),
    [
        ({}, 8.0),
        ({"proj_in": 2}, 2.0),
        ({"0.proj_in": 2, "proj_in": 3}, 2.0),
        ({"proj_in": 3, "0.proj_in": 2}, 3.0),  # the first one counts
        ({r"attentions\.0\.proj_in$": 2}, 2.0),
        ({f"^{LAYER}": 2}, 2.0),
        ({LAYER: 2}, 2.0),
        ({"^proj_in": 2}, 8.0),
        ({"j_in": 2}, 8.0),
        ({"mid_block": 2, "proj_out": 3}, 8.0),
    ],
)
@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_patterns_as_peft_matches_them(patterns, alpha, rslora, tmp_path):
    other = pytest.importorskip("peft.utils.other")
    assert patterns.get(other.get_pattern_key(patterns, LAYER), 8) == alpha
    settings = {"unet.lora_alpha": 8, "unet.alpha_pattern": patterns, "unet.use_rslora": rslora, "unet.rank_pattern": 1}
    path = peft_file(tmp_path / "peft.safetensors", {PEFT: json.dumps(settings)})
    assert read_lora(path)[f"unet.{LAYER}"].alpha == alpha * (2 if rslora else 1)


def test_peft_layers_of_a_named_adapter(tmp_path):
    names = {"lora_A": torch.ones(2, 3), "lora_B": torch.ones(3, 2)}
    save_file({f"unet.a.{part}.my_style.weight": value for part, value in names.items()}, tmp_path / "a.safetensors")
    assert set(read_lora(tmp_path / "a.safetensors")["unet.a"].parts) == {"down", "up"}


def test_convolutions_old_processor_names_and_the_original_layout(plain, tiny_sdxl_dir, tmp_path):
    def random(*shape):
        return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))

    down, up = random(4, 32 * 9), random(32, 4)
    small_down, small_up = random(4, 64), random(64, 4)
    q = "mid_block.attentions.0.transformer_blocks.0.attn1"
    path = tmp_path / "mixed.safetensors"
    tensors = {
        "lora_unet_input_blocks_1_0_in_layers_2.lora_down.weight": down.view(4, 32, 3, 3),
        "lora_unet_input_blocks_1_0_in_layers_2.lora_up.weight": up.view(32, 4, 1, 1),
        f"unet.{q}.processor.to_q_lora.down.weight": small_down,
        f"unet.{q}.processor.to_q_lora.up.weight": small_up,
        f"unet.{q}.processor.to_out_lora.down.weight": small_down,
        f"unet.{q}.processor.to_out_lora.up.weight": small_up,
        "diffusion_model.middle_block.1.proj_in.lora_A.weight": small_down,
        "diffusion_model.middle_block.1.proj_in.lora_B.weight": small_up,
    }
    save_file({name: value.clone() for name, value in tensors.items()}, path)
    small = small_up @ small_down
    expected = {
        ("unet", "down_blocks.0.resnets.0.conv1"): (up @ down).view(32, 32, 3, 3),
        ("unet", f"{q}.to_q"): small,
        ("unet", f"{q}.to_out.0"): small,
        ("unet", "mid_block.attentions.0.proj_in"): small,
    }
    check_change(plain, load_sdxl(tiny_sdxl_dir, loras=[(path, 1.0)]), expected)


def test_layers_without_a_place_are_counted(pairs, tiny_sdxl_dir, tmp_path, caplog):
    path = write_kohya(tmp_path / "more.safetensors", pairs)
    save_file({**load_file(path), **lora(64, "input_blocks_9_1_proj_in")}, path)
    load_sdxl(tiny_sdxl_dir, loras=[(path, 1.0)])
    assert f"1 of {len(pairs) + 1} layers have no place" in caplog.text


def test_merging_equals_diffusers(plain, pairs, tiny_sdxl_dir, tmp_path):
    """An independent implementation, peft's, on the same file."""
    from diffusers import UNet2DConditionModel

    pytest.importorskip("peft")
    unet_pairs = {key: value for key, value in pairs.items() if key[0] == "unet"}
    path = write_kohya(tmp_path / "style.safetensors", unet_pairs)
    unet = UNet2DConditionModel.from_pretrained(tiny_sdxl_dir / "unet")
    from diffusers import StableDiffusionXLPipeline

    tensors, alphas = StableDiffusionXLPipeline.lora_state_dict(str(path), unet_config=unet.config)
    unet.load_lora_adapter(tensors, prefix="unet", network_alphas=alphas, adapter_name="style")
    unet.set_adapters("style", 0.7)
    ours = load_sdxl(tiny_sdxl_dir, loras=[(path, 0.7)])
    x, cond = torch.randn(1, 4, 8, 8), plain.encode_text(["a cube"])
    got = ours.eps(x, torch.ones(1), cond)
    size = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]])
    with torch.no_grad():
        expected = unet(
            x / 2**0.5,
            int((plain.sigmas.log()).abs().argmin()),
            cond.tokens,
            added_cond_kwargs={"text_embeds": cond.pooled, "time_ids": size},
        ).sample
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_missing_lora_is_refused_before_the_model_is_loaded(tmp_path, tiny_sdxl_dir):
    with pytest.raises(InputError, match=r"--lora: .*a path that does not exist"):
        load_sdxl(tiny_sdxl_dir, loras=[(tmp_path / "none.safetensors", 1.0)])


TO_Q = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_q"
TO_Q_MODULE = ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q")
CONV, CONV_MODULE = "lora_unet_input_blocks_1_0_in_layers_2", ("unet", "down_blocks.0.resnets.0.conv1")
NORM, NORM_MODULE = "lora_unet_input_blocks_1_0_in_layers_0", ("unet", "down_blocks.0.resnets.0.norm1")


def random(*shape, seed=0):
    return 0.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def relatives(weight, conv):
    """Files of every kind, and the weight that the published formula gives at strength 1."""
    (o, i), (co, ci, kh, kw) = weight.shape, conv.shape
    down, up, alpha = random(2, i), random(o, 2, seed=1), torch.tensor(1.0)
    plain = {f"{TO_Q}.lora_down.weight": down, f"{TO_Q}.lora_up.weight": up, f"{TO_Q}.alpha": alpha}
    moved = weight + 0.5 * up @ down
    by_input, by_output = random(1, i).abs() + 1, random(o, 1).abs() + 1
    a, b, c, d = random(o, 2, seed=2), random(2, i, seed=3), random(o, 2, seed=4), random(2, i, seed=5)
    w1, w2, w2a, w2b = random(4, 4), random(o // 4, i // 4), random(o // 4, 2), random(2, i // 4)
    mid, cdown, cup = random(2, 2, kh, kw), random(2, ci, 1, 1), random(co, 2, 1, 1)
    t1, t2 = random(2, 2, kh, kw, seed=6), random(2, 2, kh, kw, seed=7)
    ca, cb, cc, cd = random(2, co, seed=8), random(2, ci, seed=9), random(2, co, seed=10), random(2, ci, seed=11)
    hada = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d, "alpha": alpha}
    tucker = {"hada_t1": t1, "hada_w1_a": ca, "hada_w1_b": cb, "hada_t2": t2, "hada_w2_a": cc, "hada_w2_b": cd}
    first = torch.einsum("pqhw,po,qi->oihw", t1, ca, cb)
    second = torch.einsum("pqhw,po,qi->oihw", t2, cc, cd)

    def named(layer, parts):
        return {f"{layer}.{name}": value for name, value in parts.items()}

    return {
        "DoRA by inputs": (
            {**plain, f"{TO_Q}.dora_scale": by_input},
            TO_Q_MODULE,
            moved * by_input / moved.norm(dim=0),
        ),
        "DoRA by outputs": (
            {**plain, f"{TO_Q}.dora_scale": by_output},
            TO_Q_MODULE,
            moved * by_output / weight.norm(dim=1, keepdim=True),
        ),
        "DoRA of peft": (
            {
                f"unet.{TO_Q_MODULE[1]}.lora_A.weight": down,
                f"unet.{TO_Q_MODULE[1]}.lora_B.weight": up,
                f"unet.{TO_Q_MODULE[1]}.lora_magnitude_vector": by_output[:, 0],
            },
            TO_Q_MODULE,
            (weight + up @ down) * by_output / weight.norm(dim=1, keepdim=True),
        ),
        "LoHa": (named(TO_Q, hada), TO_Q_MODULE, weight + 0.5 * (a @ b) * (c @ d)),
        "LoHa of a convolution": (named(CONV, tucker), CONV_MODULE, conv + first * second),
        "LoKr": (named(TO_Q, {"lokr_w1": w1, "lokr_w2": w2, "alpha": alpha}), TO_Q_MODULE, weight + torch.kron(w1, w2)),
        "LoKr of factors": (
            named(TO_Q, {"lokr_w1": w1, "lokr_w2_a": w2a, "lokr_w2_b": w2b, "alpha": alpha}),
            TO_Q_MODULE,
            weight + 0.5 * torch.kron(w1, w2a @ w2b),
        ),
        "LoCon with a middle": (
            named(CONV, {"lora_down.weight": cdown, "lora_up.weight": cup, "lora_mid.weight": mid, "alpha": alpha}),
            CONV_MODULE,
            conv + 0.5 * torch.einsum("op,pqhw,qi->oihw", cup[..., 0, 0], mid, cdown[..., 0, 0]),
        ),
        "a difference": (named(TO_Q, {"diff": up @ down}), TO_Q_MODULE, weight + up @ down),
    }


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize(
    "kind",
    [
        "DoRA by inputs",
        "DoRA by outputs",
        "DoRA of peft",
        "LoHa",
        "LoHa of a convolution",
        "LoKr",
        "LoKr of factors",
        "LoCon with a middle",
        "a difference",
    ],
)
def test_relatives_of_loras(kind, strength, plain, tiny_sdxl_dir, tmp_path):
    before = weights(plain)
    tensors, key, expected = relatives(before[TO_Q_MODULE], before[CONV_MODULE])[kind]
    path = tmp_path / "style.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    after = load_sdxl(tiny_sdxl_dir, loras=[(path, strength)])
    check_change(plain, after, {key: strength * (expected - before[key])})
    assert float((expected - before[key]).abs().max()) > 0.002


def test_norms_and_biases(plain, tiny_sdxl_dir, tmp_path):
    before = weights(plain)
    w, b = random(*before[NORM_MODULE].shape), random(*before[NORM_MODULE].shape, seed=1)
    conv_bias = random(before[CONV_MODULE].shape[0], seed=2)
    path = tmp_path / "norms.safetensors"
    save_file({f"{NORM}.w_norm": w, f"{NORM}.b_norm": b, f"{CONV}.diff_b": conv_bias}, path)
    after = load_sdxl(tiny_sdxl_dir, loras=[(path, 0.5)])
    names = {NORM_MODULE: 0.5 * w, ("unet", f"{NORM_MODULE[1]}.bias"): 0.5 * b}
    check_change(plain, after, {**names, ("unet", f"{CONV_MODULE[1]}.bias"): 0.5 * conv_bias})


def test_nothing_is_merged_where_one_layer_does_not_fit(plain, tiny_sdxl_dir, tmp_path):
    """Whoever catches the error has the model as it was."""
    from dreamer_core.teachers.sdxl.loras import merge_loras

    sdxl = load_sdxl(tiny_sdxl_dir)
    parts = {"unet": sdxl._unet, "text_encoder": sdxl._towers[0].model, "text_encoder_2": sdxl._towers[1].model}
    path = tmp_path / "half.safetensors"
    good = {f"{TO_Q}.lora_down.weight": random(2, 64), f"{TO_Q}.lora_up.weight": random(64, 2)}
    save_file({**good, f"{CONV}.diff_b": torch.ones(7)}, path)
    with pytest.raises(InputError, match="does not fit this model"):
        merge_loras(parts, [(path, 1.0)])
    check_change(plain, sdxl, {})


def test_tensors_of_no_known_kind_are_named(pairs, tiny_sdxl_dir, tmp_path, caplog):
    path = write_kohya(tmp_path / "style.safetensors", pairs)
    save_file({**load_file(path), "bundle_emb.word.string_to_param.*": torch.ones(1, 8)}, path)
    load_sdxl(tiny_sdxl_dir, loras=[(path, 1.0)])
    assert "1 of 28 tensors are of no known kind, first 'bundle_emb" in caplog.text
