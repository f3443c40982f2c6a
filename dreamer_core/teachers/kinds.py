"""What a teacher is, as far as its settings depend on it: its parameterisation, and whether it was distilled."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

FAMILY = r"(?:sdxl|xl|sd)"
DISTILLED = re.compile(
    r"""
    (?: (?<![A-Za-z]) | (?<=[a-z0-9])(?=[A-Z]) | (?<=xl) | (?<=XL) | (?<=Xl) )  # a word's beginning, also in camel case
    (?i: (?P<word> turbo(?:vision\w*)? | lightning | lcm | dmd | tcd | tdd | pcm | ladd | sdxs | nitrosd | perflow
                 | vegart | hyper | flash )
    ) (?= lora | [vV]?\d | [A-Z] | [^A-Za-z] | $ )""",
    re.VERBOSE,
)
"""A word of a file name that says, or may say, that a model was distilled to draw in few steps."""
STEPS = re.compile(r"(?<!\d)(?P<count>\d{1,2})[-_ ]?steps?(?![-_ ]?\d|[a-z])", re.IGNORECASE)
MOST_STEPS = 16
KEEPS_GUIDANCE = re.compile(r"normalcfg|(?<![a-z])cfg[-_ ]?lora|lora[-_ ]?cfg|cfg[-_ ]?preserved", re.IGNORECASE)
"""Distilled ones that want a usual guidance scale: Hyper-SD's CFG LoRAs, PCM's "normalcfg"."""
GENERIC = re.compile(r"pytorch_lora_weights|diffusion_pytorch_model|adapter_model|model|unet|lora|[0-9a-f]{40}")
"""File and folder names that say nothing; the folder around them does."""
BESIDE_HYPER = re.compile(rf"^[-_ ]?(?:$|{FAMILY}|\d|v\d|lora|fp16|baked|vae|step)", re.IGNORECASE)
OF_THE_WEATHER = re.compile(r"^[-_ ]?(?:bolt|storm|strike|effect|fx|magic|hair|style|mcqueen)", re.IGNORECASE)


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
        text = names.get(self.prediction, self.prediction.upper())
        if self.playground:
            text += " in Playground 2.5's latents"
        if self.zero_terminal_snr:
            text += " with zero terminal SNR"
        return f"{text}, few steps (by {self.few_step})" if self.few_step else text


def few_step_by_name(checkpoints: Iterable[str], loras: Iterable[str] = ()) -> str:
    """The first file that its name says was distilled to draw in few steps (Turbo, Lightning, LCM, Hyper-SD, DMD2, TCD,
    PCM, Flash Diffusion, or at most 16 steps named), or "".

    LoRAs are about all sorts of things, so that for them words such as turbo count beside a family ("sdxl") or a number
    of steps alone. Distilled ones that keep guidance are none.
    """
    for names, is_lora in ((checkpoints, False), (loras, True)):
        for name in names:
            if _says_few(said := _telling(name), is_lora):
                return said
    return ""


def _telling(path: str) -> str:
    """A path's part that says something, without the extension."""
    parts = [re.sub(r"\.(?:safetensors|sft|ckpt|pt|pth|bin|gguf)$", "", part) for part in re.split(r"[/\\]", path)]
    while len(parts) > 1 and (GENERIC.fullmatch(parts[-1]) or parts[-1] == "snapshots"):
        parts.pop()
    return parts[-1]


def _says_few(name: str, is_lora: bool) -> bool:
    if KEEPS_GUIDANCE.search(name):
        return False
    if any(int(found["count"]) <= MOST_STEPS for found in STEPS.finditer(name)):
        return True
    return any(_counts(found["word"].lower(), name, found, is_lora) for found in DISTILLED.finditer(name))


def _counts(word: str, name: str, found: re.Match[str], is_lora: bool) -> bool:
    before, after = name[: found.start()], name[found.end() :]
    beside = re.search(rf"{FAMILY}[-_ ]?$", before, re.I) or re.match(rf"[-_ ]?(?:{FAMILY}(?![a-z])|lora)", after, re.I)
    if word == "flash":
        return bool(beside or re.match(r"[-_ ]?diffusion", after, re.I))
    if word == "hyper":
        return bool(beside or (not is_lora and BESIDE_HYPER.match(after)))
    if word == "turbo" or word == "lightning":
        return bool(beside) if is_lora else not OF_THE_WEATHER.match(after)
    return True
