"""What a MODEL is: by its patches, and by the file names in the graph that leads to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import comfy.model_sampling
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link

from ...dreamer_core.teachers.kinds import TeacherKind, few_step_by_name
from .noise import in_playgrounds_latents

FILES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
ZERO_SNR_SIGMA = 1000.0
"""Beyond it there is no signal: SDXL's own schedule ends at 14.6, a rescaled one at 4,518."""
LEADS_ON = ("MODEL", "LORA_STACK", "STRING", "COMBO", "*")
"""Types of the outputs behind which a MODEL's files may be named; PIPEs, too. Not pictures, which another one drew."""
IN_A_PROMPT = re.compile(r"<lora:([^:>]+):?(-?[\d.]*)")
"""As some loaders read LoRAs off a text."""


def kind_of(model: Any, graph: DynamicPrompt | None = None, node_id: str | None = None) -> TeacherKind:
    """What the MODEL of a node in a graph is, as far as settings depend on it."""
    sampling = model.get_model_object("model_sampling")
    forms = {  # derived classes before their bases: EDM is a V_PREDICTION
        "flow": comfy.model_sampling.CONST,
        "x0": comfy.model_sampling.X0,
        "edm": comfy.model_sampling.EDM,
        "v": comfy.model_sampling.V_PREDICTION,
    }
    prediction = next((name for name, form in forms.items() if isinstance(sampling, form)), "eps")
    distilled = any(type_.__name__ == "ModelSamplingDiscreteDistilled" for type_ in type(sampling).__mro__)
    found = Files() if graph is None or node_id is None else files_behind(graph, node_id)
    return TeacherKind(
        prediction,
        zero_terminal_snr=_has_zero_snr(sampling),
        few_step="its LCM sampling" if distilled else few_step_by_name(found.checkpoints, found.loras),
        playground=in_playgrounds_latents(model),
    )


def _has_zero_snr(sampling: Any) -> bool:
    """CosXL's sigmas, too, reach far without being rescaled, but theirs are continuous."""
    discrete = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    return discrete and float(sampling.sigmas[-1]) > ZERO_SNR_SIGMA


@dataclass
class Files:
    """Names of files that a MODEL was made of, nearest first."""

    checkpoints: list[str] = field(default_factory=list)
    loras: list[str] = field(default_factory=list)


def files_behind(graph: DynamicPrompt, node_id: str, name: str = "model") -> Files:
    """What the nodes name that lead to an input; LoRAs that are switched off or have no strength apart.

    Of a node that chooses among several inputs all are followed.
    """
    found, seen = Files(), set()
    waiting = [_inputs(graph, node_id).get(name)]
    while waiting:
        link: Any = waiting.pop(0)
        if not is_link(link) or link[0] in seen or not _leads_on(graph, link):
            continue
        seen.add(link[0])
        inputs = _inputs(graph, link[0])
        for key, value in inputs.items():
            if not _switched_off(graph, key, inputs):
                _note(key, value, found)
        waiting += inputs.values()
    return found


def _inputs(graph: DynamicPrompt, node_id: str) -> Mapping[str, Any]:
    return graph.get_node(node_id)["inputs"] if graph.has_node(node_id) else {}


def _leads_on(graph: DynamicPrompt, link: list) -> bool:
    """Whether a MODEL, or the name of its file, may come through a link."""
    known = import_module("nodes").NODE_CLASS_MAPPINGS  # the host's
    kind = graph.get_node(link[0])["class_type"] if graph.has_node(link[0]) else ""
    types = getattr(known.get(kind), "RETURN_TYPES", ())
    if not 0 <= int(link[1]) < len(types):
        return True  # not known here
    type_ = types[int(link[1])]
    return not isinstance(type_, str) or type_ in LEADS_ON or "PIPE" in type_


def _switched_off(graph: DynamicPrompt, key: str, inputs: Mapping[str, Any]) -> bool:
    """Whether another input of the node says that the file of `key` does not count: `switch_1`, `lora_wt_2`."""
    for other, value in inputs.items():
        if _number(other) != _number(key) or other == key or "clip" in other:
            continue
        if is_link(value):
            value = next((v for v in _inputs(graph, value[0]).values() if isinstance(v, int | float)), None)
        if re.match(r"switch", other) and value in ("Off", "off", False):
            return True
        if re.search(r"strength|weight|_wt|_str", other) and value == 0:
            return True
    return False


def _number(name: str) -> str:
    """The digits that a name ends with."""
    return name[len(name.rstrip("0123456789")) :]


def _is_zero(weight: str) -> bool:
    """Whether what a text says behind a LoRA's name is the number 0; a slip of the pen is not."""
    try:
        return float(weight) == 0
    except ValueError:
        return False


def _note(key: str, value: Any, found: Files) -> None:
    """Add the files that a widget names; some widgets hold several LoRAs, each with a switch and a strength."""
    if isinstance(value, str):
        for lora, weight in IN_A_PROMPT.findall(value):
            if not _is_zero(weight):
                found.loras.append(lora)
        if value.lower().endswith(FILES):
            (found.loras if "lora" in key.lower() else found.checkpoints).append(value)
    elif isinstance(value, Mapping) and value.get("on", True) and value.get("strength", 1) != 0:
        for inner_key, inner in value.items():
            _note(f"{key}.{inner_key}", inner, found)
