"""The objects of the starter world: sixteen kinds as signed distance functions (Y up, front +Z, unit ball)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Rgb = tuple[float, float, float]
Vec = tuple[float, float, float]
Part = tuple[Tensor, Rgb | None]
"""A distance [N] and a fixed albedo; None takes the colour of the caption."""

DARK: Rgb = (0.13, 0.13, 0.15)
WOOD: Rgb = (0.48, 0.30, 0.14)
CREAM: Rgb = (0.93, 0.90, 0.80)
METAL: Rgb = (0.62, 0.64, 0.67)
GLASS: Rgb = (0.52, 0.76, 0.90)
GLOW: Rgb = (1.00, 0.92, 0.55)
CARROT: Rgb = (0.95, 0.50, 0.06)
SIGNAL: Rgb = (0.85, 0.10, 0.08)


def _length(v: Tensor) -> Tensor:
    return v.norm(dim=-1)


def _at(p: Tensor, centre: Vec) -> Tensor:
    return p - p.new_tensor(centre)


def sphere(p: Tensor, centre: Vec, radius: float) -> Tensor:
    """Distance [N] of points [N, 3] to a sphere."""
    return _length(_at(p, centre)) - radius


def ellipsoid(p: Tensor, centre: Vec, radii: Vec) -> Tensor:
    """A bound of the distance to an ellipsoid (Quilez's k0 (k0 - 1) / k1)."""
    q, r = _at(p, centre), p.new_tensor(radii)
    k0, k1 = _length(q / r), _length(q / (r * r)).clamp_min(1e-6)
    return k0 * (k0 - 1) / k1


def box(p: Tensor, centre: Vec, half: Vec, radius: float = 0.02) -> Tensor:
    """A box with half sizes `half`, its edges rounded outwards by `radius`."""
    q = _at(p, centre).abs() - p.new_tensor(half)
    return _length(q.clamp_min(0)) + q.amax(-1).clamp_max(0) - radius


def cylinder(p: Tensor, centre: Vec, radius: float, half: float, axis: int = 1) -> Tensor:
    """A capped cylinder along a coordinate axis."""
    q = _at(p, centre)
    others = [i for i in range(3) if i != axis]
    d = torch.stack([_length(q[..., others]) - radius, q[..., axis].abs() - half], -1)
    return d.amax(-1).clamp_max(0) + _length(d.clamp_min(0)) - 0.01


def capsule(p: Tensor, start: Vec, end: Vec, radius: float, end_radius: float | None = None) -> Tensor:
    """A segment with a radius that may change linearly."""
    a, b = p.new_tensor(start), p.new_tensor(end)
    along = (((p - a) @ (b - a)) / (b - a).dot(b - a)).clamp(0, 1)
    grow = 0.0 if end_radius is None else end_radius - radius
    return _length(p - a - along[..., None] * (b - a)) - radius - grow * along


def cone(p: Tensor, base: Vec, radius: float, height: float, top: float = 0.0) -> Tensor:
    """An upright cone: base radius at `base`, radius `top` at the upper end."""
    q = _at(p, base)
    slope = (radius - top) / height
    side = (_length(q[..., [0, 2]]) - radius + slope * q[..., 1]) / math.sqrt(1 + slope * slope)
    return torch.maximum(side, torch.maximum(-q[..., 1], q[..., 1] - height))


def torus(p: Tensor, centre: Vec, ring: float, tube: float) -> Tensor:
    """A torus in the XY plane."""
    q = _at(p, centre)
    return _length(torch.stack([_length(q[..., [0, 1]]) - ring, q[..., 2]], -1)) - tube


def join(*distances: Tensor) -> Tensor:
    """The union."""
    return torch.stack(distances, -1).amin(-1)


def cut(solid: Tensor, *holes: Tensor) -> Tensor:
    """`solid` without `holes`."""
    for hole in holes:
        solid = torch.maximum(solid, -hole)
    return solid


def mug(p: Tensor) -> list[Part]:
    body = cut(cylinder(p, (-0.1, 0, 0), 0.54, 0.62), cylinder(p, (-0.1, 0.16, 0), 0.45, 0.62))
    handle = cut(torus(p, (0.5, 0, 0), 0.31, 0.085), cylinder(p, (-0.1, 0, 0), 0.5, 0.8))
    return [(join(body, handle), None), (cylinder(p, (-0.1, 0.34, 0), 0.44, 0.02), (0.30, 0.17, 0.08))]


def teapot(p: Tensor) -> list[Part]:
    body = ellipsoid(p, (0, -0.1, 0), (0.55, 0.46, 0.55))
    spout = capsule(p, (0.4, -0.22, 0), (0.86, 0.26, 0), 0.15, 0.07)
    handle = cut(torus(p, (-0.55, 0, 0), 0.28, 0.065), ellipsoid(p, (0, -0.1, 0), (0.5, 0.41, 0.5)))
    lid = ellipsoid(p, (0, 0.32, 0), (0.30, 0.10, 0.30))
    return [(join(body, spout, handle), None), (join(lid, sphere(p, (0, 0.46, 0), 0.09)), DARK)]


def chair(p: Tensor) -> list[Part]:
    legs = [box(p, (x, -0.52, z), (0.045, 0.32, 0.045)) for x in (-0.38, 0.38) for z in (-0.38, 0.38)]
    seat = box(p, (0, -0.14, 0), (0.45, 0.05, 0.45), 0.03)
    back = box(p, (0, 0.40, -0.42), (0.43, 0.42, 0.04), 0.03)
    return [(join(seat, back), None), (join(*legs), WOOD)]


def table(p: Tensor) -> list[Part]:
    legs = [box(p, (x, -0.26, z), (0.055, 0.42, 0.055)) for x in (-0.66, 0.66) for z in (-0.38, 0.38)]
    drawer = box(p, (0, 0.09, 0.36), (0.30, 0.09, 0.08))
    return [
        (box(p, (0, 0.26, 0), (0.78, 0.045, 0.48), 0.03), None),
        (join(*legs), WOOD),
        (drawer, CREAM),
        (sphere(p, (0, 0.09, 0.48), 0.04), DARK),
    ]


def lamp(p: Tensor) -> list[Part]:
    arms = join(capsule(p, (0, -0.7, -0.2), (0, 0.02, -0.5), 0.045), capsule(p, (0, 0.02, -0.5), (0, 0.5, 0.05), 0.045))
    # The shade is a hollow cone along an axis that tilts from up towards the front.
    tilt = math.radians(28)
    q = _at(p, (0, 0.42, 0.16))
    y = math.cos(tilt) * q[..., 1] - math.sin(tilt) * q[..., 2]
    z = math.sin(tilt) * q[..., 1] + math.cos(tilt) * q[..., 2]
    local = torch.stack([q[..., 0], y, z], -1)
    outer, inner = cone(local, (0, -0.26, 0), 0.50, 0.52, 0.14), cone(local, (0, -0.30, 0), 0.46, 0.5, 0.10)
    base = cylinder(p, (0, -0.76, -0.12), 0.42, 0.05)
    return [
        (join(cut(outer, inner), base), None),
        (join(arms, sphere(p, (0, 0.02, -0.5), 0.08)), DARK),
        (sphere(local, (0, -0.14, 0), 0.17), GLOW),
    ]


def house(p: Tensor) -> list[Part]:
    roof = torch.maximum((p[..., 0].abs() * 0.8 + p[..., 1] - 0.70) / 1.28, 0.14 - p[..., 1])
    roof = torch.maximum(roof, p[..., 2].abs() - 0.60)
    panes = [box(p, (x, 0.0, z), (0.11, 0.11, 0.015)) for x in (0.26,) for z in (0.51, -0.51)]
    panes += [box(p, (0.56, -0.2, 0), (0.015, 0.13, 0.2)), box(p, (-0.56, -0.2, 0), (0.015, 0.13, 0.2))]
    return [
        (box(p, (0, -0.26, 0), (0.54, 0.42, 0.48)), None),
        (roof, (0.36, 0.20, 0.13)),
        (box(p, (-0.22, -0.40, 0.51), (0.13, 0.27, 0.015)), DARK),
        (join(*panes), GLASS),
        (box(p, (0.36, 0.58, -0.2), (0.08, 0.20, 0.08)), METAL),
    ]


def tree(p: Tensor) -> list[Part]:
    trunk = join(capsule(p, (0, -0.85, 0), (0, 0.05, 0), 0.15, 0.10), capsule(p, (0, -0.3, 0), (0.4, 0.1, 0), 0.065))
    crown = join(
        sphere(p, (-0.08, 0.36, -0.05), 0.46), sphere(p, (0.42, 0.18, 0.0), 0.32), sphere(p, (-0.42, 0.12, 0.1), 0.30)
    )
    return [(crown, None), (trunk, WOOD), (ellipsoid(p, (0, -0.45, 0.12), (0.06, 0.10, 0.05)), DARK)]


def mushroom(p: Tensor) -> list[Part]:
    cap = torch.maximum(ellipsoid(p, (-0.12, 0.05, 0), (0.66, 0.62, 0.66)), 0.05 - p[..., 1])
    small = torch.maximum(ellipsoid(p, (0.56, -0.42, 0.2), (0.26, 0.26, 0.26)), -0.42 - p[..., 1])
    stems = join(
        capsule(p, (-0.12, -0.74, 0), (-0.12, 0.05, 0), 0.22, 0.17),
        capsule(p, (0.56, -0.80, 0.2), (0.56, -0.40, 0.2), 0.08),
    )
    return [(join(cap, small), None), (stems, CREAM)]


def car(p: Tensor) -> list[Part]:
    wheels = [cylinder(p, (x, -0.30, z), 0.21, 0.07, 0) for x in (-0.38, 0.38) for z in (-0.50, 0.50)]
    cabin = box(p, (0, 0.20, -0.12), (0.32, 0.14, 0.38), 0.05)
    windows = join(
        box(p, (0, 0.20, -0.12), (0.35, 0.09, 0.31), 0.03), box(p, (0, 0.20, -0.12), (0.26, 0.09, 0.42), 0.03)
    )
    return [
        (join(box(p, (0, -0.12, 0), (0.38, 0.15, 0.82), 0.05), cabin), None),
        (windows, GLASS),
        (join(*wheels), DARK),
        (join(*[sphere(p, (x, -0.08, 0.86), 0.09) for x in (-0.27, 0.27)]), GLOW),
        (join(*[box(p, (x, -0.06, -0.87), (0.08, 0.05, 0.02)) for x in (-0.27, 0.27)]), SIGNAL),
    ]


def boat(p: Tensor) -> list[Part]:
    hull = torch.maximum(ellipsoid(p, (0, -0.18, 0), (0.46, 0.62, 0.90)), p[..., 1] + 0.20)
    deck = torch.maximum(ellipsoid(p, (0, -0.18, 0), (0.38, 0.50, 0.82)), (p[..., 1] + 0.18).abs() - 0.03)
    # A triangular sail in the YZ plane behind the mast: z from the mast to the stern, narrowing upwards.
    y, z = p[..., 1] + 0.10, 0.12 - p[..., 2]
    sail = torch.maximum(torch.maximum(-y, -z), (0.95 * z + 0.62 * y - 0.60) / 1.13)
    sail = torch.maximum(sail, p[..., 0].abs() - 0.035)
    flag = box(p, (0, 0.80, 0.30), (0.03, 0.09, 0.13))
    mast = capsule(p, (0, -0.3, 0.16), (0, 0.9, 0.16), 0.05)
    return [(join(hull, flag), None), (join(mast, deck), WOOD), (sail, CREAM)]


def airplane(p: Tensor) -> list[Part]:
    body = ellipsoid(p, (0, 0, 0), (0.21, 0.21, 0.88))
    wings = join(
        box(p, (0, -0.03, 0.10), (0.86, 0.022, 0.19)),
        box(p, (0, 0.05, -0.72), (0.34, 0.02, 0.11)),
        box(p, (0, 0.25, -0.74), (0.02, 0.21, 0.11)),
    )
    propeller = join(box(p, (0, 0, 0.90), (0.03, 0.27, 0.01), 0.015), sphere(p, (0, 0, 0.88), 0.08))
    engines = join(*[capsule(p, (x, -0.11, 0.04), (x, -0.11, 0.30), 0.08) for x in (-0.45, 0.45)])
    cockpit = ellipsoid(p, (0, 0.14, 0.42), (0.13, 0.12, 0.24))
    return [(join(body, wings), None), (join(propeller, engines), DARK), (cockpit, GLASS)]


def rocket(p: Tensor) -> list[Part]:
    fins = join(box(p, (0, -0.55, 0), (0.56, 0.20, 0.03)), box(p, (0, -0.55, -0.30), (0.03, 0.20, 0.26)))
    return [
        (cylinder(p, (0, -0.12, 0), 0.30, 0.52), None),
        (cone(p, (0, 0.41, 0), 0.31, 0.52), METAL),
        (join(fins, cone(p, (0, -0.82, 0), 0.24, 0.2, 0.16)), DARK),
        (torch.maximum(sphere(p, (0, 0.12, 0.24), 0.16), 0.22 - p[..., 2]), GLASS),
    ]


def snowman(p: Tensor) -> list[Part]:
    body = join(sphere(p, (0, -0.45, 0), 0.43), sphere(p, (0, 0.08, 0), 0.32), sphere(p, (0, 0.46, 0), 0.23))
    dots = [sphere(p, (x, 0.53, 0.20), 0.042) for x in (-0.09, 0.09)]
    dots += [sphere(p, (0, y, z), 0.05) for y, z in ((0.17, 0.30), (0.0, 0.32), (-0.3, 0.40))]
    hat = join(cylinder(p, (0, 0.64, 0), 0.27, 0.015), cylinder(p, (0, 0.77, 0), 0.17, 0.13))
    arms = [capsule(p, (s * 0.28, 0.12, 0), (s * 0.68, 0.36, 0.05), 0.035) for s in (-1, 1)]
    nose = capsule(p, (0, 0.45, 0.2), (0, 0.43, 0.48), 0.06, 0.015)
    return [(body, None), (join(*dots, hat), DARK), (nose, CARROT), (join(*arms), WOOD)]


def robot(p: Tensor) -> list[Part]:
    head, torso = box(p, (0, 0.50, 0), (0.27, 0.20, 0.22), 0.03), box(p, (0, -0.08, 0), (0.36, 0.30, 0.24), 0.03)
    limbs = [capsule(p, (s * 0.47, 0.14, 0), (s * 0.56, -0.34, 0.08), 0.09) for s in (-1, 1)]
    limbs += [box(p, (s * 0.19, -0.62, 0), (0.10, 0.24, 0.11)) for s in (-1, 1)]
    antenna = capsule(p, (0, 0.70, 0), (0, 0.85, 0), 0.03)
    eyes = join(*[cylinder(p, (x, 0.54, 0.25), 0.075, 0.03, 2) for x in (-0.12, 0.12)])
    lamp_on_top = sphere(p, (0, 0.89, 0), 0.06)
    pack = box(p, (0, 0.0, -0.34), (0.22, 0.2, 0.06))
    return [
        (join(head, torso), None),
        (join(*limbs, antenna, pack), METAL),
        (join(eyes, box(p, (0, -0.05, 0.27), (0.19, 0.10, 0.01))), GLOW),
        (join(lamp_on_top, box(p, (0, 0.38, 0.25), (0.12, 0.015, 0.01))), SIGNAL),
    ]


def duck(p: Tensor) -> list[Part]:
    body = join(
        ellipsoid(p, (0, -0.28, -0.08), (0.44, 0.38, 0.62)),
        capsule(p, (0, -0.2, -0.5), (0, 0.14, -0.80), 0.20, 0.06),
        sphere(p, (0, 0.36, 0.30), 0.34),
        capsule(p, (0, -0.1, 0.22), (0, 0.3, 0.30), 0.24),
    )
    wings = [ellipsoid(p, (s * 0.40, -0.20, -0.12), (0.10, 0.20, 0.36)) for s in (-1, 1)]
    eyes = join(*[sphere(p, (x, 0.46, 0.56), 0.06) for x in (-0.16, 0.16)])
    return [(join(body, *wings), None), (ellipsoid(p, (0, 0.30, 0.70), (0.17, 0.06, 0.19)), CARROT), (eyes, DARK)]


def hammer(p: Tensor) -> list[Part]:
    claw = join(*[capsule(p, (-0.15, 0.58, z), (-0.62, 0.34, 2 * z), 0.11, 0.035) for z in (-0.05, 0.05)])
    head = join(
        cylinder(p, (0.36, 0.58, 0), 0.21, 0.15, 0),
        cylinder(p, (0.14, 0.58, 0), 0.14, 0.2, 0),
        box(p, (0, 0.58, 0), (0.13, 0.15, 0.13)),
        claw,
    )
    grip = capsule(p, (0, -0.76, 0), (0, -0.30, 0), 0.15, 0.14)
    return [(join(head, grip), None), (capsule(p, (0, -0.7, 0), (0, 0.76, 0), 0.10), WOOD)]


KINDS: dict[str, Callable[[Tensor], list[Part]]] = {
    f.__name__: f
    for f in (
        mug, teapot, chair, table, lamp, house, tree, mushroom,
        car, boat, airplane, rocket, snowman, robot, duck, hammer,
    )
}  # fmt: skip
"""Name -> function from points [N, 3] to parts."""
