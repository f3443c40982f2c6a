"""Text to shape: a tiny ShapEPipeline that draws a box of known colours, through diffusers' own classes."""

import gc
import weakref

import pytest
import torch
from tiny_shap_e import LIMITS, save_tiny_shap_e

from dreamer_core.errors import InputError
from dreamer_core.initializers import shap_e
from dreamer_core.initializers.shap_e import ShapEConfig, shap_e_gaussians, shap_e_points

CPU = torch.device("cpu")
GRID = 24


@pytest.fixture(scope="module")
def box_model(tmp_path_factory):
    """Draws the same box whatever the prompt."""
    return save_tiny_shap_e(tmp_path_factory.mktemp("shap-e") / "box")


@pytest.fixture(scope="module")
def varied_model(tmp_path_factory):
    """Its shape depends on the prior, and so on prompt and seed."""
    return save_tiny_shap_e(tmp_path_factory.mktemp("shap-e") / "varied", variation=0.1)


@pytest.fixture(autouse=True)
def small_grid(monkeypatch):
    """The grid of real weights takes seconds."""
    monkeypatch.setattr(shap_e, "GRID", GRID)


def test_the_box_is_found_with_its_colours(box_model):
    calls = []
    cloud = shap_e_points(
        ShapEConfig(str(box_model), "a mug", steps=3), CPU, on_step=lambda done, total: calls.append((done, total))
    )
    assert calls == [(i, 5) for i in range(5)]  # Heun: two evaluations a step, one in the last
    assert cloud.points.shape == (4096, 3)
    low, high = torch.tensor(LIMITS).unbind(-1)
    torch.testing.assert_close(cloud.points.amin(0).float(), low, atol=0.09, rtol=0)
    torch.testing.assert_close(cloud.points.amax(0).float(), high, atol=0.09, rtol=0)
    # Display values: the decoder's own sigmoid(30 x - 4.5), though diffusers hands out linear ones.
    side = cloud.points[:, 0] > 0.9 * cloud.points[:, 0].max()
    expected = torch.sigmoid(30 * cloud.points[side, 0] - 4.5).float()
    assert float(expected.mean()) > 0.9
    torch.testing.assert_close(cloud.rgb[side, 2].mean(), expected.mean(), atol=0.03, rtol=0)
    assert float(cloud.rgb[cloud.points[:, 0] < -0.15, 2].max()) < 0.05


def test_it_stands_upright_and_faces_us(box_model, monkeypatch):
    pipeline = shap_e.load_shap_e(box_model)
    monkeypatch.setattr(shap_e, "load_shap_e", lambda *_: pipeline)
    start = shap_e_gaussians(ShapEConfig(str(box_model), "a mug", steps=2), 5000, CPU, size=0.8, opacity=0.2)
    assert len(start) == 5000
    torch.testing.assert_close(start.opacities, torch.full((5000,), 0.2))
    assert float((start.means.norm(dim=-1) <= 0.8 + 1e-4).float().mean()) >= 0.98
    extents = start.means.amax(0) - start.means.amin(0)
    assert float(extents[1]) > 1.4 * float(extents[0])  # taller than wide
    red, green, blue = (start.means[start.rgb[:, c] > 0.85].mean(0) for c in range(3))
    assert red[1] > 0.3  # red was +Z
    assert green[2] > 0.2  # green was -Y
    assert blue[0] > 0.2  # blue was +X
    turned = shap_e_gaussians(ShapEConfig(str(box_model), "a mug", steps=2), 500, CPU, yaw=90.0)
    assert turned.means[turned.rgb[:, 2] > 0.85].mean(0)[2] > 0.2  # +X came to the front
    lying = shap_e_gaussians(ShapEConfig(str(box_model), "a mug", steps=2), 500, CPU, up="+y")
    assert lying.means[lying.rgb[:, 0] > 0.85].mean(0)[2] > 0.2


def test_prompt_seed_and_guidance_decide(varied_model, monkeypatch):
    pipeline = shap_e.load_shap_e(varied_model)
    monkeypatch.setattr(shap_e, "load_shap_e", lambda *_: pipeline)

    def points(**changes):
        values = {"model": str(varied_model), "prompt": "a red photo", "steps": 2, **changes}
        return shap_e_points(ShapEConfig(**values), CPU).points

    first = points()
    assert torch.equal(first, points())
    for changes in ({"seed": 1}, {"prompt": "the blue back"}, {"guidance_scale": 3.0}, {"steps": 3}):
        assert not torch.equal(first, points(**changes)), changes


def test_the_networks_are_released(box_model, monkeypatch):
    alive = []

    def remembered(*arguments):
        pipeline = load(*arguments)
        alive.extend(weakref.ref(m) for m in (pipeline.prior, pipeline.text_encoder, pipeline.shap_e_renderer))
        return pipeline

    load = shap_e.load_shap_e
    monkeypatch.setattr(shap_e, "load_shap_e", remembered)
    shap_e_points(ShapEConfig(str(box_model), "a mug", steps=2), CPU)
    gc.collect()
    assert [ref() for ref in alive] == [None] * 3


def test_the_caller_can_stop_it(box_model):
    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shap_e_points(ShapEConfig(str(box_model), "a mug", steps=8), CPU, on_step=stop)


def test_an_empty_space_is_told(tmp_path):
    model = save_tiny_shap_e(tmp_path / "empty", empty=True)
    with pytest.raises(InputError, match=r"shap-e prompt: expected .* an empty space from 'a mug'; try another seed"):
        shap_e_points(ShapEConfig(str(model), "a mug", steps=2), CPU)


def test_a_folder_never_asks_the_network(box_model, monkeypatch):
    from diffusers import ShapEPipeline

    asked = []
    original = ShapEPipeline.from_pretrained.__func__

    def spy(cls, *arguments, **options):
        asked.append(options)
        return original(cls, *arguments, **options)

    monkeypatch.setattr(ShapEPipeline, "from_pretrained", classmethod(spy))
    shap_e.load_shap_e(box_model)
    assert [o.get("local_files_only") for o in asked] == [True]


def test_a_hub_id_is_announced_and_a_failed_download_says_what_to_do(monkeypatch):
    from diffusers import ShapEPipeline

    asked, said = [], []

    def fail(cls, model, **options):
        asked.append((model, options.get("local_files_only", False)))
        raise OSError("no route to host\nand a long story")

    monkeypatch.setattr(ShapEPipeline, "from_pretrained", classmethod(fail))
    with pytest.raises(InputError) as caught:
        shap_e.load_shap_e("someone/some-shap-e", said.append)
    assert asked == [("someone/some-shap-e", True), ("someone/some-shap-e", False)]  # the cache first
    assert len(said) == 1
    assert "downloading" in said[0]
    assert "could not be downloaded (no route to host); download all files of openai/shap-e" in str(caught.value)


def test_other_models_are_refused(tmp_path, tiny_sdxl_dir, box_model):
    (tmp_path / "empty").mkdir()
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "model_index.json").write_bytes((box_model / "model_index.json").read_bytes())
    for model, message in (
        ("gone-folder", "a diffusers folder or a hub id, got gone-folder"),
        ("./gone/folder", "a diffusers folder or a hub id"),
        (tmp_path / "empty", "a diffusers folder with model_index.json"),
        (tiny_sdxl_dir, "which is a StableDiffusionXLPipeline"),
        (tmp_path / "part", "which cannot be loaded"),
    ):
        with pytest.raises(InputError, match="shap-e: expected") as caught:
            shap_e.load_shap_e(str(model))
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": " "}, "shap-e prompt: expected a few words"),
        ({"steps": 1}, "shap-e steps: expected 2 to 1024"),
        ({"guidance_scale": float("nan")}, "shap-e cfg: expected a guidance scale"),
    ],
)
def test_unusable_settings(values, message):
    with pytest.raises(InputError, match=message):
        ShapEConfig(**{"model": "x", "prompt": "a mug", **values})
