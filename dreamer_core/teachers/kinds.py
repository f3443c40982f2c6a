"""What a teacher is, as far as its settings depend on it: its parameterisation, and whether it was distilled."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""The words of a file name, also of one in camel case."""
DISTILLED = frozenset(["lcm", "turbo", "lightning", "dmd", "tcd", "pcm", "sdxs", "ladd"])
FAMILIES = frozenset(["sd", "xl", "sdxl", "diffusion"])
"""After "hyper" and "flash", which alone say nothing."""
THINGS = frozenset(["bolt", "bolts", "storm", "strike", "strikes", "effect", "effects", "fx", "magic", "hair", "style"])
"""After "lightning": a LoRA of the weather."""


@dataclass(frozen=True)
class TeacherKind:
    """What decides which settings suit a teacher."""

    prediction: str = "eps"
    """eps, v, x0, edm or flow."""
    zero_terminal_snr: bool = False
    few_step: str = ""
    """What says that it was distilled to draw in few steps; empty for an ordinary model."""
    playground: bool = False

    @property
    def words(self) -> str:
        """For people, e.g. "v-prediction with zero terminal SNR"."""
        names = {"eps": "epsilon-prediction", "v": "v-prediction", "x0": "x0-prediction", "flow": "flow matching"}
        text = "EDM of Playground 2.5" if self.playground else names.get(self.prediction, self.prediction.upper())
        if self.zero_terminal_snr:
            text += " with zero terminal SNR"
        return f"{text}, few steps (by {self.few_step})" if self.few_step else text


def few_step_by_name(names: Iterable[str]) -> str:
    """The first file name that says that a model or LoRA was distilled to draw in few steps, or "".

    Turbo, Lightning, LCM, Hyper-SD, DMD2, TCD, PCM, Flash Diffusion, and whatever names its steps; but not Hyper-SD's
    LoRAs that keep guidance ("CFG").
    """
    for name in names:
        stem = name.replace("\\", "/").rpartition("/")[2]
        words = [word.lower() for word in WORDS.findall(stem)]
        if "cfg" in words and "lora" in "".join(words):
            continue
        if any(_says_few(word, after) for word, after in zip(words, [*words[1:], ""])):
            return stem
    return ""


def _says_few(word: str, after: str) -> bool:
    word = re.sub(r"^(?:sd)?xl(?=.)", "", word)
    if word in ("hyper", "flash"):
        return after in FAMILIES or after.isdigit()
    if word == "lightning":
        return after not in THINGS
    return word in DISTILLED or (word.isdigit() and after in ("step", "steps"))
