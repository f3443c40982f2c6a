"""Settings that suit what a teacher is, unless the user set them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from ..setting_values import changed, values
from ..teachers.kinds import TeacherKind
from .recipe import OptimizeConfig

Config = TypeVar("Config", bound=OptimizeConfig)


@dataclass(frozen=True)
class Profile:
    """What a kind of teacher wants otherwise than the published recipe, which is for an epsilon-prediction SDXL."""

    strength: float = 1.0
    """Factor of what a guidance scale has above 1, so that methods keep their relation: 1 + strength (cfg - 1)."""
    rescale: float | None = None
    t_min: int | None = None
    t_max: int | None = None
    sampling_steps: int = 25
    """Of the pictures of Teacher Preview."""
    sampling_cfg: float = 5.0


ORDINARY = Profile()
ZERO_SNR = Profile(rescale=0.7)
"""phi of Lin et al. (2305.08891, sec. 3.4), who keep the guidance scale at 7.5."""
PLAYGROUND = Profile(strength=4.0 / 6.5, sampling_cfg=4.0)
"""Its model card's guidance scale is 5 with DDIM-like steps, where SDXL's is 7.5."""
FEW_STEP = Profile(strength=0.5 / 6.5, sampling_steps=6, sampling_cfg=1.5)
"""LCM, Lightning, Turbo and DMD2 have learned guided predictions; their cards say guidance scale 1 to 2."""


def profile_of(kind: TeacherKind) -> Profile:
    """What suits a kind of teacher. Distillation decides first, then zero terminal SNR."""
    if kind.few_step:
        return FEW_STEP
    if kind.playground:
        return PLAYGROUND
    return ZERO_SNR if kind.zero_terminal_snr else ORDINARY


@dataclass(frozen=True)
class Fitted:
    """What a teacher is taken for, and which settings follow from that."""

    kind: TeacherKind
    profile: Profile
    changes: dict[str, tuple[object, object]]
    """By name: the preset's value and the one instead."""

    def __str__(self) -> str:
        """One line, e.g. "v-prediction with zero terminal SNR: guidance.rescale 0 -> 0.7"."""
        changes = ", ".join(f"{name} {_short(old)} -> {_short(new)}" for name, (old, new) in self.changes.items())
        return f"{self.kind.words}: {changes}" if changes else self.kind.words

    @property
    def note(self) -> str:
        """The same, or "" where nothing is out of the ordinary."""
        return str(self) if self.changes or self.kind != TeacherKind() else ""


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def taken_for(kind: TeacherKind, said: str) -> TeacherKind:
    """The kind with what the user says of it (`guidance.teacher`)."""
    if said == "few_step":
        return replace(kind, few_step=kind.few_step or "the setting teacher")
    return replace(kind, few_step="") if said == "many_step" else kind


def fitted(config: Config, kind: TeacherKind, given: Iterable[str], *, rescales: bool = False) -> tuple[Config, Fitted]:
    """`config` for a teacher of that kind; settings in `given` stay as the user has them.

    `rescales`: patches of the teacher rescale guidance already.
    """
    said = config.guidance.teacher
    kind = taken_for(kind, said)
    profile = ORDINARY if said == "published" else profile_of(kind)
    wanted: dict[str, object] = {}
    now = dict(values(config))
    cfg = now.get("guidance.cfg")
    if cfg is not None and profile.strength != 1.0:
        wanted["guidance.cfg"] = round(1.0 + profile.strength * (float(cfg) - 1.0), 3)
    wanted |= {"guidance.rescale": profile.rescale, "guidance.t_min": profile.t_min, "guidance.t_max": profile.t_max}
    if rescales:
        wanted["guidance.rescale"] = None
    unread = {f"guidance.{name}" for name in config.guidance.method.ignores}
    left = unread | set(given)
    wanted = {n: v for n, v in wanted.items() if v is not None and n not in left and v != now[n]}
    return changed(config, wanted), Fitted(kind, profile, {n: (now[n], v) for n, v in wanted.items()})
