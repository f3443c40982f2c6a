"""Gaussians fitted to pictures of one object from known sides: a start that already has one front.

The pictures' silhouettes carve a hull (Laurentini 1994), its surface becomes Gaussians, and those are fitted to the
pictures by what 3D Gaussian Splatting compares them with (Kerbl et al. 2023): L1 and structural similarity. Coverage
is fitted to the silhouettes, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cameras import Cameras, orbit_cameras, orthographic_cameras, project_points
from ..errors import InputError
from ..gaussians import Gaussians
from ..optimize.learning_rates import LearningRates
from ..optimize.randomness import step_generator
from ..optimize.state import OptimizationState
from ..rendering import render
from ..teachers.multiview.cameras import HALF_WIDTH
from .shapes import check_numbers, from_points

GRID = 96
"""Cells per side of the hull."""
LARGEST = 512
"""Pixels per side; larger pictures are fitted at this size."""
VIEWS_AT_ONCE = 3
SIMILARITY, COVERAGE = 0.2, 0.5
"""Weights of structural similarity (1 minus it, as in 3DGS) and of the difference of coverage; L1 has the rest, 0.8."""
FAINT, CLEAR = 0.05, 0.13
"""Differences from the background, of channels in [0, 1], below which nothing is there and from which all is."""
RATES = LearningRates(
    means=(2e-3, 2e-5), quats=(5e-3, 1e-3), log_scales=(1e-2, 2e-3), logit_opacities=(0.05, 0.02), sh0=(2e-2, 3e-3)
)
"""Faster than a distillation's: pictures say more than a teacher, and say it without noise."""


@dataclass(frozen=True)
class ViewPictures:
    """Pictures of one object from cameras that look at the origin."""

    images: Tensor  # [V, H, W, 3] in [0, 1]
    azimuths: Sequence[float]  # degrees
    elevations: Sequence[float] = (0.0,)
    """Degrees, one for all or one for each."""
    half_width: float = HALF_WIDTH
    """World units to each side at the origin's depth."""
    fov: float = 0.0
    """Radians; 0: parallel rays."""
    masks: Tensor | None = None  # [V, H, W] in [0, 1]
    """Where the object is; None: where a picture differs from its own border."""

    def __post_init__(self) -> None:
        views = len(self.images)
        if self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise InputError("images", "pictures [V, H, W, 3]", tuple(self.images.shape))
        if views < 2 or len(self.azimuths) != views:
            got = f"{views} picture(s) and {len(self.azimuths)} azimuth(s)"
            raise InputError("azimuths", "at least 2 pictures, and one azimuth for each", got)
        if len(self.elevations) not in (1, views):
            raise InputError("elevations", f"1 or {views} of them", len(self.elevations))
        if self.masks is not None and self.masks.shape[0] not in (1, views):
            raise InputError("masks", f"{views} of them", len(self.masks))

    def cameras(self, resolution: int) -> Cameras:
        """Whose pictures they are, square."""
        elevations = torch.tensor([*self.elevations] * (1 if len(self.elevations) > 1 else len(self.images)))
        if self.fov:
            radius = self.half_width / torch.tan(torch.tensor(self.fov / 2))
            return orbit_cameras(self.azimuths, elevations, radius, self.fov, resolution)
        return orthographic_cameras(self.azimuths, elevations, self.half_width, resolution)

    def prepared(self) -> tuple[Tensor, Tensor, Tensor]:
        """Square pictures [V, R, R, 3], where the object is in them [V, R, R], and their backgrounds [V, 3].

        Errors: InputError for a picture without an object on an even background.
        """
        side = min(max(self.images.shape[1:3]), LARGEST)
        backgrounds = border_colours(self.images)
        images = _square(self.images, backgrounds, side)
        if self.masks is None:
            masks = silhouettes(images, backgrounds)
        else:
            masks = self.masks.to(images).expand(len(images), -1, -1)[..., None]
            masks = _square(masks, torch.zeros_like(backgrounds[:, :1]), side)[..., 0].clamp(0, 1)
        share = (masks > 0.5).float().mean((1, 2))
        for view, found in enumerate(share.tolist()):
            if not 0.002 < found < 0.9:
                what = "nothing" if found < 0.5 else "something everywhere"
                got = f"{what} in picture {view + 1} (azimuth {self.azimuths[view]:g})"
                remedy = "give masks, or pictures on an even background with a margin around the object"
                raise InputError("images", "an object on an even background", got, remedy)
        return images, masks, backgrounds


def border_colours(images: Tensor) -> Tensor:  # [V, H, W, 3] -> [V, 3]
    """The median colour of each picture's outermost pixels."""
    width = max(1, min(images.shape[1:3]) // 50)
    sides = (images[:, :width], images[:, -width:], images[:, :, :width], images[:, :, -width:])
    return torch.cat([side.flatten(1, 2) for side in sides], dim=1).median(dim=1).values


def silhouettes(images: Tensor, backgrounds: Tensor) -> Tensor:  # [V, H, W]
    """Coverage in [0, 1] by the difference from the background; what is enclosed belongs to the object."""
    from scipy.ndimage import binary_fill_holes, binary_opening

    difference = (images - backgrounds[:, None, None]).abs().amax(-1)
    soft = ((difference - FAINT) / (CLEAR - FAINT)).clamp(0, 1)
    solid = [binary_fill_holes(binary_opening((one > 0.5).cpu().numpy())) for one in soft]
    return torch.maximum(soft * (soft > 0.5), torch.stack([torch.from_numpy(one) for one in solid]).to(soft))


def gaussians_from_views(
    views: ViewPictures,
    count: int,
    *,
    steps: int = 300,
    seed: int = 0,
    renderer: str = "auto",
    device: torch.device | str = "cpu",
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> Gaussians:
    """`count` Gaussians that look like the pictures from their sides; `steps` 0 leaves the hull's surface.

    `on_step(done, of)` is called after every step. Errors: InputError for pictures that show no object, that share no
    hull, and for a bad count.
    """
    check_numbers(count=count, size=1.0, opacity=0.5)
    with torch.inference_mode(False), torch.enable_grad():
        images, masks, backgrounds = (t.clone().to(device) for t in views.prepared())
        cameras = views.cameras(images.shape[1]).to(device)
        start = _surface(images, masks, cameras, views.half_width, count, step_generator(seed, 0, "init"))
        state = OptimizationState.create(start.to(device), RATES)
        generator = step_generator(seed, 0, "views")
        order: list[int] = []
        for step in range(steps):
            order = order or torch.randperm(len(images), generator=generator).tolist()
            some, order = order[:VIEWS_AT_ONCE], order[VIEWS_AT_ONCE:]
            _difference(state.gaussians, images[some], masks[some], backgrounds[some], cameras.at(some), renderer)
            state.descend(RATES, steps)
            state.step += 1
            on_step(step + 1, steps)
    return state.gaussians.detach()


def _difference(
    gaussians: Gaussians, images: Tensor, masks: Tensor, backgrounds: Tensor, cameras: Cameras, renderer: str
) -> None:
    """Back-propagates how far renders are from some of the pictures."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    output = render(gaussians, cameras, backgrounds=backgrounds, backend=renderer)
    seen, wanted = (x.permute(0, 3, 1, 2) for x in (output.colors, images))
    similarity = structural_similarity_index_measure(seen, wanted, data_range=1.0)
    assert isinstance(similarity, Tensor)
    loss = (1 - SIMILARITY) * (seen - wanted).abs().mean() + SIMILARITY * (1 - similarity)
    loss = loss + COVERAGE * (output.alphas[..., 0] - masks).abs().mean()
    loss.backward()


def _surface(
    images: Tensor, masks: Tensor, cameras: Cameras, half_width: float, count: int, generator: torch.Generator
) -> Gaussians:
    """Gaussians on the surface of the hull, coloured by the pictures that look at them."""
    from scipy.ndimage import binary_erosion, gaussian_filter

    cell = 2 * half_width / GRID
    axis = (torch.arange(GRID) + 0.5) * cell - half_width
    cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    inside = (_sampled(masks[..., None].cpu(), cameras, cells.reshape(-1, 3))[..., 0] > 0.5).all(0)
    hull = inside.view(GRID, GRID, GRID).numpy()
    if hull.sum() < 30:
        got = "pictures whose silhouettes have no common solid"
        raise InputError("images", "pictures of one object from these sides", got, "check azimuths and elevations")
    shell = torch.from_numpy(hull & ~binary_erosion(hull, iterations=2)).nonzero()
    chosen = shell[torch.randint(len(shell), (count,), generator=generator)]
    points = (chosen + torch.rand(count, 3, generator=generator)) * cell - half_width
    soft = torch.from_numpy(gaussian_filter(hull.astype("float32"), 2.0))
    slopes = torch.stack(torch.gradient(soft), dim=-1)[chosen.unbind(1)]
    normals = -torch.nn.functional.normalize(slopes, dim=-1)
    towards = -cameras.viewmats[:, 2, :3].cpu()  # from the object to each camera
    facing = (normals @ towards.T).clamp_min(0.05) ** 4  # [N, V]
    colours = _sampled(images.cpu(), cameras, points)  # [V, N, 3]
    rgb = torch.einsum("nv,vnd->nd", facing / facing.sum(1, keepdim=True), colours)
    return from_points(points, rgb.clamp(0.02, 0.98), opacity=0.5, max_scale=2 * cell)


def _sampled(maps: Tensor, cameras: Cameras, points: Tensor) -> Tensor:
    """Values [V, N, D] of maps [V, H, W, D] where points [N, 3] appear; 0 outside."""
    pixels, _ = project_points(cameras.to("cpu"), points)
    size = pixels.new_tensor([cameras.width, cameras.height])
    grid = (2 * pixels / size - 1)[:, None]
    found = torch.nn.functional.grid_sample(maps.permute(0, 3, 1, 2), grid, align_corners=False)
    return found[:, :, 0].transpose(1, 2)


def _square(images: Tensor, backgrounds: Tensor, side: int) -> Tensor:
    """Pictures [V, side, side, D] with their background added at the shorter sides."""
    height, width = images.shape[1:3]
    longest = max(height, width)
    square = backgrounds[:, None, None].expand(-1, longest, longest, -1).clone()
    top, left = (longest - height) // 2, (longest - width) // 2
    square[:, top : top + height, left : left + width] = images
    if longest == side:
        return square
    small = torch.nn.functional.interpolate(square.permute(0, 3, 1, 2), (side, side), mode="area")
    return small.permute(0, 2, 3, 1).contiguous()
