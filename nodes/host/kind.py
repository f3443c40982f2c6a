"""What a MODEL is: by its patches, and by the file names in the graph that leads to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import comfy.latent_formats
import comfy.model_sampling

from ...dreamer_core.teachers.kinds import TeacherKind, few_step_by_name

FILES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
ZERO_SNR_SIGMA = 1000.0
"""Beyond it there is no signal: SDXL's own schedule ends at 14.6, a rescaled one at 4,518."""


def kind_of(model: Any, prompt: Mapping[str, Any] | None = None, node_id: str | None = None) -> TeacherKind:
    """What the MODEL of node `node_id` in the API graph `prompt` is, as far as settings depend on it."""
    sampling = model.get_model_object("model_sampling")
    forms = {
        "flow": comfy.model_sampling.CONST,
        "x0": comfy.model_sampling.X0,
        "edm": comfy.model_sampling.EDM,
        "v": comfy.model_sampling.V_PREDICTION,
    }
    prediction = next((name for name, form in forms.items() if isinstance(sampling, form)), "eps")
    distilled = any(type_.__name__ == "ModelSamplingDiscreteDistilled" for type_ in type(sampling).__mro__)
    latents = model.get_model_object("latent_format")
    return TeacherKind(
        prediction,
        zero_terminal_snr=_has_zero_snr(sampling),
        few_step="its LCM sampling" if distilled else few_step_by_name(model_files(prompt or {}, node_id)),
        playground=isinstance(latents, comfy.latent_formats.SDXL_Playground_2_5),
    )


def _has_zero_snr(sampling: Any) -> bool:
    """CosXL's sigmas, too, reach far without being rescaled, but theirs are continuous."""
    discrete = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    return discrete and float(sampling.sigmas[-1]) > ZERO_SNR_SIGMA


def model_files(prompt: Mapping[str, Any], node_id: str | None, name: str = "model") -> list[str]:
    """File names that nodes upstream of an input hold, in an API graph; nearest first, none that is switched off."""
    start = prompt.get(str(node_id), {}).get("inputs", {}).get(name)
    found: list[str] = []
    waiting, seen = [start], set()
    while waiting:
        link = waiting.pop(0)
        if not _is_link(link) or str(link[0]) in seen:
            continue
        seen.add(str(link[0]))
        inputs = prompt.get(str(link[0]), {}).get("inputs", {})
        if inputs.get("strength_model") != 0:
            found += (text for value in inputs.values() for text in _files(value))
        waiting += inputs.values()
    return found


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)


def _files(value: Any) -> Iterator[str]:
    """Of a widget; those that hold several LoRAs are dictionaries with a switch and a strength each."""
    if isinstance(value, str):
        if value.lower().endswith(FILES):
            yield value
    elif isinstance(value, Mapping) and value.get("on", True) and value.get("strength", 1) != 0:
        for inner in value.values():
            yield from _files(inner)
