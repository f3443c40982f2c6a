"""What one layer of a LoRA file adds to a weight, for every kind that trainers of SDXL write.

LoRA and its convolutions with a middle factor (LoCon), LoHa and LoKr (LyCORIS, 2309.14859), each with DoRA's magnitudes
(2402.09353) or without, and whole differences of weights, biases and norms. The formulas are the papers'; where tools
differ (the axis of DoRA's norm, the scale of an unfactored LoKr), it is as in ComfyUI, so that a file gives the same
result in the node and here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

PARTS = {
    "LoRA": ("down", "up", "mid"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    "LoKr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    "a difference": ("diff", "w_norm"),
}
"""Tensors of each kind of change to a weight."""
NEEDED = {
    "LoRA": (("down",), ("up",)),
    "LoHa": tuple((name,) for name in PARTS["LoHa"][:4]),
    "LoKr": (("lokr_w1", "lokr_w1_a"), ("lokr_w1", "lokr_w1_b"), ("lokr_w2", "lokr_w2_a"), ("lokr_w2", "lokr_w2_b")),
    "a difference": (),
}
"""Of each tuple one must be there."""
BIAS = ("diff_b", "b_norm")
DORA = "dora_scale"
LORA_ENDING = (
    r"(?:\.lora|_lora|\.lora_linear_layer)?"
    r"\.(?:(?P<down>lora_down|lora_A|down)|(?P<up>lora_up|lora_B|up)|(?P<mid>lora_mid))(?:\.[\w-]+)?\.weight"
)
ENDING = re.compile(
    r"(?P<layer>.+?)(?:"
    + LORA_ENDING
    + r"|\.(?P<part>(?:hada|lokr)_\w+|diff|diff_b|w_norm|b_norm|dora_scale)"
    + r"|\.(?P<magnitude>lora_magnitude_vector)(?:\.(?!weight$)[\w-]+)?(?:\.weight)?)"
)
"""A tensor's name: the layer, and which part of it this is."""
REFUSED = {
    "OFT": ("oft_blocks", "oft_diag"),
    "GLoRA": (".a1.weight", ".b1.weight"),
    "(IA)^3": (".on_input",),
    "set weights": (".set_weight", ".reshape_weight"),
}
"""Kinds that are not merged here, and what their names hold."""


def part_of(name: str) -> tuple[str, str] | None:
    """The layer and the part that a tensor's name means; None where it means neither."""
    found = ENDING.fullmatch(name)
    if found is None:
        return None
    if found["magnitude"]:
        return found["layer"], DORA
    for part in ("down", "up", "mid"):
        if found[part]:
            return found["layer"], part
    known = (*(p for parts in PARTS.values() for p in parts), *BIAS, DORA)
    return (found["layer"], found["part"]) if found["part"] in known else None


@dataclass
class LoraLayer:
    """The parts of one layer's change, by their names in `PARTS`, `BIAS` and `DORA`."""

    parts: dict[str, Tensor] = field(default_factory=dict)
    alpha: float | None = None

    @property
    def kind(self) -> str:
        """Of the change to the weight; empty where there is none."""
        return next((kind for kind, names in PARTS.items() if any(name in self.parts for name in names)), "")

    @property
    def missing(self) -> list[str]:
        """Parts without which the change cannot be made."""
        needed = NEEDED[self.kind] if self.kind else ()
        missing = [names[-1] for names in needed if not any(name in self.parts for name in names)]
        return missing or ([] if self.kind or any(b in self.parts for b in BIAS) else ["the change"])

    @property
    def rank(self) -> int | None:
        """r, by which alpha is divided; None where the change has no factors."""
        for name in ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
            if name in self.parts:
                return int(self.parts[name].shape[0])
        return None

    def change(self) -> Tensor:
        """What is added to the weight at weight 1, in float32 and in the shape that the parts have.

        Raises RuntimeError where parts do not fit each other.
        """
        p = {name: tensor.float() for name, tensor in self.parts.items()}
        scale = 1.0 if self.alpha is None or self.rank is None else self.alpha / self.rank
        return scale * CHANGES[self.kind](p)

    def merged(self, weight: Tensor, strength: float) -> Tensor:
        """A weight with the change, in float32. Raises RuntimeError where it does not fit."""
        plain = weight.detach().float()
        change = self.change().to(plain.device)
        if change.numel() != plain.numel() or change.shape[0] != plain.shape[0]:
            raise RuntimeError(f"a layer is {tuple(change.shape)}, here {tuple(plain.shape)}")
        change = change.reshape(plain.shape)
        if DORA not in self.parts:
            return plain + strength * change
        return plain + strength * (decomposed(plain, change, self.parts[DORA].float().to(plain.device)) - plain)

    def merged_bias(self, bias: Tensor, strength: float) -> Tensor:
        """A bias with its difference, in float32. Raises RuntimeError where it does not fit."""
        change = next(self.parts[name] for name in BIAS if name in self.parts).float().to(bias.device)
        if change.shape != bias.shape:
            raise RuntimeError(f"a bias is {tuple(change.shape)}, here {tuple(bias.shape)}")
        return bias.detach().float() + strength * change


def _lora(p: Mapping[str, Tensor]) -> Tensor:
    """B A; with a middle factor M [r, r, kh, kw] of a convolution: sum_pq B_op M_pq A_qi."""
    if "mid" in p:
        return torch.einsum("op,pqhw,qi->oihw", p["up"].flatten(1), p["mid"], p["down"].flatten(1))
    return (p["up"].flatten(1) @ p["down"].flatten(1)).reshape(p["up"].shape[0], *p["down"].shape[1:])


def _factored(a: Tensor, b: Tensor, core: Tensor | None) -> Tensor:
    """a b, or the Tucker product of a convolution: sum_ij core_ijhw a_ip b_jr [p, r, h, w]."""
    return a @ b if core is None else torch.einsum("ijhw,ip,jr->prhw", core, a, b)


def _loha(p: Mapping[str, Tensor]) -> Tensor:
    """(a1 b1) * (a2 b2), elementwise."""
    first = _factored(p["hada_w1_a"], p["hada_w1_b"], p.get("hada_t1"))
    return first * _factored(p["hada_w2_a"], p["hada_w2_b"], p.get("hada_t2"))


def _lokr(p: Mapping[str, Tensor]) -> Tensor:
    """The Kronecker product of w1 and w2, each whole or of factors."""
    w1 = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
    w2 = p["lokr_w2"] if "lokr_w2" in p else _factored(p["lokr_w2_a"], p["lokr_w2_b"], p.get("lokr_t2"))
    return torch.kron(w1.reshape(*w1.shape, *(1,) * (w2.dim() - w1.dim())), w2)


def _difference(p: Mapping[str, Tensor]) -> Tensor:
    return p["diff"] if "diff" in p else p["w_norm"]


CHANGES = {"LoRA": _lora, "LoHa": _loha, "LoKr": _lokr, "a difference": _difference}


def decomposed(weight: Tensor, change: Tensor, magnitudes: Tensor) -> Tensor:
    """DoRA: the changed weight with these magnitudes in place of its norms (2402.09353, eq. 5).

    Magnitudes by inputs [1, in, ...] are those of the changed weight's columns, as published. By outputs [out, ...]
    they replace the norms of the rows that the weight had before, as ComfyUI has it.
    """
    changed = weight + change
    if magnitudes.shape[0] == weight.shape[0]:
        norms = weight.flatten(1).norm(dim=1).view(-1, *(1,) * (weight.dim() - 1))
        magnitudes = magnitudes.reshape(norms.shape)
    else:
        norms = changed.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, *(1,) * (weight.dim() - 2))
        magnitudes = magnitudes.reshape(norms.shape)
    return changed * (magnitudes / (norms + torch.finfo(torch.float32).eps))
