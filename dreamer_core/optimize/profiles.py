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
    sampling_steps: int = 25
    """Of the pictures of Teacher Preview."""
    sampling_cfg: float = 5.0
    sampling_rescale: float = 0.0


ORDINARY = Profile()
ZERO_SNR = Profile(sampling_rescale=0.7)
"""phi of Lin et al. (2305.08891, sec. 3.4), for pictures, which begin without signal. The levels of score distillation
end at SDXL's own, where nothing is burnt; rescaling there pulls the object towards grey (docs/teachers.md)."""
PLAYGROUND = Profile(strength=4.0 / 6.5)
"""Its model card's guidance scale is 5 with Euler steps, where SDXL's is 7.5."""
FEW_STEP = Profile(strength=0.5 / 6.5, sampling_steps=6, sampling_cfg=1.5)
"""LCM, Lightning, Turbo and DMD2 have learned guided predictions; their cards say guidance scale 1 to 2."""
SCALES = ("guidance.cfg", "guidance.sdi_cfg")


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
    said: str
    """What the user says of it."""
    changes: dict[str, tuple[float, float]]
    """By name: the preset's value and the one instead."""

    def __str__(self) -> str:
        """One line, e.g. "epsilon-prediction, few steps (by its LCM sampling): guidance.cfg 7.5 -> 1.5"."""
        changes = ", ".join(f"{name} {_short(old)} -> {_short(new)}" for name, (old, new) in self.changes.items())
        if not changes and self.said != "auto":
            changes = "no setting changes"
        return f"{self.kind.words}: {changes}" if changes else self.kind.words

    @property
    def note(self) -> str:
        """The same, or "" where nothing is out of the ordinary."""
        return str(self) if self.changes or self.said != "auto" or self.kind != TeacherKind() else ""

    def rescale_of_pictures(self, config: OptimizeConfig) -> float:
        """`guidance.rescale` for pictures of Teacher Preview: the run's, or more where the teacher wants it."""
        return max(config.guidance.rescale, self.profile.sampling_rescale)


def _short(value: float) -> str:
    return f"{value:.3g}"


def taken_for(kind: TeacherKind, said: str) -> TeacherKind:
    """The kind with what the user says of it (`guidance.teacher`)."""
    if said == "few_step":
        return replace(kind, few_step=kind.few_step or "the setting teacher")
    return replace(kind, few_step="") if said == "many_step" else kind


def fitted(config: Config, kind: TeacherKind, given: Iterable[str]) -> tuple[Config, Fitted]:
    """`config` for a teacher of that kind; settings in `given` stay as the user has them.

    What the user says of the teacher (`guidance.teacher`) is in the values then, and "auto" again: two runs of the same
    values are the same run.
    """
    said, method = config.guidance.teacher, config.guidance.method
    kind = taken_for(kind, said)
    profile = ORDINARY if said == "published" else profile_of(kind)
    now, left = dict(values(config)), set(given)
    wanted: dict[str, float] = {}
    if method.combines:  # elsewhere the scale is but a factor of the gradient
        scales = {name: float(now[name]) for name in SCALES if name in now and name not in left}
        wanted = {name: round(1.0 + profile.strength * (scale - 1.0), 3) for name, scale in scales.items()}
    changes = {name: (now[name], value) for name, value in wanted.items() if value != now[name]}
    config = changed(config, {n: v for n, (_, v) in changes.items()} | {"guidance.teacher": "auto"})
    return config, Fitted(kind, profile, said, changes)
