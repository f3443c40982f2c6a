"""The autoencoder: TAESD's architecture on renders, and on what splats look like on their way."""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from tqdm import tqdm

from .augment import roughen
from .dataset import WORK, Views, draw_images, load_views
from .model import build_vae, start_from_pooling
from .progress import CPU, Clock, Parts, half_precision, load_checkpoint, save_atomically, save_sheet

CHECKPOINT = WORK / "vae.pt"
NOISE = 0.08
"""Standard deviation of the noise on latents of about unit size: makes the decoder, and gradients, smooth."""


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + L2 + L1 of the image gradients, of images [B, 3, H, W] in [-1, 1]."""
    difference = output - target
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return difference.abs().mean() + difference.square().mean() + edges


def latent_loss(z: Tensor) -> Tensor:
    """Keeps latents [B, 4, h, w] near zero mean and unit size."""
    return 1e-3 * z.square().mean() + 0.02 * z.mean((0, 2, 3)).square().mean()


def load_vae() -> AutoencoderTiny:
    """The newest autoencoder, its latents scaled to unit deviation."""
    state = load_checkpoint(CHECKPOINT)
    if state is None:
        raise FileNotFoundError("no autoencoder yet; run `python -m starter.train --stage vae`")
    vae = build_vae()
    vae.load_state_dict(state["model"])
    vae.register_to_config(scaling_factor=state["scale"])
    return vae.eval().requires_grad_(False)


def random_crops(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """One random square of each image."""
    room = images.shape[-1] - size
    tops = torch.randint(room + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in zip(images, tops)])


def train(minutes: float, seed: int = 0) -> None:
    """Train until the budget is spent; crops of 64 first, whole images in the last quarter."""
    torch.manual_seed(seed)
    views, vae = load_views(), build_vae().to(memory_format=torch.channels_last)
    start_from_pooling(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    state = load_checkpoint(CHECKPOINT)
    step, spent = 0, 0.0
    if state is not None:
        vae.load_state_dict(state["model"])
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    parameters, clock, mean_error = list(vae.parameters()), Clock(minutes, spent), 0.0
    bar = tqdm(desc="autoencoder", initial=step, unit="step", mininterval=5)
    errors = [0.0, 0.0]

    def loss_of(part: int) -> Tensor:
        generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + 2 * step + part)
        images, _ = draw_images(views, torch.randint(len(views), (2 if whole else 6,), generator=generator), generator)
        if not whole:
            images = random_crops(images, 64, generator)
        target = (roughen(images, generator) * 2 - 1).contiguous(memory_format=torch.channels_last)
        with half_precision(CPU):
            z = vae.encoder(target)
            output = vae.decoder(z + NOISE * min(1.0, share / 0.2) * torch.randn(z.shape, generator=generator))
        errors[part] = (output.detach().float() - target).square().mean().item() / 4
        return reconstruction_loss(output.float(), target) + latent_loss(z.float())

    batch_parts = Parts(2)
    while (share := clock.tick()) < 1:
        whole = share > 0.75
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * share)) + 2e-5
        loss = batch_parts.backward(loss_of, parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        bar.update()
        mean_error += (sum(errors) / 2 - mean_error) * max(0.02, 1 / step)
        if step % 20 == 0:
            psnr = -10 * math.log10(mean_error)
            bar.set_postfix(loss=f"{loss:.4f}", psnr=f"{psnr:.1f}", share=f"{share:.0%}")
        if step % 500 == 0:
            keep(vae, optimizer, step, clock.spent, views)
    keep(vae, optimizer, step, clock.spent, views)
    print(measure(views))


def keep(vae: AutoencoderTiny, optimizer: torch.optim.Optimizer, step: int, spent: float, views: Views) -> None:
    """Write the checkpoint with the latents' scale, and a sheet of originals above reconstructions."""
    generator = torch.Generator().manual_seed(1)
    images, _ = draw_images(views, torch.randint(len(views), (48,), generator=generator), generator)
    with torch.no_grad():
        z = vae.encoder(images * 2 - 1)
        output = (vae.decoder(z[:16]) + 1) / 2
    state = {"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent}
    save_atomically(state | {"scale": 1 / z.std().item()}, CHECKPOINT)
    save_sheet(torch.cat([images[:16], output]), WORK / "vae.png", 16)


@torch.no_grad()
def measure(views: Views, count: int = 96, seed: int = 2) -> dict[str, float]:
    """PSNR in dB and the mean absolute colour error on the object, of clean renders, in [0, 1] units."""
    vae, generator = load_vae(), torch.Generator().manual_seed(seed)
    index = torch.randint(len(views), (count,), generator=generator)
    images, _ = draw_images(views, index, generator, everything=True)
    latents = torch.cat([vae.encoder(part * 2 - 1) for part in images.split(16)])
    output = torch.cat([(vae.decoder(part) + 1) / 2 for part in latents.split(16)]).clamp(0, 1)
    on_object = (views.layers[index][..., 6] < 20)[:, None].expand_as(images)
    error = (output - images).abs()
    # The mean colour of each object: what an autoencoder that forgets flat colours gets wrong.
    weight = on_object.float()
    mean_colour = ((output - images) * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1)
    return {
        "psnr": -10 * math.log10((output - images).square().mean().item()),
        "colour_error_on_object": error[on_object].mean().item(),
        "error_of_mean_colour": mean_colour.abs().mean().item(),
        "latent_scale": float(vae.config.scaling_factor),
    }
