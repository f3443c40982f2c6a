"""Fixtures that several core tests share."""

import contextlib

import pytest
import torch


@contextlib.contextmanager
def one_thread():
    """Two threads wait for each other on a busy machine, and these networks are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def single_threaded():
    with one_thread():
        yield


@pytest.fixture(scope="session")
def tiny_sdxl_dir(tmp_path_factory):
    """A random-weight tiny SDXL as a diffusers folder; read only."""
    from dreamer_core.teachers.sdxl.tiny_sdxl import save_tiny_sdxl

    with one_thread():
        return save_tiny_sdxl(tmp_path_factory.mktemp("tiny") / "sdxl")


@pytest.fixture(scope="session")
def tiny_sdxl_file(tmp_path_factory):
    """The same weights as one file in the original layout, its tokenizers beside it; read only."""
    from dreamer_core.teachers.sdxl.tiny_sdxl import save_tiny_single_file

    with one_thread():
        return save_tiny_single_file(tmp_path_factory.mktemp("tiny") / "single" / "sdxl.safetensors")
