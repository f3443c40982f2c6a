"""Settings that suit a teacher: what file names say, which settings follow, and what rescaled guidance is."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from dreamer_core.cli import main
from dreamer_core.guidance.rescale import noise_of, rescaled, velocity, with_rescale
from dreamer_core.optimize import PRESETS
from dreamer_core.optimize.profiles import fitted
from dreamer_core.setting_values import changed
from dreamer_core.teachers.kinds import TeacherKind, few_step_by_name
from dreamer_core.teachers.teacher import Request

OFFICIAL = PRESETS["official"].config
FEW = TeacherKind(few_step="sdxl_lightning_4step_lora.safetensors")
ZERO = TeacherKind("v", zero_terminal_snr=True)


@pytest.mark.parametrize(
    "name",
    [
        "sdxl_lightning_4step_lora.safetensors", "Hyper-SDXL-8steps-lora.safetensors", "hyperSDXL8step.safetensors",
        "DreamShaperXL_Turbo_v2.safetensors", "wildcardxXLTURBO_wildcardxXLTURBOV10.safetensors",
        "sd_xl_turbo_1.0_fp16.safetensors", "SDXL-Turbo-Q8_0.gguf", "dmd2_sdxl_4step_lora.safetensors",
        "lcm-lora-sdxl.safetensors", "LCM_LoRA_Weights_SDXL.safetensors", "pcm_sdxl_normalcfg_4step.safetensors",
        "realvisxlV40_v40LightningBakedvae.safetensors", "juggernautXL_v9Rdphoto2Lightning.safetensors",
        "tcd-sdxl-lora.safetensors", "flash-sdxl.safetensors", "speed/hyper_sd_4step.safetensors",
        "speed\\dreamshaperXL_lightningDPMSDE.safetensors",
    ],
)  # fmt: skip
def test_names_of_distilled_models(name):
    assert few_step_by_name(["sd_xl_base_1.0.safetensors", name]) == name.replace("\\", "/").rpartition("/")[2]


@pytest.mark.parametrize(
    "name",
    [
        "sd_xl_base_1.0.safetensors", "noobaiXLNAIXL_vPred10Version.safetensors", "hyperrealism_xl.safetensors",
        "lightning_bolts_xl.safetensors", "turbocharger_car.safetensors", "juggernautXL_v9.safetensors",
        "Hyper-SDXL-12steps-CFG-lora.safetensors", "step_by_step.safetensors", "film_lcmart.safetensors",
        "flashlight.safetensors", "turbo/gold.safetensors",
    ],
)  # fmt: skip
def test_names_of_others(name):
    assert few_step_by_name([name]) == ""


def test_an_ordinary_teacher_leaves_everything():
    config, fit = fitted(OFFICIAL, TeacherKind(), ())
    assert config == OFFICIAL
    assert fit.note == ""


@pytest.mark.parametrize(
    ("method", "kind", "expected"),
    [
        ("tsm", FEW, {"guidance.cfg": (7.5, 1.5)}),
        ("csd", FEW, {}),  # has no scale
        ("tsm", ZERO, {"guidance.rescale": (0.0, 0.7)}),
        ("csd", ZERO, {}),  # combines nothing
        ("tsm", TeacherKind("edm", playground=True), {"guidance.cfg": (7.5, 5.0)}),
        ("tsm", TeacherKind("flow"), {}),
    ],
)
def test_what_follows_from_a_kind(method, kind, expected):
    base = changed(OFFICIAL, {"guidance.method": method})
    config, fit = fitted(base, kind, ())
    assert fit.changes == expected
    assert config == changed(base, {name: new for name, (_, new) in expected.items()})
    assert str(fit).startswith(kind.words)


def test_methods_keep_their_relation():
    """SDS's 100 stays far above TSM's 7.5."""
    base = changed(OFFICIAL, {"guidance.method": "sds", "guidance.cfg": 100.0})
    assert fitted(base, FEW, ())[0].guidance.method.cfg == pytest.approx(1 + 99 * 0.5 / 6.5, abs=1e-3)


def test_what_the_user_set_stays():
    own = changed(OFFICIAL, {"guidance.cfg": 6.0})
    assert fitted(own, FEW, ["guidance.cfg"])[0] == own
    assert fitted(OFFICIAL, ZERO, ["guidance.rescale"])[0] == OFFICIAL
    assert fitted(OFFICIAL, ZERO, (), rescales=True)[0] == OFFICIAL  # a patch does it already


def test_what_the_user_says_it_is():
    def told(said, kind):
        return fitted(changed(OFFICIAL, {"guidance.teacher": said}), kind, ["guidance.teacher"])[1].changes

    assert told("few_step", TeacherKind()) == {"guidance.cfg": (7.5, 1.5)}
    assert told("many_step", FEW) == {}
    assert told("many_step", ZERO) == {"guidance.rescale": (0.0, 0.7)}
    assert told("published", ZERO) == {}


# -- rescaled guidance ------------------------------------------------------------------------------------------------


def latents(seed):
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_velocity_and_back():
    """v = sqrt(a) eps - sqrt(1 - a) z (2202.00512)."""
    z, eps, sigma = latents(0), latents(1), 3.0
    x, a = z + sigma * eps, 1 / (1 + sigma**2)
    v = velocity(eps, x, sigma)
    torch.testing.assert_close(v, a**0.5 * eps - (1 - a) ** 0.5 * z)
    torch.testing.assert_close(noise_of(v, x, sigma), eps)


def test_rescaling_is_diffusers_own_on_v():
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

    positive, guided, x, sigma = latents(0), 6 * latents(1), 3.0 * latents(2), 3.0
    expected = rescale_noise_cfg(velocity(guided, x, sigma), velocity(positive, x, sigma), 0.7)
    torch.testing.assert_close(velocity(rescaled(guided, positive, x, sigma, 0.7), x, sigma), expected)
    torch.testing.assert_close(rescaled(guided, positive, x, sigma, 0.0), guided)


class Doubling:
    """A teacher whose combination is its own."""

    sigmas = torch.linspace(0.1, 14.6, 1000)

    def combine(self, positive, negative, e_positive, e_negative, scale):
        return 2 * (e_negative + scale * (e_positive - e_negative))


def test_rescaling_comes_behind_the_teachers_own_combination():
    x, positive, negative = latents(0), latents(1), latents(2)
    requests = [Request(x, 2.0, None, role) for role in ("positive", "negative")]
    found = with_rescale(Doubling(), 0.5).combine(*requests, positive, negative, 5.0)
    own = Doubling().combine(*requests, positive, negative, 5.0)
    torch.testing.assert_close(found, rescaled(own, positive, x, 2.0, 0.5))
    plain = Doubling()
    assert with_rescale(plain, 0.0) is plain


# -- command line -----------------------------------------------------------------------------------------------------


def a_run(model, out, *options):
    """run.json of two steps."""
    small = ("--preset", "starter", "--steps", "2", "--resolution", "64", "--views", "1", "--device", "cpu")
    assert main(["generate", "a red mug", "--model", str(model), "--out", str(out), *small, *options]) == 0
    return json.loads((out / "run.json").read_text())


def test_run_json_says_what_the_teacher_is_taken_for(tiny_sdxl_dir, tmp_path, capsys):
    ordinary = a_run(tiny_sdxl_dir, tmp_path / "a")
    assert ordinary["teacher"] == {
        "kind": {"prediction": "eps", "zero_terminal_snr": False, "few_step": "", "playground": False},
        "changes": {},
    }
    assert "Teacher:" not in capsys.readouterr().err
    turbo = tmp_path / "some_turbo_xl"
    shutil.copytree(tiny_sdxl_dir, turbo)
    few = a_run(turbo, tmp_path / "b")
    assert few["config"]["guidance"]["cfg"] == 1.5
    assert few["teacher"]["changes"] == {"guidance.cfg": [7.5, 1.5]}
    line = "Teacher: epsilon-prediction, few steps (by some_turbo_xl): guidance.cfg 7.5 -> 1.5"
    assert line in capsys.readouterr().err
    assert a_run(turbo, tmp_path / "c", "--cfg", "4")["config"]["guidance"]["cfg"] == 4.0
    assert a_run(turbo, tmp_path / "d", "--teacher", "many_step")["config"]["guidance"]["cfg"] == 7.5


def test_prediction_can_be_said(tiny_sdxl_dir, tmp_path):
    """A single file that lost its marks, or a folder without a scheduler."""
    log = a_run(tiny_sdxl_dir, tmp_path / "a", "--parameterization", "v_zsnr")
    assert (log["model"]["prediction"], log["model"]["zero_terminal_snr"]) == ("v_prediction", True)
    assert log["config"]["guidance"]["rescale"] == 0.7
    plain = a_run(tiny_sdxl_dir, tmp_path / "b", "--parameterization", "v")
    assert (plain["model"]["prediction"], plain["config"]["guidance"]["rescale"]) == ("v_prediction", 0.0)


def test_an_lcm_whose_network_reads_its_guidance_is_refused(tiny_sdxl_dir, tmp_path, capsys):
    folder = tmp_path / "lcm"
    shutil.copytree(tiny_sdxl_dir, folder)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"time_cond_proj_dim": 256}))
    assert main(["preview", "a red mug", "--model", str(folder), "--out", str(tmp_path / "x.png")]) == 2
    assert "time_cond_proj_dim" in capsys.readouterr().err
