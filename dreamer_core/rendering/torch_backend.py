"""The renderer in plain torch: any device, float32 or float64.

The semantics are gsplat 1.5.3's (Apache-2.0); the equations are those of 3D Gaussian Splatting (Kerbl et al.
2023) and EWA splatting (Zwicker et al. 2002). Projection is differentiated by autograd. Blending has its derivative
written out, for speed: it runs in pieces that stay in a processor's cache and that the backward pass recomputes, and
masks are made only where a piece needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .output import RenderOutput
from .renderer import RasterizeCall, Renderer

ALPHA_MIN = 1.0 / 255.0
"""Contributions below this are skipped."""
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4
"""A pixel is finished before the Gaussian that would bring it to this or below."""
RADIUS_MAX = 3.33
"""Standard deviations; an opaque Gaussian falls to ALPHA_MIN at 3.329."""
TILE = 8
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
    orthographic: bool = False,
) -> Projection:
    """EWA projection: covariance `J W S W^T J^T + eps2d I` with J the Jacobian of the perspective map.

    `orthographic`: of the map (x, y) -> (fx x + cx, fy y + cy), whose Jacobian is constant.
    """
    rotations, translations = viewmats[:, None, :3, :3], viewmats[:, None, :3, 3]
    points = (rotations @ means[None, :, :, None])[..., 0] + translations  # [C, N, 3]
    depths = points[..., 2]
    in_range = (depths >= near) & (depths <= far)
    # Behind the camera the division would put inf and NaN into the gradients of what is not drawn.
    x, y, z = points[..., 0], points[..., 1], torch.where(in_range, depths, torch.ones_like(depths))

    fx, fy, cx, cy = (Ks[:, i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    zero = torch.zeros_like(z)
    if orthographic:
        z, u, v = torch.ones_like(z), zero, zero
    else:
        margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
        u = torch.clamp(x / z, -(cx / fx + margin_x), (width - cx) / fx + margin_x)
        v = torch.clamp(y / z, -(cy / fy + margin_y), (height - cy) / fy + margin_y)
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
def sort_into_tiles(means2d: Tensor, radii: Tensor, depths: Tensor, width: int, height: int, tile: int = TILE) -> Tiles:
    """Tile lists of one view from means2d [N, 2], radii [N, 2] and depths [N]."""
    columns, rows = -(-width // tile), -(-height // tile)
    limit = torch.tensor([columns, rows], device=means2d.device)
    visible = torch.nonzero((radii > 0).all(-1))[:, 0]
    visible = visible[torch.argsort(depths[visible], stable=True)]
    means2d, radii = means2d[visible], radii[visible]
    first = torch.minimum(((means2d - radii) / tile).floor().long().clamp_min(0), limit)
    last = torch.minimum(((means2d + radii) / tile).ceil().long().clamp_min(0), limit)
    extent = (last - first).clamp_min(0)
    count = extent[:, 0] * extent[:, 1]
    which = torch.repeat_interleave(torch.arange(len(visible), device=means2d.device), count)
    local = torch.arange(len(which), device=means2d.device) - (count.cumsum(0) - count)[which]
    across = extent[which, 0]
    place = (first[which, 1] + local // across) * columns + first[which, 0] + local % across
    place, permutation = torch.sort(place, stable=True)
    starts = torch.zeros(columns * rows + 1, dtype=torch.long, device=means2d.device)
    starts[1:] = torch.bincount(place, minlength=columns * rows).cumsum(0)
    return Tiles(starts, visible[which[permutation]], columns)


class _Chunk(NamedTuple):
    """Gaussians number `start` and following of some tiles' lists."""

    some: Tensor  # [T] tiles
    corner: Tensor  # [T, 2] pixels
    ids: Tensor  # [T, K]
    present: Tensor  # [T, K] bool; False pads


class _Alphas(NamedTuple):
    """What the Gaussians of a chunk cover of the pixels, and what its derivative needs."""

    alpha: Tensor  # [T, PIXELS, K], 0 where not drawn
    clamped: Tensor | None  # [T, PIXELS, K] bool, where ALPHA_MAX cut it off; None: nowhere
    dx: Tensor  # [T, TILE, K] Gaussian - pixel column
    dy: Tensor  # [T, TILE, K] Gaussian - pixel row


def _chunks(tiles: Tiles, some: Tensor, longest: int) -> Iterator[_Chunk]:
    """The lists of some tiles in pieces of DEPTH_CHUNK, nearest first."""
    corner = torch.stack([some % tiles.columns, some // tiles.columns], dim=-1) * TILE
    first, count = tiles.starts[some, None], (tiles.starts[some + 1] - tiles.starts[some])[:, None]
    for start in range(0, longest, DEPTH_CHUNK):
        index = torch.arange(start, min(start + DEPTH_CHUNK, longest), device=some.device)
        position = (first + index).clamp_max(len(tiles.ids) - 1)
        yield _Chunk(some, corner, tiles.ids[position], index < count)


def _alphas(means2d: Tensor, conics: Tensor, opacities: Tensor, chunk: _Chunk) -> _Alphas:
    """`min(o exp(-sigma), ALPHA_MAX)`, with sigma summed up from a part per column, one per row and the mixed one."""
    lane = torch.arange(TILE, device=means2d.device) + 0.5
    pixels = (chunk.corner[:, :, None] + lane).to(means2d.dtype)[..., None]  # [T, 2, TILE, 1]
    mean, conic = means2d[chunk.ids], conics[chunk.ids]
    dx, dy = mean[:, None, :, 0] - pixels[:, 0], mean[:, None, :, 1] - pixels[:, 1]
    a, b, c = (x[:, None] for x in conic.unbind(-1))
    s = (-0.5 * a * dx * dx)[:, None] + (-0.5 * c * dy * dy)[:, :, None]  # [T, rows, columns, K], -sigma
    s.addcmul_((-b * dx)[:, None], dy[:, :, None])
    outside = s > 0 if s.numel() and bool(s.max() > 0) else None
    alpha = s.exp_().mul_((opacities[chunk.ids] * chunk.present)[:, None, None])
    if outside is not None:
        alpha.masked_fill_(outside, 0.0)
    clamped = alpha > ALPHA_MAX if alpha.numel() and bool(alpha.max() > ALPHA_MAX) else None
    below = torch.nextafter(alpha.new_tensor(ALPHA_MIN), alpha.new_zeros(())).item()
    torch.threshold_(alpha, below, 0.0).clamp_max_(ALPHA_MAX)
    return _Alphas(alpha.flatten(1, 2), None if clamped is None else clamped.flatten(1, 2), dx, dy)


def _weights(alpha: Tensor, reach: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Transmittances before and after each Gaussian, blending weights, and which are drawn (None: all).

    `reach` [T, PIXELS] is the transmittance so far if nothing ended a pixel; below TRANSMITTANCE_MIN one is finished.
    """
    after = torch.cumprod(1 - alpha, dim=-1).mul_(reach[..., None])
    before = torch.cat([reach[..., None], after[..., :-1]], dim=-1)
    weights = alpha * before
    drawn = after > TRANSMITTANCE_MIN if bool(after[..., -1].min() <= TRANSMITTANCE_MIN) else None
    if drawn is not None:
        weights *= drawn
    return before, after, weights, drawn


class _Blend(torch.autograd.Function):
    """Front-to-back alpha blending of tile lists, chunk by chunk; the backward pass recomputes each chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,  # [N, 2]
        conics: Tensor,  # [N, 3]
        opacities: Tensor,  # [N]
        features: Tensor,  # [N, D]
        tiles: Tiles,
    ) -> tuple[Tensor, Tensor]:  # [tiles, PIXELS, D], [tiles, PIXELS]
        counts = tiles.starts[1:] - tiles.starts[:-1]
        blended = features.new_zeros(len(counts), PIXELS, features.shape[1])
        transmittances = features.new_ones(len(counts), PIXELS)
        order = torch.argsort(counts, descending=True, stable=True)[: int((counts > 0).sum())]
        # What the pixels let through before each chunk: all that the backward pass needs of this one.
        batches: list[tuple[Tensor, int, list[Tensor]]] = []
        for some in order.split(max(1, CHUNK_ELEMENTS // (PIXELS * DEPTH_CHUNK))) if len(order) else ():
            longest, reaches = int(counts[some[0]]), []
            sums, left = blended[some], transmittances[some]
            reach = left
            for chunk in _chunks(tiles, some, longest):
                if bool(reach.max() <= TRANSMITTANCE_MIN):
                    break
                reaches.append(reach)
                alpha = _alphas(means2d, conics, opacities, chunk).alpha
                _, after, weights, drawn = _weights(alpha, reach)
                sums += weights @ features[chunk.ids]
                reach = after[..., -1].clone()
                left = reach
                if drawn is not None:
                    left = torch.where(drawn, after, 2.0).amin(-1).minimum(transmittances[some])
                transmittances[some] = left
            blended[some] = sums
            batches.append((some, longest, reaches))
        ctx.save_for_backward(means2d, conics, opacities, features, transmittances)
        ctx.tiles, ctx.batches = tiles, batches
        return blended, transmittances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_blended: Tensor, v_transmittances: Tensor) -> tuple[Tensor | None, ...]:
        means2d, conics, opacities, features, transmittances = ctx.saved_tensors
        gradients = means2d.new_zeros(len(means2d), 6 + features.shape[1])
        for some, longest, reaches in ctx.batches:
            v = v_blended[some]
            # What a Gaussian's alpha takes away from everything behind it, times (1 - alpha).
            behind = transmittances[some] * v_transmittances[some]
            for chunk, reach in reversed(list(zip(_chunks(ctx.tiles, some, longest), reaches))):
                covered = _alphas(means2d, conics, opacities, chunk)
                found = _chunk_gradients(covered, conics, opacities, features, chunk, reach, v, behind)
                gradients.index_add_(0, chunk.ids.flatten(), found.flatten(0, 1))
        return (
            *gradients.split([2, 3, 1, features.shape[1]], dim=1)[:2],
            gradients[:, 5],
            gradients[:, 6:],
            None,
        )


def _chunk_gradients(
    covered: _Alphas,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    chunk: _Chunk,
    reach: Tensor,  # [T, PIXELS] before the chunk
    v: Tensor,  # [T, PIXELS, D]
    behind: Tensor,  # [T, PIXELS] of what lies behind the chunk on entry, of the chunk as well on return
) -> Tensor:  # [T, K, 6 + D]
    """Gradients of mean (2), conic (3), opacity and features of a chunk's Gaussians in their tiles."""
    alpha, dx, dy = covered.alpha, covered.dx, covered.dy
    before, _, weights, drawn = _weights(alpha, reach)
    along = v @ features[chunk.ids].transpose(1, 2)
    passed = (weights * along).cumsum(-1)
    behind += passed[..., -1]
    # q = alpha * d loss / d alpha = -d loss / d sigma
    q = before.mul_(along).sub_(passed.neg_().add_(behind[..., None]).div_(1 - alpha)).mul_(alpha)
    if drawn is not None:
        q *= drawn
    if covered.clamped is not None:
        q.masked_fill_(covered.clamped, 0.0)
    q = q.unflatten(1, (TILE, TILE))
    of_columns, of_rows, mixed = q.sum(1), q.sum(2), (q * dx[:, None]).sum(2)
    x, xx = (of_columns * dx).sum(1), (of_columns * dx * dx).sum(1)
    y, yy = (of_rows * dy).sum(1), (of_rows * dy * dy).sum(1)
    a, b, c = conics[chunk.ids].unbind(-1)
    opacity = of_columns.sum(1) / opacities[chunk.ids].clamp_min(ALPHA_MIN)
    geometry = [-(a * x + b * y), -(b * x + c * y), -0.5 * xx, -(mixed * dy).sum(1), -0.5 * yy, opacity]
    return torch.cat([torch.stack(geometry, dim=-1), weights.transpose(1, 2) @ v], dim=-1)


def blend_view(
    means2d: Tensor,  # [N, 2]
    conics: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    features: Tensor,  # [N, D]
    tiles: Tiles,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:  # [H, W, D], [H, W]
    """Features of one view over nothing, and its transmittance."""
    rows = -(-height // TILE)
    blended, transmittances = _Blend.apply(means2d, conics, opacities, features, tiles)

    def assemble(values: Tensor) -> Tensor:  # [tiles, PIXELS, D] -> [H, W, D]
        grid = values.reshape(rows, tiles.columns, TILE, TILE, -1).transpose(1, 2)
        return grid.reshape(rows * TILE, tiles.columns * TILE, -1)[:height, :width]

    return assemble(blended), assemble(transmittances)[..., 0]


def rasterize(call: RasterizeCall) -> RenderOutput:
    """See `facade.rasterize`; computes in the type of its inputs."""
    width, height, opacities = call.width, call.height, call.opacities
    radii, means2d, depths, conics = project(
        call.means, call.quats, call.scales, opacities, call.viewmats, call.Ks,
        width, height, call.near, call.far, call.eps2d, call.orthographic,
    )  # fmt: skip
    features = call.colors.expand(call.views, -1, -1)
    if call.depth:
        z = depths if call.depth_gradient else depths.detach()
        features = torch.cat([features, z[..., None]], dim=-1)
    images, transmittances = [], []
    for view in range(call.views):
        tiles = sort_into_tiles(means2d[view], radii[view], depths[view], width, height)
        image, transmittance = blend_view(
            means2d[view],
            conics[view],
            opacities,
            features[view],
            tiles,
            width,
            height,
        )
        images.append(image)
        transmittances.append(transmittance)
    image, transmittance = torch.stack(images), torch.stack(transmittances)[..., None]
    rgb = image[..., :3]
    if call.backgrounds is not None:
        rgb = rgb + transmittance * call.backgrounds[:, None, None]
    info = call.info(
        radii=radii, means2d=means2d, depths=depths, conics=conics, opacities=opacities.expand(call.views, -1)
    )
    return RenderOutput(rgb, 1 - transmittance, image[..., 3:] if call.depth else None, info)


TORCH = Renderer(name="torch", purpose="the slow reference, anywhere", rasterize=rasterize)
