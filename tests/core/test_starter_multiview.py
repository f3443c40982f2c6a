"""The training of the starter's multi-view adapter: its views, and that it learns."""

import pytest
import torch

from dreamer_core.cli.generate import starter_checkpoint
from dreamer_core.teachers.multiview.cameras import AZIMUTHS, group_cameras, shifted_sigmas
from dreamer_core.teachers.multiview.files import save_adapter
from dreamer_core.teachers.sdxl.loading import load_sdxl
from dreamer_core.teachers.teacher import Conditioning
from starter import train_multiview
from starter.world import KIND_NAMES, Subject, render_layers

pytestmark = pytest.mark.usefixtures("single_threaded")

CHAIR = Subject("chair", "green")


def test_opposite_orthographic_silhouettes_are_mirror_images():
    layers = render_layers("airplane", group_cameras(AZIMUTHS, 48))
    there = layers[..., 6] < 0.5
    for front, back in ((0, 3), (2, 4)):  # azimuths 0 and 180, 90 and 270
        assert there[front].sum() > 100
        assert (there[front] != there[back].flip(1)).float().mean() < 0.005


def test_it_learns_and_what_it_writes_is_loaded(tmp_path, monkeypatch):
    cameras = group_cameras(AZIMUTHS, 128)
    one = render_layers("chair", cameras)
    layers = one[None].expand(len(KIND_NAMES), *one.shape)
    teacher = load_sdxl(starter_checkpoint(), keep_decoder=True)
    pictures = train_multiview.true_group(CHAIR, layers)
    assert pictures.shape == (6, 128, 128, 3)
    torch.testing.assert_close(pictures[:, 0, 0], torch.full((6, 3), 0.5))
    with torch.no_grad():
        z = teacher.encode(pictures)[None]
    teacher.multiview = installed = train_multiview.install(teacher)
    captions = train_multiview.Captions(teacher)
    cond = captions.of_group(CHAIR, torch.Generator(), plain=True)
    assert isinstance(cond, Conditioning)
    assert not torch.equal(cond.tokens[0], cond.tokens[2])  # front and left side
    sigmas = shifted_sigmas(teacher.sigmas)
    optimizer = torch.optim.AdamW(installed.network.parameters(), lr=3e-4)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = train_multiview.loss_of(teacher, installed, z, cond, sigmas, torch.Generator().manual_seed(4))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0]
    drawn = train_multiview.sample(teacher, captions, CHAIR, steps=2)
    assert drawn.shape == (6, 128, 128, 3)
    save_adapter(installed.network, tmp_path / "multiview.safetensors")
    assert (tmp_path / "multiview.safetensors").stat().st_size < 15e6
    again = load_sdxl(starter_checkpoint(), multiview=tmp_path / "multiview.safetensors")
    expected = teacher.grouped(torch.tensor(AZIMUTHS)).eps(z[0], torch.full((6,), 2.0), cond)
    found = again.grouped(torch.tensor(AZIMUTHS)).eps(z[0], torch.full((6,), 2.0), cond)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)  # it was rounded to half
