"""The mutable state of a run: parameters, Adam, density statistics, step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..gaussians import GSPLAT_NAMES, Gaussians
from .density import initial_state
from .learning_rates import LearningRates

MAX_BAD_STEPS = 10
"""So many steps in a row with NaN or inf in the gradient end a run."""


@dataclass
class OptimizationState:
    """Everything that a run needs to go on; names of parameters are gsplat's."""

    params: dict[str, torch.nn.Parameter]
    optimizers: dict[str, torch.optim.Optimizer]
    density: dict[str, Any] = field(default_factory=initial_state)
    step: int = 0
    """The next step to make; equals the number of steps made."""
    bad_steps: int = 0
    """Steps in a row whose gradient held NaN or inf."""
    updating: bool = False
    """In the middle of a change: Adam has moved, the step is not counted yet. Such a state must not be saved."""
    good: dict[str, Tensor] | None = None
    """What `tensors` gave before the bad steps that the state is in; None where it is in none, or began with NaN."""

    @staticmethod
    def create(gaussians: Gaussians, rates: LearningRates) -> OptimizationState:
        """A fresh run that starts from `gaussians` (they are copied)."""
        params = gaussians.as_params()
        if params["shN"].shape[1] == 0:
            params["shN"].requires_grad_(False)  # nothing to optimise
        optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam([param], lr=1.0, betas=rates.betas, eps=1e-15)
            for name, param in params.items()
            if param.requires_grad
        }
        return OptimizationState(params, optimizers)

    @property
    def ruined(self) -> bool:
        """Whether no step can follow: NaN or inf in too many gradients, or no Gaussian left."""
        return self.bad_steps >= MAX_BAD_STEPS or len(self.params["means"]) == 0

    @property
    def gaussians(self) -> Gaussians:
        """The current Gaussians; gradients flow into the parameters."""
        return Gaussians.from_params(self.params)

    @property
    def sound(self) -> bool:
        """Whether it is worth keeping: steps can follow, and its Gaussians are numbers."""
        return not self.ruined and self.gaussians.check_finite() is None

    def remember(self) -> None:
        """Keep the state as it is now, before a bad step changes it."""
        self.good = self.tensors() if self.sound else None

    def last_good(self, rates: LearningRates) -> OptimizationState | None:
        """Itself where it is worth keeping; else the state before the bad steps, if there is one."""
        if self.sound:
            return self
        return None if self.good is None else self.from_tensors(self.good, rates, self.params["means"].device)

    def drop_gradients(self) -> None:
        """Of a step that was not finished."""
        for param in self.params.values():
            param.grad = None

    def set_rates(self, rates: LearningRates, schedule_steps: int, factors: Mapping[str, float] | None = None) -> None:
        """Adam's learning rates for the current step, times the `factors` by name."""
        for ours, theirs in GSPLAT_NAMES.items():
            if theirs in self.optimizers:
                rate = rates.at(ours, self.step, schedule_steps) * (factors or {}).get(theirs, 1.0)
                for group in self.optimizers[theirs].param_groups:
                    group["lr"] = rate

    def descend(self, rates: LearningRates, schedule_steps: int, factors: Mapping[str, float] | None = None) -> None:
        """One step of Adam along the gradients, which are gone then; the step does not count yet.

        A parameter whose factor is 0 keeps its values and its moments.
        """
        self.set_rates(rates, schedule_steps, factors)
        for name, optimizer in self.optimizers.items():
            if factors is None or factors.get(name, 1.0) > 0:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """A flat snapshot that `from_tensors` restores exactly."""
        out: dict[str, Tensor] = {f"params.{k}": v.detach() for k, v in self.params.items()}
        for name, optimizer in self.optimizers.items():
            for key, value in optimizer.state[self.params[name]].items():
                out[f"adam.{name}.{key}"] = torch.as_tensor(value)
        for key, value in self.density.items():
            if isinstance(value, Tensor):
                out[f"density.{key}"] = value
        out["step"] = torch.tensor(self.step)
        out["bad_steps"] = torch.tensor(self.bad_steps)
        return {k: v.detach().cpu().contiguous().clone() for k, v in out.items()}

    @staticmethod
    def from_tensors(
        tensors: dict[str, Tensor], rates: LearningRates, device: torch.device | str = "cpu"
    ) -> OptimizationState:
        """The state that `tensors()` described, on `device`."""
        params = {k.removeprefix("params."): v for k, v in tensors.items() if k.startswith("params.")}
        state = OptimizationState.create(Gaussians.from_params(params).to(device), rates)
        for key, value in tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "adam":
                name, _, entry = rest.rpartition(".")
                on_device = value if entry == "step" else value.to(device)
                state.optimizers[name].state[state.params[name]][entry] = on_device.clone()
            elif kind == "density":
                state.density[rest] = value.to(device).clone()
        state.step = int(tensors["step"])
        state.bad_steps = int(tensors["bad_steps"])
        return state
