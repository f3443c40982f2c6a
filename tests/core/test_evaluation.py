"""Measures of an object: what each of them tells, and what it says where it cannot be taken."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dreamer_core.cameras import orbit_cameras
from dreamer_core.cli import main
from dreamer_core.errors import InputError
from dreamer_core.evaluation import EvaluationConfig, Views, evaluate, render_turntable, shown
from dreamer_core.evaluation.a_lpips import FILES, a_lpips, a_lpips_scores
from dreamer_core.evaluation.clip_score import ClipEncoder, clip_score, clip_scores
from dreamer_core.evaluation.coverage import coverage
from dreamer_core.evaluation.sharpness import sharpness
from dreamer_core.evaluation.teacher_scores import (
    AZIMUTHS,
    ELEVATION,
    FOV,
    RADIUS,
    cameras,
    side_of,
    teacher_scores,
)
from dreamer_core.formats import write_ply
from dreamer_core.gaussians import Gaussians
from dreamer_core.initializers import initial_shape

STARTER = Path(__file__).resolve().parents[2] / "starter" / "checkpoint"


def blurred(images, sigma=2.5):
    from scipy.ndimage import gaussian_filter

    return torch.from_numpy(gaussian_filter(images.numpy(), (0, sigma, sigma, 0)))


def ball():
    return initial_shape("sphere", 400, torch.Generator().manual_seed(0), opacity=0.9)


def checkered():
    """A picture with an inside full of squares, on white, and what it covers."""
    cover = torch.zeros(1, 64, 64)
    cover[:, 12:52, 12:52] = 1
    grid = (torch.arange(64)[:, None] // 4 + torch.arange(64) // 4) % 2
    return torch.where(cover[..., None] > 0, grid[None, ..., None].float().expand(1, 64, 64, 3), 1.0), cover


def test_sharpness_falls_with_blur_and_is_nothing_for_nothing():
    images, cover = checkered()
    values = [sharpness(Views(i, cover)).value for i in (images, blurred(images, 0.7), blurred(images, 2.0))]
    assert values[0] > 1.2 * values[1]
    assert values[1] > 1.2 * values[2] > 0
    flat = torch.full_like(images, 0.3)
    flat[cover == 0] = 1.0
    assert sharpness(Views(flat, cover)).value < 1e-6  # the silhouette's own edge does not count
    assert sharpness(Views(torch.ones_like(images), torch.zeros_like(cover))).value == 0


def test_coverage_and_haze():
    cover = torch.zeros(2, 10, 10)
    cover[0, :5], cover[0, 5] = 1.0, 0.2
    solid, haze = coverage(Views(torch.ones(2, 10, 10, 3), cover))
    assert solid.value == pytest.approx(50 / 200)
    assert haze.value == pytest.approx(10 / 60)


def test_a_lpips_takes_every_pair_once_around():
    images = torch.rand(5, 8, 8, 3, generator=torch.Generator().manual_seed(1))
    found = a_lpips(Views(images, torch.ones(5, 8, 8)), lambda a, b: (a - b).abs().mean(), "test")
    pairs = [(images[i] - images[(i + 1) % 5]).abs().mean() for i in range(5)]
    assert found.value == pytest.approx(2 * float(sum(pairs)) / 5, rel=1e-5)
    assert "5 neighbouring pairs" in found.protocol


def test_what_is_missing_is_said_in_a_line(tmp_path, capsys):
    splat = tmp_path / "ball.ply"
    write_ply(ball(), splat, {"prompt": "a red ball"})
    out = tmp_path / "numbers.json"
    argv = ["evaluate", str(splat), "--no-teacher", "--weights", str(tmp_path), "--views", "4", "--resolution", "64"]
    assert main([*argv, "--json", str(out)]) == 0
    told = capsys.readouterr().out
    assert "(a red ball)" in told
    assert "4 views of 64 px, polar 90 degrees, radius 3.5, fov 0.55 rad, white" in told
    rows = {row["name"]: row for row in json.loads(out.read_text())[str(splat)]}
    assert rows["coverage"]["value"] > 0.02
    assert rows["clip"]["value"] is None
    assert "openai/clip-vit-large-patch14" in rows["clip"]["missing"]
    for network in FILES:
        assert rows[f"a-lpips, {network}"]["missing"].startswith("missing: ")
    write_ply(ball(), splat)
    assert main(argv) == 2
    assert "--prompt: expected what the object should be, got nothing" in capsys.readouterr().err


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP of random weights, with the starter's tokenizer."""
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("weights") / "tiny-clip"
    shutil.copytree(STARTER / "tokenizer", folder)
    words = json.loads((folder / "vocab.json").read_text())
    last = max(words.values())
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": last + 1, "eos_token_id": last, "bos_token_id": last - 1, "pad_token_id": last}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=16)
    )
    model.save_pretrained(folder)
    return folder


def test_clip_score_is_the_mean_cosine(clip_folder, tmp_path):
    from transformers import CLIPModel

    images = torch.rand(3, 48, 48, 3, generator=torch.Generator().manual_seed(0))
    views = Views(images, torch.ones(3, 48, 48), "three views")
    (found,) = clip_scores(views, "a red mug", clip_folder.parent, torch.device("cpu"))
    encoder = ClipEncoder.load(clip_folder, torch.device("cpu"))
    pixels = F.interpolate(images.permute(0, 3, 1, 2), (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    with torch.no_grad():
        output = CLIPModel.from_pretrained(clip_folder).eval()(
            **encoder.tokenizer(["a red mug"], return_tensors="pt"),
            pixel_values=(pixels - mean[:, None, None]) / std[:, None, None],
        )
    assert found.value == pytest.approx(float((output.image_embeds @ output.text_embeds.T).mean()), abs=1e-5)
    assert found.name == "clip, tiny-clip"
    assert found.protocol == "mean cosine with 'a red mug' in tiny-clip; three views"
    assert clip_score(views, "a blue car", encoder).value != pytest.approx(found.value, abs=1e-6)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ValueError, match="weights: expected a CLIP in transformers' layout, got"):
        clip_scores(views, "a mug", tmp_path, torch.device("cpu"))
    pickled = shutil.copytree(clip_folder, tmp_path / "pickled" / "tiny-clip")
    (pickled / "model.safetensors").unlink()
    torch.save(encoder.model.state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match="weights: expected a CLIP in transformers' layout"):
        clip_scores(views, "a mug", pickled.parent, torch.device("cpu"))


def test_sides_by_azimuth():
    sided = ("front", "left", "back", "right")
    assert [side_of(a, sided) for a in (0, 44, -44, 90, 269, -180, 150)] == [
        "front", "front", "front", "left", "right", "back", "back",
    ]  # fmt: skip
    assert [side_of(a, ("front", "side", "back")) for a in (60, -60, 180)] == ["side", "side", "back"]
    assert tuple(cameras(64).azimuth.tolist()) == tuple(180.0 if a == -180 else a for a in AZIMUTHS)


@pytest.fixture(scope="module")
def of_pictures():
    """Measures by name of pictures of a car of the starter's world, as they are and spoilt in four ways."""
    from dreamer_core.optimize.presets import STARTER_SIDES
    from dreamer_core.prompts import PromptConfig, encode_prompts
    from dreamer_core.teachers.sdxl.loading import load_sdxl
    from starter.world import Subject, render

    subject = Subject("car", "red")
    azimuths = (0.0, 90.0, 180.0, -90.0)
    seen = orbit_cameras(azimuths, ELEVATION, RADIUS, FOV, 128)
    true = render(subject, seen, torch.ones(4, 3))
    spoilt = {
        "good": true,
        "blurred": blurred(true, 6.0),
        "recoloured": true.roll(1, -1),
        "mirrored": true[[2, 1, 0, 3]].flip(2),  # front to back
        "empty": torch.ones_like(true),
    }
    teacher = load_sdxl(STARTER)
    prompts = encode_prompts(teacher, PromptConfig(subject.prompt(), **STARTER_SIDES))
    return {
        name: {
            m.name: m
            for m in teacher_scores(teacher, prompts, images, azimuths=azimuths, times=(500,), noises=1).measures()
        }
        for name, images in spoilt.items()
    }


def test_the_teacher_tells_a_good_object_from_spoilt_ones(of_pictures):
    value = {name: {k: m.value for k, m in measures.items()} for name, measures in of_pictures.items()}
    assert value["good"]["direction"] == 1
    assert value["good"]["janus"] == 0
    for name in ("blurred", "recoloured", "empty"):
        assert value["good"]["prompt"] > value[name]["prompt"], name
    assert value["mirrored"]["direction"] < value["good"]["direction"] - 0.3
    assert value["mirrored"]["janus"] > value["good"]["janus"]
    assert value["empty"]["direction"] <= 0.5
    assert "4 views of 128 px at elevation 15, words front, left, back, right" in of_pictures["good"]["janus"].protocol


def test_a_ball_that_looks_the_same_from_everywhere_has_no_a_lpips():
    """Rendered, so that the views differ by rounding alone."""
    one = Gaussians(
        means=torch.zeros(1, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        log_scales=torch.full((1, 3), math.log(0.3)),
        logit_opacities=torch.tensor([3.0]),
        sh0=torch.tensor([[[1.0, -0.5, 0.2]]]),
        shN=torch.zeros(1, 0, 3),
    )
    views = render_turntable(one, views=6, size=64)
    assert a_lpips(views, lambda a, b: (a - b).abs().mean(), "test").value < 1e-5
    measures = evaluate(one, "a ball", EvaluationConfig(4, 64, networks=False))
    assert [m.name for m in measures] == ["sharpness", "coverage", "haze"]
    assert "coverage" in shown(measures)


class _Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):  # what pickle calls
        return Path.touch, (self.path,)


def test_weights_of_lpips_run_no_code(tmp_path, monkeypatch):
    pytest.importorskip("torchvision", reason="needs torchvision, which ComfyUI brings")
    pytest.importorskip("torchmetrics", reason="needs torchmetrics")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    (tmp_path / "checkpoints").mkdir()
    torch.save({"x": _Harmful(tmp_path / "ran")}, tmp_path / "checkpoints" / FILES["alex"])
    found = a_lpips_scores(Views(torch.rand(2, 64, 64, 3), torch.ones(2, 64, 64)), tmp_path)
    alex = {m.name: m for m in found}["a-lpips, alex"]
    assert alex.value is None
    assert f"{FILES['alex']} in {tmp_path / 'checkpoints'} cannot be used" in alex.missing
    assert not (tmp_path / "ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize("network", ["alex"])
def test_lpips_by_networks_of_the_same_architecture(network, tmp_path):
    torchvision = pytest.importorskip("torchvision", reason="needs torchvision, which ComfyUI brings")
    pytest.importorskip("torchmetrics", reason="needs torchmetrics")
    torch.manual_seed(0)
    (tmp_path / "checkpoints").mkdir()
    torch.save(torchvision.models.alexnet().state_dict(), tmp_path / "checkpoints" / FILES[network])
    images = torch.rand(4, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    by_name = {m.name: m for m in a_lpips_scores(Views(images, torch.ones(4, 64, 64)), tmp_path)}
    assert by_name["a-lpips, alex"].value > 0.001
    assert by_name["a-lpips, vgg"].value is None
    same = a_lpips_scores(Views(images[:1].expand(4, -1, -1, -1), torch.ones(4, 64, 64)), tmp_path)
    assert {m.name: m for m in same}["a-lpips, alex"].value == 0
