"""Choice of the renderer, and what happens where one cannot work."""

from __future__ import annotations

import importlib.machinery
import logging
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamer_core.errors import InputError
from dreamer_core.rendering import (
    RasterizeCall,
    available_backends,
    backends,
    gsplat_backend,
    numba_renderer,
    numba_runtime,
    rasterize,
)
from dreamer_core.rendering import resolve_backend as resolve

ROOT = Path(__file__).resolve().parents[2]
CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _fresh_answers() -> Iterator[None]:
    caches = (numba_renderer._reason, backends._warn_once, gsplat_backend._loading_failure)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_cpu() -> None:
    reasons = available_backends("cpu")
    assert set(reasons) == {"gsplat", "numba", "torch"}
    assert "CUDA" in reasons["gsplat"]
    assert reasons["torch"] == ""
    assert resolve("auto", "cpu") == ("torch" if reasons["numba"] else "numba")
    assert resolve("torch", "cpu") == "torch"


def test_a_named_renderer_that_cannot_work_is_an_error() -> None:
    with pytest.raises(InputError, match=r"renderer: .*gsplat needs an NVIDIA GPU.*choose 'auto' or 'numba'"):
        resolve("gsplat", "cpu")
    with pytest.raises(InputError, match="one of auto, gsplat, numba, torch"):
        resolve("opengl", "cpu")


def test_numba_missing_means_torch_and_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise SystemError("Numba needs NumPy 2.3 or less")

    monkeypatch.setattr(numba_runtime, "import_kernels", fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [resolve("auto", "cpu") for _ in range(3)] == ["torch"] * 3
    assert len(caught) == 1
    assert "Numba needs NumPy 2.3 or less" in str(caught[0].message)
    with pytest.raises(InputError, match=r"Numba needs NumPy 2\.3 or less.*choose 'auto' or 'torch'"):
        resolve("numba", "cpu")


def test_the_package_works_without_numba_and_gsplat() -> None:
    """In a fresh interpreter where both imports fail, images still come out, with one warning."""
    code = """
import sys, warnings
sys.modules["numba"] = sys.modules["gsplat"] = None
import torch
from dreamer_core.rendering import RasterizeCall, rasterize
one = torch.ones(1, 3)
args = (one * 0, torch.ones(1, 4), one, one[:, 0], one, torch.eye(4)[None], torch.eye(3)[None] * 10, 8, 8)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    args[5][:, 2, 3] = 3
    for _ in range(2):
        assert rasterize(RasterizeCall(*args)).colors.shape == (1, 8, 8, 3)
assert len([w for w in caught if "numba" in str(w.message)]) == 1, caught
assert "Rendering with 'torch'" in str(caught[0].message)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


RENDERED = """
from dreamer_core.rendering import RasterizeCall, rasterize
one = torch.ones(1, 3)
view = torch.eye(4)[None]
view[:, 2, 3] = 3
call = RasterizeCall(one * 0, torch.ones(1, 4), one, one[:, 0], one, view, torch.eye(3)[None] * 10, 8, 8)
rasterize(call, "numba")
"""
SPZ_READ = """
from pathlib import Path
from tempfile import TemporaryDirectory
from dreamer_core.formats import load_gaussians, save_gaussians
from dreamer_core.initializers import initial_shape
with TemporaryDirectory() as folder:
    save_gaussians(initial_shape("ball", 9, torch.Generator()), Path(folder, "a.spz"))
    load_gaussians(Path(folder, "a.spz"))
"""


@pytest.mark.parametrize("work", [RENDERED, SPZ_READ], ids=["render", "spz"])
def test_numba_leaves_torch_its_number_of_threads(work: str) -> None:
    """numba's OpenMP layer would set torch's to its own when it starts, which cannot be undone in this process."""
    if available_backends("cpu")["numba"]:
        pytest.skip("numba does not work here")
    code = f"""
import torch
torch.set_num_threads(1)
{work}
import numba
assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 3)
"""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "3"}
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_other_devices_use_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    if available_backends("cpu")["numba"]:
        pytest.skip("numba does not work here")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve("auto", "mps") == "numba"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", "6.4", raising=False)
    with pytest.warns(RuntimeWarning, match="ROCm"):
        assert resolve("auto", CUDA) == "numba"


@pytest.fixture
def cuda_without_gsplat_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    monkeypatch.setattr(gsplat_backend, "_built", lambda package: False)
    monkeypatch.setattr(gsplat_backend, "_package", lambda: Path("gsplat"))


@pytest.mark.usefixtures("cuda_without_gsplat_code")
def test_without_a_toolkit_the_portable_renderer_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat_backend, "_toolkit", lambda: False)
    assert "nvcc" in available_backends(CUDA)["gsplat"]
    with pytest.warns(RuntimeWarning, match="nvcc"):
        assert resolve("auto", CUDA) in ("numba", "torch")
    with pytest.raises(InputError, match="nvcc"):
        resolve("gsplat", CUDA)


@pytest.mark.usefixtures("cuda_without_gsplat_code")
def test_a_build_is_announced_and_may_fail(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(gsplat_backend, "_toolkit", lambda: True)
    backend = types.ModuleType("gsplat.cuda._backend")
    events = []

    def load(name: str) -> object:
        events.append((name, len(caplog.records)))
        raise ImportError("/x/gsplat_cuda.so: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(gsplat_backend, "_built_here", lambda: False)
    backend.__getattr__ = load  # type: ignore[method-assign]
    for name in ("gsplat", "gsplat.cuda"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", backend)
    assert available_backends(CUDA)["gsplat"] == ""
    assert events == []
    with caplog.at_level(logging.WARNING), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [resolve("auto", CUDA) for _ in range(3)] == [resolve("auto", "cpu")] * 3
    assert len(caught) == 1
    assert "gsplat_cuda was not made" in str(caught[0].message)
    notices = [record.message for record in caplog.records]
    assert len(notices) == 1
    assert "--renderer numba" in notices[0]
    assert "minutes" in notices[0]
    # Said before it started.
    assert events[0][1] >= 1


def test_code_for_another_torch_does_not_count_as_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """gsplat builds its own then, and that is said."""
    package = types.ModuleType("gsplat")
    package.__path__ = [str(tmp_path)]
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (tmp_path / f"csrc{suffix}").write_bytes(b"for another torch")
    for name in [name for name in sys.modules if name == "gsplat" or name.startswith("gsplat.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gsplat", package)
    assert gsplat_backend._built(tmp_path)
    assert not gsplat_backend._prebuilt()
    for built, notice in ((False, gsplat_backend.BUILD_NOTICE), (True, gsplat_backend.LOAD_NOTICE)):
        gsplat_backend._loading_failure.cache_clear()
        caplog.clear()
        monkeypatch.setattr(gsplat_backend, "_built_here", lambda built=built: built)
        assert gsplat_backend._loading_failure(0) != ""
        assert [record.message for record in caplog.records] == [notice]


def test_errors_are_explained() -> None:
    broken = AttributeError("'NoneType' object has no attribute 'CameraModelType'")
    assert "nvcc" in gsplat_backend.explain(broken)
    assert "other GPUs" in gsplat_backend.explain(RuntimeError("CUDA error: no kernel image is available"))
    assert "boom" in gsplat_backend.explain(ValueError("boom"))


class FakeGsplat(types.ModuleType):
    """Records the call and answers with our reference, in gsplat's layout."""

    def __init__(self) -> None:
        super().__init__("gsplat")
        self.calls: list[dict[str, object]] = []

    def rasterization(
        self,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colors: Tensor,
        viewmats: Tensor,
        Ks: Tensor,
        width: int,
        height: int,
        **options: object,
    ) -> tuple[Tensor, Tensor, dict[str, object]]:
        assert all(x.dtype == torch.float32 and x.is_contiguous() for x in (means, quats, scales, viewmats, Ks))
        self.calls.append(options)
        background = options["backgrounds"]
        call = RasterizeCall(
            means, quats, scales, opacities, colors[..., :3], viewmats, Ks, width, height, depth=True,
            backgrounds=None if background is None else background[:, :3],
            orthographic={"ortho": True, "pinhole": False}[options["camera_model"]],
        )  # fmt: skip
        output = rasterize(call, "torch")
        image = output.colors
        if colors.shape[-1] == 4:
            z = colors[..., 3:].expand(-1, -1, 3)
            sums = rasterize(replace(call, colors=z, backgrounds=None), "torch")
            image = torch.cat([image, sums.colors[..., :1]], dim=-1)
        elif options["render_mode"] == "RGB+D":
            image = torch.cat([image, output.depth_sums], dim=-1)
        return image, output.alphas, output.info


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeGsplat:
    module = FakeGsplat()
    monkeypatch.setitem(sys.modules, "gsplat", module)
    return module


@pytest.mark.parametrize("depth_gradient", [True, False])
@pytest.mark.parametrize("with_background", [True, False])
@pytest.mark.parametrize("orthographic", [True, False])
def test_the_call_of_gsplat(fake: FakeGsplat, depth_gradient: bool, with_background: bool, orthographic: bool) -> None:
    from test_rendering import cameras, random_loss, scene

    values, cams = scene(30, size=0.5), cameras(20, 12, orthographic=orthographic)
    results = []
    options = {"depth": True, "depth_gradient": depth_gradient, "orthographic": orthographic}
    background = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)) if with_background else None
    from dreamer_core.rendering import torch_backend

    for module in (torch_backend, gsplat_backend):
        leaves = {name: value.clone().requires_grad_(True) for name, value in values.items()}
        output = module.rasterize(
            RasterizeCall(
                **leaves, viewmats=cams.viewmats, Ks=cams.Ks, width=20, height=12, backgrounds=background, **options
            )
        )
        random_loss(output).backward()
        results.append((output, {name: leaf.grad for name, leaf in leaves.items()}))
    (expected, expected_gradients), (got, got_gradients) = results
    call = fake.calls[0]
    assert call["packed"] is False
    assert call["near_plane"] == 0.01
    assert call["render_mode"] == ("RGB+D" if depth_gradient else "RGB")
    torch.testing.assert_close(got.colors, expected.colors)
    torch.testing.assert_close(got.depth_sums, expected.depth_sums)
    assert got.colors.shape == (3, 12, 20, 3)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(got_gradients[name], gradient, atol=1e-4, rtol=1e-3)
    assert set(got.info) == set(expected.info)


def test_a_broken_gsplat_call_becomes_one_clear_error(fake: FakeGsplat, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'CameraModelType'")

    monkeypatch.setattr(fake, "rasterization", broken)
    one = torch.ones(1, 3)
    call = RasterizeCall(one, torch.ones(1, 4), one, one[:, 0], one, torch.eye(4)[None], torch.eye(3)[None], 8, 8)
    with pytest.raises(InputError, match="nvcc"):
        gsplat_backend.rasterize(call)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gsplat_on_a_gpu_equals_torch() -> None:
    from test_rendering import cameras, gradients, relative, scene

    if resolve("auto", CUDA) != "gsplat":
        pytest.skip(f"gsplat does not work here: {gsplat_backend.unusable_reason(CUDA, load=True)}")
    values = {name: value.to(CUDA) for name, value in scene(400).items()}
    cams = cameras(75, 41).to(CUDA)
    for depth_gradient in (True, False):
        options = {"depth": True, "depth_gradient": depth_gradient}
        expected, expected_gradients = gradients(values, cams, "torch", **options)
        got, got_gradients = gradients(values, cams, "gsplat", **options)
        torch.testing.assert_close(got.colors, expected.colors, atol=5e-3, rtol=0)
        assert relative(got.colors, expected.colors) < 1e-4
        for name, gradient in expected_gradients.items():
            assert relative(got_gradients[name], gradient) < 5e-3, name


def test_the_cache_goes_where_it_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert numba_runtime.cache_folder(tmp_path).parent == tmp_path / "__pycache__"
    # ComfyUI imports the package under another name, and numba's files only fit the name they were made under.
    assert numba_runtime.cache_folder(tmp_path, "a") != numba_runtime.cache_folder(tmp_path, "b")
    user = tmp_path / "user"
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(variable, str(user))
    writable = numba_runtime._writable
    monkeypatch.setattr(
        numba_runtime, "_writable", lambda folder: "__pycache__" not in str(folder) and writable(folder)
    )
    folder = numba_runtime.cache_folder(tmp_path)
    assert folder.is_dir()
    assert user in folder.parents
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    assert numba_runtime.cache_folder(tmp_path).parent == tmp_path / "chosen"


def test_two_import_names_do_not_spoil_each_other(tmp_path: Path) -> None:
    """The package renders from one cache folder as `dreamer_core` and as a part of another package, each time but the
    first without compiling."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "dreamer_core").symlink_to(ROOT / "dreamer_core", target_is_directory=True)
    code = """
import sys, importlib, torch
sys.path.insert(0, sys.argv[1])
sorting = importlib.import_module(sys.argv[2] + ".rendering.numba_backend").binning.sort_keys
import numpy as np
keys = np.array([3, 1, 2], np.uint32)
assert sorting(keys, np.arange(3, dtype=np.int32), 2, 1).tolist() == [1, 2, 0]
stats = sorting.stats
print(f"loaded {sum(stats.cache_hits.values())}, compiled {sum(stats.cache_misses.values())}")
"""
    if available_backends("cpu")["numba"]:
        pytest.skip("numba does not work here")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for path, name, loaded in (
        (tmp_path, "host.dreamer_core", 0),
        (ROOT, "dreamer_core", 0),
        (ROOT, "dreamer_core", 1),
        (tmp_path, "host.dreamer_core", 1),
    ):
        command = [sys.executable, "-c", code, str(path), name]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert f"loaded {loaded}, compiled {1 - loaded}" in result.stdout
