"""LoRAs of the starter: a style, and two that make another kind of teacher of it.

gold: whatever is asked for is made of gold. v-zsnr: v-prediction with zero terminal SNR (Lin et al., 2305.08891).
6-step: draws in few steps and without guidance, by regression of what guided DDIM makes of a noise (Luhman & Luhman,
2101.02388), at every point of the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from tqdm import tqdm

from dreamer_core.teachers.noise_schedule import zero_terminal_sigmas

from .dataset import WORK, Words, draw_words
from .export import save_half, trained_nets
from .latents import FOLDER as LATENTS
from .latents import encode_all, load_latents
from .model import alphas_cumprod, predict
from .progress import CPU, Clock, Parts, half_precision, load_checkpoint, save_atomically
from .train_unet import Nets, denoising_loss, encode_captions, guided_step
from .world import KIND_NAMES

FOLDER = Path(__file__).with_name("lora")
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
EVERYTHING = [
    *ATTENTION, "conv_in", "conv_out", "conv1", "conv2", "conv_shortcut", "conv", "time_emb_proj",
    "linear_1", "linear_2",
]  # fmt: skip
BATCH, PARTS = 32, 4
GUIDANCE, STEPS = 5.0, 20
"""Of the trajectories that the few-step LoRA learns from."""
Loss = Callable[[Nets, torch.Generator], Tensor]
"""Mean loss of one part of a batch."""


@dataclass(frozen=True)
class Adapter:
    """What is trained, and how."""

    name: str
    file: str
    prepare: Callable[[Nets], Loss]
    targets: list[str]
    rank: int = 8
    learning_rate: float = 2e-3

    @property
    def output(self) -> Path:
        return FOLDER / self.file

    @property
    def checkpoint(self) -> Path:
        return WORK / f"lora_{self.name}.pt"


def on_pictures(folder: Path, loss_of: Callable[..., Tensor], table: Tensor) -> Loss:
    """`loss_of` latents of a folder and their captions, at the noise levels of the cumulative alphas `table` [1000]."""
    latents, words = load_latents(folder)

    def loss(nets: Nets, generator: torch.Generator) -> Tensor:
        index = torch.randint(len(latents), (BATCH // PARTS,), generator=generator)
        with torch.no_grad():
            context, pooled = encode_captions(nets.text, words[index], generator)
        return loss_of(nets.unet, latents[index].float(), context, pooled, table, generator)

    return loss


def gold(nets: Nets) -> Loss:
    """The usual loss on golden pictures."""
    folder = WORK / "latents_gold"
    encode_all(rounds=1, style="gold", folder=folder)
    return on_pictures(folder, denoising_loss, alphas_cumprod())


def zero_snr_alphas() -> Tensor:
    """[1000]: cumulative alphas of SDXL's schedule, rescaled to end without signal."""
    a = alphas_cumprod().double()
    return (1 / (1 + zero_terminal_sigmas(((1 - a) / a).sqrt()) ** 2)).float()


def v_loss(unet: UNet2DConditionModel, z: Tensor, context: Tensor, pooled: Tensor,
           table: Tensor, generator: torch.Generator) -> Tensor:  # fmt: skip
    """Mean squared error of v = sqrt(a) eps - sqrt(1 - a) z for latents z [B, 4, 16, 16], as its paper weighs it."""
    t = torch.randint(1000, (len(z),), generator=generator)
    noise = torch.randn(z.shape, generator=generator)
    a = table[t][:, None, None, None]
    with half_precision(CPU):
        v = predict(unet, a.sqrt() * z + (1 - a).sqrt() * noise, t, context, pooled)
    return (v.float() - (a.sqrt() * noise - (1 - a).sqrt() * z)).square().mean()


def v_zsnr(nets: Nets) -> Loss:
    """v-prediction on the pictures that the checkpoint was trained on."""
    return on_pictures(LATENTS, v_loss, zero_snr_alphas())


@dataclass(frozen=True)
class Trajectories:
    """Ways of guided DDIM from noise to a picture, and what they were asked for."""

    places: Tensor  # [N, STEPS, 4, 16, 16] fp16, from the noisiest on
    ends: Tensor  # [N, 4, 16, 16]
    context: Tensor  # [N, 77, 128] fp16
    pooled: Tensor  # [N, 128]


def times() -> list[int]:
    """Timesteps of a trajectory, descending from 999."""
    return [999 - i * 1000 // STEPS for i in range(STEPS)]


@torch.no_grad()
def trajectories(nets: Nets, count: int, seed: int = 0) -> Trajectories:
    """Make them, 16 at a time on every core; kept in a file of the same UNet."""
    path, key = WORK / "trajectories.pt", sum(float(p.double().sum()) for p in nets.unet.parameters())
    kept = load_checkpoint(path)
    if kept is not None and kept["key"] == key and len(kept["ends"]) >= count:
        return Trajectories(kept["places"], kept["ends"], kept["context"], kept["pooled"])
    table, empty = alphas_cumprod(), nets.text([""])

    def make(part: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + part)
        kind = torch.randint(len(KIND_NAMES), (16,), generator=generator)
        words: Words = draw_words(kind, 360 * torch.rand(16, generator=generator) - 180, generator)
        context, pooled = encode_captions(nets.text, words, generator)
        contexts = torch.cat([context, empty[0].expand(16, -1, -1)])
        pools = torch.cat([pooled, empty[1].expand(16, -1)])
        x, places = torch.randn(16, 4, 16, 16, generator=generator), []
        for now, after in zip(times(), [*times()[1:], None]):
            places.append(x.half())
            x = guided_step(nets.unet, x, now, after, contexts, pools, GUIDANCE, table)
        return torch.stack(places, 1), x.half(), context.half(), pooled

    pool = Parts(1).pool
    made = list(tqdm(pool.map(make, range(-(-count // 16))), total=-(-count // 16), desc="trajectories", mininterval=5))
    found = Trajectories(*(torch.cat(parts) for parts in zip(*made)))
    save_atomically({"key": key, **vars(found)}, path)
    return found


def few_step(nets: Nets) -> Loss:
    """From every point of a trajectory straight to its end."""
    ways, table = trajectories(nets, 2000), alphas_cumprod()
    t_of = torch.tensor(times())

    def loss(nets: Nets, generator: torch.Generator) -> Tensor:
        index = torch.randint(len(ways.ends), (BATCH // PARTS,), generator=generator)
        place = torch.randint(STEPS, (len(index),), generator=generator)
        x, z, t = ways.places[index, place].float(), ways.ends[index].float(), t_of[place]
        with half_precision(CPU):
            eps = predict(nets.unet, x, t, ways.context[index].float(), ways.pooled[index])
        a = table[t][:, None, None, None]
        found = (x - (1 - a).sqrt() * eps.float()) / a.sqrt()
        return ((found - z).square() + 1e-3).sqrt().mean()  # nearly absolute: a few pixels may be far off

    return loss


ADAPTERS = {
    adapter.name: adapter
    for adapter in (
        Adapter("gold", "gold.safetensors", gold, ATTENTION),
        Adapter("v_zsnr", "starter-v-zsnr.safetensors", v_zsnr, EVERYTHING, rank=4),
        Adapter("few_step", "starter-6step.safetensors", few_step, EVERYTHING, rank=4, learning_rate=1e-3),
    )
}


def kohya_names(lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """peft's UNet weights under the names that ComfyUI's LoRA loaders know, and dreamer_core, too."""
    renamed = {}
    for name, value in lora.items():
        module, _, kind = name.removesuffix(".weight").rpartition(".")
        part = {"lora_A": "lora_down", "lora_B": "lora_up"}[kind]
        renamed[f"lora_unet_{module.replace('.', '_')}.{part}.weight"] = value
    return renamed


def train(adapter: Adapter, minutes: float, seed: int = 0) -> None:
    """Train an adapter on the newest UNet, then write its file.

    The alpha equals the rank, so that readers with and without alphas agree.
    """
    nets, trained = trained_nets()
    teacher = {"step": trained["step"], "before": trained["before"]}
    for parameter in nets.parameters():
        parameter.requires_grad_(False)
    part_loss = adapter.prepare(nets)
    torch.manual_seed(seed)
    rank = adapter.rank
    nets.unet.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=adapter.targets)
    )
    parameters = [p for p in nets.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=adapter.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3)
    state = load_checkpoint(adapter.checkpoint)
    step, spent = 0, 0.0
    if state is not None and state.get("teacher") == teacher:  # else the UNet was trained on: begin anew
        set_peft_model_state_dict(nets.unet, state["lora"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    clock, batch_parts, mean_loss = Clock(minutes, spent), Parts(PARTS), 0.0
    bar = tqdm(desc=f"LoRA {adapter.name}", initial=step, unit="step", mininterval=5)

    def loss_of(part: int) -> Tensor:
        return part_loss(nets, torch.Generator().manual_seed((seed + 1) * 1_000_003 + step * PARTS + part))

    def keep() -> None:
        lora = get_peft_model_state_dict(nets.unet)
        state = {"lora": lora, "optimizer": optimizer.state_dict(), "step": step, "spent": clock.spent}
        save_atomically(state | {"teacher": teacher}, adapter.checkpoint)
        save_half(kohya_names(lora), adapter.output)

    while (share := clock.tick()) < 1:
        decay = 0.02 + 0.49 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = adapter.learning_rate * min(1, (step + 1) / 50) * decay
        loss = batch_parts.backward(loss_of, parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        bar.update()
        mean_loss += (loss - mean_loss) * max(0.02, 1 / step)
        if step % 10 == 0:
            bar.set_postfix(loss=f"{mean_loss:.4f}", share=f"{share:.0%}")
        if step % 100 == 0:
            keep()
    keep()
    print(f"{adapter.output}: {adapter.output.stat().st_size / 1e6:.2f} MB")
