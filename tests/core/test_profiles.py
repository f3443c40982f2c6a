"""Settings that suit a teacher: what file names say, which settings follow, and what rescaled guidance is."""

from __future__ import annotations

import argparse
import json
import shutil

import pytest
import torch

from dreamer_core.cli import main
from dreamer_core.cli.generate import add_recipe_options, preset_name
from dreamer_core.errors import InputError
from dreamer_core.guidance.rescale import noise_of, rescaled, velocity, with_rescale
from dreamer_core.optimize import PRESETS
from dreamer_core.optimize.profiles import fitted
from dreamer_core.setting_values import changed
from dreamer_core.teacher_preview import SamplingConfig
from dreamer_core.teachers.kinds import TeacherKind, few_step_by_name
from dreamer_core.teachers.sdxl.loading import load_sdxl
from dreamer_core.teachers.teacher import Request

OFFICIAL = PRESETS["official"].config
FEW = TeacherKind(few_step="sdxl_lightning_4step_lora.safetensors")
ZERO = TeacherKind("v", zero_terminal_snr=True)


# Names of real checkpoints and LoRAs, and of some that look like them; without the usual extension.
YES_C = [
    "DreamShaperXL_Turbo_v2",
    "sd_xl_turbo_1.0_fp16",
    "realvisxlV40_v40LightningBakedvae",
    "juggernautXL_v9Rdphoto2Lightning",
    "wildcardxXLTURBO_wildcardxXLTURBOV10",
    "SDXLS_8Steps",
    "flash-sdxl",
    "turbovisionxlSuperFastXLBasedOnNew_tvxlV431Bakedvae",
    "illustriousXL_dmd",
    "noobai-lightning",
    "dreamshaperXL_lightningDPMSDE",
    "RealVisXL_V5.0_Lightning_fp16",
    "zavychromaxl_v70.lightning.gguf",
    "SDXL-Turbo-Q8_0.gguf",
    "Juggernaut_X_RunDiffusion_Hyper",
    "sdxl-hyper",
    "realvisxlV40_v40HyperBakedvae",
    "SDXL-Flash",
    "SDXLturbo",
    "dreamshaperXLturbo",
    "bigLust_v16_DMDv2",
    "nitrosd-realism_unet",
    "perflow-sdxl-base",
    "segmind-vegart",
    "models--stabilityai--sdxl-turbo/snapshots/0123456789abcdef0123456789abcdef01234567",
    "sdxl-turbo/unet/diffusion_pytorch_model",
    "epicrealismXL_vxviLightning",
    "dreamshaper_8LCM",
    "lustifySDXLNSFW_v10-dmd2",
]
NO_C = [
    "sd_xl_base_1.0",
    "noobaiXLNAIXL_vPred10Version",
    "hyperrealism_xl",
    "HyperRealistic_xl_v2",
    "juggernautXL_v9",
    "film_lcmart",
    "epoch10_step2000",
    "flashlight",
    "turbo/gold",
    "sdxl_vae/model",
    "hyperspace",
]
YES_L = [
    "sdxl_lightning_4step_lora",
    "Hyper-SDXL-8steps-lora",
    "dmd2_sdxl_4step_lora",
    "lcm-lora-sdxl",
    "LCM_LoRA_Weights_SDXL",
    "tcd-sdxl-lora",
    "lora/sub/hyper_sd_4step",
    "hyperSDXL8step",
    "LCMlora",
    "sdxl_tdd_lora_weights",
    "pcm_sdxl_smallcfg_4step",
    "lcm-lora-sdxl/pytorch_lora_weights",
    "sd_xl_turbo_lora_v1",
    "SDXL_Turbo_LoRA",
]
NO_L = [
    "lightning_bolts_xl",
    "turbocharger_car",
    "Hyper-SDXL-12steps-CFG-lora",
    "step_by_step",
    "gold",
    "mychar-v2-step00000500",
    "mychar_3000steps",
    "style-1500-steps",
    "thing_v4_steps3000",
    "porsche_911_turbo",
    "lightning_mcqueen_sdxl",
    "flash_2023_xl",
    "pcm_sdxl_normalcfg_16step",
    "hyper_detail_xl",
    "char_v2-000010",
]


@pytest.mark.parametrize("name", YES_C)
def test_checkpoints_that_were_distilled(name):
    assert few_step_by_name(["sd_xl_base_1.0.safetensors", f"{name}.safetensors"])


@pytest.mark.parametrize("name", NO_C)
def test_other_checkpoints(name):
    assert few_step_by_name([f"{name}.safetensors"]) == ""


@pytest.mark.parametrize("name", YES_L)
def test_loras_that_distil(name):
    assert few_step_by_name(["sd_xl_base_1.0.safetensors"], [f"{name}.safetensors"])


@pytest.mark.parametrize("name", NO_L)
def test_other_loras(name):
    assert few_step_by_name([], [f"{name}.safetensors"]) == ""


def test_what_is_named_is_what_tells():
    assert few_step_by_name(["a/sdxl-turbo/unet/diffusion_pytorch_model.safetensors"]) == "sdxl-turbo"
    assert few_step_by_name([], ["x\\lcm-lora-sdxl\\pytorch_lora_weights.safetensors"]) == "lcm-lora-sdxl"
    hashed = "models--stabilityai--sdxl-turbo/snapshots/0123456789abcdef0123456789abcdef01234567"
    assert few_step_by_name([hashed]) == "models--stabilityai--sdxl-turbo"


def test_an_ordinary_teacher_leaves_everything():
    config, fit = fitted(OFFICIAL, TeacherKind(), ())
    assert config == OFFICIAL
    assert fit.note == ""


@pytest.mark.parametrize(
    ("method", "kind", "expected"),
    [
        ("tsm", FEW, {"guidance.cfg": (7.5, 1.5)}),
        ("csd", FEW, {}),  # has no scale
        ("sds_bridge", FEW, {}),  # there it is but a factor
        ("sdi", FEW, {"guidance.cfg": (7.5, 1.5), "guidance.sdi_cfg": (-7.5, 0.346)}),
        ("tsm", ZERO, {}),
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


def test_what_the_user_says_it_is():
    def told(said, kind, method="tsm"):
        return fitted(
            changed(OFFICIAL, {"guidance.teacher": said, "guidance.method": method}), kind, ["guidance.teacher"]
        )

    config, fit = told("few_step", TeacherKind())
    assert fit.changes == {"guidance.cfg": (7.5, 1.5)}
    assert config == fitted(OFFICIAL, FEW, ())[0]  # the same run, whoever said so
    assert told("many_step", FEW)[1].changes == {}
    assert told("published", TeacherKind("edm", playground=True))[1].changes == {}
    assert str(told("few_step", TeacherKind(), "csd")[1]).endswith(
        "few steps (by the setting teacher): no setting changes"
    )


def test_pictures_of_teacher_preview():
    def drawn(kind):
        profile = fitted(OFFICIAL, kind, ())[1].profile
        return SamplingConfig().for_teacher(profile), profile.sampling_rescale

    assert drawn(TeacherKind()) == (SamplingConfig(25, 5.0), 0.0)
    assert drawn(FEW) == (SamplingConfig(6, 1.5), 0.0)
    assert drawn(ZERO) == (SamplingConfig(25, 5.0), 0.7)
    assert SamplingConfig(8, 2.0).for_teacher(fitted(OFFICIAL, FEW, ())[1].profile) == SamplingConfig(8, 2.0)


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
    torch.testing.assert_close(
        with_rescale(Doubling(), 0.5).combine(*requests, positive, negative, -7.5),
        Doubling().combine(*requests, positive, negative, -7.5),
    )
    plain = Doubling()
    assert with_rescale(plain, 0.0) is plain


# -- command line -----------------------------------------------------------------------------------------------------


def a_run(model, out, *options):
    """run.json of two steps."""
    small = ("--preset", "starter", "--method", "tsm", "--steps", "2", "--resolution", "64", "--views", "1")
    small += ("--device", "cpu")
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
    assert log["teacher"]["kind"]["zero_terminal_snr"] is True
    plain = a_run(tiny_sdxl_dir, tmp_path / "b", "--parameterization", "v")
    assert (plain["model"]["prediction"], plain["model"]["zero_terminal_snr"]) == ("v_prediction", False)


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
def test_a_distilled_models_scheduler_says_so(tiny_sdxl_dir, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(tiny_sdxl_dir, folder)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": name}))
    assert load_sdxl(folder).kind.few_step == f"its {name}"


def test_a_resumed_run_may_say_what_was_recognised(tiny_sdxl_dir, tmp_path):
    turbo = tmp_path / "some_turbo_xl"
    shutil.copytree(tiny_sdxl_dir, turbo)
    a_run(turbo, tmp_path / "a")
    assert a_run(turbo, tmp_path / "a", "--teacher", "few_step", "--resume", "--steps", "3")["steps_made"] == 3


def test_a_side_that_would_not_be_seen_is_refused(tmp_path, capsys):
    """The starter tells its sides apart; words for both alike take the place of that."""
    from dreamer_core.cli.generate_config import build_config

    def config(*options):
        parser = argparse.ArgumentParser()
        add_recipe_options(parser)
        args = parser.parse_args(["a red mug", *options])
        return build_config(args, PRESETS[preset_name(args)]).prompt

    assert (config().left, config().right) == ("left side view", "right side view")
    mine = config("--set", "prompt.side=profile")
    assert (mine.side, mine.left, mine.right) == ("profile", "", "")
    assert (mine.overhead, mine.overhead_from) == ("overhead view", -10.0)  # which the starter's captions tell
    assert config("--model", "x", "--preset", "fast").left == ""
    assert config("--preset", "fast").left == "left side view"  # still the starter's weights
    both = ["--set", "prompt.left=a", "--set", "prompt.right=b"]
    with pytest.raises(InputError, match=r"prompt\.side.*both prompt\.left and prompt\.right are set"):
        config("--set", "prompt.side=profile", *both)


def test_an_lcm_whose_network_reads_its_guidance_is_refused(tiny_sdxl_dir, tmp_path, capsys):
    folder = tmp_path / "lcm"
    shutil.copytree(tiny_sdxl_dir, folder)
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"time_cond_proj_dim": 256}))
    assert main(["preview", "a red mug", "--model", str(folder), "--out", str(tmp_path / "x.png")]) == 2
    assert "time_cond_proj_dim" in capsys.readouterr().err
