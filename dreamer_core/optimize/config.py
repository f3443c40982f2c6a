"""Everything that decides the result of a run, as frozen dataclasses. The defaults are the published values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from ..cameras import OrbitConfig
from ..errors import InputError
from ..guidance.clipping import ClipConfig
from .cleanup import CleanupConfig
from .memory import MODES, MemoryMode

Method = Literal["tsm", "ism", "sds", "csd", "sdi", "asd", "sds_bridge"]
METHODS: tuple[Method, ...] = ("tsm", "ism", "sds", "csd", "sdi", "asd", "sds_bridge")

METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "sds": {"cfg": 100.0, "offset_noise": 0.0},
    "csd": {"offset_noise": 0.0},
    "sdi": {"t_annealing": (999, 200), "offset_noise": 0.0},
    "asd": {"offset_noise": 0.0},
    "sds_bridge": {"cfg": 100.0, "offset_noise": 0.0},
}
"""What a method that is chosen by name brings with it; a value given beside it wins. Their papers draw plain noise."""


@dataclass(frozen=True)
class GuidanceConfig:
    """The gradient: which method, and where on the noise schedule it looks."""

    method: Method = "tsm"
    gamma: float = 0.954
    """TSM only: mu = s + gamma (t - s). The paper's best is 0.3; its released code amounts to 0.954."""
    cfg: float = 7.5
    """Classifier-free guidance scale."""
    weight: float = 0.1
    """lambda, the factor of the latent gradient."""
    t_range: tuple[int, int] = (21, 500)
    """Timesteps, uniform and inclusive; one per batch."""
    t_annealing: tuple[int, int] | None = None
    """Instead of drawing from `t_range`, let t fall linearly from the first to the last over the schedule (SDI)."""
    warmup_steps: int = 750
    """Over these steps the widening of `t_range` and `delta` fades from 1 to 0."""
    t_widening: int = 480
    """Added to the upper end of `t_range` at step 0."""
    delta: int = 80
    """Interval t - s in timesteps."""
    delta_widening: int = 20
    """Added to `delta` at step 0."""
    stride: int = 200
    """Timesteps per DDIM inversion step."""
    offset_noise: float = 0.1
    """Strength of the per-channel offset added to the noise."""
    flip: float = 0.5
    """Probability that the whole batch is mirrored before it is encoded."""
    csd_empty: float = 0.5
    """CSD only: share of the empty prompt in what is subtracted, at the end of the schedule; it grows from 0."""
    sdi_steps: int = 10
    """SDI only: steps of its inversion over the whole schedule; t takes its share of them."""
    sdi_cfg: float = -7.5
    """SDI only: guidance scale of the inversion."""
    sdi_noise: float = 0.3
    """SDI only: fresh noise added to the inverted one."""
    asd_shift: float = 0.1
    """ASD only: how far the later timestep lies beyond t, as a share of t - t_min."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError("method", f"one of {', '.join(METHODS)}", self.method)
        if not 0.0 <= self.gamma <= 1.0:
            raise InputError("gamma", "a fraction in [0, 1]", self.gamma)
        low, high = self.t_range
        if not 0 < low <= high < 1000:
            raise InputError("t_range", "0 < low <= high < 1000", self.t_range)
        if self.t_annealing is not None and not all(0 < t < 1000 for t in self.t_annealing):
            raise InputError("t_annealing", "two timesteps between 0 and 1000", self.t_annealing)
        if self.delta < 1:
            raise InputError("delta", "at least 1 timestep", self.delta)
        if self.stride < 1:
            raise InputError("stride", "at least 1 timestep", self.stride)
        if not 0.0 <= self.flip <= 1.0:
            raise InputError("flip", "a probability in [0, 1]", self.flip)
        if not 0 < self.weight < math.inf:
            raise InputError("weight", "a number above 0", self.weight)
        for name in ("cfg", "sdi_cfg"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(name, "a finite number", getattr(self, name))
        for name in ("csd_empty", "asd_shift"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(name, "a share in [0, 1]", getattr(self, name))
        for name in ("t_widening", "delta_widening", "warmup_steps"):
            if getattr(self, name) < 0:
                raise InputError(name, "0 or more", getattr(self, name))
        if self.sdi_steps < 1:
            raise InputError("sdi_steps", "at least 1 step", self.sdi_steps)
        if not 0.0 <= self.sdi_noise < math.inf:
            raise InputError("sdi_noise", "0 or more", self.sdi_noise)

    def warmup(self, step: int) -> float:
        """w, from 1 at step 0 to 0 at `warmup_steps`."""
        return 1.0 - min(step / self.warmup_steps, 1.0) if self.warmup_steps > 0 else 0.0


@dataclass(frozen=True)
class LearningRates:
    """Adam's rates, each (first, last), log-linear over `schedule_steps`."""

    means: tuple[float, float] = (5.6e-4, 5.6e-6)
    quats: tuple[float, float] = (1e-3, 2e-4)
    log_scales: tuple[float, float] = (5e-3, 1e-3)
    logit_opacities: tuple[float, float] = (0.05, 0.05)
    sh0: tuple[float, float] = (5e-3, 3e-3)
    shN: tuple[float, float] = (2.5e-4, 1.5e-4)
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        for name in ("means", "quats", "log_scales", "logit_opacities", "sh0", "shN"):
            if not all(0 < rate < math.inf for rate in getattr(self, name)):
                raise InputError(f"learning_rates.{name}", "two finite rates above 0", getattr(self, name))
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError("learning_rates.betas", "two numbers in [0, 1)", self.betas)

    def at(self, name: str, step: int, schedule_steps: int) -> float:
        """The rate of field `name` at `step`; the last value holds after the schedule's end."""
        first, last = getattr(self, name)
        share = min(step / max(schedule_steps, 1), 1.0)
        return float(first * (last / first) ** share)


@dataclass(frozen=True)
class DensityConfig:
    """Growing, splitting and pruning; thresholds hold for any resolution and batch."""

    enabled: bool = True
    strategy: Literal["default", "mcmc"] = "default"
    """`default` is 3DGS's (published), `mcmc` relocates dead Gaussians and adds 5 % at a time (2404.09591)."""
    start: int = 100
    stop: int = 1500
    every: int = 100
    """Refinement at steps that are multiples of this, after `start` and before `stop`."""
    grow_gradient: float = 7.5e-4
    """Threshold of the mean 2D gradient (normalised device coordinates) per view at `reference_resolution`."""
    reference_resolution: int = 1024
    """The 2D gradient of a summed loss grows with the square of the resolution; the threshold follows it."""
    split_scale: float = 0.0105
    """World units: above it a Gaussian is split, below it is cloned."""
    prune_opacity: float = 0.005
    prune_scale: float = 0.35
    """World units: larger Gaussians go, after the first opacity reset, or after `start` where nothing is reset."""
    reset_every: int = 300
    """Opacities fall to twice `prune_opacity` at multiples of this before `stop`; 0 never resets."""
    max_gaussians: int = 1_000_000
    """No growth beyond this."""
    noise: float = 5e5
    """MCMC: strength of the noise on the means, times their learning rate."""

    def __post_init__(self) -> None:
        if self.strategy not in ("default", "mcmc"):
            raise InputError("density.strategy", "default or mcmc", self.strategy)
        if not 0 <= self.noise < math.inf:
            raise InputError("density.noise", "a finite number of 0 or more", self.noise)
        if self.every < 1:
            raise InputError("density.every", "at least 1 step", self.every)
        if self.max_gaussians < 4:
            raise InputError("density.max_gaussians", "at least 4", self.max_gaussians)
        if not 0 < self.prune_opacity < 1:
            raise InputError("density.prune_opacity", "an opacity between 0 and 1", self.prune_opacity)
        if not self.grow_gradient > 0:
            raise InputError("density.grow_gradient", "a number above 0", self.grow_gradient)


@dataclass(frozen=True)
class RegularizerConfig:
    """Weights of the terms that look at the scene instead of the teacher."""

    tv_rgb: float = 1.0
    """Total variation of the images, squared and mean-normalised; enters before clipping."""
    tv_disparity: float = 1.0
    """The same on the normalised disparity."""
    scale: float = 1.0
    """Mean scale of the Gaussians."""
    opacity: float = 0.0
    """Mean opacity; 3DGS-MCMC uses it to free Gaussians."""
    opacity_entropy: float = 0.0
    """Mean binary entropy of the opacities: pushes them towards 0 or 1."""
    anisotropy: float = 0.0
    """Mean relative excess of longest over shortest axis beyond `max_anisotropy`: against needles."""
    max_anisotropy: float = 10.0

    def __post_init__(self) -> None:
        for name in ("tv_rgb", "tv_disparity", "scale", "opacity", "opacity_entropy", "anisotropy"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"regularizers.{name}", "a finite weight of 0 or more", getattr(self, name))
        if not self.max_anisotropy >= 1:
            raise InputError("regularizers.max_anisotropy", "a ratio of at least 1", self.max_anisotropy)


@dataclass(frozen=True)
class BackgroundConfig:
    """Per view: white, black, else a uniform random colour."""

    white: float = 0.34
    black: float = 0.33

    def __post_init__(self) -> None:
        if min(self.white, self.black) < 0 or self.white + self.black > 1:
            raise InputError("background", "shares of at most 1 together", (self.white, self.black))


@dataclass(frozen=True)
class OptimizeConfig:
    """One optimisation. `steps` says only when to stop; nothing else depends on it, so a run can be extended."""

    steps: int = 2500
    views: int = 4
    """Views per step."""
    resolution: int = 1024
    """Pixels per side, a multiple of 64."""
    seed: int = 0
    schedule_steps: int = 2500
    """Length of the learning-rate schedule."""
    depth_share: float = 0.2
    """Share of the steps that encode normalised disparity instead of colour."""
    scale_noise: float = 0.112
    """Standard deviation of the factor 1 + noise on the scales while training."""
    recompute_encoder: bool = False
    """Encode twice, the second time view by view with gradient: less memory, the same gradient."""
    memory: MemoryMode = "auto"
    """How much to keep instead of computing twice; `auto` follows from the free memory. The result is the same."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    cameras: OrbitConfig = field(default_factory=OrbitConfig)
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    learning_rates: LearningRates = field(default_factory=LearningRates)
    density: DensityConfig = field(default_factory=DensityConfig)
    regularizers: RegularizerConfig = field(default_factory=RegularizerConfig)
    cleanup: CleanupConfig = field(default_factory=lambda: CleanupConfig(enabled=False))
    """Of the finished object; the published code has none."""

    def __post_init__(self) -> None:
        for name in ("steps", "views", "schedule_steps"):
            if getattr(self, name) < 1:
                raise InputError(name, "at least 1", getattr(self, name))
        if self.resolution < 64 or self.resolution % 64:
            raise InputError("resolution", "a multiple of 64, at least 64", self.resolution, "try 1024")
        if not 0.0 <= self.depth_share <= 1.0:
            raise InputError("depth_share", "a share in [0, 1]", self.depth_share)
        if not 0 <= self.scale_noise < math.inf:
            raise InputError("scale_noise", "a finite number of 0 or more", self.scale_noise)
        if self.memory not in MODES:
            raise InputError("memory", f"one of {', '.join(MODES)}", self.memory)
