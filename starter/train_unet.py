"""The UNet and both text encoders, trained together on cached latents (epsilon prediction, SDXL's schedule)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from tqdm import tqdm

from .dataset import WORK, Words, caption
from .latents import load_latents
from .model import TextEncoders, alphas_cumprod, build_unet, predict
from .progress import CPU, Average, Clock, Parts, half_precision, load_checkpoint, save_atomically, save_sheet
from .train_vae import load_vae
from .world import OVERHEAD, VIEW_WORDS, overhead_share, view_words

CHECKPOINT = WORK / "unet.pt"
BATCH, PARTS = 64, 2
LEARNING_RATE = 1e-3
RATE_AGAIN = 7e-4
"""The rate of a training that goes on from finished weights."""
NOTHING_BEFORE = {"steps": 0, "images": 0, "minutes": 0}
"""What finished weights that this training started from had seen: steps, latents, minutes."""
AVERAGE_EVERY = 5
"""Steps between two updates of the averaged weights."""
LOUD = 4.0
"""Largest extra weight of high noise."""
EMPTY = 0.12
"""Share of empty captions: the unconditional branch that TSM, ISM and guidance need."""
BLENDED = 0.7
"""Share of the captions with a view whose embedding is blended between two view words by azimuth, as in 3D."""
HIGH = 0.85
"""Share of the captions with a view that tell the height, too: "overhead view" is blended in by elevation, as in 3D."""
SIDED = 0.85
"""Share of the captions that tell left from right; the others say "side view" of both."""
SHEET_PROMPTS = tuple(
    f"{thing}, {view}"
    for thing in ("a red mug", "a blue car", "a yellow duck", "a green striped chair", "a purple dotted rocket",
                  "a pink house", "a white robot", "an orange teapot")
    for view in VIEW_WORDS
)  # fmt: skip


@dataclass
class Nets:
    """The UNet and the text encoders."""

    unet: UNet2DConditionModel
    text: TextEncoders

    @classmethod
    def build(cls) -> Nets:
        unet = build_unet()
        # On CPUs plain matrix products beat the fused attention on sequences this short, most of all backwards.
        unet.set_attn_processor(AttnProcessor())
        return cls(unet, TextEncoders(WORK))

    def parameters(self) -> list[Tensor]:
        return [*self.unet.parameters(), *self.text.parameters()]

    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        self.unet.load_state_dict(state["unet"])
        self.text.load_state_dict(state["text"])

    def state(self) -> dict[str, dict[str, Tensor]]:
        return {"unet": self.unet.state_dict(), "text": self.text.state_dict()}


def encode_captions(text: TextEncoders, words: Words, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Context [B, 77, 128] and pooled [B, 128] of random captions of `words`, with views blended as in 3D."""
    count = len(words)
    draws = torch.rand(count, 4, generator=generator).tolist()
    texts: list[str] = []
    rows: list[int] = []
    shares: list[float] = []
    for i, (keep, blend, sided, height) in enumerate(draws):
        first, second, share = view_words(float(words.azimuth[i]), sided < SIDED)
        if blend >= BLENDED:  # the nearer word alone
            first, share = (second if share > 0.5 else first), 0.0
        said = "" if keep < EMPTY else caption(words.subject(i), first, generator)
        plain = not said.endswith(first)
        over = 0.0 if plain or height >= HIGH else overhead_share(float(words.elevation[i]))
        share = 0.0 if plain else share
        for words_of, weight in ((first, (1 - over) * (1 - share)), (second, (1 - over) * share), (OVERHEAD, over)):
            if weight > 0:
                texts.append(said if words_of == first else said.removesuffix(first) + words_of)
                rows.append(i)
                shares.append(weight)
    context, pooled = text(texts)
    index, weights = torch.tensor(rows, device=context.device), torch.tensor(shares, device=context.device)
    return (
        context.new_zeros(count, *context.shape[1:]).index_add(0, index, weights[:, None, None] * context),
        pooled.new_zeros(count, pooled.shape[1]).index_add(0, index, weights[:, None] * pooled),
    )


def denoising_loss(unet: UNet2DConditionModel, z: Tensor, context: Tensor, pooled: Tensor,
                   table: Tensor, generator: torch.Generator) -> Tensor:  # fmt: skip
    """Weighted epsilon loss of latents z [B, 4, 16, 16]; `table` is the cumulative alphas [1000].

    The weight is Min-SNR-5's, times up to `LOUD` where noise outweighs the picture: there the shape is decided, and a
    small error of the noise is a large one of the picture.

    Latents, table and draws are the CPU's, so that a seed means the same on every device.
    """
    device = unet.device
    t = torch.randint(1000, (len(z),), generator=generator)
    noise = torch.randn(z.shape, generator=generator).to(device)
    a = table[t][:, None, None, None].to(device)
    z, t = z.to(device), t.to(device)
    with half_precision(device):
        eps = predict(unet, a.sqrt() * z + (1 - a).sqrt() * noise, t, context, pooled)
    snr = a / (1 - a)
    weight = snr.clamp(max=5) / snr * snr.rsqrt().clamp(1, LOUD)
    return ((eps.float() - noise).square() * weight).mean()


def guided_step(unet: UNet2DConditionModel, x: Tensor, now: int, after: int | None, context: Tensor, pooled: Tensor,
                guidance: float, table: Tensor) -> Tensor:  # fmt: skip
    """Latents [B, 4, 16, 16] after a step of DDIM with classifier-free guidance; `after` None is the end.

    `context` and `pooled` are those of the prompts, then of the empty prompt, 2 B in all.
    """
    t = torch.full((2 * len(x),), now, device=x.device)
    with half_precision(x.device):
        eps = predict(unet, torch.cat([x, x]), t, context, pooled).float()
    told, free = eps.chunk(2)
    eps = free + guidance * (told - free)
    a, b = table[now], table[after] if after is not None else torch.tensor(1.0)
    return b.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps


def guided_ddim(unet: UNet2DConditionModel, x: Tensor, context: Tensor, pooled: Tensor, steps: int,
                guidance: float) -> Tensor:  # fmt: skip
    """Latents [B, 4, 16, 16] of pictures from noise `x`; the rest is as `guided_step` takes it."""
    table, times = alphas_cumprod(), [1 + round(i * 1000 / steps) for i in reversed(range(steps))]
    for now, after in zip(times, [*times[1:], None]):
        x = guided_step(unet, x, now, after, context, pooled, guidance, table)
    return x


@torch.no_grad()
def sample(nets: Nets, vae: AutoencoderTiny, prompts: list[str], steps: int = 30, guidance: float = 5.0,
           seed: int = 0) -> Tensor:  # fmt: skip
    """Images [B, 3, 128, 128] in [0, 1] by DDIM with classifier-free guidance, straight from training weights."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(prompts), 4, 16, 16, generator=generator).to(nets.unet.device)
    context, pooled = nets.text([*prompts, *[""] * len(prompts)])
    x = guided_ddim(nets.unet, x, context, pooled, steps, guidance)
    return (vae.decoder(x.cpu() / vae.config.scaling_factor) + 1).div(2).clamp(0, 1)


def train(minutes: float, seed: int = 0, device: torch.device = CPU) -> None:
    """Train until the budget is spent: constant rate after the warm-up, cosine decay in the last 40 %.

    On a GPU a batch is not cut into parts. A training may change its device in between.
    """
    torch.manual_seed(seed)
    (latents, words), vae, nets = load_latents(), load_vae(), Nets.build()
    nets.unet.to(device)
    nets.text.to(device)
    parameters = nets.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    state = load_checkpoint(CHECKPOINT)
    average = Average(parameters)
    step, spent, before = 0, 0.0, NOTHING_BEFORE
    if state is not None:
        nets.load(state["nets"])
        step, spent, before = state["step"], state["spent"], state["before"]
        average.values, average.steps = [v.to(device) for v in state["average"]], step // AVERAGE_EVERY
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
    peak = LEARNING_RATE if before == NOTHING_BEFORE else RATE_AGAIN
    table, clock, mean_loss = alphas_cumprod(), Clock(minutes, spent), 0.0
    bar = tqdm(desc="unet", initial=step, unit="step", mininterval=10)

    def keep() -> None:
        state = {"nets": nets.state(), "average": average.values, "optimizer": optimizer.state_dict()}
        save_atomically(state | {"step": step, "spent": clock.spent, "before": before}, CHECKPOINT)

    def loss_of(part: int) -> Tensor:
        generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 * PARTS + step * PARTS + part)
        index = torch.randint(len(latents), (BATCH // batch_parts.parts,), generator=generator)
        context, pooled = encode_captions(nets.text, words[index], generator)
        return denoising_loss(nets.unet, latents[index].float(), context, pooled, table, generator)

    batch_parts = Parts(PARTS if device == CPU else 1)
    while (share := clock.tick()) < 1:
        decay = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * max(0.0, share - 0.6) / 0.4))
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1, (step + 1) / 200) * decay
        loss = batch_parts.backward(loss_of, parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % AVERAGE_EVERY == 0:
            average.update(parameters)
        bar.update()
        mean_loss += (loss - mean_loss) * max(0.01, 1 / step)
        if step % 25 == 0:
            bar.set_postfix(loss=f"{mean_loss:.4f}", share=f"{share:.0%}", images=step * BATCH)
        if step % 250 == 0:
            keep()
            latents, words = load_latents()  # more shards may have come
        if step % 1000 == 0 or step == 500:
            average.swap(parameters)
            save_sheet(sample(nets, vae, list(SHEET_PROMPTS)), WORK / f"samples_{step:06d}.png", 8)
            average.swap(parameters)
    keep()
