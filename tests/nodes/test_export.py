"""Export: every format as ComfyUI's own readers see it, turntables, and where the workflow is kept."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

GRAPH = {"1": {"class_type": "DreamerXLExport", "inputs": {"format": "ply"}}}
WORKFLOW = {"nodes": [], "links": [], "version": 0.4}


@pytest.fixture(scope="module")
def export(ours):
    """The node as the executor calls it, with the graph as hidden inputs; its result and the output folder."""
    import folder_paths
    from comfy_api.internal import make_locked_method_func
    from comfy_api.latest import io

    found = asyncio.run(ours("nodes.extension").DreamerXLExtension().get_node_list())
    (node,) = [n for n in found if n.GET_SCHEMA().node_id == "DreamerXLExport"]

    def call(splat, name, **inputs):
        hidden = {io.Hidden.prompt: GRAPH, io.Hidden.extra_pnginfo: {"workflow": WORKFLOW}}
        clone = node.PREPARE_CLASS_CLONE({"hidden_inputs": hidden})
        with torch.inference_mode():
            method = make_locked_method_func(node, "execute", clone)
            return method(splat=splat, filename_prefix=f"export/{name}", **inputs)

    call.folder = lambda: Path(folder_paths.get_output_directory()) / "export"
    return call


@pytest.fixture(scope="module")
def splat(ours):
    """Sixty Gaussians in the range of every format."""
    g = torch.Generator().manual_seed(3)
    r = lambda *shape: torch.rand(*shape, generator=g)
    gaussians = ours("dreamer_core.gaussians").Gaussians(
        2 * r(60, 3) - 1,
        torch.randn(60, 4, generator=g),
        -4 + 2 * r(60, 3),
        (0.1 + 0.8 * r(60)).logit(),
        (r(60, 1, 3) - 0.5) / 0.2820948,
        r(60, 3, 3) - 0.5,
    )
    return ours("nodes.host.splat").to_splat(gaussians)


TOLERANCE = {"ply": (1e-6, 1e-5), "splat": (1e-6, 1 / 255 / 0.282), "spz": (2**-13, 0.5 / 255 / 0.15)}
"""Positions; coefficients of degree 0."""


@pytest.mark.parametrize("format", TOLERANCE)
def test_comfyui_reads_what_was_written(export, splat, host, format):
    import comfy_extras.nodes_gaussian_splat as core

    file = export(splat, format, format=format).args[0]
    assert file.format == format
    again = core.File3DToSplat.execute(file).args[0]
    assert again.positions.shape == (1, 60, 3)
    order = torch.cdist(splat.positions[0], again.positions[0]).argmin(dim=1)
    place, color = TOLERANCE[format]
    torch.testing.assert_close(again.positions[0, order], splat.positions[0], atol=place + 1e-6, rtol=0)
    torch.testing.assert_close(again.sh[0, order, 0], splat.sh[0, :, 0], atol=color + 1e-4, rtol=0)
    ratio = (again.scales[0, order] / splat.scales[0]).log().abs().max()
    assert ratio <= {"spz": 1 / 32}.get(format, 0) + 1e-4
    cosine = (again.rotations[0, order] * splat.rotations[0]).sum(-1).abs()
    assert cosine.min() > 1 - 3e-4
    torch.testing.assert_close(again.opacities[0, order], splat.opacities[0], atol=1.01 / 255, rtol=0)


def test_compressed_ply_is_named_and_read_back(export, splat, ours):
    result = export(splat, "small", format="compressed.ply")
    (entry,) = result.ui["3d"]
    assert entry["filename"] == "small_00001_.compressed.ply"
    path = export.folder() / entry["filename"]
    assert len(ours("dreamer_core.formats").load_gaussians(path)) == 60
    assert result.args[0].format == "ply"


def test_picture_and_files_carry_the_graph(export, splat, ours):
    result = export(splat, "kept", format="ply")
    assert result.ui["animated"] == (False,)
    assert result.ui["images"] == result.ui["pictures"]
    (entry,) = result.ui["images"]
    text = Image.open(export.folder() / entry["filename"]).text
    assert json.loads(text["prompt"]) == GRAPH
    assert json.loads(text["workflow"]) == WORKFLOW
    beside = export.folder() / "kept_00001_.json"
    recorded = json.loads(beside.read_text())
    assert recorded["prompt"] == GRAPH
    beside.unlink()
    assert ours("dreamer_core.formats").read_metadata(export.folder() / "kept_00001_.ply") == recorded


def test_no_metadata_where_the_host_wants_none(export, splat, monkeypatch):
    from comfy.cli_args import args

    monkeypatch.setattr(args, "disable_metadata", True)
    export(splat, "bare", format="ply")
    assert {p.name for p in export.folder().glob("bare*")} == {"bare_00001_.ply", "bare_00001_.png"}
    assert not Image.open(export.folder() / "bare_00001_.png").text
    assert b"comment" not in (export.folder() / "bare_00001_.ply").read_bytes()[:200]
    export(splat, "bare-film", format="ply", turntable="webp", turntable_frames=2, turntable_resolution=32)
    assert not Image.open(export.folder() / "bare-film_00001_.webp").getexif()


@pytest.mark.parametrize("kind", ["mp4", "webp", "gif"])
def test_turntable(export, splat, kind, monkeypatch):
    import av
    import comfy.utils

    seen = []
    monkeypatch.setattr(comfy.utils.ProgressBar, "update", lambda bar, by: seen.append((by, bar.total)))
    size = {"turntable_frames": 3, "turntable_resolution": 64, "turntable_fps": 10}
    result = export(splat, f"film-{kind}", turntable=kind, **size)
    assert result.ui["animated"] == (True,)
    (entry,) = result.ui["images"]
    assert entry == {"filename": f"film-{kind}_00001_.{kind}", "subfolder": "export", "type": "output"}
    path = export.folder() / entry["filename"]
    if kind == "mp4":
        with av.open(str(path)) as film:
            shapes = [frame.to_ndarray(format="rgb24").shape for frame in film.decode(video=0)]
            texts = [f"{name}:{film.metadata[name]}" for name in ("prompt", "workflow")]
        assert shapes == [(64, 64, 3)] * 3
    else:
        film = Image.open(path)
        assert (film.n_frames, film.size) == (3, (64, 64))
        if kind == "webp":
            texts = list(film.getexif().values())
        else:
            texts = [f"{name}:{json.dumps(value)}" for name, value in json.loads(film.info["comment"]).items()]
    # The graph travels along, as in the films of ComfyUI's own nodes.
    assert sorted(texts) == [f"prompt:{json.dumps(GRAPH)}", f"workflow:{json.dumps(WORKFLOW)}"]
    assert seen == [(1, 3)] * 3
    assert (export.folder() / result.ui["pictures"][0]["filename"]).is_file()


def test_what_a_film_cannot_hold_is_refused_before_anything_is_written(export, splat):
    with pytest.raises(ValueError, match="Dreamer XL Export: turntable_fps: expected at most 50"):
        export(splat, "never", turntable="gif", turntable_fps=60)
    with pytest.raises(ValueError, match="turntable_resolution: expected an even number"):
        export(splat, "never", turntable="mp4", turntable_resolution=65)
    assert not list(export.folder().glob("never*"))


def test_a_batch_becomes_one_file_each(export, ours, splat):
    batch = ours("nodes.host.splat")
    two = batch.pack([*batch.items(splat), *batch.items(splat)])
    result = export(two, "two", format="splat")
    assert [f["filename"] for f in result.ui["3d"]] == ["two_00001_.splat", "two_00002_.splat"]
    assert len(result.ui["images"]) == 2
    assert export(splat, "two", format="splat").ui["3d"][0]["filename"] == "two_00003_.splat"
