"""The renderers against each other, finite differences, analytic cases and gsplat's torch reference."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dreamer_core.cameras import Cameras, orbit_cameras, orthographic_cameras
from dreamer_core.gaussians import Gaussians
from dreamer_core.rendering import RasterizeCall, RenderOutput, available_backends, rasterize, render

CPU = torch.device("cpu")
BACKENDS = [
    "torch",
    pytest.param(
        "numba", marks=pytest.mark.skipif(bool(available_backends(CPU)["numba"]), reason="numba does not work here")
    ),
]
PARAMETERS = ("means", "quats", "scales", "opacities", "colors", "backgrounds")


def scene(n: int, *, size: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Anisotropic Gaussians of mixed opacity on the unit sphere."""
    g = torch.Generator().manual_seed(seed)
    means = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    scales = size * math.sqrt(8 / max(n, 1)) * torch.exp(0.3 * torch.randn(n, 3, generator=g))
    values = {
        "means": means,
        "quats": torch.randn(n, 4, generator=g),
        "scales": scales,
        "opacities": torch.sigmoid(1.5 * torch.randn(n, generator=g)),
        "colors": torch.rand(n, 3, generator=g),
    }
    return {name: value.to(dtype) for name, value in values.items()}


def cameras(width: int, height: int | None = None, views: int = 3, orthographic: bool = False) -> Cameras:
    azimuth = [0.0, 90.0, 205.0, -30.0][:views]
    cams = orbit_cameras(azimuth, torch.tensor([0.0, 30.0, -10.0, 60.0])[:views], 3.5, 0.55, width, height)
    if orthographic:
        cams = replace(cams, orthographic=True)
        cams.Ks[:, :2, :2] /= 3.5  # as large as at the origin's depth
    return cams


def blob(*centers: tuple[float, float, float], scale: float = 0.05, opacity: float = 0.99) -> Gaussians:
    """Round Gaussians: the first red, the second green, the third blue."""
    n = len(centers)
    return Gaussians.from_activated(
        torch.tensor(centers, dtype=torch.float32),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        torch.full((n, 3), scale),
        torch.full((n,), opacity),
        torch.eye(3)[:n],
    )


def draw(values: dict[str, Tensor], cams: Cameras, backend: str, **options: object) -> RenderOutput:
    dtype = values["means"].dtype
    call = RasterizeCall(
        **values,
        viewmats=cams.viewmats.to(dtype),
        Ks=cams.Ks.to(dtype),
        width=cams.width,
        height=cams.height,
        orthographic=cams.orthographic,
        **options,
    )
    return rasterize(call, backend)


def random_loss(output: RenderOutput, seed: int = 0) -> Tensor:
    """A fixed random linear function of everything that is rendered."""
    g = torch.Generator().manual_seed(seed)
    parts = [output.colors, output.alphas] + ([output.depth_sums] if output.depth_sums is not None else [])
    return sum((x * torch.randn(x.shape, generator=g, dtype=torch.float64).to(x)).sum() for x in parts)


def gradients(
    values: dict[str, Tensor], cams: Cameras, backend: str, **options: object
) -> tuple[RenderOutput, dict[str, Tensor]]:
    leaves = {name: value.clone().requires_grad_(True) for name, value in values.items()}
    output = draw(leaves, cams, backend, **options)
    output.info["means2d"].retain_grad()
    random_loss(output).backward()
    found = {name: leaf.grad for name, leaf in leaves.items()}
    found["means2d"] = output.info["means2d"].grad
    return output, found


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp_min(1e-12)).item()


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("size", [(48, 48), (75, 41), (16, 100)])
def test_numba_equals_torch(size: tuple[int, int], depth: bool) -> None:
    values, cams = scene(400), cameras(*size)
    values["backgrounds"] = torch.rand(3, 3, generator=torch.Generator().manual_seed(1))
    expected, expected_gradients = gradients(values, cams, "torch", depth=depth)
    got, got_gradients = gradients(values, cams, "numba", depth=depth)
    torch.testing.assert_close(got.colors, expected.colors, atol=3e-6, rtol=0)
    torch.testing.assert_close(got.alphas, expected.alphas, atol=3e-6, rtol=0)
    assert torch.equal(got.info["radii"], expected.info["radii"])
    visible = (got.info["radii"] > 0).all(-1)
    for name in ("means2d", "depths", "conics"):
        torch.testing.assert_close(got.info[name][visible], expected.info[name][visible], atol=2e-4, rtol=1e-4)
    if depth:
        torch.testing.assert_close(got.depth_sums, expected.depth_sums, atol=1e-5, rtol=0)
        torch.testing.assert_close(got.expected_depths, expected.expected_depths, atol=1e-4, rtol=1e-4)
    for name, gradient in expected_gradients.items():
        assert relative(got_gradients[name], gradient) < 2e-5, name


def literal(values: dict[str, Tensor], cams: Cameras) -> RenderOutput:
    """Blending as it is defined, Gaussian after Gaussian over all pixels, for autograd."""
    from dreamer_core.rendering.torch_backend import project

    w, h = cams.width, cams.height
    options = (w, h, 0.01, 1e10, 0.3)
    names = ("means", "quats", "scales", "opacities")
    radii, means2d, depths, conics = project(
        *(values[n] for n in names), cams.viewmats.double(), cams.Ks.double(), *options
    )
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], dim=-1).double()
    images, alphas, sums = [], [], []
    for view in range(len(cams.viewmats)):
        T, alive = torch.ones(h, w).double(), torch.ones(h, w, dtype=torch.bool)
        color, depth = torch.zeros(h, w, 3).double(), torch.zeros(h, w).double()
        order = depths[view].argsort(stable=True)
        delta = means2d[view][order, None, None] - pixels  # [N, h, w, 2]
        for i, g in enumerate(order):
            if radii[view, g, 0] == 0:
                continue
            dx, dy = delta[i].unbind(-1)
            a, b, c = conics[view, g]
            sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
            alpha = (values["opacities"][g] * torch.exp(-sigma)).clamp_max(0.999)
            box = ((delta[i].abs() - 8) <= radii[view, g]).all(-1)  # no tile reaches further
            hit = alive & (alpha >= 1 / 255) & (sigma >= 0) & box
            finishes = hit & (T * (1 - alpha) <= 1e-4)
            alpha = torch.where(hit & ~finishes, alpha, 0.0)
            color = color + (T * alpha)[..., None] * values["colors"][g]
            depth = depth + T * alpha * depths[view, g]
            T, alive = T * (1 - alpha), alive & ~finishes
        images.append(color + T[..., None] * values["backgrounds"][view])
        alphas.append(1 - T)
        sums.append(depth)
    return RenderOutput(torch.stack(images), torch.stack(alphas)[..., None], torch.stack(sums)[..., None], {})


@pytest.mark.parametrize("opaque", [False, True])
def test_torch_equals_the_literal_definition(opaque: bool) -> None:
    """Images and gradients, also where pixels finish, alpha is cut off and lists have chunks."""
    values, cams = scene(200, size=1.5, dtype=torch.float64), cameras(19, 10, views=2)
    if opaque:
        values["opacities"] = 0.5 + 0.5 * values["opacities"]
        values["opacities"][::5] = 1.0
    values["backgrounds"] = torch.rand(2, 3, generator=torch.Generator().manual_seed(1)).double()
    got, found = gradients(values, cams, "torch", depth=True)
    leaves = {name: value.clone().requires_grad_(True) for name, value in values.items()}
    expected = literal(leaves, cams)
    random_loss(expected).backward()
    for a, b in ((got.colors, expected.colors), (got.alphas, expected.alphas), (got.depth_sums, expected.depth_sums)):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    for name, leaf in leaves.items():
        assert relative(found[name], leaf.grad) < 1e-10, name
    if opaque:
        assert (1 - expected.alphas).min() < 2e-3


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ on this machine")
@pytest.mark.parametrize("options", [{"depth": True}, {}])
def test_cpp_kernels_equal_numba(options: dict[str, bool]) -> None:
    """The C++ kernels that the benchmark compares with compute the same thing."""
    pytest.importorskip("numba")
    from benchmarks import cpp_blending

    values, cams = scene(400), cameras(75, 41)
    values["backgrounds"] = torch.rand(3, 3, generator=torch.Generator().manual_seed(1))
    expected, expected_gradients = gradients(values, cams, "numba", **options)
    with cpp_blending.in_place_of_numba():
        got, got_gradients = gradients(values, cams, "numba", **options)
    assert not torch.equal(got_gradients["means"], expected_gradients["means"])  # rounding: it is another program
    torch.testing.assert_close(got.colors, expected.colors, atol=3e-6, rtol=0)
    torch.testing.assert_close(got.alphas, expected.alphas, atol=3e-6, rtol=0)
    for name, gradient in expected_gradients.items():
        assert relative(got_gradients[name], gradient) < 2e-5, name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{}, {"depth": True}])
def test_colors_per_view(backend: str, options: dict[str, bool]) -> None:
    values, cams = scene(100), cameras(32)
    colors = torch.rand(3, 100, 3, generator=torch.Generator().manual_seed(2))
    output, found = gradients({**values, "colors": colors}, cams, backend, **options)
    assert found["colors"].shape == (3, 100, 3)
    for view in range(3):
        one = Cameras(*(x[view : view + 1] for x in (cams.viewmats, cams.Ks)), 32, 32, *[cams.fov[:1]] * 3)
        single = draw({**values, "colors": colors[view]}, one, backend)
        torch.testing.assert_close(output.colors[view], single.colors[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("depth_gradient", [True, False])
def test_torch_gradients_equal_finite_differences(depth_gradient: bool, orthographic: bool) -> None:
    # Few, and of steps so small that no pixel crosses the discontinuity at alpha 1/255.
    values, cams = scene(12, size=0.5, seed=3, dtype=torch.float64), cameras(20, 17, views=2, orthographic=orthographic)
    values["opacities"] = values["opacities"].clamp(0.1, 0.9)
    values["backgrounds"] = torch.rand(2, 3, generator=torch.Generator().manual_seed(1)).double()
    options = {"depth": True, "depth_gradient": depth_gradient}
    _, found = gradients(values, cams, "torch", **options)
    constant_z = draw(values, cams, "torch", **options).info["depths"]

    def loss(changed: dict[str, Tensor]) -> float:
        if depth_gradient:
            return random_loss(draw(changed, cams, "torch", depth=True)).item()
        # Accumulated constants are what a colour channel of the unchanged depths gives.
        output = draw(changed, cams, "torch")
        z = {**changed, "colors": constant_z[..., None].expand(-1, -1, 3)}
        z.pop("backgrounds")
        sums = draw(z, cams, "torch").colors[..., :1]
        return random_loss(RenderOutput(output.colors, output.alphas, sums, {})).item()

    check_differences(values, found, loss, step=1e-6, tolerance=1e-5)


def check_differences(
    values: dict[str, Tensor],
    found: dict[str, Tensor],
    loss: Callable[[dict[str, Tensor]], float],
    step: float,
    tolerance: float,
) -> None:
    """Central differences along random directions of each parameter, against the gradients found."""
    g = torch.Generator().manual_seed(7)
    for name in PARAMETERS:
        for _ in range(3):
            direction = torch.randn(values[name].shape, generator=g, dtype=torch.float64)
            ahead = loss({**values, name: values[name] + step * direction})
            behind = loss({**values, name: values[name] - step * direction})
            numeric, analytic = (ahead - behind) / (2 * step), (found[name].double() * direction).sum().item()
            scale = max(abs(numeric), found[name].double().norm().item())
            assert abs(numeric - analytic) / scale < tolerance, f"{name}: {numeric} against {analytic}"


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("depth_gradient", [True, False])
def test_numba_gradients_equal_float64_finite_differences(depth_gradient: bool, orthographic: bool) -> None:
    values, cams = scene(12, size=0.5, seed=3, dtype=torch.float64), cameras(20, 17, views=2, orthographic=orthographic)
    values["opacities"] = values["opacities"].clamp(0.1, 0.9)
    values["backgrounds"] = torch.rand(2, 3, generator=torch.Generator().manual_seed(1)).double()
    single = {name: value.float() for name, value in values.items()}
    _, found = gradients(single, cams, "numba", depth=True, depth_gradient=depth_gradient)
    constant_z = draw(values, cams, "torch", depth=True).info["depths"]

    def loss(changed: dict[str, Tensor]) -> float:
        output = draw(changed, cams, "torch", depth=True)
        if depth_gradient:
            return random_loss(output).item()
        z = {**changed, "colors": constant_z[..., None].expand(-1, -1, 3)}
        z.pop("backgrounds")
        return random_loss(
            RenderOutput(output.colors, output.alphas, draw(z, cams, "torch").colors[..., :1], {})
        ).item()

    check_differences(values, found, loss, step=1e-6, tolerance=2e-4)


@pytest.mark.skipif(bool(available_backends(CPU)["numba"]), reason="numba does not work here")
def test_numba_equals_torch_with_parallel_rays() -> None:
    values, cams = scene(400), cameras(75, 41, orthographic=True)
    expected, expected_gradients = gradients(values, cams, "torch", depth=True)
    got, got_gradients = gradients(values, cams, "numba", depth=True)
    torch.testing.assert_close(got.colors, expected.colors, atol=3e-6, rtol=0)
    torch.testing.assert_close(got.depth_sums, expected.depth_sums, atol=1e-5, rtol=0)
    assert torch.equal(got.info["radii"], expected.info["radii"])
    for name, gradient in expected_gradients.items():
        assert relative(got_gradients[name], gradient) < 1e-4, name
    seen_narrow = draw(values, cameras(75, 41), "torch").colors
    assert (expected.colors - seen_narrow).abs().max() > 0.1  # they are other pictures


@pytest.mark.parametrize("backend", BACKENDS)
def test_parallel_rays_keep_sizes_at_every_depth(backend: str) -> None:
    """A round Gaussian covers as much near the camera as far away, at the place that its X and Y give."""
    cams = orthographic_cameras([0.0], 0.0, 1.1, 64, radius=3.0)
    near, far = (render(blob((0.3, 0.4, z), scale=0.1), cams, depth=True, backend=backend) for z in (1.5, -1.5))
    torch.testing.assert_close(near.colors, far.colors, atol=1e-5, rtol=0)
    image = near.colors[0, ..., 0]
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    assert (image * x).sum() / image.sum() == pytest.approx(32 + 0.3 * 32 / 1.1, abs=0.02)
    assert (image * y).sum() / image.sum() == pytest.approx(32 - 0.4 * 32 / 1.1, abs=0.02)
    assert near.expected_depths[0, 20, 40] == pytest.approx(1.5, abs=1e-3)
    assert far.expected_depths[0, 20, 40] == pytest.approx(4.5, abs=1e-3)


def test_parallel_rays_see_harmonics_from_one_side() -> None:
    """Colours that depend on the view are equal all over the picture, and other from the other side."""
    gaussians = blob((0.5, 0.5, 0.0), (-0.5, -0.5, 0.0), scale=0.1)
    higher = torch.zeros(2, 3, 3)
    higher[:, 1] = 0.3  # along Z
    gaussians = replace(gaussians, sh0=torch.zeros(2, 1, 3), shN=higher)
    front, back = render(gaussians, orthographic_cameras([0.0, 180.0], 0.0, 1.1, 64), backend="torch").colors
    places = [front[17, 46], front[46, 17], back[17, 17]]
    torch.testing.assert_close(places[0], places[1], atol=1e-5, rtol=0)
    assert (places[0] - places[2]).abs().min() > 0.2


@pytest.mark.parametrize("backend", BACKENDS)
def test_directions(backend: str) -> None:
    """From the front +X is right and +Y is up; from azimuth 90 (camera on +X) the front, +Z, is on the left."""
    gaussians = blob((0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5))
    output = render(gaussians, orbit_cameras([0.0, 90.0], 0.0, 3.5, 0.55, 64), backend=backend)

    def center(view: int, channel: int) -> tuple[float, float]:
        image = output.colors[view, ..., channel]
        y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
        return ((image * x).sum() / image.sum()).item(), ((image * y).sum() / image.sum()).item()

    offset = 0.5 * (32 / math.tan(0.275)) / 3.5
    assert center(0, 0) == pytest.approx((32 + offset, 32), abs=0.1)
    assert center(0, 1) == pytest.approx((32, 32 - offset), abs=0.1)
    assert center(0, 2) == pytest.approx((32, 32), abs=0.1)
    assert center(1, 0) == pytest.approx((32, 32), abs=0.1)
    assert center(1, 1) == pytest.approx((32, 32 - offset), abs=0.1)
    assert center(1, 2) == pytest.approx((32 - offset, 32), abs=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearer_occludes(backend: str) -> None:
    gaussians = blob((0, 0, -0.5), (0, 0, 0.5), scale=0.2)
    front, back = render(gaussians, orbit_cameras([0.0, 180.0], 0.0, 3.5, 0.55, 33), backend=backend).colors[:, 16, 16]
    assert front[1] > 0.95
    assert front[0] < 0.05
    assert back[0] > 0.95
    assert back[1] < 0.05


@pytest.mark.parametrize("backend", BACKENDS)
def test_analytic_values(backend: str) -> None:
    """A Gaussian on the axis has `alpha = o exp(-r^2 / 2v)`, v its image-plane variance plus 0.3."""
    scale, opacity, size = 0.1, 0.6, 33
    cams = orbit_cameras([0.0], 0.0, 3.5, 0.55, size)
    background = torch.tensor([[0.2, 0.4, 0.8]])
    output = render(
        blob((0, 0, 0), scale=scale, opacity=opacity), cams, backgrounds=background, depth=True, backend=backend
    )
    variance = (scale * (size / 2 / math.tan(0.275)) / 3.5) ** 2 + 0.3
    r = torch.arange(size) - 16.0
    expected = opacity * torch.exp(-0.5 * r**2 / variance)
    expected = torch.where(expected < 1 / 255, 0.0, expected)
    torch.testing.assert_close(output.alphas[0, 16, :, 0], expected, atol=2e-5, rtol=0)
    color = expected[:, None] * torch.tensor([1.0, 0, 0]) + (1 - expected[:, None]) * background
    torch.testing.assert_close(output.colors[0, 16], color, atol=2e-5, rtol=0)
    torch.testing.assert_close(output.depth_sums[0, 16, :, 0], 3.5 * expected, atol=1e-4, rtol=0)
    assert output.expected_depths[0, 16, 16].item() == pytest.approx(3.5, abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_opaque_and_transparent(backend: str) -> None:
    values, cams = scene(50, size=20), orbit_cameras([0.0], 0.0, 3.5, 0.55, 16)
    opaque = draw({**values, "opacities": torch.ones(50)}, cams, backend)
    # The Gaussian that would take the transmittance to 1e-4 or below is not drawn.
    assert opaque.alphas.min() > 0.98
    assert opaque.alphas.max() <= 0.9999
    faint = draw({**values, "opacities": torch.full((50,), 1 / 256)}, cams, backend)
    assert faint.alphas.abs().max() == 0
    assert (faint.info["radii"] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["none", "behind", "beside", "nan"])
def test_nothing_to_draw(backend: str, case: str) -> None:
    values = scene(0 if case == "none" else 20)
    offset = {"behind": [0.0, 0, 50], "beside": [90.0, 0, 0], "nan": [math.nan, 0, 0]}.get(case, [0.0, 0, 0])
    values["means"] = values["means"] + torch.tensor(offset)
    values["backgrounds"] = torch.tensor([[0.1, 0.2, 0.3]])
    cams = orbit_cameras([0.0], 0.0, 3.5, 0.55, 20, 18)
    output, found = gradients(values, cams, backend, depth=True)
    torch.testing.assert_close(output.colors, values["backgrounds"].expand(1, 18, 20, 3))
    assert output.alphas.abs().max() == 0
    assert output.depth_sums.abs().max() == 0
    assert output.info["radii"].shape == (1, len(values["means"]), 2)
    if case != "nan":
        assert all((found[name] == 0).all() for name in PARAMETERS if name != "backgrounds")


@pytest.mark.parametrize("backend", BACKENDS)
def test_some_behind_leave_the_others_alone(backend: str) -> None:
    values, cams = scene(60), cameras(24, views=1)
    behind = values["means"].clone()
    behind[::2] += torch.tensor([0.0, 0, 50])
    expected = draw({name: value[1::2] for name, value in values.items()}, cams, backend)
    output, found = gradients({**values, "means": behind}, cams, backend)
    assert torch.equal(output.colors, expected.colors)
    assert all(bool(torch.isfinite(x).all()) for x in found.values())
    assert (found["means"][::2] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_of_any_layout_and_type(backend: str) -> None:
    values, cams = scene(40), cameras(24)
    expected = draw(values, cams, backend).colors
    strided = {name: value.repeat_interleave(2, dim=-1)[..., ::2] for name, value in values.items()}
    strided["opacities"] = values["opacities"].repeat_interleave(2)[::2]
    assert not strided["means"].is_contiguous()
    assert torch.equal(draw(strided, cams, backend).colors, expected)
    doubles = {name: value.double() for name, value in values.items()}
    output, found = gradients(doubles, cams, backend, depth=True)
    assert output.colors.dtype == output.alphas.dtype == output.depth_sums.dtype == torch.float64
    assert all(x.dtype == torch.float64 for x in found.values())
    torch.testing.assert_close(output.colors.float(), expected, atol=3e-6, rtol=0)
    with torch.no_grad():
        assert torch.equal(draw(values, cams, backend).colors, expected)


def test_numba_is_deterministic() -> None:
    values, cams = scene(3000), cameras(100, 70)
    first, first_gradients = gradients(values, cams, "numba", depth=True)
    second, second_gradients = gradients(values, cams, "numba", depth=True)
    assert torch.equal(first.colors, second.colors)
    assert all(torch.equal(first_gradients[name], second_gradients[name]) for name in first_gradients)


def test_numba_result_does_not_depend_on_the_number_of_workers() -> None:
    numba = pytest.importorskip("numba")
    values, cams = scene(9000), cameras(64)
    first, first_gradients = gradients(values, cams, "numba")
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        second, second_gradients = gradients(values, cams, "numba")
    finally:
        numba.set_num_threads(threads)
    assert torch.equal(first.colors, second.colors)
    assert all(torch.equal(first_gradients[name], second_gradients[name]) for name in first_gradients)


def test_numba_from_several_threads() -> None:
    values, cams = scene(500), cameras(64)
    expected, expected_gradients = gradients(values, cams, "numba")
    results: list[tuple[RenderOutput, dict[str, Tensor]]] = []

    def work() -> None:
        for _ in range(5):
            results.append(gradients(values, cams, "numba"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 20
    for output, found in results:
        assert torch.equal(output.colors, expected.colors)
        assert torch.equal(found["means"], expected_gradients["means"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_long_tile_lists_stop_exactly(backend: str) -> None:
    """Many opaque layers: finished pixels stay finished, over several chunks of the lists."""
    values, cams = scene(700, size=4), orbit_cameras([10.0], 0.0, 3.5, 0.55, 20)
    values["opacities"] = torch.full((700,), 0.05)
    output = draw(values, cams, backend)
    exact = draw({name: value.double() for name, value in values.items()}, cams, "torch")
    torch.testing.assert_close(output.colors.double(), exact.colors, atol=2e-4, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_projection_equals_gsplat(backend: str) -> None:
    reference = pytest.importorskip("gsplat.cuda._torch_impl")
    values, cams = scene(500, size=0.3, seed=5), cameras(90, 70)
    values["opacities"] = torch.ones(500)
    covariances, _ = reference._quat_scale_to_covar_preci(values["quats"], values["scales"], True, False)
    radii, means2d, depths, conics, _ = reference._fully_fused_projection(
        values["means"], covariances, cams.viewmats, cams.Ks, 90, 70
    )
    info = draw(values, cams, backend).info
    visible = (info["radii"] > 0).all(-1)
    assert visible.sum() > 1000
    # With opacity 1 the opacity-aware extent is 3.329 sigma instead of 3.33: at most one pixel less.
    assert ((radii - info["radii"])[visible] >= 0).all()
    assert ((radii - info["radii"])[visible] <= 1).all()
    torch.testing.assert_close(info["means2d"][visible], means2d[visible], atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(info["depths"][visible], depths[visible])
    torch.testing.assert_close(info["conics"][visible], conics[visible], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics_equal_gsplat(backend: str, degree: int) -> None:
    reference = pytest.importorskip("gsplat.cuda._torch_impl")
    values, cams = scene(80), cameras(32)
    g = torch.Generator().manual_seed(4)
    gaussians = Gaussians(
        values["means"],
        values["quats"],
        values["scales"].log(),
        values["opacities"].logit(),
        torch.randn(80, 1, 3, generator=g),
        torch.randn(80, (degree + 1) ** 2 - 1, 3, generator=g),
    )
    positions = torch.inverse(cams.viewmats)[:, :3, 3]
    directions = values["means"] - positions[:, None]
    colors = reference._spherical_harmonics(degree, directions, gaussians.sh.expand(3, -1, -1, -1))
    expected = draw({**values, "colors": (colors + 0.5).clamp_min(0)}, cams, backend).colors
    torch.testing.assert_close(render(gaussians, cams, backend=backend).colors, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_default_strategy_densifies_and_prunes(backend: str) -> None:
    strategy_module = pytest.importorskip("gsplat.strategy")
    values, cams = scene(60, size=0.5), cameras(48)
    values["opacities"][:5] = 0.001
    params = torch.nn.ParameterDict(
        Gaussians.from_activated(*(values[n] for n in PARAMETERS[:4]), values["colors"]).as_params()
    )
    optimizers = {name: torch.optim.Adam([param], lr=1e-3) for name, param in params.items()}
    strategy = strategy_module.DefaultStrategy(grow_grad2d=1e-3, grow_scale3d=0.2, refine_start_iter=0, refine_every=1)
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state()
    output = render(Gaussians.from_params(params), cams, backend=backend)
    strategy.step_pre_backward(params, optimizers, state, 1, output.info)
    random_loss(output).backward()
    strategy._update_state(params, state, output.info)
    assert state["count"].max() == 3
    assert (state["grad2d"] > 0).any()
    duplicated, split = strategy._grow_gs(params, optimizers, state, 1)
    pruned = strategy._prune_gs(params, optimizers, state, 1)
    assert duplicated > 0
    assert split > 0
    assert pruned == 5
    assert len(params["means"]) == 60 + duplicated + split - pruned
    for optimizer in optimizers.values():
        optimizer.step()


def test_shapes_are_checked() -> None:
    values, cams = scene(4), cameras(16)
    with pytest.raises(ValueError, match=r"scales must have shape \(4, 3\), but got \(4, 2\)"):
        draw({**values, "scales": values["scales"][:, :2]}, cams, "torch")
    with pytest.raises(ValueError, match=r"backgrounds must have shape \(3, 3\)"):
        draw(values, cams, "torch", backgrounds=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="depth=True"):
        _ = draw(values, cams, "torch").expected_depths
