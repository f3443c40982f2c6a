"""The starter world: sphere-traced objects under the optimiser's own cameras and backgrounds, with captions.

A view is stored as *layers* [H, W, 7], linear in the colours, so that one tracing serves every colour, pattern and
background: shade of the body, of its stripes, of its dots, fixed RGB, background share.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dreamer_core.cameras import Cameras
from dreamer_core.optimize.presets import STARTER_ORBIT, STARTER_SIDES
from dreamer_core.orbit import sample_orbit

from .shapes import KINDS, Part, Rgb

RESOLUTION = 128
KIND_NAMES = tuple(KINDS)
COLOURS: dict[str, Rgb] = {
    "red": (0.86, 0.11, 0.10),
    "orange": (0.97, 0.50, 0.05),
    "yellow": (0.96, 0.86, 0.12),
    "green": (0.12, 0.64, 0.18),
    "blue": (0.11, 0.25, 0.88),
    "purple": (0.50, 0.16, 0.72),
    "pink": (0.97, 0.50, 0.72),
    "white": (0.96, 0.96, 0.96),
}
PATTERNS = ("plain", "striped", "dotted")
SECOND: dict[str, Rgb] = dict.fromkeys(COLOURS, (0.97, 0.97, 0.97)) | {
    "yellow": (0.16, 0.16, 0.16),
    "white": (0.28, 0.30, 0.34),
}
"""The colour of stripes and dots."""
VIEW_WORDS = {"front view": 0.0, "left side view": 90.0, "back view": 180.0, "right side view": -90.0}
"""What captions call a direction -> its azimuth in degrees."""
OVERHEAD: str = STARTER_SIDES["overhead"]
OVERHEAD_FROM: float = STARTER_SIDES["overhead_from"]
OVERHEAD_TO: float = STARTER_SIDES["overhead_to"]
"""Elevations in degrees between which captions blend `OVERHEAD` in, from none to all."""
LIGHT = (0.40, 0.80, 0.45)
LAYERS = 7
HELDOUT_FILE = Path(__file__).with_name("heldout.json")
GOLD: tuple[Rgb, Rgb] = ((0.98, 0.72, 0.16), (1.0, 0.93, 0.62))


@dataclass(frozen=True)
class Subject:
    """One thing of the world by its words."""

    kind: str
    colour: str
    pattern: str = "plain"

    def prompt(self, colour: bool = True, pattern: bool = True) -> str:
        """For example "a red striped mug"; plain things carry no pattern word."""
        words = [self.colour] if colour else []
        if pattern and self.pattern != "plain":
            words.append(self.pattern)
        words.append(self.kind)
        return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def all_subjects() -> list[Subject]:
    """Every kind x colour x pattern."""
    return [Subject(k, c, p) for k in KIND_NAMES for c in COLOURS for p in PATTERNS]


def heldout_subjects() -> frozenset[Subject]:
    """The combinations that no training image or caption shows (`heldout.json`)."""
    return frozenset(Subject(*words) for words in json.loads(HELDOUT_FILE.read_text()))


def parse_prompt(prompt: str) -> Subject | None:
    """The subject that a prompt names (pattern "plain" if none is named); None without a kind and a colour."""
    words = prompt.lower().replace(",", " ").split()
    kind = next((w for w in words if w in KINDS), None)
    colour = next((w for w in words if w in COLOURS), None)
    pattern = next((w for w in words if w in PATTERNS), "plain")
    return Subject(kind, colour, pattern) if kind and colour else None


def view_words(azimuth: float, sided: bool = True) -> tuple[str, str, float]:
    """The two view words around an azimuth in degrees, and the share of the second in [0, 1].

    Positive azimuths see the object's own left side (it faces +Z, and +X is on its left). `sided=False` says "side
    view" of both sides.
    """
    turned = (azimuth + 180.0) % 360.0 - 180.0
    side = "side view" if not sided else "left side view" if turned > 0 else "right side view"
    quarters = abs(turned) / 90.0
    return ("front view", side, quarters) if quarters < 1.0 else (side, "back view", quarters - 1.0)


def overhead_share(elevation: float) -> float:
    """The share of `OVERHEAD` in a caption, in [0, 1], as prompts blend it in (`ViewPrompts.at`)."""
    return min(1.0, max(0.0, (elevation - OVERHEAD_FROM) / (OVERHEAD_TO - OVERHEAD_FROM)))


def random_backgrounds(count: int, generator: torch.Generator) -> Tensor:
    """[count, 3]: 34 % white, 33 % black, 33 % uniform random colours, as the optimiser draws them."""
    colours = torch.rand(count, 3, generator=generator)
    which = torch.rand(count, 1, generator=generator)
    return torch.where(which < 0.34, 1.0, torch.where(which < 0.67, 0.0, colours))


def camera_rays(cameras: Cameras, offset: tuple[float, float] = (0.0, 0.0)) -> tuple[Tensor, Tensor]:
    """Origins and unit directions [C, H, W, 3] through the pixel centres moved by `offset` pixels."""
    ys, xs = torch.meshgrid(
        torch.arange(cameras.height) + 0.5 + offset[1], torch.arange(cameras.width) + 0.5 + offset[0], indexing="ij"
    )
    K, rotation = cameras.Ks, cameras.viewmats[:, :3, :3]
    x = (xs - K[:, 0, 2, None, None]) / K[:, 0, 0, None, None]
    y = (ys - K[:, 1, 2, None, None]) / K[:, 1, 1, None, None]
    if cameras.orthographic:
        local = torch.stack([x, y, torch.zeros_like(x)], -1)
        places = torch.einsum("chwi,cij->chwj", local - cameras.viewmats[:, None, None, :3, 3], rotation)
        return places, rotation[:, None, None, 2].expand_as(places)
    local = torch.stack([x, y, torch.ones_like(x)], -1)  # [C, H, W, 3]
    direction = torch.nn.functional.normalize(torch.einsum("chwi,cij->chwj", local, rotation), dim=-1)
    origin = -(rotation.transpose(1, 2) @ cameras.viewmats[:, :3, 3:])[..., 0]
    return origin[:, None, None].expand_as(direction), direction


def union_distance(parts: list[Part]) -> Tensor:
    """Distance [N] to the nearest part."""
    return torch.stack([d for d, _ in parts], -1).amin(-1)


def trace(kind: str, origin: Tensor, direction: Tensor, steps: int = 64) -> Tensor:
    """Sphere-trace rays [N, 3] through `kind` and shade what they hit: layers [N, 7]."""
    shape = KINDS[kind]
    layers = origin.new_zeros(origin.shape[0], LAYERS)
    layers[:, 6] = 1.0
    b = (origin * direction).sum(-1)
    inside = b * b - ((origin * origin).sum(-1) - 1.0)
    index = (inside > 0).nonzero()[:, 0]
    half = inside[index].sqrt()
    near, far = -b[index] - half, -b[index] + half
    o, d, t = origin[index], direction[index], near.clone()
    active = torch.arange(len(index))
    for step in range(steps):
        ta = t[active]
        distance = union_distance(shape(o[active] + ta[:, None] * d[active]))
        ta = ta + 0.9 * distance
        t[active] = ta
        if step % 4 == 3:
            active = active[(distance > 1e-3) & (ta < far[active])]
        if not len(active):
            break
    hit = t < far
    index, p = index[hit], (o + t[:, None] * d)[hit]
    if not len(index):
        return layers
    parts = shape(p)
    which = torch.stack([q for q, _ in parts], -1).argmin(-1)
    corners = p.new_tensor([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])
    slopes = torch.stack([union_distance(shape(p + 1e-3 * c)) for c in corners], -1)
    normal = torch.nn.functional.normalize(slopes @ corners, dim=-1)
    light = torch.nn.functional.normalize(p.new_tensor(LIGHT), dim=0)
    shade = (0.56 + 0.40 * (normal @ light).clamp_min(0) + 0.06 * normal[:, 1]).clamp(0.2, 1.0)
    body = p.new_tensor([float(c is None) for _, c in parts])[which]
    fixed = p.new_tensor([c or (0.0, 0.0, 0.0) for _, c in parts])[which]
    striped, dotted = pattern_masks(p, normal)
    layers[index] = torch.cat(
        [torch.stack([body, body * striped, body * dotted], -1) * shade[:, None], fixed * shade[:, None], 0 * p[:, :1]],
        -1,
    )
    return layers


def pattern_masks(p: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """Where stripes and dots lie: two masks [N] in {0, 1} at surface points [N, 3]."""
    along = (0.5 * p[:, 0] + p[:, 1] + 0.5 * p[:, 2]) / 0.34
    striped = (along % 1.0 < 0.42).float()
    # Dots on a square grid in the plane that the normal faces most.
    axis = normal.abs().argmax(-1)
    u = torch.where(axis == 0, p[:, 2], p[:, 0])
    v = torch.where(axis == 1, p[:, 2], p[:, 1])
    cell = torch.stack([u, v], -1) / 0.30
    dotted = ((cell - cell.round()).norm(dim=-1) * 0.30 < 0.095).float()
    return striped, dotted


def render_layers(kind: str, cameras: Cameras) -> Tensor:
    """Layers [C, H, W, 7]; pixels on an edge are averages of four rays."""
    origin, direction = camera_rays(cameras)
    shape = (len(cameras), cameras.height, cameras.width)
    layers = trace(kind, origin.reshape(-1, 3), direction.reshape(-1, 3)).reshape(*shape, LAYERS)
    edge = torch.zeros(shape, dtype=torch.bool)
    rough_x = (layers[:, :, 1:] - layers[:, :, :-1]).abs().amax(-1) > 0.08
    rough_y = (layers[:, 1:] - layers[:, :-1]).abs().amax(-1) > 0.08
    edge[:, :, 1:] |= rough_x
    edge[:, :, :-1] |= rough_x
    edge[:, 1:] |= rough_y
    edge[:, :-1] |= rough_y
    samples = []
    for offset in ((-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125)):
        o, d = camera_rays(cameras, offset)
        samples.append(trace(kind, o[edge], d[edge]))
    layers[edge] = torch.stack(samples).mean(0)
    return layers


def colourise(layers: Tensor, pattern: Tensor, first: Tensor, second: Tensor, background: Tensor) -> Tensor:
    """Images [B, H, W, 3] from layers [B, H, W, 7], pattern indices [B] and colours [B, 3]."""
    body = layers[..., :1]
    masks = torch.stack([torch.zeros_like(layers[..., 0]), layers[..., 1], layers[..., 2]], -1)
    mask = masks.gather(-1, pattern[:, None, None, None].expand(*layers.shape[:3], 1))
    lit = (body - mask) * first[:, None, None] + mask * second[:, None, None]
    return (lit + layers[..., 3:6] + layers[..., 6:] * background[:, None, None]).clamp(0, 1)


def render(subject: Subject, cameras: Cameras, background: Tensor) -> Tensor:
    """Images [C, H, W, 3] of one subject on backgrounds [C, 3]."""
    count = len(cameras)
    return colourise(
        render_layers(subject.kind, cameras),
        torch.full((count,), PATTERNS.index(subject.pattern)),
        torch.tensor(COLOURS[subject.colour]).expand(count, 3),
        torch.tensor(SECOND[subject.colour]).expand(count, 3),
        background,
    )


def training_cameras(count: int, generator: torch.Generator, resolution: int = RESOLUTION) -> Cameras:
    """Cameras as the preset `starter` draws them."""
    return sample_orbit(STARTER_ORBIT, count, resolution, 0, generator)
