"""Every version of .spz, the frames that files declare, and bounds on what a file may take."""

import gzip
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch

from dreamer_core.cameras import orbit_cameras
from dreamer_core.errors import InputError
from dreamer_core.formats import load_gaussians, save_gaussians
from dreamer_core.formats.spz_layout import FRAMES
from dreamer_core.gaussians import Gaussians, rgb_to_sh
from dreamer_core.rendering import render

MAGIC = 0x5053474E
TURN = np.array([1, -1, -1])
PLACES = np.random.default_rng(0).uniform(-2, 2, (40, 3))
COUNTS = (0, 3, 8, 15, 24)


def packed(places):
    fixed = np.round(places * 4096).astype(np.int64) & 0xFFFFFF
    return np.stack([fixed & 255, fixed >> 8 & 255, fixed >> 16], -1).astype("u1").tobytes()


def sections(version=3, degree=0, places=PLACES):
    """Sections of identity rotations: scales e^-3.75, opacity 200/255, grey, SH 16/128."""
    n = len(places)
    where = places.astype("<f2").tobytes() if version == 1 else packed(places)
    turn = struct.pack("<I", 3 << 30) if version >= 3 else bytes([128, 128, 128])
    return [where, bytes([200]) * n, bytes([128]) * 3 * n, bytes([100]) * 3 * n, turn * n,
            bytes([144]) * 3 * n * COUNTS[degree]]  # fmt: skip


def spz(version=3, degree=0, records=b"", flags=0, n=40):
    raw = struct.pack("<IIIBBBB", MAGIC, version, n, degree, 12, flags, 0)
    return gzip.compress(raw + b"".join(sections(version, degree)) + records)


def spz4(degree=0, records=b"", flags=0, lie=0):
    import zstandard

    parts = [p for p in sections(4, degree) if p]
    streams = [zstandard.ZstdCompressor().compress(p) for p in parts]
    head = struct.pack("<IIIBBBBI12x", MAGIC, 4, len(PLACES), degree, 12, flags, len(parts), 32 + len(records))
    table = b"".join(struct.pack("<QQ", len(s), len(p) + lie) for s, p in zip(streams, parts))
    return head + records + table + b"".join(streams)


def loaded(tmp_path, data):
    (tmp_path / "a.spz").write_bytes(data)
    return load_gaussians(tmp_path / "a.spz")


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_every_version_and_degree(tmp_path, version, degree, caplog):
    if version == 4:
        pytest.importorskip("zstandard")
    g = loaded(tmp_path, spz4(degree) if version == 4 else spz(version, degree))
    np.testing.assert_allclose(g.means, PLACES * TURN, atol=1e-3 if version == 1 else 2**-13 + 1e-6)
    torch.testing.assert_close(g.log_scales, torch.full((40, 3), -3.75))
    torch.testing.assert_close(g.opacities, torch.full((40,), 200 / 255))
    torch.testing.assert_close(g.rgb, torch.full((40, 3), 0.5037), atol=1e-4, rtol=0)
    unit = torch.nn.functional.normalize(g.quats, dim=-1)
    torch.testing.assert_close(unit[:, 1].abs(), torch.ones(40), atol=1e-4, rtol=0)  # half a turn about X, our world's
    assert g.sh_degree == min(degree, 3)
    torch.testing.assert_close(g.shN.abs(), torch.full_like(g.shN, 0.125))
    assert ("above degree 3" in caplog.text) == (degree == 4)


def record(frame, kind=0xADBE0003):
    return struct.pack("<III", kind, 4, frame)


def in_rdf(name):
    """Places of a frame by the letters of its name: what X, Y and Z point to."""
    directions = {"R": (1, 0, 0), "L": (-1, 0, 0), "D": (0, 1, 0), "U": (0, -1, 0), "F": (0, 0, 1), "B": (0, 0, -1)}
    return PLACES @ np.array([directions[letter] for letter in name])


@pytest.mark.parametrize("code", range(1, 17))
def test_declared_frames_are_turned(tmp_path, code):
    pytest.importorskip("zstandard")
    want = in_rdf(FRAMES[code]) * TURN
    np.testing.assert_allclose(loaded(tmp_path, spz(records=record(code), flags=2)).means, want, atol=3e-4)
    np.testing.assert_allclose(loaded(tmp_path, spz4(records=record(code), flags=2)).means, want, atol=3e-4)


def test_frames_have_the_published_numbers():
    assert (FRAMES[4], FRAMES[6], FRAMES[7], FRAMES[8], FRAMES[16]) == ("RUB", "RDF", "LUF", "RUF", "RBU")
    assert len(set(FRAMES)) == 17


@pytest.mark.parametrize("code", [4, 7, 8, 9, 16])
def test_a_turned_splat_looks_the_same(tmp_path, code):
    """Axes and view-dependent colours follow, in mirrored frames, too: the same picture as in 3DGS's own."""
    g = torch.Generator().manual_seed(1)
    n = 40
    draw = lambda *shape: torch.randn(*shape, generator=g)
    plain = Gaussians(
        0.4 * draw(n, 3),
        draw(n, 4),
        0.5 * draw(n, 3) - 2.2,
        draw(n),
        rgb_to_sh(torch.rand(n, 1, 3, generator=g)),
        0.2 * draw(n, 15, 3),
    )
    save_gaussians(plain, tmp_path / "rdf.spz")
    raw = bytearray(gzip.decompress((tmp_path / "rdf.spz").read_bytes()))
    raw[14] = 2
    from dreamer_core.formats.spz_layout import AXES
    from dreamer_core.frames import flip_frame, rotated

    matrix = torch.zeros(3, 3, dtype=torch.float64)  # from RDF to the frame
    for row, letter in enumerate(FRAMES[code]):
        matrix[row, AXES[letter][0]] = AXES[letter][1]
    other = flip_frame(rotated(flip_frame(plain), matrix))  # its file holds the frame's numbers
    save_gaussians(other, tmp_path / "other.spz")
    raw = bytearray(gzip.decompress((tmp_path / "other.spz").read_bytes()))
    raw[14] = 2
    (tmp_path / "other.spz").write_bytes(gzip.compress(bytes(raw) + record(code)))
    cameras = orbit_cameras([30.0, 200.0], 20.0, 3.0, 0.6, 40)
    pictures = [
        render(load_gaussians(tmp_path / f"{k}.spz"), cameras, backend="torch").colors for k in ("rdf", "other")
    ]
    assert float(pictures[0].std()) > 0.05
    assert float((pictures[0] - pictures[1]).abs().mean()) < 0.01  # rotations are rounded anew


@pytest.mark.parametrize("code", [17, 99, 2**32 - 1])
def test_unknown_frames_are_refused(tmp_path, code):
    with pytest.raises(InputError, match=f"coordinate system {code}, and 1 to 16 are known"):
        loaded(tmp_path, spz(records=record(code), flags=2))


def test_other_extensions_are_named_or_known(tmp_path, caplog):
    loaded(tmp_path, spz(records=record(0, 0xADBE0002) + record(0), flags=2))  # an orbit's limits; not declared
    assert caplog.text == ""
    loaded(tmp_path, spz(records=record(0, 0x4E530001), flags=2 | 1))
    assert "extension 0x4e530001 is not used" in caplog.text
    assert "trained with anti-aliasing" in caplog.text
    loaded(tmp_path, spz(records=b"x" * 9))
    assert "9 bytes after its Gaussians are not used" in caplog.text
    loaded(tmp_path, spz(flags=0x90))
    assert "flags that are not used: 0x90" in caplog.text
    with pytest.raises(InputError, match="extension 0xadbe0003 is cut short"):
        loaded(tmp_path, spz(records=record(4)[:-1], flags=2))


def peak(read):
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        read()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return str(caught.value), most


def test_a_bomb_is_refused_before_it_unpacks(tmp_path):
    """Ten Gaussians, and 400 MB of zeros after them in a small file."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = struct.pack("<IIIBBBB", MAGIC, 3, 10, 0, 12, 0, 0) + bytes(200)
    data = squeeze.compress(head) + b"".join(squeeze.compress(bytes(1 << 22)) for _ in range(100)) + squeeze.flush()
    assert len(data) < 1 << 20
    message, most = peak(lambda: loaded(tmp_path, data))
    assert "more than 1,048,576 bytes follow its 10 Gaussians" in message
    assert most < 16 << 20


def test_counts_are_held_against_the_bytes(tmp_path):
    message, most = peak(lambda: loaded(tmp_path, spz(n=2_000_000_000)))
    assert "bytes cannot hold the 2,000,000,000 Gaussians that it declares" in message
    assert most < 16 << 20
    message, _ = peak(lambda: loaded(tmp_path, spz(n=41)))
    assert "declares 41 Gaussians in 820 bytes and holds 800" in message


def test_a_stream_larger_than_its_declaration(tmp_path):
    pytest.importorskip("zstandard")
    message, _ = peak(lambda: loaded(tmp_path, spz4(lie=1)))
    assert "a section declares 361 bytes where 360 belong" in message
    data = bytearray(spz4())
    struct.pack_into("<I", data, 8, 10)
    for i in range(5):  # sizes that belong to 10 Gaussians, streams that hold 40
        size = struct.unpack_from("<Q", data, 32 + 16 * i + 8)[0]
        struct.pack_into("<Q", data, 32 + 16 * i + 8, size // 4)
    message, _ = peak(lambda: loaded(tmp_path, bytes(data)))
    assert "a section holds 91 bytes where 90 belong" in message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short after 0 bytes"),
        (b"no spz at all", "no gzip stream"),
        (spz()[:-30], "cut short"),
        (gzip.compress(b"PK" + bytes(30)), "does not begin with NGSP"),
        (gzip.compress(struct.pack("<IIIBBBB", MAGIC, 5, 1, 0, 12, 0, 0)), "version 5, and 1 to 4"),
        (gzip.compress(struct.pack("<IIIBBBB", MAGIC, 3, 1, 9, 12, 0, 0)), "harmonics of degree 9"),
        (gzip.compress(struct.pack("<IIIBBBB", MAGIC, 3, 1, 0, 99, 0, 0)), "99 bits after the point"),
        (struct.pack("<IIIBBBBI12x", MAGIC, 4, 1, 0, 12, 0, 9, 32), "table names 9 sections"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",  # a gzip stream holds the time
)
def test_broken_files_are_named(tmp_path, data, message):
    with pytest.raises(InputError, match=message):
        loaded(tmp_path, data)
