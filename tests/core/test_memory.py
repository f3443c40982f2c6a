"""The memory plan, and what SDXL's VAE encoder at full size really keeps."""

import pytest
import torch

from benchmarks.live_bytes import LiveBytes, peak_bytes
from dreamer_core.errors import InputError
from dreamer_core.optimize.memory import (
    CHECKPOINTED_BYTES_PER_PIXEL,
    ENCODER_BYTES_PER_PIXEL,
    MemoryPlan,
    free_bytes,
    plan_memory,
)
from dreamer_core.teachers.sdxl.encoder_memory import saved_bytes_per_pixel
from dreamer_core.teachers.sdxl.predictor import checkpoint_blocks

GIB = 2**30
SDXL_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}


@pytest.fixture(scope="module")
def encoder():
    """SDXL's encoder, 34 M parameters, random weights."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(**SDXL_VAE).encoder.requires_grad_(False)


def largest_block(encoder, size):
    """Bytes per pixel that the most expensive residual or attention block keeps, alone."""
    inputs = []
    blocks = [m for m in encoder.modules() if type(m).__name__ in ("ResnetBlock2D", "Attention")]
    handles = [b.register_forward_pre_hook(lambda m, args: inputs.append((m, args[0].shape))) for b in blocks]
    with torch.no_grad():
        encoder(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()

    class Alone(torch.nn.Module):
        def __init__(self, block, shape):
            super().__init__()
            self.block, self.shape = block, shape

        def forward(self, image):
            x = image.mean().expand(self.shape).contiguous()
            return self.block(x, None) if type(self.block).__name__ == "ResnetBlock2D" else self.block(x)

    return max(saved_bytes_per_pixel(Alone(block, shape), size) for block, shape in inputs)


def test_the_encoder_keeps_what_the_plan_assumes(encoder):
    plain = saved_bytes_per_pixel(encoder)
    assert plain == pytest.approx(ENCODER_BYTES_PER_PIXEL, rel=0.02)
    block = largest_block(encoder, 64)
    assert saved_bytes_per_pixel(encoder) == plain  # measuring changes nothing
    checkpoint_blocks(encoder)
    checkpointed = saved_bytes_per_pixel(encoder)
    print(f"plain {plain:.0f}, checkpointed {checkpointed:.0f} + largest block {block:.0f} bytes per pixel")
    assert checkpointed < plain / 4
    assert checkpointed + block == pytest.approx(CHECKPOINTED_BYTES_PER_PIXEL, rel=0.02)


def test_high_and_low_do_not_look_at_memory():
    assert plan_memory("high", 0, resolution=1024, views=4) == MemoryPlan(False, False, None)
    assert plan_memory("low", 10**15, resolution=1024, views=4) == MemoryPlan(True, True, 2)


@pytest.mark.parametrize(
    ("free", "resolution", "plan"),
    [
        (139 * GIB, 1024, MemoryPlan(False, False, None)),  # all four views' activations: 47 GiB
        (35 * GIB, 1024, MemoryPlan(True, False, None)),  # one view's
        (18 * GIB, 1024, MemoryPlan(True, False, None)),  # a 24 GB card with the UNet on it
        (10 * GIB, 1024, MemoryPlan(True, True, None)),  # a 16 GB card
        (2 * GIB, 1024, MemoryPlan(True, True, 2)),
        (6 * GIB, 768, MemoryPlan(True, True, None)),  # a 12 GB card with the UNet on it
    ],
)
def test_auto_takes_the_fastest_plan_that_fits(free, resolution, plan):
    assert plan_memory("auto", free, resolution=resolution, views=4) == plan


def test_a_small_encoder_needs_no_saving():
    assert plan_memory("auto", 4 * GIB, resolution=128, views=2, encoder_bytes_per_pixel=3000).max_batch is None
    assert not plan_memory("auto", 4 * GIB, resolution=128, views=2, encoder_bytes_per_pixel=3000).recompute_encoder


def test_unknown_mode():
    with pytest.raises(InputError, match="memory: expected auto, low or high, got tiny"):
        plan_memory("tiny", 0, resolution=64, views=1)  # type: ignore[arg-type]


def test_free_memory_is_plausible():
    assert 2**28 < free_bytes(torch.device("cpu")) < 2**50


def test_live_bytes_counts_what_lives():
    x = torch.zeros(16, 4)
    with LiveBytes() as counter, torch.no_grad():
        y = x + 1  # 256 bytes
        z = y.view(64)[:8]  # the same memory
        y.add_(1)
        assert (counter.live, counter.peak) == (256, 256)
        del y
        assert counter.live == 256  # z holds it
        w = torch.cat([x, x])  # 512
        del z
        assert (counter.live, counter.peak) == (512, 768)
        del w
    assert (counter.live, counter.peak) == (0, 768)


def test_peak_of_a_small_network():
    """Without gradient two neighbouring activations live at once; for the backward pass both must stay."""

    def make(grad):
        def build():
            layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
            x = torch.zeros(16, 4, requires_grad=grad)

            def work():
                with torch.set_grad_enabled(grad):
                    return layers.requires_grad_(False)(x)

            return work

        return build

    assert peak_bytes(make(False)) == 2 * 16 * 8 * 4
    # tanh keeps its result; the linear layers keep nothing, as their weights need no gradient.
    assert peak_bytes(make(True)) == 2 * 16 * 8 * 4


def test_counting_without_data_agrees_with_what_autograd_keeps():
    """The encoder's peak, forward and back, is what it saves: measured for real at 64 pixels, counted at 64 and 128."""
    from benchmarks.memory import encoding

    for size in (64, 128):
        counted = encoding(size, 1, torch.float32, gradient=True, checkpoint=False) / size**2
        assert counted == pytest.approx(ENCODER_BYTES_PER_PIXEL, rel=0.02)
    checkpointed = encoding(128, 1, torch.float32, gradient=True, checkpoint=True) / 128**2
    assert checkpointed < CHECKPOINTED_BYTES_PER_PIXEL
    assert checkpointed > CHECKPOINTED_BYTES_PER_PIXEL / 2
