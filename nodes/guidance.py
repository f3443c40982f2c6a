"""How the teacher's opinion becomes a gradient: guidance and clipping."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..dreamer_core.guidance import METHODS
from ..dreamer_core.settings import Setting
from .sockets import CATEGORY, DreamerClip, DreamerGuidance, chosen, errors_named, wrong_choice
from .widgets import (
    LEFT_ALONE,
    PRESET,
    overrides,
    preset_widgets,
    refusal,
    settings_of,
    usable,
    variant_settings,
    variant_widgets,
)

METHOD_NAMES = (PRESET, *(method.name for method in METHODS))


def _settings() -> tuple[Setting, list[Setting]]:
    """The method, and the settings that all methods share."""
    choice, *others = sorted(settings_of("guidance"), key=lambda s: s.field != "method")
    return choice, others


def _unread(setting: Setting) -> str:
    """Which methods do without a shared setting, for its tooltip."""
    names = [method.name for method in METHODS if setting.field in method.ignores]
    return f"Not read by {', '.join(names)}." if names else ""


class DreamerXLTSMGuidance(io.ComfyNode):
    """DREAMER_GUIDANCE: the method and where on the noise schedule it looks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        choice, others = _settings()
        methods = {m.name: variant_widgets(choice, m) for m in METHODS}
        about = " ".join(f"{m.name}: {m.summary()}." for m in METHODS)
        return io.Schema(
            node_id="DreamerXLTSMGuidance",
            display_name="Dreamer XL Guidance",
            category=CATEGORY,
            description="The score distillation method (Trajectory Score Matching or a related one) and the timesteps. "
            f"{LEFT_ALONE}",
            search_aliases=["score distillation", *METHOD_NAMES[1:], "sds bridge", "cfg"],
            inputs=[
                io.DynamicCombo.Input(
                    "method",
                    options=[
                        io.DynamicCombo.Option(PRESET, []),
                        *(io.DynamicCombo.Option(name, inputs) for name, inputs in methods.items()),
                    ],
                    tooltip=f"preset: the preset's method. {about}",
                ),
                *preset_widgets(others, _unread),
            ],
            outputs=[DreamerGuidance.Output(display_name="guidance", tooltip="For Dreamer XL Optimize.")],
            accept_all_inputs=True,  # an unknown choice, so that it is refused by its name
        )

    @classmethod
    def validate_inputs(
        cls,
        method: dict | str | None = PRESET,
        t_min: int | str | None = PRESET,
        t_max: int | str | None = PRESET,
    ) -> bool | str:
        wrong = "" if method == PRESET else wrong_choice(method, "method", METHOD_NAMES)
        return wrong or refusal(_settings()[1], {"t_min": t_min, "t_max": t_max})

    @classmethod
    def execute(cls, method: dict | None = None, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Guidance"):
            inner = chosen({"method": PRESET} if method is None else method, "method", METHOD_NAMES)
            given = overrides(_settings()[1], values)
            for variant in METHODS:
                if variant.name == inner["method"]:
                    own = overrides(variant_settings(variant), inner, "guidance")
                    given = {"guidance.method": variant.name, **own, **given}
            return io.NodeOutput(usable(given))


class DreamerXLGradientClip(io.ComfyNode):
    """DREAMER_CLIP: pixel-by-pixel gradient clipping."""

    INSIDE = ("threshold", "ramp_from", "ramp_steps")
    """Inputs that lie inside the choice of the mode."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        settings = {s.field: s for s in settings_of("clip")}
        mode = settings.pop("mode")
        inside = [settings.pop(name) for name in cls.INSIDE]
        options = {name: preset_widgets(inside if name != "off" else []) for name in (PRESET, *mode.options)}
        return io.Schema(
            node_id="DreamerXLGradientClip",
            display_name="Dreamer XL Gradient Clip",
            category=CATEGORY,
            description="Limits the gradient of every rendered pixel, so that no single pixel takes over. "
            f"{LEFT_ALONE}",
            search_aliases=["pgc", "pixel gradient clipping", "gradient clipping", "oversaturation"],
            inputs=[
                io.DynamicCombo.Input(
                    "mode",
                    options=[io.DynamicCombo.Option(name, inputs) for name, inputs in options.items()],
                    tooltip=f"preset: the preset's mode. {mode.knob.tip}",
                ),
                *preset_widgets(settings.values()),
            ],
            outputs=[DreamerClip.Output(display_name="clip", tooltip="For Dreamer XL Optimize.")],
            accept_all_inputs=True,  # an unknown choice, so that it is refused by its name
        )

    @classmethod
    def validate_inputs(cls, mode: dict | str | None = PRESET) -> bool | str:
        return (mode != PRESET and wrong_choice(mode, "mode", cls._modes())) or True

    @classmethod
    def _modes(cls) -> tuple[str, ...]:
        return (PRESET, *next(s for s in settings_of("clip") if s.field == "mode").options)

    @classmethod
    def execute(cls, mode: dict | None = None, **values: Any) -> io.NodeOutput:
        with errors_named("Dreamer XL Gradient Clip"):
            inner = chosen({"mode": PRESET} if mode is None else mode, "mode", cls._modes())
            return io.NodeOutput(usable(overrides(settings_of("clip"), {**inner, **values})))
