"""The reference renderer in plain torch: any device, float32 or float64, gradients by autograd.

The semantics are gsplat 1.5.3's (Apache-2.0); the equations are those of 3D Gaussian Splatting (Kerbl et al.
2023) and EWA splatting (Zwicker et al. 2002). It is clear rather than fast: per-pixel work runs in bounded pieces
that the backward pass recomputes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .output import RenderOutput

ALPHA_MIN = 1.0 / 255.0
"""Contributions below this are skipped."""
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4
"""A pixel is finished before the Gaussian that would bring it to this or below."""
RADIUS_MAX = 3.33
"""Standard deviations; an opaque Gaussian falls to ALPHA_MIN at 3.329."""
TILE = 16
PIXELS = TILE * TILE
DEPTH_CHUNK = 128
"""Gaussians blended into a tile at a time."""
CHUNK_ELEMENTS = 1 << 18
"""Pixel-Gaussian pairs in memory at once; few enough to stay in a processor's cache."""


class Projection(NamedTuple):
    """Gaussians on the image planes of C views."""

    radii: Tensor  # [C, N, 2] int32 pixels
    means2d: Tensor  # [C, N, 2] pixels
    depths: Tensor  # [C, N]
    conics: Tensor  # [C, N, 3] inverse covariance (xx, xy, yy)


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotations [N, 3, 3] of quaternions [N, 4] (wxyz, any length above 0)."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def project(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    near: float,
    far: float,
    eps2d: float,
) -> Projection:
    """EWA projection: covariance `J W S W^T J^T + eps2d I` with J the Jacobian of the perspective map."""
    rotations, translations = viewmats[:, None, :3, :3], viewmats[:, None, :3, 3]
    points = (rotations @ means[None, :, :, None])[..., 0] + translations  # [C, N, 3]
    depths = points[..., 2]
    in_range = (depths >= near) & (depths <= far)
    # Behind the camera the division would put inf and NaN into the gradients of what is not drawn.
    x, y, z = points[..., 0], points[..., 1], torch.where(in_range, depths, torch.ones_like(depths))

    fx, fy, cx, cy = (Ks[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    u = torch.clamp(x / z, -(cx / fx + margin_x), (width - cx) / fx + margin_x)
    v = torch.clamp(y / z, -(cy / fy + margin_y), (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], dim=-1).unflatten(-1, (2, 3))
    axes = jacobian @ rotations @ (rotation_matrices(quats) * scales[:, None, :])  # [C, N, 2, 3]
    covariance = axes @ axes.transpose(-1, -2)
    xx, xy, yy = covariance[..., 0, 0] + eps2d, covariance[..., 0, 1], covariance[..., 1, 1] + eps2d
    determinant = xx * yy - xy * xy
    solid = determinant > 0
    conics = torch.stack([yy, -xy, xx], dim=-1) / torch.where(solid, determinant, 1.0)[..., None]
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)

    with torch.no_grad():
        extent = (2 * torch.log(opacities.clamp_min(ALPHA_MIN) / ALPHA_MIN)).sqrt().clamp_max(RADIUS_MAX)
        radii = torch.ceil(extent[None, :, None] * torch.stack([xx, yy], dim=-1).sqrt())
        size = radii.new_tensor([width, height])
        inside = ((means2d + radii > 0) & (means2d - radii < size)).all(-1)
        drawn = in_range & solid & (opacities >= ALPHA_MIN) & inside
        radii = torch.where(drawn[..., None], radii, 0.0).int()
    return Projection(radii, means2d, depths, conics)


class Tiles(NamedTuple):
    """Lists of Gaussians per tile of one view, nearest first."""

    starts: Tensor  # [tiles + 1] int64
    ids: Tensor  # [intersections] int64
    columns: int


@torch.no_grad()
def sort_into_tiles(means2d: Tensor, radii: Tensor, depths: Tensor, width: int, height: int) -> Tiles:
    """Tile lists of one view from means2d [N, 2], radii [N, 2] and depths [N]."""
    columns, rows = -(-width // TILE), -(-height // TILE)
    limit = torch.tensor([columns, rows], device=means2d.device)
    visible = torch.nonzero((radii > 0).all(-1))[:, 0]
    visible = visible[torch.argsort(depths[visible], stable=True)]
    means2d, radii = means2d[visible], radii[visible]
    first = torch.minimum(((means2d - radii) / TILE).floor().long().clamp_min(0), limit)
    last = torch.minimum(((means2d + radii) / TILE).ceil().long().clamp_min(0), limit)
    extent = (last - first).clamp_min(0)
    count = extent[:, 0] * extent[:, 1]
    which = torch.repeat_interleave(torch.arange(len(visible), device=means2d.device), count)
    local = torch.arange(len(which), device=means2d.device) - (count.cumsum(0) - count)[which]
    across = extent[which, 0]
    tile = (first[which, 1] + local // across) * columns + first[which, 0] + local % across
    tile, permutation = torch.sort(tile, stable=True)
    starts = torch.zeros(columns * rows + 1, dtype=torch.long, device=means2d.device)
    starts[1:] = torch.bincount(tile, minlength=columns * rows).cumsum(0)
    return Tiles(starts, visible[which[permutation]], columns)


class Blended(NamedTuple):
    """State of the pixels of some tiles after a chunk of their Gaussians."""

    features: Tensor  # [tiles, PIXELS, D]
    transmittance: Tensor  # [tiles, PIXELS]
    alive: Tensor  # [tiles, PIXELS] bool


def blend_chunk(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    features: Tensor,  # [N, D]
    ids: Tensor,  # [tiles, K]
    present: Tensor,  # [tiles, K] bool; False pads
    pixels: Tensor,  # [tiles, PIXELS, 2] pixel centres
    state: Blended,
    absgrad: Tensor | None,  # [N, 2] accumulates |d loss / d means2d| per pixel
) -> Blended:
    """Front-to-back alpha blending of K Gaussians into each tile."""
    delta = means2d[ids][:, None] - pixels[:, :, None]  # [tiles, PIXELS, K, 2]
    if absgrad is not None and delta.requires_grad:

        def accumulate(gradient: Tensor) -> None:
            absgrad.index_add_(0, ids.flatten(), gradient.abs().sum(1).flatten(0, 1))

        delta.register_hook(accumulate)
    dx, dy = delta.unbind(-1)
    a, b, c = conics[ids][:, None].unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (opacities[ids][:, None] * torch.exp(-sigma)).clamp_max(ALPHA_MAX)
    alpha = torch.where(present[:, None] & (sigma >= 0) & (alpha >= ALPHA_MIN), alpha, 0.0)
    before = state.transmittance[..., None]
    with torch.no_grad():
        kept = state.alive[..., None] & (before * torch.cumprod(1 - alpha, dim=-1) > TRANSMITTANCE_MIN)
    alpha = torch.where(kept, alpha, 0.0)
    after = before * torch.cumprod(1 - alpha, dim=-1)
    weights = alpha * torch.cat([before, after[..., :-1]], dim=-1)
    return Blended(state.features + weights @ features[ids], after[..., -1], kept[..., -1])


def blend_view(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    features: Tensor,  # [N, D]
    tiles: Tiles,
    width: int,
    height: int,
    absgrad: Tensor | None,  # [N, 2]
) -> tuple[Tensor, Tensor]:  # [H, W, D], [H, W]
    """Features of one view over nothing, and its transmittance."""
    device, channels = means2d.device, features.shape[1]
    rows = -(-height // TILE)
    counts = tiles.starts[1:] - tiles.starts[:-1]
    lane = torch.arange(PIXELS, device=device)
    offsets = torch.stack([lane % TILE, lane // TILE], dim=-1) + 0.5
    order = torch.argsort(counts, descending=True, stable=True)
    order = order[: int((counts > 0).sum())]
    outputs, transmittances = [], []
    # Bound, not passed: it changes during the backward pass, which checkpointing forbids its arguments.
    blend = partial(blend_chunk, absgrad=absgrad)
    batch = max(1, CHUNK_ELEMENTS // (PIXELS * DEPTH_CHUNK))
    for some in order.split(batch) if len(order) else ():
        corner = torch.stack([some % tiles.columns, some // tiles.columns], dim=-1) * TILE
        pixels = (corner[:, None] + offsets).to(means2d.dtype)
        state = Blended(
            features.new_zeros(len(some), PIXELS, channels),
            features.new_ones(len(some), PIXELS),
            torch.ones(len(some), PIXELS, dtype=torch.bool, device=device),
        )
        longest = int(counts[some[0]])
        for start in range(0, longest, DEPTH_CHUNK):
            if not bool(state.alive.any()):
                break
            depth_index = torch.arange(start, min(start + DEPTH_CHUNK, longest), device=device)
            present = depth_index < counts[some, None]
            position = (tiles.starts[some, None] + depth_index).clamp_max(len(tiles.ids) - 1)
            args = (means2d, conics, opacities, features, tiles.ids[position], present, pixels, state)
            state = checkpoint(blend, *args, use_reentrant=False, preserve_rng_state=False)
        outputs.append(state.features)
        transmittances.append(state.transmittance)
    # Sums of nothing: gradients exist, as zeros, also where nothing is drawn.
    anchor = means2d[:0].sum() + conics[:0].sum() + opacities[:0].sum() + features[:0].sum()
    blank = features.new_zeros(len(counts), PIXELS, channels) + anchor
    clear = features.new_ones(len(counts), PIXELS)
    if outputs:
        blank = blank.index_copy(0, order, torch.cat(outputs))
        clear = clear.index_copy(0, order, torch.cat(transmittances))

    def assemble(values: Tensor) -> Tensor:  # [tiles, PIXELS, D] -> [H, W, D]
        grid = values.reshape(rows, tiles.columns, TILE, TILE, -1).transpose(1, 2)
        return grid.reshape(rows * TILE, tiles.columns * TILE, -1)[:height, :width]

    return assemble(blank), assemble(clear)[..., 0]


def rasterize(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4]
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [N, 3] or [C, N, 3]
    viewmats: Tensor,  # [C, 4, 4]
    Ks: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    *,
    backgrounds: Tensor | None,  # [C, 3]
    depth: bool,
    depth_gradient: bool,
    absgrad: bool,
    near: float,
    far: float,
    eps2d: float,
) -> RenderOutput:
    """See `facade.rasterize`."""
    views = viewmats.shape[0]
    projection = project(means, quats, scales, opacities, viewmats, Ks, width, height, near, far, eps2d)
    radii, means2d, depths, conics = projection
    sink = None
    if absgrad and means2d.requires_grad:
        sink = torch.zeros_like(means2d.detach())
        means2d.absgrad = sink  # type: ignore[attr-defined]
    features = colors.expand(views, -1, -1)
    if depth:
        z = depths if depth_gradient else depths.detach()
        features = torch.cat([features, z[..., None]], dim=-1)
    images, transmittances = [], []
    for view in range(views):
        tiles = sort_into_tiles(means2d[view], radii[view], depths[view], width, height)
        image, transmittance = blend_view(
            means2d[view],
            conics[view],
            opacities,
            features[view],
            tiles,
            width,
            height,
            None if sink is None else sink[view],
        )
        images.append(image)
        transmittances.append(transmittance)
    image, transmittance = torch.stack(images), torch.stack(transmittances)[..., None]
    rgb = image[..., :3]
    if backgrounds is not None:
        rgb = rgb + transmittance * backgrounds[:, None, None]
    info: dict[str, Any] = {
        "width": width,
        "height": height,
        "n_cameras": views,
        "radii": radii,
        "gaussian_ids": None,
        "means2d": means2d,
        "depths": depths,
        "conics": conics,
        "opacities": opacities.expand(views, -1),
    }
    return RenderOutput(rgb, 1 - transmittance, image[..., 3:] if depth else None, info)
