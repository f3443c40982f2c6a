"""CLIP score: the mean cosine of pictures and prompt in an encoder that was trained to match the two."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from .measure import Measure
from .views import Views

KINDS = ("clip", "siglip")
"""`model_type` of the folders that are taken."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's, where a folder says none."""
BATCH = 8
SAFE = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is downloaded, and no code of the folder is run."""


@dataclass(frozen=True)
class ClipEncoder:
    """An image and text encoder in transformers' layout, from a folder."""

    name: str
    model: Any
    tokenizer: Any
    size: int
    mean: Tensor  # [3]
    std: Tensor  # [3]

    @staticmethod
    def load(folder: Path, device: torch.device) -> ClipEncoder:
        """From config.json, weights, tokenizer and preprocessor_config.json. Errors: InputError."""
        from transformers import AutoModel, AutoTokenizer

        try:
            model = AutoModel.from_pretrained(folder, use_safetensors=True, **SAFE)
            model = model.eval().requires_grad_(False).to(device)
            tokenizer = AutoTokenizer.from_pretrained(folder, **SAFE)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
            raise InputError("weights", "a CLIP in transformers' layout", f"{folder} ({reason})") from error
        said = _json(folder / "preprocessor_config.json")
        mean, std = (torch.tensor(said.get(k, v), device=device) for k, v in (("image_mean", MEAN), ("image_std", STD)))
        return ClipEncoder(folder.name, model, tokenizer, int(model.config.vision_config.image_size), mean, std)

    @torch.no_grad()
    def text(self, prompt: str) -> Tensor:  # [1, D]
        """Embedding of length 1."""
        length = int(self.model.config.text_config.max_position_embeddings)
        padding = "max_length" if self.model.config.model_type == "siglip" else False  # as it was trained
        ids = self.tokenizer([prompt], padding=padding, truncation=True, max_length=length, return_tensors="pt")
        known = {name: value.to(self.mean.device) for name, value in ids.items() if name != "token_type_ids"}
        return _unit(self.model.get_text_features(**known))

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:  # [V, D] of [V, H, W, 3]
        """Embeddings of length 1."""
        found = []
        for part in images.split(BATCH):
            pixels = part.to(self.mean).permute(0, 3, 1, 2)
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
            pixels = (pixels - self.mean[:, None, None]) / self.std[:, None, None]
            found.append(_unit(self.model.get_image_features(pixel_values=pixels)))
        return torch.cat(found)


def _unit(output: Any) -> Tensor:
    """Features of either generation of transformers, at length 1."""
    features = output if isinstance(output, Tensor) else output.pooler_output
    return F.normalize(features.float(), dim=-1)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def clip_folders(weights: Path) -> list[Path]:
    """Folders in `weights` that hold an encoder."""
    folders = sorted(path.parent for path in weights.glob("*/config.json")) if weights.is_dir() else []
    return [folder for folder in folders if _json(folder / "config.json").get("model_type") in KINDS]


def clip_score(views: Views, prompt: str, encoder: ClipEncoder) -> Measure:
    """Mean cosine of the views' embeddings with the prompt's, without view words."""
    cosine = (encoder.images(views.images) @ encoder.text(prompt).T).mean()
    protocol = f"mean cosine with {prompt!r} in {encoder.name}; {views.protocol}"
    return Measure(f"clip, {encoder.name}", float(cosine), protocol)


def clip_scores(views: Views, prompt: str, weights: Path, device: torch.device) -> list[Measure]:
    """One for every encoder in the folder; a line that says what is missing where there is none."""
    folders = clip_folders(weights)
    if not folders:
        missing = (
            f"missing: put folders such as openai/clip-vit-large-patch14 and laion/CLIP-ViT-L-14-laion2B-s32B-b82K "
            f"(config.json, model.safetensors, tokenizer, preprocessor_config.json) into {weights}"
        )
        return [Measure("clip", None, "mean cosine of views and prompt", missing=missing)]
    return [clip_score(views, prompt, ClipEncoder.load(folder, device)) for folder in folders]
