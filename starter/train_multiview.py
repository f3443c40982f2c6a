"""The starter's multi-view adapter, trained on orthographic views of the world beside the frozen UNet.

As the published one (Huang et al., 2412.03632): prompts and camera maps are dropped now and then, all views of a group
have one noise level, and log SNR is lowered towards the noisy end. Captions name each view, as the starter's own do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from tqdm import tqdm

from dreamer_core.cameras import Cameras
from dreamer_core.files import write_atomically
from dreamer_core.guidance.base import GuidanceConditioning
from dreamer_core.initializers.drawn_views import DrawnViewsConfig, draw_views
from dreamer_core.teachers.multiview.adapter import MultiViewAdapter
from dreamer_core.teachers.multiview.cameras import AZIMUTHS, GREY, camera_maps, group_cameras, shifted_sigmas
from dreamer_core.teachers.multiview.files import adapter_for, attention_of, save_adapter
from dreamer_core.teachers.sdxl.loading import DiffusersSDXL, load_sdxl
from dreamer_core.teachers.sdxl.multiview import InstalledAdapter
from dreamer_core.teachers.teacher import Conditioning

from .dataset import FIRST_COLOURS, SECOND_COLOURS, WORK, allowed_table, caption
from .model import predict
from .progress import CPU, Average, Clock, half_precision, load_checkpoint, save_atomically, save_sheet
from .world import COLOURS, KIND_NAMES, PATTERNS, RESOLUTION, Subject, colourise, render_layers, view_words

OUTPUT = Path(__file__).with_name("checkpoint") / "multiview.safetensors"
CHECKPOINT = WORK / "multiview.pt"
VIEWS = len(AZIMUTHS)
GROUPS = 4
"""Of a batch."""
LEARNING_RATE = 7e-4
LOUD = 12.0
"""Largest extra weight of high noise."""
EMPTY, NO_MAPS, NO_VIEW_WORDS = 0.1, 0.1, 0.1
"""Shares of groups without a prompt, without camera maps, and with captions that name no view."""
SHEET = (Subject("chair", "green", "striped"), Subject("airplane", "red"), Subject("duck", "yellow"),
         Subject("teapot", "blue", "dotted"), Subject("car", "purple"), Subject("house", "pink"))  # fmt: skip


def group_layers() -> Tensor:
    """Layers [K, V, 128, 128, 7] of every kind from the adapter's cameras, traced once."""
    path = WORK / "multiview_layers.pt"
    if not path.exists():
        cameras = group_cameras(AZIMUTHS, RESOLUTION)
        layers = torch.stack([render_layers(kind, cameras) for kind in tqdm(KIND_NAMES, desc="tracing groups")])
        write_atomically(path, lambda temporary: torch.save((layers * 255).round().byte(), temporary))
    return torch.load(path, weights_only=True).float() / 255


def true_group(subject: Subject, layers: Tensor) -> Tensor:
    """Pictures [V, 128, 128, 3] of a subject on grey."""
    colour, pattern = list(COLOURS).index(subject.colour), PATTERNS.index(subject.pattern)
    return colourise(
        layers[KIND_NAMES.index(subject.kind)],
        torch.full((VIEWS,), pattern),
        FIRST_COLOURS[colour].expand(VIEWS, 3),
        SECOND_COLOURS[colour].expand(VIEWS, 3),
        torch.full((VIEWS, 3), GREY),
    )


@torch.no_grad()
def group_latents(teacher: DiffusersSDXL, layers: Tensor) -> tuple[list[Subject], Tensor]:
    """All subjects that training may show, and their latents [N, V, 4, 16, 16]."""
    allowed = allowed_table().nonzero().tolist()
    subjects = [Subject(KIND_NAMES[k], list(COLOURS)[c], PATTERNS[p]) for k, c, p in allowed]
    path, weights = WORK / "multiview_latents.pt", next(teacher._vae.parameters())
    state = load_checkpoint(path)
    if state is None or not torch.equal(state["encoder"], weights):
        bar = tqdm(subjects, desc="latents of groups", mininterval=5)
        latents = torch.stack([teacher.encode(true_group(subject, layers)) for subject in bar])
        state = {"latents": latents, "encoder": weights.clone()}
        save_atomically(state, path)
    return subjects, state["latents"]


class Captions:
    """Conditioning of captions, each encoded once."""

    def __init__(self, teacher: DiffusersSDXL) -> None:
        self._teacher, self._known = teacher, dict[str, Conditioning]()

    def __call__(self, text: str) -> Conditioning:
        if text not in self._known:
            self._known[text] = self._teacher.encode_text([text])
        return self._known[text]

    def of_group(self, subject: Subject, generator: torch.Generator, plain: bool = False) -> Conditioning:
        """One caption for all views of a group, each with its own view words blended as in 3D."""
        text = caption(subject, "", generator) if not plain else subject.prompt()
        drawn = torch.rand(2, generator=generator).tolist()
        if drawn[0] < EMPTY and not plain:
            return self("").expand(VIEWS)
        if drawn[1] < NO_VIEW_WORDS and not plain:
            return self(text).expand(VIEWS)
        views = []
        for azimuth in AZIMUTHS:
            first, second, share = view_words(azimuth)
            both = Conditioning.cat([self(f"{text}, {first}"), self(f"{text}, {second}")])
            views.append(both.mixed(torch.tensor([[1 - share, share]])))
        return Conditioning.cat(views)


def loss_of(
    teacher: DiffusersSDXL, installed: InstalledAdapter, z: Tensor, cond: Conditioning, sigmas: Tensor,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Weighted epsilon loss of groups of latents z [G, V, 4, 16, 16], one noise level each.

    The weight is Min-SNR-5's, times up to `LOUD` where noise outweighs the picture: at 41 times the picture's size a
    small error of the noise is another background, and another object.
    """
    groups = len(z)
    t = torch.randint(len(sigmas), (groups,), generator=generator)
    noise = torch.randn(groups * VIEWS, *z.shape[2:], generator=generator)
    sigma = sigmas[t].float().repeat_interleave(VIEWS)[:, None, None, None]
    keep = (torch.rand(groups, generator=generator) >= NO_MAPS).float().repeat_interleave(VIEWS)
    maps = camera_maps(AZIMUTHS, RESOLUTION).repeat(groups, 1, 1, 1) * keep[:, None, None, None]
    with half_precision(CPU), installed.on(VIEWS):
        features = installed.network.adapter(maps)
        x = (z.flatten(0, 1) + sigma * noise) * torch.rsqrt(1 + sigma**2)
        eps = predict(
            teacher._unet, x, t.repeat_interleave(VIEWS), cond.tokens, cond.pooled,
            down_intrablock_additional_residuals=features,
        )  # fmt: skip
    snr = sigma**-2
    weight = snr.clamp(max=5) / snr * sigma.clamp(1, LOUD)
    return ((eps.float() - noise).square() * weight).mean()


@dataclass(frozen=True)
class Told:
    """Prompts that say the same whatever the cameras: those of one group, which have been encoded already."""

    conditioning: GuidanceConditioning

    def at(self, cameras: Cameras) -> GuidanceConditioning:
        """See `PromptProcessor`."""
        return self.conditioning


def sample(teacher: DiffusersSDXL, captions: Captions, subject: Subject, steps: int = 20, seed: int = 0) -> Tensor:
    """Pictures [V, 128, 128, 3] of a group by guided DDIM."""
    empty = captions("").expand(VIEWS)
    told = Told(GuidanceConditioning(captions.of_group(subject, torch.Generator(), plain=True), empty, empty))
    config = DrawnViewsConfig(sampling_steps=steps, sampling_cfg=3.0)
    return teacher.decode(draw_views(teacher, told, resolution=RESOLUTION, config=config, seed=seed))


def install(teacher: DiffusersSDXL) -> InstalledAdapter:
    """A new adapter in the teacher's UNet, which changes little yet: the features of the maps are small."""
    unet = teacher._unet
    unet.set_attn_processor(AttnProcessor())  # as in `train_unet`
    adapter: MultiViewAdapter = adapter_for(attention_of(unet), tuple(unet.config.block_out_channels))
    adapter.begin_as(unet.state_dict())
    with torch.no_grad():
        for name, parameter in adapter.adapter.named_parameters():
            if "block2" in name or "conv_in" in name:  # small features at first
                parameter.mul_(0.05)
    return InstalledAdapter(unet, adapter)


def train(minutes: float, checkpoint: Path, seed: int = 0) -> None:
    """Train until the budget is spent, then write the averaged weights; the rate follows a cosine."""
    teacher = load_sdxl(checkpoint, keep_decoder=True)
    layers = group_layers()
    subjects, latents = group_latents(teacher, layers)
    torch.manual_seed(seed)
    teacher.multiview = installed = install(teacher)
    parameters: list[Tensor] = list(installed.network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    average, captions = Average(parameters), Captions(teacher)
    sigmas = shifted_sigmas(teacher.sigmas)
    step, spent, mean_loss = 0, 0.0, 0.0
    state = load_checkpoint(CHECKPOINT)
    if state is not None:
        installed.network.load_state_dict(state["adapter"])
        if "optimizer" in state:
            optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
        average.values, average.steps = state["average"], step
    clock = Clock(minutes, spent)
    bar = tqdm(desc="multi-view adapter", initial=step, unit="step", mininterval=10)

    def keep() -> None:
        state = {"adapter": installed.network.state_dict(), "average": average.values, "step": step}
        save_atomically(state | {"optimizer": optimizer.state_dict(), "spent": clock.spent}, CHECKPOINT)

    def look() -> None:
        average.swap(parameters)
        save_adapter(installed.network, OUTPUT)
        drawn = torch.cat([sample(teacher, captions, subject) for subject in SHEET])
        save_sheet(drawn.permute(0, 3, 1, 2), WORK / f"multiview_{step:05d}.png", VIEWS)
        average.swap(parameters)

    while (share := clock.tick()) < 1:
        generator = torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)
        chosen = torch.randint(len(subjects), (GROUPS,), generator=generator)
        cond = Conditioning.cat([captions.of_group(subjects[i], generator) for i in chosen.tolist()])
        for group in optimizer.param_groups:
            rate = 0.05 + 0.475 * (1 + math.cos(math.pi * share))
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 30) * rate
        loss = loss_of(teacher, installed, latents[chosen], cond, sigmas, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(parameters)
        step += 1
        bar.update()
        mean_loss += (loss.item() - mean_loss) * max(0.02, 1 / step)
        bar.set_postfix(loss=f"{mean_loss:.4f}", share=f"{share:.0%}", refresh=False)
        if step % 50 == 0:
            keep()
        if step % 500 == 0:
            look()
    keep()
    look()
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size / 1e6:.2f} MB after {step} steps, loss {mean_loss:.4f}")
