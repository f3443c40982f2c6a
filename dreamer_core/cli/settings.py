"""The configuration of a run together with its prompt, as `--set` and `--show` name both."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ..optimize import OptimizeConfig
from ..prompts import PromptConfig


@dataclass(frozen=True)
class GenerateConfig(OptimizeConfig):
    """Every setting of `generate` that has a name: the optimisation's as they are, the prompt's as `prompt.*`."""

    prompt: PromptConfig = field(default_factory=lambda: PromptConfig("an object"))

    @staticmethod
    def of(config: OptimizeConfig, prompt: PromptConfig) -> GenerateConfig:
        """Both in one."""
        return GenerateConfig(**{f.name: getattr(config, f.name) for f in fields(OptimizeConfig)}, prompt=prompt)

    @property
    def optimization(self) -> OptimizeConfig:
        """The part that the optimiser knows."""
        return OptimizeConfig(**{f.name: getattr(self, f.name) for f in fields(OptimizeConfig)})
