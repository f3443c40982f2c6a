"""The multi-view adapter against what its authors' code says, and its file's errors."""

import hashlib
import json

import multiview_numbers as known
import pytest
import torch
from diffusers import AutoencoderKL, T2IAdapter, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from dreamer_core.errors import InputError
from dreamer_core.guidance.base import GuidanceConditioning
from dreamer_core.teachers.multiview.adapter import MapEncoder, RowAttention
from dreamer_core.teachers.multiview.cameras import camera_maps, shifted_sigmas
from dreamer_core.teachers.multiview.files import adapter_for, attention_of, load_adapter, save_adapter
from dreamer_core.teachers.multiview.sampling import sample_group
from dreamer_core.teachers.noise_schedule import schedule_from_config
from dreamer_core.teachers.sdxl.loading import load_sdxl
from dreamer_core.teachers.sdxl.multiview import InstalledAdapter
from dreamer_core.teachers.sdxl.predictor import DiffusersSDXL
from dreamer_core.teachers.teacher import Conditioning, Request

pytestmark = pytest.mark.usefixtures("single_threaded")

AZIMUTHS = torch.tensor(known.AZIMUTHS)


def small_unet():
    return known.fill(UNet2DConditionModel(**known.UNET), "unet").eval().requires_grad_(False)


@pytest.fixture(scope="module")
def adapter_file(tmp_path_factory):
    """The formula's weights in the published layout."""
    adapter = adapter_for(attention_of(small_unet()), known.UNET["block_out_channels"])
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    save_file({name: known.value(name, t.shape) for name, t in adapter.file_tensors().items()}, path)
    return path


@pytest.fixture(scope="module")
def teacher(adapter_file):
    unet = small_unet()
    vae = AutoencoderKL(block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
                        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4)  # fmt: skip
    installed = InstalledAdapter.load(unet, adapter_file)
    schedule = schedule_from_config(known.SCHEDULER)
    return DiffusersSDXL(unet=unet, vae=vae, towers=[], schedule=schedule, source={}, multiview=installed)


def prompted(views=6):
    noise, tokens, pooled, empty, empty_pooled = known.inputs()
    positive, negative = Conditioning(tokens, pooled), Conditioning(empty, empty_pooled)
    return noise, GuidanceConditioning(positive.expand(views), negative.expand(views), negative.expand(views))


def close(found, expected, tolerance=1e-5):
    expected = torch.tensor(expected)
    assert (found - expected).abs().max() <= tolerance * expected.std()


def test_cameras_and_noise_levels_are_the_authors():
    torch.testing.assert_close(camera_maps(AZIMUTHS, 2)[:, :, 1, 0], torch.tensor(known.MAPS), rtol=0, atol=1e-4)
    levels = shifted_sigmas(schedule_from_config(known.SCHEDULER).sigmas)[[801, 601, 401, 201, 1]]
    torch.testing.assert_close([*levels.tolist(), 0.0], list(known.LEVELS), rtol=0, atol=1e-5)


def test_one_prediction_is_the_authors(teacher):
    noise, cond = prompted()
    group = teacher.grouped(AZIMUTHS)
    sigma = float(group.sigmas[801])
    x = noise * (sigma**2 + 1) ** 0.5
    requests = [Request(x, sigma, cond.negative, "negative"), Request(x, sigma, cond.positive, "positive")]
    close(torch.cat(group.predict(requests)).flatten()[::512][:24], known.FIRST)


def test_a_whole_sampling_is_the_authors(teacher):
    noise, cond = prompted()
    group, done = teacher.grouped(AZIMUTHS), []
    levels = [*group.sigmas[[801, 601, 401, 201, 1]].tolist(), 0.0]
    start = noise * (levels[0] ** 2 + 1) ** 0.5
    latents = sample_group(group, cond, start, levels, known.CFG, lambda *of: done.append(of))
    close(latents.flatten()[::256][:24], known.SAMPLED)
    assert done == [(i, 5) for i in range(1, 6)]


def test_outside_groups_the_unet_is_untouched(teacher):
    noise, cond = prompted()
    plain = DiffusersSDXL(unet=small_unet(), vae=teacher._vae, towers=[],
                          schedule=schedule_from_config(known.SCHEDULER), source={})  # fmt: skip
    sigma = torch.full((6,), 3.0)
    expected = plain.eps(noise, sigma, cond.positive)
    in_group = teacher.grouped(AZIMUTHS).eps(noise, sigma, cond.positive)
    assert torch.equal(teacher.eps(noise, sigma, cond.positive), expected)
    assert (in_group - expected).abs().max() > 0.1
    with pytest.raises(ValueError, match="without a multi-view adapter"):
        plain.grouped(AZIMUTHS)


def test_memory_limits_never_cut_a_group(teacher):
    noise, cond = prompted()
    sizes = []
    hook = teacher._unet.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    try:
        x, sigma = noise.repeat(3, 1, 1, 1), torch.full((18,), 3.0)
        three = Conditioning.cat([cond.positive] * 3)
        whole = teacher.grouped(AZIMUTHS).eps(x, sigma, three)
        teacher.max_batch = 2
        cut = teacher.grouped(AZIMUTHS).eps(x, sigma, three)
        teacher.max_batch = 13
        teacher.grouped(AZIMUTHS).eps(x, sigma, three)
    finally:
        teacher.max_batch = None
        hook.remove()
    assert sizes == [18, 6, 6, 6, 12, 6]
    torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="whole groups of 6 views, but got 5"):
        teacher.grouped(AZIMUTHS).eps(noise[:5], sigma[:5], cond.positive[:5])


def test_rows_of_a_group_see_each_other_and_nothing_else():
    torch.manual_seed(0)
    rows, x = RowAttention(8), torch.randn(2 * 3, 16, 8)  # two groups of three views of 4 x 4 tokens
    before = rows(x, 3, 2)
    moved = x.clone()
    moved[1, 4:8] += 1.0  # row 1 of view 1 of group 0
    changed = (rows(moved, 3, 2) - before).abs().amax(-1).view(6, 4, 4).amax(-1) > 1e-6
    expected = torch.zeros(6, 4, dtype=torch.bool)
    expected[:3, 1] = True
    assert torch.equal(changed, expected)
    with pytest.raises(ValueError, match="groups of 4 square pictures, but got 6"):
        rows(x, 4, 2)


def test_the_encoder_is_diffusers_t2i_adapter():
    levels = (32, 64, 96, 96)
    theirs = T2IAdapter(6, levels, num_res_blocks=2, downscale_factor=16, adapter_type="full_adapter_xl")
    ours = MapEncoder(levels)
    ours.load_state_dict(theirs.adapter.state_dict())
    maps = torch.rand(2, 6, 96, 96)
    for a, b in zip(ours(maps), theirs(maps), strict=True):
        torch.testing.assert_close(a, b)


def test_the_file_layout_is_the_published_one(adapter_file):
    shapes = sorted((name, tuple(t.shape)) for name, t in load_file(adapter_file).items())
    digest = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]
    assert (len(shapes), digest) == known.LAYOUT


def test_the_published_file_fits_sdxl():
    """Its layout at SDXL's own size: 70 row attentions, and 0.98 GB in half precision."""
    blocks = {320: 0, 640: 2 * 2 + 3 * 2, 1280: 2 * 10 + 10 + 3 * 10}
    with torch.device("meta"):
        sdxl = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), layers_per_block=2, transformer_layers_per_block=(1, 2, 10),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048, addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816, use_linear_projection=True)  # fmt: skip
        adapter = adapter_for(attention_of(sdxl), (320, 640, 1280))
    names = adapter.file_tensors()
    assert len(adapter.places) == sum(blocks.values()) == 70
    assert names["adapter.conv_in.weight"].shape == (320, 1536, 3, 3)
    assert names["down_blocks.2.attentions.1.transformer_blocks.9.attn1.processor.to_out_mv.0.bias"].shape == (1280,)
    assert sum(t.numel() for t in names.values()) == 490_923_200


def test_saving_keeps_the_layout_and_rounds_to_half(adapter_file, tmp_path):
    adapter = load_adapter(adapter_file, attention_of(small_unet()), known.UNET["block_out_channels"])
    save_adapter(adapter, tmp_path / "again.safetensors")
    before, after = load_file(adapter_file), load_file(tmp_path / "again.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name].half()) for name in before)


def test_a_new_adapter_changes_nothing_but_the_features():
    unet = small_unet()
    adapter = adapter_for(attention_of(unet), known.UNET["block_out_channels"])
    adapter.begin_as(unet.state_dict())
    place = adapter.places[0]
    assert torch.equal(adapter.at(place).to_k_mv.weight, unet.get_submodule(f"{place}.attn1.to_k").weight)
    assert adapter.at(place)(torch.randn(6, 16, adapter.at(place).to_k_mv.in_features), 6, 2).abs().max() == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("adapter.conv_in.bias"), "lacks adapter.conv_in.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "also has extra"),
        (lambda t: t.update({"adapter.conv_in.bias": torch.zeros(3)}), r"adapter.conv_in.bias is \(3,\), not \(32,\)"),
        (lambda t: t.update({"a.attn1.processor.to_q_ref.weight": torch.zeros(1)}), "starts from a picture"),
        (lambda t: (t.clear(), t.update({"lora_unet_x.lora_down.weight": torch.zeros(1)})), "got a LoRA"),
    ],
)
def test_foreign_files_are_named(adapter_file, tmp_path, change, said):
    tensors = load_file(adapter_file)
    change(tensors)
    path = tmp_path / "other.safetensors"
    save_file(tensors, path)
    with pytest.raises(InputError, match=said) as error:
        InstalledAdapter.load(small_unet(), path)
    text = str(error.value)
    assert text.startswith("--multiview: expected a multi-view adapter")
    assert "\n" not in text
    assert "Hugging Face, huanngzh/mv-adapter" in text


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none.safetensors, which does not exist; get mvadapter_t2mv_sdxl"):
        InstalledAdapter.load(small_unet(), tmp_path / "none.safetensors")
    broken = tmp_path / "page.safetensors"
    broken.write_text("<html>")
    with pytest.raises(InputError, match="got a web page instead of the file itself"):
        InstalledAdapter.load(small_unet(), broken)


def test_a_loaded_teacher_says_which_adapter_it_has(tiny_sdxl_dir, tmp_path):
    plain = load_sdxl(tiny_sdxl_dir)
    adapter = adapter_for(attention_of(plain._unet), tuple(plain._unet.config.block_out_channels))
    save_adapter(adapter, tmp_path / "mine.safetensors")
    loaded = load_sdxl(tiny_sdxl_dir, multiview=tmp_path / "mine.safetensors")
    assert loaded.describe()["multiview"] == "mine.safetensors"
    assert loaded.describe()["multiview_key"]
    assert "multiview" not in plain.describe()
    cond = loaded.encode_text(["a red cube"] * 6)
    assert loaded.grouped(AZIMUTHS).eps(torch.randn(6, 4, 16, 16), torch.ones(6), cond).isfinite().all()
