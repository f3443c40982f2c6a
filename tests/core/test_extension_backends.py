"""A new format or renderer is one file and its name in one tuple: commands, help and results follow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamer_core.formats import load_gaussians, write_ply
from dreamer_core.initializers import initial_shape

PACKAGE = Path(__file__).resolve().parents[2] / "dreamer_core"

FORMAT = """
from pathlib import Path

import torch

from ..gaussians import Gaussians
from .format import Format


def read(path: Path, field: str) -> Gaussians:
    return Gaussians.from_params(torch.load(path)).detach()


def write(gaussians, path, metadata=None, field="splat") -> None:
    torch.save(gaussians.detach().as_params(), path)


THROWAWAY = Format(".tossed", "Tossed (a test)", "for a test", read=read, write=write)
"""

RENDERER = '''
import torch

from .output import RenderOutput
from .renderer import RasterizeCall, Renderer


def rasterize(call: RasterizeCall) -> RenderOutput:
    """Dark red, whatever there is."""
    image = torch.zeros(call.views, call.height, call.width, 3)
    image[..., 0] = 0.2
    return RenderOutput(image, torch.ones_like(image[..., :1]), None, call.info())


THROWAWAY = Renderer(name="tossed", purpose="for a test", rasterize=rasterize)
'''

RUN = """
import sys
from dreamer_core.cli import main
for command in sys.argv[1:]:
    try:
        code = main(command.split())
    except SystemExit as stop:
        code = stop.code
    assert code == 0, (command, code)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with a copy of the package and a splat."""
    shutil.copytree(PACKAGE, tmp_path / "dreamer_core", ignore=shutil.ignore_patterns("__pycache__"))
    write_ply(initial_shape("ball", 50, torch.Generator().manual_seed(0)), tmp_path / "ball.ply")
    return tmp_path


def add(folder: Path, text: str, listed_in: str, last: str) -> None:
    """The new file beside the others, and its name after the `last` of the tuple."""
    (folder / "throwaway.py").write_text(text, encoding="utf-8")
    listing = folder / listed_in
    before = listing.read_text(encoding="utf-8")
    imported = f", {last})\n"
    assert before.count(imported) == 1
    after = before.replace(imported, f", {last}, THROWAWAY)\n")
    first = after.index("\nfrom .") + 1
    listing.write_text(f"{after[:first]}from .throwaway import THROWAWAY\n{after[first:]}", encoding="utf-8")


def output_of(folder: Path, *commands: str) -> str:
    """What the command line of the copy prints for some commands, in one process."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "500"}
    result = subprocess.run(
        [sys.executable, "-c", RUN, *commands], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_format_is_one_file_and_its_name(package: Path) -> None:
    add(package / "dreamer_core" / "formats", FORMAT, "splat_files.py", "SPZ")
    shown = output_of(
        package, "convert --help", "generate --help", "convert ball.ply a.tossed", "convert a.tossed back.ply",
        "info a.tossed",
    ).split("usage: ")  # fmt: skip
    convert, rest = shown[1], shown[2]
    assert "a splat: .ply, .splat, .spz, .tossed" in convert
    assert ".ply, .compressed.ply, .splat, .spz, .tossed" in convert
    exports = next(line for line in rest.splitlines() if "beside splat.ply" in line)
    assert ", tossed, " in exports
    starts = next(line for line in rest.splitlines() if "a splat, points or a mesh" in line)
    assert ".tossed" in starts
    assert "Tossed (a test), " in rest
    before, after = load_gaussians(package / "ball.ply"), load_gaussians(package / "back.ply")
    torch.testing.assert_close(after.means, before.means, atol=0, rtol=0)
    torch.testing.assert_close(after.sh0, before.sh0, atol=0, rtol=0)


def test_a_renderer_is_one_file_and_its_name(package: Path) -> None:
    add(package / "dreamer_core" / "rendering", RENDERER, "backends.py", "TORCH")
    command = "render ball.ply --out red.png --views 1 --resolution 16 --renderer"
    shown = output_of(package, "render --help", f"{command} tossed")
    assert "{auto,gsplat,numba,torch,tossed}" in shown
    assert "tossed (for a test)" in shown
    picture = np.asarray(Image.open(package / "red.png").convert("RGB"))
    assert picture.shape == (16, 16, 3)
    assert (picture == [51, 0, 0]).all()
