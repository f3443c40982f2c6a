"""Every splat format: back within its quantisation, and as an independent reading of the published layout sees it."""

import gzip
import json
import math
import struct

import numpy as np
import pytest
import torch
from plyfile import PlyData

from dreamer_core.errors import InputError
from dreamer_core.formats import (
    READABLE,
    WRITABLE,
    load_gaussians,
    read_metadata,
    save_gaussians,
    sidecar,
    splat_suffix,
)
from dreamer_core.formats.ply_header import COMMENTS_AT_MOST, ply_header
from dreamer_core.gaussians import SH_C0, Gaussians, rgb_to_sh

PACKED = (".compressed.ply", ".splat", ".spz")
ROTATION_STEP = {".compressed.ply": math.sqrt(2) / 1023, ".spz": math.sqrt(0.5) / 511}
"""Of the three smallest components: 10 bits over [-1/sqrt(2), 1/sqrt(2)]; 9 bits and a sign."""


def scene(n=300, k=15, seed=0):
    """Gaussians inside every format's range, at different places."""
    g = torch.Generator().manual_seed(seed)
    r = lambda *shape: torch.rand(*shape, generator=g)
    return Gaussians(
        2 * r(n, 3) - 1,
        torch.nn.functional.normalize(torch.randn(n, 4, generator=g), dim=-1),
        -6 + 4 * r(n, 3),
        (0.05 + 0.9 * r(n)).logit(),
        rgb_to_sh(r(n, 1, 3)),
        0.9 * (2 * r(n, k, 3) - 1),
    )


def matched(before, after):
    """`after` in the order of `before`: some formats sort by place."""
    order = torch.cdist(before.means, after.means).argmin(dim=1)
    assert order.unique().numel() == len(before) == len(after)
    return after[order]


def saved(gaussians, tmp_path, suffix, **options):
    path = tmp_path / f"a{suffix}"
    save_gaussians(gaussians, path, **options)
    return path


def error(a, b):
    return (a - b).abs().amax(dim=0)


@pytest.mark.parametrize("k", [0, 3, 8, 15])
def test_ply_is_exact(tmp_path, k):
    before = scene(k=k)
    after = load_gaussians(saved(before, tmp_path, ".ply", metadata={"prompt": "a red mug"}))
    for (name, a), (_, b) in zip(before.tensors(), after.tensors()):
        assert torch.equal(a, b), name


def check_rotations(before, after, step):
    """Components but the largest are off by half a step, the largest by what follows from |q| = 1."""
    sign = (before.quats * after.quats).sum(-1, keepdim=True).sign()
    off = (before.quats - sign * after.quats).abs()
    largest = before.quats.abs().argmax(-1, keepdim=True)
    assert off.scatter(-1, largest, 0.0).max() <= step / 2 + 1e-6
    assert off.max() <= 1.5 * step  # sqrt(3) step/2 sqrt(1 - m^2) / m with m >= 1/2
    assert off.max() > step / 8  # and it is quantised at all


@pytest.mark.parametrize("k", [0, 3, 8, 15])
def test_compressed_ply_within_its_bits(tmp_path, k):
    before = scene(k=k)
    after = matched(before, load_gaussians(saved(before, tmp_path, ".compressed.ply")))
    levels = torch.tensor([2047.0, 1023.0, 2047.0])  # between the bounds of a chunk, which lie inside the scene's
    for name in ("means", "log_scales"):
        a, b = getattr(before, name), getattr(after, name)
        assert (error(a, b) <= (a.amax(0) - a.amin(0)) / levels / 2 + 1e-6).all(), name
    assert error(before.rgb, after.rgb).max() <= 0.5 / 255 + 1e-6
    assert error(before.opacities, after.opacities) <= 0.5 / 255 + 1e-6
    check_rotations(before, after, ROTATION_STEP[".compressed.ply"])
    assert after.sh_degree == before.sh_degree
    if k:
        assert (before.shN - after.shN).abs().max() <= 1 / 64  # 256 steps over [-4, 4]


@pytest.mark.parametrize("k", [0, 15])
def test_splat_within_its_bits(tmp_path, k):
    before = scene(k=k)
    after = matched(before, load_gaussians(saved(before, tmp_path, ".splat")))
    assert torch.equal(before.means, after.means)
    torch.testing.assert_close(after.scales, before.scales, rtol=1e-6, atol=0)
    assert error(before.rgb, after.rgb).max() < 1 / 255 + 1e-6
    assert error(before.opacities, after.opacities) < 1 / 255 + 1e-6
    assert error(before.quats, after.quats).max() < 1 / 128 + 1e-6
    assert after.sh_degree == 0  # the format has no more


@pytest.mark.parametrize("k", [0, 3, 8, 15])
def test_spz_within_its_bits(tmp_path, k):
    before = scene(k=k)
    after = load_gaussians(saved(before, tmp_path, ".spz"))  # in the same order
    assert error(before.means, after.means).max() <= 2**-13 + 1e-6
    assert error(before.log_scales, after.log_scales).max() <= 1 / 32 + 1e-6
    assert error(before.sh0, after.sh0).max() <= 0.5 / (0.15 * 255) + 1e-6
    assert error(before.opacities, after.opacities) <= 0.5 / 255 + 1e-6
    check_rotations(before, after, ROTATION_STEP[".spz"])
    assert after.sh_degree == before.sh_degree
    if k:
        assert (before.shN - after.shN).abs().max() <= 1 / 256 + 1e-6


def axis_rotation(gaussians):
    """Rotations as [N, 4] in the frame of files, wxyz: half a turn about X."""
    w, x, y, z = gaussians.quats.unbind(-1)
    return torch.stack([-x, w, -z, y], dim=-1)


def same_rotation(ours, theirs, atol):
    cosine = (ours * torch.as_tensor(theirs, dtype=torch.float32)).sum(-1).abs()
    assert cosine.min() > 1 - 2 * atol**2


TURN = torch.tensor([1.0, -1.0, -1.0])


def test_splat_as_its_layout_is_published(tmp_path):
    """antimatter15/splat: 3 float32 position, 3 float32 scale, 4 uint8 rgba, 4 uint8 rotation."""
    before = scene(40, 0)
    rows = list(struct.iter_unpack("<6f8B", saved(before, tmp_path, ".splat").read_bytes()))
    table = torch.tensor(rows)
    order = torch.cdist(before.means * TURN, table[:, :3]).argmin(dim=1)
    table = table[order]
    assert torch.equal(table[:, :3], before.means * TURN)
    torch.testing.assert_close(table[:, 3:6], before.scales)
    assert ((255 * before.rgb - table[:, 6:9]).abs() < 1.001).all()
    assert ((255 * before.opacities - table[:, 9]).abs() < 1.001).all()
    same_rotation(axis_rotation(before), torch.nn.functional.normalize((table[:, 10:14] - 128) / 128, dim=-1), 2 / 128)


def test_spz_as_its_layout_is_published(tmp_path):
    """nianticlabs/spz, README, "File format" of version 3, Gaussian by Gaussian in plain Python."""
    n = 12
    before = scene(n, 3)
    raw = gzip.decompress(saved(before, tmp_path, ".spz").read_bytes())
    magic, version, count, degree, fraction, flags, _ = struct.unpack("<IIIBBBB", raw[:16])
    assert (magic, version, count, degree, fraction, flags) == (0x5053474E, 3, n, 1, 12, 0)
    assert len(raw) == 16 + n * (9 + 1 + 3 + 3 + 4 + 9)
    alphas, colors = raw[16 + 9 * n :], raw[16 + 10 * n :]
    scales, rotations, sh = raw[16 + 13 * n :], raw[16 + 16 * n :], raw[16 + 20 * n :]
    signs = [-1, -1, 1]  # half a turn about X, for the three harmonics of degree 1
    for i in range(n):
        place = [int.from_bytes(raw[16 + 9 * i + 3 * j :][:3], "little", signed=True) / 4096 for j in range(3)]
        assert place == pytest.approx((before.means[i] * TURN).tolist(), abs=2**-13 + 1e-6)
        assert alphas[i] / 255 == pytest.approx(float(before.opacities[i]), abs=0.5 / 255 + 1e-6)
        for j in range(3):
            assert scales[3 * i + j] / 16 - 10 == pytest.approx(float(before.log_scales[i, j]), abs=1 / 32 + 1e-6)
            dc = (colors[3 * i + j] / 255 - 0.5) / 0.15
            assert dc == pytest.approx(float(before.sh0[i, 0, j]), abs=0.5 / 255 / 0.15 + 1e-6)
            for c in range(3):
                coefficient = (sh[9 * i + 3 * c + j] - 128) / 128
                assert coefficient == pytest.approx(signs[c] * float(before.shN[i, c, j]), abs=1 / 256 + 1e-6)
        packed = int.from_bytes(rotations[4 * i : 4 * i + 4], "little")
        largest, quaternion = packed >> 30, [0.0] * 4  # xyzw
        for j in (3, 2, 1, 0):
            if j != largest:
                value = math.sqrt(0.5) * (packed & 511) / 511
                quaternion[j] = -value if packed >> 9 & 1 else value
                packed >>= 10
        quaternion[largest] = math.sqrt(1 - sum(v * v for v in quaternion))
        same_rotation(axis_rotation(before)[i], quaternion[3:] + quaternion[:3], 3 * ROTATION_STEP[".spz"])


def test_compressed_ply_as_its_layout_is_published(tmp_path):
    """PlayCanvas's description of the format, with plyfile as the reader of the container."""
    before = scene(300, 3)
    ply = PlyData.read(saved(before, tmp_path, ".compressed.ply", metadata={"prompt": "a red mug"}))
    assert [e.name for e in ply.elements] == ["chunk", "vertex", "sh"]
    assert [len(e) for e in ply.elements] == [2, 300, 300]
    vertex, sh = ply["vertex"], ply["sh"]
    seen = set()
    for i in range(0, 300, 7):
        bounds = ply["chunk"][i // 256]

        def unpack(value, names, bits, bounds=bounds):
            out = []
            for name, width in zip(reversed(names), reversed(bits)):
                low, high = bounds[f"min_{name}"], bounds[f"max_{name}"]
                out.insert(0, low + (high - low) * (value & (1 << width) - 1) / ((1 << width) - 1))
                value >>= width
            return out

        place = unpack(int(vertex["packed_position"][i]), ["x", "y", "z"], [11, 10, 11])
        j = int((before.means * TURN - torch.tensor(place)).norm(dim=-1).argmin())
        seen.add(j)
        assert place == pytest.approx((before.means[j] * TURN).tolist(), abs=2 / 2046 + 1e-6)
        scales = unpack(int(vertex["packed_scale"][i]), ["scale_x", "scale_y", "scale_z"], [11, 10, 11])
        assert scales == pytest.approx(before.log_scales[j].tolist(), abs=4 / 2046 + 1e-6)
        color = int(vertex["packed_color"][i])
        assert (color & 255) / 255 == pytest.approx(float(before.opacities[j]), abs=0.5 / 255 + 1e-6)
        rgb = unpack(color >> 8, ["r", "g", "b"], [8, 8, 8])
        assert rgb == pytest.approx(before.rgb[j].tolist(), abs=0.5 / 255 + 1e-6)
        packed = int(vertex["packed_rotation"][i])
        small = [((packed >> shift & 1023) / 1023 - 0.5) * math.sqrt(2) for shift in (20, 10, 0)]
        small.insert(packed >> 30, math.sqrt(1 - sum(v * v for v in small)))
        same_rotation(axis_rotation(before)[j], small, 3 * ROTATION_STEP[".compressed.ply"])
        rest = [(int(sh[f"f_rest_{c}"][i]) + 0.5) / 32 - 4 for c in range(9)]  # red's three first
        turned = before.shN[j] * torch.tensor([-1.0, -1.0, 1.0])[:, None]
        assert rest == pytest.approx(turned.T.flatten().tolist(), abs=1 / 64 + 1e-6)
    assert len(seen) == len(range(0, 300, 7))


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("k", [0, 15])
def test_one_gaussian(tmp_path, suffix, k):
    before = scene(1, k)
    after = load_gaussians(saved(before, tmp_path, suffix))
    assert error(before.means, after.means).max() <= 2**-13
    assert error(before.rgb, after.rgb).max() <= 0.005  # spz has the coarsest colours: SH_C0 * 0.5 / 255 / 0.15
    assert error(before.opacities, after.opacities) <= 1 / 255
    assert after.sh_degree == (0 if suffix == ".splat" or k == 0 else 3)


@pytest.mark.parametrize("suffix", WRITABLE)
def test_no_gaussian_and_nan_are_refused(tmp_path, suffix):
    with pytest.raises(InputError, match="--out: expected at least one Gaussian"):
        saved(scene()[:0], tmp_path, suffix, field="--out")
    broken = scene()
    broken.log_scales[2, 1] = float("inf")
    with pytest.raises(InputError, match="log_scales holds NaN or inf"):
        saved(broken, tmp_path, suffix)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", WRITABLE)
def test_opacity_0_and_1(tmp_path, suffix):
    before = scene(3, 0)
    before.logit_opacities[:] = torch.tensor([-20.0, 0.0, 20.0])
    after = load_gaussians(saved(before, tmp_path, suffix))
    if suffix == ".compressed.ply":
        assert len(after) == 2  # the transparent one is left out
        before = before[1:]
    after = matched(before, after)
    assert error(before.opacities, after.opacities) <= 1 / 255
    assert torch.isfinite(after.logit_opacities).all()


@pytest.mark.parametrize("suffix", WRITABLE)
def test_huge_and_small_scales(tmp_path, suffix):
    before = scene(3, 0)
    before.log_scales[:] = torch.tensor([[-8.0], [-3.0], [5.0]])
    after = matched(before, load_gaussians(saved(before, tmp_path, suffix)))
    # 1/16 for spz, (5 + 8) / 2046 for compressed PLY
    torch.testing.assert_close(after.log_scales, before.log_scales, atol=13 / 2046, rtol=0)
    before.log_scales[:] = torch.tensor([[-30.0], [-3.0], [50.0]])
    after = matched(before, load_gaussians(saved(before, tmp_path, suffix)))
    low, high = {
        ".ply": (-30.0, 50.0),
        ".compact.ply": (-30.0, 50.0),
        ".compressed.ply": (-20.0, 20.0),
        ".splat": (math.log(1e-9), 50.0),
        ".spz": (-10.0, 255 / 16 - 10),
    }[suffix]
    middle = {".compressed.ply": 70 / 2046}.get(suffix, 1e-4)
    torch.testing.assert_close(after.log_scales[0], torch.full((3,), low), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.log_scales[1], torch.full((3,), -3.0), atol=middle, rtol=0)
    torch.testing.assert_close(after.log_scales[2], torch.full((3,), high), atol=1e-4, rtol=0)


def test_scales_beyond_float32_are_no_splat(tmp_path):
    before = scene(3, 0)
    before.log_scales[:] = 100.0
    with pytest.raises(InputError, match=r"scales below 3e38 for a \.splat"):
        saved(before, tmp_path, ".splat")


def test_spz_of_a_wide_scene_has_fewer_fractions(tmp_path):
    before = scene(50, 0)
    wide = Gaussians(before.means * 100_000, *(v for name, v in before.tensors() if name != "means"))
    after = load_gaussians(saved(wide, tmp_path, ".spz"))
    assert error(wide.means, after.means).max() <= 2**-7 + 0.01  # 6 bits remain; float32 itself has 0.008 there
    far = Gaussians(before.means * 1e8, *(v for name, v in before.tensors() if name != "means"))
    with pytest.raises(InputError, match="positions within 4,000,000 units"):
        saved(far, tmp_path, ".spz")


def test_only_transparent_gaussians_make_no_compressed_ply(tmp_path):
    before = scene(5, 0)
    before.logit_opacities[:] = -9.0
    with pytest.raises(InputError, match="opacity above 1/255"):
        saved(before, tmp_path, ".compressed.ply")


@pytest.mark.parametrize("suffix", PACKED)
def test_broken_files_say_what_is_wrong(tmp_path, suffix):
    whole = saved(scene(), tmp_path, suffix)
    half = tmp_path / f"half{suffix}"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2 + 5])
    with pytest.raises(InputError, match=r"--init: expected .*, got .*half") as caught:
        load_gaussians(half, "--init")
    assert caught.value.field == "--init"
    for name, match in ((f"none{suffix}", "does not exist"), ("folder" + suffix, "is a folder")):
        (tmp_path / ("folder" + suffix)).mkdir(exist_ok=True)
        with pytest.raises(InputError, match=match):
            load_gaussians(tmp_path / name)
    (tmp_path / f"text{suffix}").write_text("no splat")
    with pytest.raises(InputError):
        load_gaussians(tmp_path / f"text{suffix}")


def test_an_empty_file_holds_no_gaussian(tmp_path):
    (tmp_path / "a.splat").write_bytes(b"")
    with pytest.raises(InputError, match="at least one Gaussian"):
        load_gaussians(tmp_path / "a.splat")
    (tmp_path / "a.spz").write_bytes(gzip.compress(struct.pack("<IIIBBBB", 0x5053474E, 3, 0, 0, 12, 0, 0)))
    with pytest.raises(InputError, match="at least one Gaussian"):
        load_gaussians(tmp_path / "a.spz")


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"<!DOCTYPE html>" + b" " * 49, "text"),
        (b"version https://git-lfs.github.com/spec/v1\n" + b"oid" * 6, "text"),
        (b"ply\nformat \0", "a PLY"), (b"\x1f\x8b\x08\0\0", "gzip"), (b"PK\x03\x04\n\0", "a ZIP archive"),
    ],
)  # fmt: skip
def test_a_splat_that_is_another_kind_of_file_is_refused(tmp_path, start, what):
    (tmp_path / "a.splat").write_bytes(start.ljust(64, b"\x07"))
    with pytest.raises(InputError, match=f"a.splat, which holds {what}"):
        load_gaussians(tmp_path / "a.splat")


def test_an_axis_of_a_splat_has_no_sign(tmp_path):
    row = struct.pack("<6f8B", 0, 0, 0, 0.1, -0.2, 0.3, *[9] * 4, 255, 128, 128, 128)
    (tmp_path / "a.splat").write_bytes(row)
    torch.testing.assert_close(load_gaussians(tmp_path / "a.splat").scales, torch.tensor([[0.1, 0.2, 0.3]]))


def test_other_suffixes_are_refused(tmp_path):
    assert READABLE == (".ply", ".splat", ".spz")
    assert splat_suffix(tmp_path / "A.Compressed.PLY") == ".compressed.ply"
    with pytest.raises(InputError, match=r"\.ply, \.splat, \.spz\), got .*a\.obj"):
        load_gaussians(tmp_path / "a.obj")
    with pytest.raises(InputError, match=r"ends in \.ply, \.compact\.ply, \.compressed\.ply, \.splat, \.spz"):
        saved(scene(), tmp_path, ".ksplat")


def test_without_gsply_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = saved(scene(), tmp_path, ".spz")
    monkeypatch.setitem(__import__("sys").modules, "gsply", None)
    assert len(load_gaussians(path)) == 300
    with pytest.raises(InputError, match=r"gsply, which writing an \.spz needs.*; pip install gsply"):
        saved(scene(), tmp_path, ".spz")


def test_spz_of_version_4_names_the_package_it_needs(tmp_path):
    pytest.importorskip("gsply")
    try:
        import zstandard  # noqa: F401
    except ImportError:
        (tmp_path / "a.spz").write_bytes(struct.pack("<IIIBBBBI12x", 0x5053474E, 4, 1, 0, 12, 0, 5, 32))
        with pytest.raises(InputError, match="pip install zstandard"):
            load_gaussians(tmp_path / "a.spz")
    else:
        import gsply

        data = gsply.read_spz(saved(scene(), tmp_path, ".spz"))
        gsply.write_spz(tmp_path / "b.spz", data, version=4)
        assert torch.equal(load_gaussians(tmp_path / "b.spz").means, load_gaussians(tmp_path / "a.spz").means)


METADATA = {"prompt": 'a "röd" mug\nend_header\n', "seed": 7, "config": {"steps": 3, "gamma": 0.3}, "version": "0.1.0"}


@pytest.mark.parametrize("suffix", WRITABLE)
def test_metadata_comes_back(tmp_path, suffix):
    path = saved(scene(20), tmp_path, suffix, metadata=METADATA)
    assert sidecar(path) == tmp_path / "a.json"
    beside = {**METADATA, "generator": "Dreamer XL"}
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == beside
    assert read_metadata(path) == beside
    assert len(load_gaussians(path)) == 20
    (tmp_path / "a.json").unlink()
    assert read_metadata(path) == (METADATA if suffix.endswith(".ply") else {})


def test_without_metadata_nothing_is_written_beside(tmp_path):
    path = saved(scene(20), tmp_path, ".ply")
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]
    assert b"comment" not in ply_header(path)
    assert read_metadata(path) == {}


def test_plyfile_reads_the_comments(tmp_path):
    comments = PlyData.read(saved(scene(20), tmp_path, ".ply", metadata=METADATA)).comments
    assert [json.loads(c.removeprefix("dreamer-xl ")) for c in comments] == [{k: v} for k, v in METADATA.items()]


def test_long_metadata_stays_out_of_the_header(tmp_path):
    """Viewers look for the end of the header in the first 64 KiB only."""
    long = {"prompt": "a red mug", "graph": "x" * 100_000, "seed": 1}
    path = saved(scene(20, 15), tmp_path, ".ply", metadata=long)
    assert len(ply_header(path)) < COMMENTS_AT_MOST + 4096 < 65536
    assert read_metadata(path) == {**long, "generator": "Dreamer XL"}  # from the JSON
    (tmp_path / "a.json").unlink()
    assert read_metadata(path) == {"prompt": "a red mug", "seed": 1}


def test_a_foreign_or_broken_json_is_no_reason_to_fail(tmp_path):
    path = saved(scene(20), tmp_path, ".splat")
    for text in ("[1, 2]", "{", "\x00", '{"camera_model": "OPENCV"}', "[" * 100_000):
        (tmp_path / "a.json").write_text(text)
        assert read_metadata(path) == {}


def test_colours_outside_what_a_screen_shows_are_kept_where_the_format_can(tmp_path):
    before = scene(3, 0)
    before.sh0[:, 0, 0] = torch.tensor([-0.3, 0.5, 1.3]).sub(0.5) / SH_C0
    got = {}
    for suffix in WRITABLE:
        got[suffix] = matched(before, load_gaussians(saved(before, tmp_path, suffix))).rgb[:, 0].numpy()
    np.testing.assert_allclose(got[".compact.ply"], got[".ply"])
    np.testing.assert_allclose(got[".ply"], [-0.3, 0.5, 1.3], atol=1e-6)
    np.testing.assert_allclose(got[".compressed.ply"], [-0.3, 0.5, 1.3], atol=1.6 / 510 + 1e-6)
    np.testing.assert_allclose(got[".spz"], [-0.3, 0.5, 1.3], atol=0.5 / 255 / 0.15 * SH_C0 + 1e-6)
    np.testing.assert_allclose(got[".splat"], [0.0, 0.5, 1.0], atol=1 / 255)
