"""The standard 3DGS PLY, with plyfile as the independent reader."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from dreamer_core.cameras import orbit_cameras
from dreamer_core.errors import InputError
from dreamer_core.formats import read_ply, write_ply
from dreamer_core.frames import flip_frame
from dreamer_core.gaussians import Gaussians
from dreamer_core.rendering import render


def random_gaussians(n=50, k=3):
    g = torch.Generator().manual_seed(0)
    r = lambda *shape: torch.randn(*shape, generator=g)
    return Gaussians(r(n, 3), r(n, 4), r(n, 3), r(n), r(n, 1, 3), r(n, k, 3))


@pytest.mark.parametrize("k", [0, 3, 8, 15])
def test_round_trip_is_exact(tmp_path, k):
    scene = random_gaussians(k=k)
    write_ply(scene, tmp_path / "a.ply")
    back = read_ply(tmp_path / "a.ply")
    for (name, a), (_, b) in zip(scene.tensors(), back.tensors()):
        assert torch.equal(a, b), name
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_plyfile_sees_the_standard_attributes(tmp_path):
    scene = random_gaussians(k=3)
    write_ply(scene, tmp_path / "a.ply")
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"]
    names = [p.name for p in vertex.properties]
    standard = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(9)), "opacity"]
    standard += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    assert set(standard) <= set(names)
    # X right, Y down, Z forward: half a turn about X from our world.
    np.testing.assert_array_equal(vertex["x"], scene.means[:, 0].numpy())
    np.testing.assert_array_equal(vertex["y"], -scene.means[:, 1].numpy())
    np.testing.assert_array_equal(vertex["z"], -scene.means[:, 2].numpy())
    np.testing.assert_array_equal(vertex["scale_2"], scene.log_scales[:, 2].numpy())
    np.testing.assert_array_equal(vertex["rot_0"], -scene.quats[:, 1].numpy())
    np.testing.assert_array_equal(vertex["rot_1"], scene.quats[:, 0].numpy())
    np.testing.assert_array_equal(vertex["opacity"], scene.logit_opacities.numpy())
    # f_rest is channel-major: all coefficients of red first.
    np.testing.assert_array_equal(vertex["f_rest_1"], -scene.shN[:, 1, 0].numpy())
    np.testing.assert_array_equal(vertex["f_rest_2"], scene.shN[:, 2, 0].numpy())
    np.testing.assert_array_equal(vertex["f_rest_15"], -scene.shN[:, 0, 1].numpy())  # 15 a channel, whatever the degree
    assert not any(vertex[f"f_rest_{i}"].any() for i in (3, 14, 18, 44))


def test_a_file_with_normals_and_other_order_is_read(tmp_path):
    scene = random_gaussians(5, 0)
    columns = {"nx": np.zeros(5), "x": scene.means[:, 0], "z": scene.means[:, 2], "y": scene.means[:, 1]}
    columns |= {f"rot_{i}": scene.quats[:, i] for i in range(4)} | {"opacity": scene.logit_opacities}
    columns |= {f"scale_{i}": scene.log_scales[:, i] for i in range(3)}
    columns |= {f"f_dc_{i}": scene.sh0[:, 0, i] for i in range(3)}
    table = np.zeros(5, dtype=[(name, "f4") for name in columns])
    for name, column in columns.items():
        table[name] = column
    PlyData([PlyElement.describe(table, "vertex")], text=True).write(tmp_path / "a.ply")
    torch.testing.assert_close(read_ply(tmp_path / "a.ply").means, scene.means * torch.tensor([1.0, -1.0, -1.0]))


def test_the_flip_of_the_frame_keeps_what_is_seen():
    """Half a turn of the object and of the camera: the same picture, view-dependent colours included."""
    g = torch.Generator().manual_seed(2)
    scene = Gaussians(
        0.4 * torch.randn(60, 3, generator=g),
        torch.randn(60, 4, generator=g),
        torch.log(0.05 + 0.2 * torch.rand(60, 3, generator=g)),
        torch.randn(60, generator=g),
        torch.randn(60, 1, 3, generator=g),
        0.3 * torch.randn(60, 15, 3, generator=g),
    )
    cameras = orbit_cameras([20.0, 140.0], 25.0, 4.0, 0.6, 48)
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    turned = replace(cameras, viewmats=cameras.viewmats @ half_turn)
    picture = render(scene, cameras).colors
    torch.testing.assert_close(render(flip_frame(scene), turned).colors, picture, atol=2e-4, rtol=0)
    assert (render(flip_frame(scene), cameras).colors - picture).abs().max() > 0.1


def write_points(path):
    table = np.zeros(3, dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")])
    PlyData([PlyElement.describe(table, "vertex")]).write(path)


def test_bad_files_say_what_is_wrong(tmp_path):
    good = tmp_path / "good.ply"
    write_ply(random_gaussians(), good)
    (tmp_path / "half.ply").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (tmp_path / "text.ply").write_text("hello")
    (tmp_path / "header.ply").write_text("ply\nformat binary_little_endian 1.0\nelement vertex")
    write_points(tmp_path / "points.ply")
    for name, match in (
        ("missing.ply", "does not exist"),
        ("half.ply", "declares 50 of element vertex and holds 2[0-9]"),
        ("text.ply", "does not begin with a line 'ply'"),
        ("header.ply", "no end_header"),
        ("points.ply", "without f_dc_0, .*it has x, y, z"),
    ):
        with pytest.raises(InputError, match=match) as error:
            read_ply(tmp_path / name, "--init")
        assert error.value.field == "--init"


def test_nan_is_not_written(tmp_path):
    scene = random_gaussians()
    scene.means[3, 1] = float("nan")
    with pytest.raises(ValueError, match="means holds NaN"):
        write_ply(scene, tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())


def test_gaussians_check_their_shapes():
    scene = random_gaussians(4, 0)
    with pytest.raises(ValueError, match=r"quats must have shape \(4, 4\), but got \(4, 3\)"):
        Gaussians(scene.means, scene.quats[:, :3], scene.log_scales, scene.logit_opacities, scene.sh0, scene.shN)
    with pytest.raises(ValueError, match="shN must have shape"):
        Gaussians(*(v for _, v in scene.tensors() if v is not scene.shN), shN=torch.zeros(4, 2, 3))


def test_activations_round_trip():
    scene = Gaussians.from_activated(
        torch.zeros(2, 3),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        torch.tensor([[0.1, 0.2, 0.3]] * 2),
        torch.tensor([0.0, 0.7]),
        torch.tensor([[0.2, 0.5, 0.9]] * 2),
    )
    torch.testing.assert_close(scene.scales[0], torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(scene.opacities, torch.tensor([1e-6, 0.7]))
    torch.testing.assert_close(scene.rgb[1], torch.tensor([0.2, 0.5, 0.9]))
    assert scene.sh_degree == 0
    assert random_gaussians(3, 15).sh_degree == 3
    assert len(scene[torch.tensor([True, False])]) == 1
