"""An SDXL of diffusers' classes as noise predictor, encoder and text encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..kinds import TeacherKind
from ..moves import nearest_timestep
from ..multiview.cameras import AZIMUTHS, shifted_sigmas
from ..multiview.group import check_groups, whole_groups
from ..noise_schedule import NoiseSchedule, eps_from_output, network_input
from ..teacher import Conditioning, PlainTeacher
from .encoder_memory import saved_bytes_per_pixel
from .multiview import InstalledAdapter
from .prompt_tokens import Token, prompt_chunks

log = logging.getLogger(__name__)

CHUNKS_AT_ONCE = 16
"""Chunks of 77 tokens per call of a text encoder."""


@dataclass
class TextTower:
    """One of SDXL's two text encoders with its tokenizer."""

    tokenizer: Any
    model: Any

    def chunks(self, prompt: str) -> list[list[Token]]:
        """The prompt in chunks of 77 weighted tokens."""

        def ids(words: str) -> list[int]:
            return list(self.tokenizer(words, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

        special = self.tokenizer
        return prompt_chunks(
            prompt,
            ids,
            start=special.bos_token_id,
            end=special.eos_token_id,
            pad=special.pad_token_id,
            length=int(self.model.config.max_position_embeddings),
        )

    def encode(self, prompts: Sequence[str], device: torch.device) -> tuple[list[Tensor], Tensor]:
        """Penultimate states [77 k, D] of every prompt of k chunks, and the model's first output for the first chunks.

        A weight moves a token's state away from that of the empty prompt at its place, or towards it.
        """
        chunks = [self.chunks(prompt) for prompt in prompts]
        (empty,) = self.chunks("")
        rows = [chunk for of_prompt in chunks for chunk in of_prompt] + [empty]
        states, first = [], []
        for i in range(0, len(rows), CHUNKS_AT_ONCE):
            ids = torch.tensor([[token.id for token in row] for row in rows[i : i + CHUNKS_AT_ONCE]], device=device)
            output = self.model(ids, output_hidden_states=True)
            states.append(output.hidden_states[-2].float())
            first.append(output[0].float())
        state, outputs = torch.cat(states), torch.cat(first)
        weights = state.new_tensor([[token.weight for token in row] for row in rows])[..., None]
        moved = state[-1] + weights * (state - state[-1])
        state = torch.where(weights == 1.0, state, moved)
        counts = [len(of_prompt) for of_prompt in chunks]
        starts = torch.tensor([0, *counts[:-1]]).cumsum(0)
        return [part.flatten(0, 1) for part in state[:-1].split(counts)], outputs[starts.to(outputs.device)]


@contextmanager
def normal_tensors(grad: bool) -> Iterator[None]:
    """Results are ordinary tensors even in a caller's inference mode (inference_mode(False) alone grants grad)."""
    with torch.inference_mode(False), torch.set_grad_enabled(grad):
        yield


def checkpoint_blocks(encoder: nn.Module) -> None:
    """Recompute every residual and attention block of a VAE encoder in the backward pass instead of keeping it."""
    from torch.utils.checkpoint import checkpoint

    for module in encoder.modules():
        if type(module).__name__ in ("ResnetBlock2D", "Attention", "AutoencoderTinyBlock"):
            plain = module.forward
            module.forward = partial(checkpoint, plain, use_reentrant=False)


class DiffusersSDXL(PlainTeacher):
    """Teacher and TextEncoder over diffusers' SDXL (Podell et al., 2307.01952).

    Size conditioning is original = target = render size and crop (0, 0). The UNet runs in its own precision, everything
    outside it in float32. `max_batch` splits larger batches; out of GPU memory, a batch is halved and tried again.
    """

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        towers: Sequence[TextTower],
        schedule: NoiseSchedule,
        source: dict[str, Any],
        max_batch: int | None = None,
        few_step: str = "",
        multiview: InstalledAdapter | None = None,
    ) -> None:
        self._few_step = few_step
        self.multiview = multiview
        self.replicas: Sequence[Any] = ()
        """While others share its views: all of them, itself included; see `optimize.replicas`."""
        self._sizes: dict[tuple[int, int], Tensor] = {}
        self._checkpointed = self._compiled = False
        self._unet = unet
        self._vae = vae
        self._towers = list(towers)
        self._schedule = schedule
        self._levels = schedule.sigmas.to(self.device, torch.float32)
        self._source = source
        self.max_batch = max_batch
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self._scale = float(vae.config.scaling_factor)
        self._shift = float(getattr(vae.config, "shift_factor", None) or 0.0)

    @property
    def sigmas(self) -> Tensor:  # [T] ascending, float64 on the CPU
        return self._schedule.sigmas

    @property
    def device(self) -> torch.device:
        """Where the UNet and the VAE are."""
        return next(self._unet.parameters()).device

    @property
    def latent_channels(self) -> int:
        return int(self._unet.config.in_channels)

    @property
    def kind(self) -> TeacherKind:
        """What it is by its schedule, and by what its loader found."""
        return TeacherKind(
            "v" if self._schedule.prediction == "v_prediction" else "eps",
            zero_terminal_snr=self._schedule.zero_terminal_snr,
            few_step=self._few_step,
        )

    def describe(self) -> dict[str, Any]:
        """What `run.json` should say about the model: sources with content keys, parameterisation, precisions."""
        return {
            **self._source,
            "prediction": self._schedule.prediction,
            "zero_terminal_snr": self._schedule.zero_terminal_snr,
            "unet_dtype": str(self._unet.dtype).removeprefix("torch."),
            "vae_dtype": str(self._vae.dtype).removeprefix("torch."),
            "vae_class": type(self._vae).__name__,
            "scaling_factor": self._scale,
            "unet_parameters": sum(p.numel() for p in self._unet.parameters()),
        }

    # -- memory and speed ----------------------------------------------------------------------------------------

    def encoder_bytes_per_pixel(self) -> float:
        """What the VAE encoder keeps for its backward pass, measured on a small image."""
        return saved_bytes_per_pixel(self._vae.encoder)

    def limit_memory(self, *, checkpoint_encoder: bool, max_batch: int | None) -> None:
        """Recompute the encoder's blocks in the backward pass, and split UNet calls; results stay the same.

        Blocks that are recomputed stay so: a teacher that is kept for another run has less to keep than it might.
        """
        if checkpoint_encoder and not self._checkpointed:
            checkpoint_blocks(self._vae.encoder)
            self._checkpointed = True
        self.max_batch = max_batch

    def compile(self) -> None:
        """torch.compile the UNet and the VAE encoder: a slow first step, then faster ones."""
        if self._compiled:
            return
        self._unet.compile()
        self._vae.encoder.compile()
        self._compiled = True

    # -- noise ---------------------------------------------------------------------------------------------------

    def eps(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """Predicted noise [B, 4, h, w], float32, of VE latents `x` [B, 4, h, w] at `sigma` [B]; makes no graph."""
        if not len(x) == len(sigma) == len(cond):
            raise ValueError(f"eps needs equal batches, but got {len(x)}, {len(sigma)} and {len(cond)}")
        return self.in_parts(lambda part: self._eps(x[part], sigma[part], cond[part]), len(x))

    def in_parts(self, predict: Callable[[slice], Tensor], batch: int, views: int = 1) -> Tensor:
        """What `predict` says of the parts of a batch: whole groups of `views`, as many as memory allows."""
        with normal_tensors(grad=False):
            step = whole_groups(self.max_batch, views, batch)
            parts: list[Tensor] = []
            start = 0
            while start < batch:
                try:
                    parts.append(predict(slice(start, min(start + step, batch))))
                except torch.cuda.OutOfMemoryError:
                    if step == views:
                        raise
                    self.max_batch = max(1, min(step, batch) // 2)
                    step = whole_groups(self.max_batch, views, batch)
                    log.warning("Out of GPU memory: the UNet now takes %d sample(s) at a time", step)
                    continue
                start += step
            return torch.cat(parts)

    @property
    def azimuths(self) -> Tensor | None:
        """Degrees of the views of its multi-view adapter's groups; None without one."""
        return None if self.multiview is None else torch.tensor(AZIMUTHS)

    def grouped(self, azimuths: Tensor) -> GroupedSDXL:
        """Its multi-view adapter's teacher of groups. Errors: ValueError where it has none."""
        if self.multiview is None:
            raise ValueError("this SDXL was loaded without a multi-view adapter")
        return GroupedSDXL(self, self.multiview, azimuths)

    def _eps(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        return self.run_unet(x, sigma, cond, self._levels)

    def run_unet(self, x: Tensor, sigma: Tensor, cond: Conditioning, levels: Tensor, **more: Any) -> Tensor:
        """Noise [B, 4, h, w] by one call of the UNet, whose timesteps have the noise `levels` [T]."""
        if cond.pooled is None:
            raise ValueError("SDXL needs a pooled embedding, but got Conditioning without one")
        device, dtype = self.device, self._unet.dtype
        x = x.to(device, torch.float32)
        level = sigma.to(device, torch.float32)[:, None, None, None]
        size = self._size_ids(x.shape[-2] * self.factor, x.shape[-1] * self.factor).expand(len(x), 6)
        output = self._unet(
            network_input(x, level).to(dtype),
            nearest_timestep(sigma.to(device), levels),
            encoder_hidden_states=cond.tokens.to(device, dtype),
            added_cond_kwargs={"text_embeds": cond.pooled.to(device, dtype), "time_ids": size.to(dtype)},
            return_dict=False,
            **more,
        )[0]
        return eps_from_output(output.float(), x, level, self._schedule.prediction)

    def _size_ids(self, height: int, width: int) -> Tensor:
        """Original size, crop and target size [6]; made once, for making one waits for the GPU."""
        if (height, width) not in self._sizes:
            ids = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32)
            self._sizes[height, width] = ids.to(self.device)
        return self._sizes[height, width]

    # -- images --------------------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> Tensor:
        """Latents [B, 4, H/8, W/8], float32, of display images [B, H, W, 3] in [0, 1]; differentiable.

        The mean of the VAE's posterior, times its scaling factor. Dreamer XL's released code draws a sample instead.
        """
        with normal_tensors(grad=torch.is_grad_enabled()):
            signed = images.to(self.device, self._vae.dtype).permute(0, 3, 1, 2) * 2.0 - 1.0
            encoded = self._vae.encode(signed)
            latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
            return (latents.float() - self._shift) * self._scale

    def decode(self, latents: Tensor) -> Tensor:
        """Display images [B, H, W, 3] in [0, 1] of latents [B, 4, h, w], for previews; needs `keep_decoder`."""
        if self._vae.decoder is None:
            raise RuntimeError("this SDXL was loaded without its decoder; load it with keep_decoder=True")
        with normal_tensors(grad=False):
            plain = latents.to(self.device, self._vae.dtype) / self._scale + self._shift
            images = self._vae.decode(plain, return_dict=False)[0].float()
            return (images / 2.0 + 0.5).clamp(0.0, 1.0).permute(0, 2, 3, 1)

    # -- text ----------------------------------------------------------------------------------------------------

    def encode_text(self, prompts: Sequence[str]) -> Conditioning:
        """Conditioning of each prompt, float32: both encoders' penultimate states, and the second's projection.

        The empty prompt is encoded like any other, not replaced by zeros. Weights such as (red:1.2) and prompts of
        more than 75 tokens work as in ComfyUI; prompts of different lengths come back with equal numbers of chunks.
        """
        if not self._towers:
            raise RuntimeError("the text encoders have been released")
        if isinstance(prompts, str):
            raise TypeError("encode_text takes a sequence of prompts, but got one string")
        with normal_tensors(grad=False):
            encoded = [tower.encode(prompts, self.device) for tower in self._towers]
            pooled = encoded[-1][1]
            parts: list[Conditioning] = []
            for i in range(len(prompts)):
                length = min(states[i].shape[0] for states, _ in encoded)  # equal, where the vocabularies are
                tokens = torch.cat([states[i][:length] for states, _ in encoded], dim=-1)
                parts.append(Conditioning(tokens[None], pooled[i : i + 1]))
            return Conditioning.cat(parts)

    def place_text_encoders(self, device: torch.device | str) -> None:
        """Move the text encoders, so that between the prompts of several runs they take no memory of a GPU."""
        for tower in self._towers:
            tower.model.to(device)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # or the memory plan takes what they held for used

    def release_text_encoders(self) -> None:
        """Free the text encoders' memory; `encode_text` cannot be called after this."""
        self._towers.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # or the memory plan takes what they held for used


class GroupedSDXL(PlainTeacher):
    """The teacher of whole groups of views, by an SDXL's multi-view adapter; made by `DiffusersSDXL.grouped`."""

    def __init__(self, plain: DiffusersSDXL, adapter: InstalledAdapter, azimuths: Tensor) -> None:
        self._plain, self._adapter, self._azimuths = plain, adapter, azimuths
        self.sigmas = shifted_sigmas(plain.sigmas)
        """[T], of the adapter's own training."""
        self._levels = self.sigmas.to(plain.device, torch.float32)
        self._features: list[Tensor] = []

    def eps(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """Predicted noise [B, 4, h, w], float32, of B / V groups; see `DiffusersSDXL.eps`."""
        check_groups(len(x), self._azimuths)
        with normal_tensors(grad=False):
            self._features = self._features or self._adapter.features(self._azimuths, x.shape[-2] * self._plain.factor)
        return self._plain.in_parts(
            lambda part: self._eps(x[part], sigma[part], cond[part]), len(x), len(self._azimuths)
        )

    def _eps(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        views = len(self._azimuths)
        features = [one.repeat(len(x) // views, 1, 1, 1) for one in self._features]
        with self._adapter.on(views):
            return self._plain.run_unet(x, sigma, cond, self._levels, down_intrablock_additional_residuals=features)

    def encode(self, images: Tensor) -> Tensor:
        return self._plain.encode(images)
