"""How the teacher's opinion becomes a gradient: guidance, clipping, density control."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..dreamer_core.guidance.clipping import ClipConfig
from ..dreamer_core.optimize import DensityConfig, GuidanceConfig
from ..dreamer_core.optimize.config import METHOD_DEFAULTS, METHODS
from .sockets import CATEGORY, DreamerClip, DreamerDensity, DreamerGuidance, chosen, errors_named, validated

CLIP_MODES = ("pixel", "norm", "off")
DEPTH_MODES = ("per_pixel", "global", "off")


def _integer(name: str, default: int, low: int, high: int, tip: str, advanced: bool = False) -> io.Input:
    return io.Int.Input(name, default=default, min=low, max=high, tooltip=tip, optional=True, advanced=advanced)


def _number(
    name: str, default: float, low: float, high: float, step: float, tip: str, advanced: bool = False
) -> io.Input:
    return io.Float.Input(
        name, default=default, min=low, max=high, step=step, tooltip=tip, optional=True, advanced=advanced
    )


def _csd_inputs() -> list[io.Input]:
    tip = "At the end, this share of what is subtracted comes from the empty prompt. Published: 0.5. 0 to 1."
    return [_number("csd_empty", 0.5, 0.0, 1.0, 0.05, tip)]


def _sdi_inputs() -> list[io.Input]:
    return [
        _integer("t_first", 999, 1, 999, "Timestep at step 0, of 1000; it falls over the run. Published: 999."),
        _integer("t_last", 200, 1, 999, "Timestep at the end of the run, of 1000. Published: 200."),
        _integer("sdi_steps", 10, 1, 100, "Steps of the inversion over 1000 timesteps. More is slower. Published: 10."),
        _number("sdi_cfg", -7.5, -100.0, 100.0, 0.5, "Guidance scale of the inversion (unitless). Published: -7.5."),
        _number("sdi_noise", 0.3, 0.0, 10.0, 0.05, "Fresh noise on top of the inverted one. Published: 0.3. 0 to 1."),
    ]


def _asd_inputs() -> list[io.Input]:
    tip = "How far the second, noisier timestep lies above the first, as a share. Published: 0.1. 0.05 to 0.3."
    return [_number("asd_shift", 0.1, 0.0, 1.0, 0.01, tip)]


class DreamerXLTSMGuidance(io.ComfyNode):
    """DREAMER_GUIDANCE: the method and where on the noise schedule it looks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        gamma = _number(
            "gamma",
            0.954,
            0.0,
            1.0,
            0.001,
            "Where the reference path ends between s and t, as a fraction. The paper's best is 0.3; its released "
            "code amounts to 0.954; 0 is ISM.",
        )

        def cfg(default: float, tip: str) -> io.Input:
            return _number("cfg", default, 1.0, 200.0, 0.5, f"Classifier-free guidance scale (unitless). {tip}")

        return io.Schema(
            node_id="DreamerXLTSMGuidance",
            display_name="Dreamer XL Guidance (TSM)",
            category=CATEGORY,
            description="Trajectory Score Matching, and its neighbours on the same footing.",
            search_aliases=["score distillation", "sds", "ism", "tsm", "csd", "sdi", "asd", "sds bridge", "cfg"],
            inputs=[
                io.DynamicCombo.Input(
                    "method",
                    options=[
                        io.DynamicCombo.Option("tsm", [gamma, cfg(7.5, "Published: 7.5. Good values: 5 to 15.")]),
                        io.DynamicCombo.Option("ism", [cfg(7.5, "Published: 7.5. Good values: 5 to 15.")]),
                        io.DynamicCombo.Option("sds", [cfg(100.0, "SDS needs much: 50 to 100.")]),
                        io.DynamicCombo.Option("csd", _csd_inputs()),
                        io.DynamicCombo.Option("sdi", [cfg(7.5, "Published: 7.5. 5 to 15."), *_sdi_inputs()]),
                        io.DynamicCombo.Option("asd", [cfg(7.5, "Published: 7.5. 5 to 15."), *_asd_inputs()]),
                        io.DynamicCombo.Option(
                            "sds_bridge", [cfg(100.0, "Here a plain factor. Good values: 25 to 100.")]
                        ),
                    ],
                    tooltip="tsm: Dreamer XL. ism: LucidDreamer. sds: DreamFusion. csd: classifier score distillation. "
                    "sdi: via inversion. asd: ScaleDreamer. sds_bridge: away from words for artefacts, which Dreamer "
                    "XL Prompt must then have.",
                ),
                _integer("t_min", 21, 1, 999, "Lowest timestep drawn, of 1000. Published: 21."),
                _integer("t_max", 500, 1, 999, "Highest timestep drawn after the warm-up. Good values: 400 to 700."),
                _integer(
                    "warmup_steps",
                    750,
                    0,
                    100_000,
                    "Steps during which higher timesteps are drawn too. 0 to a third of all steps.",
                ),
                _integer("t_widening", 480, 0, 998, "Timesteps added to t_max at step 0; fades. 0 to 480.", True),
                _number("weight", 0.1, 1e-4, 10.0, 0.01, "Factor of the gradient (unitless). Published: 0.1.", True),
                _integer("delta", 80, 1, 500, "Timesteps between s and t. Published: 80.", True),
                _integer("delta_widening", 20, 0, 500, "Timesteps added to delta at step 0; fades.", True),
                _integer(
                    "stride", 200, 1, 999, "Timesteps per step of DDIM inversion. 50 to 200; smaller: slower.", True
                ),
                _number(
                    "offset_noise",
                    0.1,
                    0.0,
                    1.0,
                    0.01,
                    "Strength (a factor) of noise that shifts whole channels. 0 to 0.2; 0 for all but tsm and ism.",
                    True,
                ),
                _number("flip", 0.5, 0.0, 1.0, 0.05, "Probability of mirroring the batch. 0 for text or logos.", True),
            ],
            outputs=[DreamerGuidance.Output(display_name="guidance", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def validate_inputs(cls, t_min: int | None = 21, t_max: int | None = 500, method: dict | None = None) -> bool | str:
        if method is None:
            return f"method: expected one of {', '.join(METHODS)}, got an unknown choice"
        values = {"t_min": t_min, "t_max": t_max}
        return validated(cls, values, lambda: GuidanceConfig(t_range=(t_min, t_max)))  # type: ignore[arg-type]

    @classmethod
    def execute(cls, method: dict | None = None, t_min: int = 21, t_max: int = 500, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Guidance"):
            inner = chosen(method, "method", METHODS)
            first, last = inner.pop("t_first", None), inner.pop("t_last", None)
            inner = METHOD_DEFAULTS.get(inner["method"], {}) | {k: v for k, v in inner.items() if v is not None}
            if "t_annealing" in inner:
                inner["t_annealing"] = (first or inner["t_annealing"][0], last or inner["t_annealing"][1])
            return io.NodeOutput(GuidanceConfig(t_range=(t_min, t_max), **{**inner, **values}))


class DreamerXLGradientClip(io.ComfyNode):
    """DREAMER_CLIP: pixel-by-pixel gradient clipping."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def options() -> list[io.Input]:
            return [
                _number(
                    "threshold",
                    0.05,
                    1e-4,
                    100.0,
                    0.01,
                    "Largest gradient of a pixel, per unit of colour. Published: 0.05. Watch the clipped share.",
                ),
                _number("ramp_from", 0.0, 0.0, 100.0, 0.01, "Threshold at step 0 of a linear ramp. 0: no ramp.", True),
                _integer("ramp_steps", 0, 0, 100_000, "Length of the ramp in steps. 0: no ramp.", True),
            ]

        return io.Schema(
            node_id="DreamerXLGradientClip",
            display_name="Dreamer XL Gradient Clip",
            category=CATEGORY,
            description="Limits the gradient of every rendered pixel, which keeps single pixels from taking over.",
            search_aliases=["pgc", "pixel gradient clipping", "gradient clipping", "oversaturation"],
            inputs=[
                io.DynamicCombo.Input(
                    "mode",
                    options=[
                        io.DynamicCombo.Option("pixel", options()),
                        io.DynamicCombo.Option("norm", options()),
                        io.DynamicCombo.Option("off", []),
                    ],
                    tooltip="pixel: the largest channel of a pixel is limited (published). norm: its length is.",
                ),
                io.Combo.Input(
                    "depth_mode",
                    options=list(DEPTH_MODES),
                    default="per_pixel",
                    optional=True,
                    advanced=True,
                    tooltip="On depth steps. per_pixel: the paper's text. global: one factor for all, as its code.",
                ),
                _number(
                    "depth_factor",
                    0.01,
                    1e-5,
                    10.0,
                    0.001,
                    "The depth threshold is this times the mean scale of the Gaussians. Published: 0.01.",
                    True,
                ),
            ],
            outputs=[DreamerClip.Output(display_name="clip", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def validate_inputs(cls, depth_mode: str | None = "per_pixel", mode: dict | None = None) -> bool | str:
        if mode is None:
            return f"mode: expected one of {', '.join(CLIP_MODES)}, got an unknown choice"
        chosen_mode = "per_pixel" if depth_mode is None else depth_mode
        return validated(cls, {}, lambda: ClipConfig(depth_mode=chosen_mode))  # type: ignore[arg-type]

    @classmethod
    def execute(
        cls, mode: dict | None = None, depth_mode: str = "per_pixel", depth_factor: float = 0.01
    ) -> io.NodeOutput:
        with errors_named("Dreamer XL Gradient Clip"):
            inner = chosen(mode, "mode", CLIP_MODES)
            config = ClipConfig(
                mode=inner["mode"],
                threshold=inner.get("threshold") or 0.05,
                ramp_from=inner.get("ramp_from") or None,
                ramp_steps=inner.get("ramp_steps") or 0,
                depth_mode=depth_mode,  # type: ignore[arg-type]
                depth_factor=depth_factor,
            )
            return io.NodeOutput(config)


class DreamerXLDensityControl(io.ComfyNode):
    """DREAMER_DENSITY: growing, splitting and pruning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DreamerXLDensityControl",
            display_name="Dreamer XL Density Control",
            category=CATEGORY,
            description="When Gaussians are added and removed. The defaults are the published ones.",
            search_aliases=["densify", "prune", "split", "clone", "adaptive density control", "max gaussians"],
            inputs=[
                io.Boolean.Input("enabled", default=True, tooltip="Off keeps the number of Gaussians as it is."),
                _integer(
                    "max_gaussians",
                    1_000_000,
                    4,
                    20_000_000,
                    "No growth beyond this many Gaussians. 100,000 to 1,000,000.",
                ),
                _integer("start", 100, 0, 100_000, "First step of density control. Published: 100."),
                _integer("stop", 1500, 0, 100_000, "Last step of density control. About 60 % of all steps."),
                _integer("every", 100, 1, 10_000, "Steps between two refinements. Good values: 50 to 200."),
                _number(
                    "grow_gradient",
                    7.5e-4,
                    1e-7,
                    1.0,
                    1e-5,
                    "Mean gradient in the image above which a Gaussian grows (device coordinates, at 1024 pixels).",
                ),
                _number(
                    "split_scale",
                    0.0105,
                    1e-5,
                    10.0,
                    1e-4,
                    "World units: larger split, smaller clone. 0.005 to 0.05.",
                    True,
                ),
                _number(
                    "prune_opacity",
                    0.005,
                    1e-4,
                    0.99,
                    0.001,
                    "Opacity (0 to 1) below which a Gaussian goes. 0.002 to 0.02.",
                    True,
                ),
                _number(
                    "prune_scale", 0.35, 1e-3, 100.0, 0.01, "World units above which a Gaussian goes. 0.2 to 1.", True
                ),
                _integer("reset_every", 300, 0, 100_000, "Steps between two resets of all opacities. 0: never.", True),
                io.Combo.Input(
                    "strategy",
                    options=["default", "mcmc"],
                    default="default",
                    optional=True,
                    tooltip="default: copy, split and prune by the gradient (published). mcmc: move dead Gaussians to "
                    "living ones and grow by 5 % at a time up to max_gaussians; thresholds and resets do not count.",
                ),
                _number(
                    "noise", 5e5, 0.0, 1e8, 1e4, "mcmc: how much positions are shaken (unitless). 1e5 to 1e6.", True
                ),
            ],
            outputs=[DreamerDensity.Output(display_name="density", tooltip="For Dreamer XL Optimize.")],
        )

    @classmethod
    def execute(cls, enabled: bool, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Density Control"):
            return io.NodeOutput(DensityConfig(enabled=enabled, **values))
