"""The frame flips once: positions, rotations and spherical harmonics."""

from __future__ import annotations

import pytest
import torch


def random_gaussians(ours, count=7, coefficients=15, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    return ours("dreamer_core.gaussians").Gaussians(
        draw(count, 3), draw(count, 4), draw(count, 3) - 2, draw(count), draw(count, 1, 3), draw(count, coefficients, 3)
    )


@pytest.mark.parametrize("coefficients", [0, 3, 8, 15])
def test_round_trip(ours, coefficients):
    splat = ours("nodes.host.splat")
    before = random_gaussians(ours, coefficients=coefficients)
    (after,) = splat.from_splat(splat.to_splat(before))
    unit = torch.nn.functional.normalize
    for name, value in before.tensors():
        if name == "quats":  # the same rotation up to length and sign
            cosine = (unit(value, dim=-1) * unit(after.quats, dim=-1)).sum(-1).abs()
            torch.testing.assert_close(cosine, torch.ones_like(cosine))
        else:
            torch.testing.assert_close(getattr(after, name), value, rtol=1e-4, atol=1e-5)


def test_the_flip_is_half_a_turn_about_x(ours):
    splat = ours("nodes.host.splat")
    rotation = ours("dreamer_core.rendering.torch_backend").rotation_matrices
    turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    before = random_gaussians(ours)
    after = splat.flip_frame(before)
    torch.testing.assert_close(after.means, before.means @ turn.T)
    torch.testing.assert_close(rotation(after.quats), turn @ rotation(before.quats), rtol=1e-5, atol=1e-6)


def test_colours_follow_the_frame(ours):
    """A colour seen from a direction in the world is the colour seen from the turned direction in the SPLAT."""
    splat = ours("nodes.host.splat")
    colors = ours("dreamer_core.rendering.spherical_harmonics").view_colors
    look_at = ours("dreamer_core.cameras").look_at
    before = random_gaussians(ours)
    after = splat.flip_frame(before)
    eye = torch.tensor([[2.0, 3.0, -4.0]])
    turned = eye * torch.tensor([1.0, -1.0, -1.0])
    zero, up = torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]])
    in_world = colors(before.means, before.sh, 3, look_at(eye, zero, up))
    in_splat = colors(after.means, after.sh, 3, look_at(turned, zero, -up))
    torch.testing.assert_close(in_world, in_splat, rtol=1e-4, atol=1e-5)


def test_batches_keep_their_lengths(ours):
    splat = ours("nodes.host.splat")
    parts = [random_gaussians(ours, 5, 3, 1), random_gaussians(ours, 9, 3, 2)]
    packed = splat.pack(parts)
    assert packed.positions.shape == (2, 9, 3)
    assert packed.counts.tolist() == [5, 9]
    again = splat.items(packed)
    assert [len(g) for g in again] == [5, 9]
    torch.testing.assert_close(again[0].means, parts[0].means)


def test_unusable_splats_are_refused(ours):
    splat, error = ours("nodes.host.splat"), ours("dreamer_core.errors").InputError
    with pytest.raises(error, match="a batch of 2"):
        splat.one_from_splat(splat.pack([random_gaussians(ours), random_gaussians(ours)]))
    empty = random_gaussians(ours)[torch.zeros(7, dtype=torch.bool)]
    with pytest.raises(error, match="an empty splat"):
        splat.one_from_splat(splat.pack([empty]))
    broken = splat.to_splat(random_gaussians(ours))
    broken.positions[0, :, 0] = float("nan")
    with pytest.raises(error, match="at least one Gaussian, got 7 that hold NaN, inf or a rotation of length 0"):
        splat.one_from_splat(broken)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("positions", torch.zeros(7, 3)), ("scales", torch.ones(1, 6, 3)), ("rotations", torch.ones(1, 7, 3)),
        ("opacities", torch.ones(1, 7, 2)), ("sh", torch.zeros(1, 7, 0, 3)), ("counts", torch.tensor([8])),
        ("counts", torch.tensor([-1])), ("counts", torch.tensor([3, 4])),
    ],
)  # fmt: skip
def test_tensors_that_do_not_go_together_are_refused_by_name(ours, name, value):
    splat = ours("nodes.host.splat").to_splat(random_gaussians(ours))
    setattr(splat, name, value)
    with pytest.raises(ours("dreamer_core.errors").InputError, match=name) as error:
        ours("nodes.host.splat").items(splat)
    assert "the node that made it is at fault" in str(error.value)


def test_bad_rows_go_and_legal_extremes_stay(ours, caplog):
    splat = ours("nodes.host.splat")
    packed = splat.to_splat(random_gaussians(ours))
    packed.positions[0, 0, 0], packed.rotations[0, 1], packed.scales[0, 2, 1] = float("nan"), 0.0, float("inf")
    packed.opacities[0, 3], packed.opacities[0, 4], packed.scales[0, 5] = 1.0, 0.0, 0.0
    packed.scales[0, 6] *= -1
    got = splat.one_from_splat(packed)
    assert len(got) == 4
    assert got.check_finite() is None
    assert "the splat: 3 of 7 Gaussians left out (2 with NaN or inf and 1 with a rotation of length 0)" in caplog.text
    torch.testing.assert_close(got.opacities[:2], torch.tensor([1.0, 0.0]), atol=1e-5, rtol=0)
    assert float(got.scales[2].max()) < 1e-8
    torch.testing.assert_close(got.scales[3], packed.scales[0, 6].abs())


@pytest.mark.parametrize(("given", "kept"), [(5, 8), (24, 15)])
def test_incomplete_and_higher_degrees(ours, given, kept, caplog):
    splat = ours("nodes.host.splat")
    packed = splat.to_splat(random_gaussians(ours))
    packed.sh = torch.randn(1, 7, 1 + given, 3)
    got = splat.items(packed)[0]
    assert got.shN.shape == (7, kept, 3)
    torch.testing.assert_close(got.shN[:, : min(given, kept)], packed.sh[0, :, 1 : 1 + min(given, kept)])
    assert not got.shN[:, given:].any()
    assert ("above degree 3" in caplog.text) == (given > 15)


@pytest.mark.parametrize("suffix", [".ply", ".splat", ".spz"])
def test_files_are_what_comfyui_reads_in_them(ours, tmp_path, suffix):
    """File3DToSplat's own parsers of a file that was written here, against the reader here."""
    from comfy_extras import nodes_gaussian_splat as theirs

    formats, splat = ours("dreamer_core.formats"), ours("nodes.host.splat")
    path = tmp_path / f"a{suffix}"
    formats.save_gaussians(random_gaussians(ours, 40), path)
    xyz, scale, turn, opacity, sh = theirs._GAUSSIAN_PARSERS[suffix[1:]](path.read_bytes())
    mine = splat.to_splat(formats.load_gaussians(path))
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(mine.positions[0], torch.from_numpy(xyz), **close)
    torch.testing.assert_close(mine.scales[0], torch.from_numpy(scale), **close)
    torch.testing.assert_close(mine.opacities[0, :, 0], torch.from_numpy(opacity), **close)
    cosine = (mine.rotations[0] * torch.from_numpy(turn)).sum(-1).abs()
    torch.testing.assert_close(cosine, torch.ones(40), atol=1e-3, rtol=0)
    k = min(sh.shape[1], mine.sh.shape[2])  # ComfyUI leaves an .spz's harmonics out
    torch.testing.assert_close(mine.sh[0, :, :k], torch.from_numpy(sh)[:, :k].float(), **close)


def test_results_are_ordinary_tensors(ours):
    """Made in inference mode by the executor, used for gradients by the optimiser."""
    splat = ours("nodes.host.splat")
    with torch.inference_mode():
        packed = splat.to_splat(random_gaussians(ours))
    with torch.inference_mode(False):
        assert not any(value.is_inference() for _, value in splat.one_from_splat(packed).tensors())


def odd_splat(ours, coefficients):
    """Eight Gaussians of which the first and the fifth hold NaN, and SH coefficients of no whole degree."""
    splat = ours("nodes.host.splat").to_splat(random_gaussians(ours, 8, 15))
    splat.positions[0, [0, 4]] = float("nan")
    more = torch.randn(1, 8, max(0, coefficients - 16), 3, generator=torch.Generator().manual_seed(1))
    splat.sh = torch.cat([splat.sh, more], dim=2)[:, :, :coefficients].clone()
    return splat


@pytest.mark.parametrize("coefficients", [6, 16, 25])
@pytest.mark.parametrize("grown", [False, True])
def test_what_an_edit_leaves_alone_is_its_own_row(ours, coefficients, grown):
    """Rows that nothing can draw are left out: those behind them must not take each other's values."""
    splat = ours("nodes.host.splat")
    source = odd_splat(ours, coefficients)
    kept = torch.tensor([1, 2, 3, 5, 6, 7])
    given = splat.one_from_splat(source)
    assert len(given) == 6
    free = torch.tensor([True, False, False, False, False, False])
    changed = given.means.clone()
    changed[0] += 1
    made = ours("dreamer_core.gaussians").Gaussians(**{**dict(given.tensors()), "means": changed})
    if grown:
        made = made[torch.tensor([1, 2, 3, 4, 5, 0, 0])]
    after = splat.with_changes(source, made, free)
    locked = slice(0, 5) if grown else slice(1, 6)
    for name in ("positions", "scales", "rotations", "opacities"):
        assert torch.equal(getattr(after, name)[0, locked], getattr(source, name)[0, kept[1:]]), name
    shared = min(coefficients, after.sh.shape[2])
    assert torch.equal(after.sh[0, locked, :shared], source.sh[0, kept[1:], :shared])
    assert not after.sh[0, :, shared:].any()
    moved = after.positions[0, 5 if grown else 0]
    assert (moved - source.positions[0, 1]).norm() == pytest.approx(3**0.5, rel=1e-4)
