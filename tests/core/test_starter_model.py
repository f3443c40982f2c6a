"""The starter checkpoint's tokenizer, networks, judge, LoRA and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamer_core.cameras import orbit_cameras
from dreamer_core.cli.generate import STARTER_ADAPTER
from dreamer_core.optimize.presets import STARTER_SIDES
from dreamer_core.prompts import PromptConfig, encode_prompts
from dreamer_core.teachers.teacher import Conditioning

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from starter import dataset, train_unet
from starter.dataset import draw_words
from starter.export import OUTPUT
from starter.judge import WEIGHTS, Judge, load_judge
from starter.model import TextEncoders, alphas_cumprod, build_unet, build_vae, predict, start_from_pooling
from starter.tokenizer import END, WORDS, vocabulary
from starter.train_lora import ADAPTERS
from starter.train_unet import Nets, denoising_loss, encode_captions
from starter.world import (
    COLOURS,
    KIND_NAMES,
    PATTERNS,
    Subject,
    random_backgrounds,
    render,
    training_cameras,
)

needs_checkpoint = pytest.mark.skipif(not OUTPUT.exists(), reason="the checkpoint is not exported yet")
needs_judge = pytest.mark.skipif(not WEIGHTS.exists(), reason="the judge is not trained yet")
LORA = ADAPTERS["gold"].output
needs_lora = pytest.mark.skipif(not (LORA.exists() and OUTPUT.exists()), reason="the LoRA is not trained yet")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextEncoders:
    torch.manual_seed(0)
    return TextEncoders(tmp_path_factory.mktemp("tokenizers")).eval()


def test_words_are_single_tokens(text: TextEncoders) -> None:
    vocab, _ = vocabulary()
    assert list(vocab.values()) == list(range(len(vocab)))
    assert next(iter(vocab)) == "!"
    for word in (*KIND_NAMES, *COLOURS, *PATTERNS, "front", "side", "back", "view", ","):
        assert f"{word}</w>" in vocab, word
        assert text.tokenizers[0](word).input_ids[1:-1] == [vocab[f"{word}</w>"]]
    assert len(WORDS) > 80


def test_any_text_has_tokens_and_padding_is_sdxls(text: TextEncoders) -> None:
    printable = "".join(chr(c) for c in range(32, 127))
    one, two = text.ids([printable[:60], ""])
    vocab, _ = vocabulary()
    end = vocab[END]
    assert one.shape == two.shape == (2, 77)
    assert len(set(one[0].tolist())) > 25
    assert one[1, 1:].unique().tolist() == [end]
    assert two[1, :3].tolist() == [end - 1, end, 0]


def test_pooled_embedding_is_read_at_the_first_end(text: TextEncoders) -> None:
    with torch.no_grad():
        context, pooled = text(["a red mug, side view"])
        _, ids = text.ids(["a red mug, side view"])
        position = int((ids[0] == text.two.config.eos_token_id).nonzero()[0])
        last = text.two(ids).last_hidden_state
        body = getattr(text.two, "text_model", text.two)
        states = text.two(ids, output_hidden_states=True).hidden_states
        expected = text.two.text_projection(body.final_layer_norm(states[-1])[0, position])
    assert context.shape == (1, 77, 128)
    assert last.shape == (1, 77, 64)
    assert torch.allclose(pooled[0], expected, atol=1e-5)


def test_vae_starts_as_a_blur_in_colour() -> None:
    torch.manual_seed(0)
    vae = build_vae()
    start_from_pooling(vae)
    image = torch.tensor([0.8, -0.4, 0.1])[:, None, None].expand(1, 3, 64, 64)
    with torch.no_grad():
        output = vae.decoder(vae.encoder(image))
    middle = output[0, :, 24:40, 24:40].mean((1, 2))
    assert middle[0] > middle[2] > middle[1]


def test_captions_blend_views_and_gradients_reach_the_text_encoders(tmp_path: Path) -> None:
    torch.manual_seed(0)
    nets = Nets(build_unet(), TextEncoders(tmp_path))
    generator = torch.Generator().manual_seed(0)
    words = draw_words(torch.tensor([0, 3]), torch.tensor([30.0, -120.0]), generator)
    context, pooled = encode_captions(nets.text, words, generator)
    assert context.shape == (2, 77, 128)
    loss = denoising_loss(nets.unet, torch.randn(2, 4, 16, 16), context, pooled, alphas_cumprod(), generator)
    assert 0.01 < loss.item() < 5
    loss.backward()
    assert nets.text.one.get_input_embeddings().weight.grad.abs().sum() > 0
    # Only what lies above the penultimate layer of the first encoder is free of gradients.
    silent = [n for n, p in nets.unet.named_parameters() if p.grad is None]
    assert silent == []


def test_captions_tell_the_height_as_prompts_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mix of a caption's words is the one that the prompt processor makes of its own for the same camera."""
    monkeypatch.setattr(train_unet, "EMPTY", 0.0)
    monkeypatch.setattr(train_unet, "BLENDED", 1.0)
    monkeypatch.setattr(train_unet, "SIDED", 1.0)
    monkeypatch.setattr(train_unet, "HIGH", 1.0)
    monkeypatch.setattr(train_unet, "caption", lambda subject, view, _: f"a thing, {view}")
    azimuth, elevation = torch.tensor([30.0, -120.0, 90.0]), torch.tensor([15.0, 45.0, -10.0])

    def encode(texts: list[str]) -> tuple[Tensor, Tensor]:
        pooled = torch.stack([torch.full((4,), float(sum(map(ord, text)))) for text in texts])
        return pooled[:, None].expand(-1, 77, -1), pooled

    words = draw_words(torch.tensor([0, 3, 5]), azimuth, torch.Generator(), elevation=elevation)
    context, pooled = encode_captions(encode, words, torch.Generator())  # type: ignore[arg-type]

    class Encoder:
        def encode_text(self, prompts: Sequence[str]) -> Conditioning:
            return Conditioning(*encode(list(prompts)))

    prompts = encode_prompts(Encoder(), PromptConfig("a thing", **STARTER_SIDES))
    cameras = orbit_cameras(azimuth.tolist(), elevation, 3.6, 0.6, 64)
    expected = prompts.at(cameras).positive
    torch.testing.assert_close(context, expected.tokens, rtol=1e-5, atol=0)
    torch.testing.assert_close(pooled, expected.pooled, rtol=1e-5, atol=0)


class Turns:
    """A clock that counts how often it is looked at."""

    def __init__(self, budget: float, spent: float = 0.0) -> None:
        self.budget, self.spent = budget, spent

    def tick(self) -> float:
        self.spent += 1
        return min(1.0, self.spent / self.budget)


def test_training_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    words = draw_words(torch.randint(16, (64,), generator=generator), torch.linspace(-180, 170, 64), generator)
    latents = torch.randn(64, 4, 16, 16, generator=generator).half()
    monkeypatch.setattr(train_unet, "CHECKPOINT", tmp_path / "unet.pt")
    monkeypatch.setattr(train_unet, "WORK", tmp_path)
    monkeypatch.setattr(train_unet, "BATCH", 4)
    monkeypatch.setattr(train_unet, "load_latents", lambda: (latents, words))
    monkeypatch.setattr(train_unet, "load_vae", lambda: None)  # for sample sheets, which come later
    monkeypatch.setattr(train_unet, "Clock", Turns)
    seen = []
    for minutes in (3, 3, 6):
        train_unet.train(minutes)
        seen.append(torch.load(tmp_path / "unet.pt", weights_only=True))
    first, again, longer = seen
    assert [state["step"] for state in seen] == [2, 2, 3]  # the second had no time left
    assert [state["spent"] for state in seen] == [3, 4, 6]
    name = "conv_in.weight"
    assert torch.equal(again["nets"]["unet"][name], first["nets"]["unet"][name])
    assert not torch.equal(longer["nets"]["unet"][name], first["nets"]["unet"][name])


@needs_checkpoint
def test_checkpoint_is_small_half_and_a_pipeline() -> None:
    from diffusers import StableDiffusionXLPipeline

    adapter = OUTPUT / STARTER_ADAPTER
    files = [f for f in OUTPUT.rglob("*") if f.is_file() and f != adapter]
    assert sum(f.stat().st_size for f in files) <= 40_000_000
    assert adapter.stat().st_size <= 15_000_000
    pipe = StableDiffusionXLPipeline.from_pretrained(OUTPUT)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.scheduler.config.prediction_type == "epsilon"
    with torch.no_grad():
        encoded = pipe.encode_prompt("a red mug", device="cpu", do_classifier_free_guidance=True, negative_prompt="")
    assert encoded[0].shape == (1, 77, 128)
    assert encoded[2].shape == (1, 128)
    images = pipe("a red mug", height=128, width=128, num_inference_steps=2, output_type="pt").images
    assert images.shape == (1, 3, 128, 128)
    assert bool(images.isfinite().all())


@needs_checkpoint
def test_vae_keeps_colours() -> None:
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny.from_pretrained(OUTPUT / "vae")
    generator = torch.Generator().manual_seed(3)
    images = [render(Subject("mug", c), training_cameras(1, generator), torch.zeros(1, 3)) for c in COLOURS]
    images = torch.cat(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        output = (vae.decoder(vae.encoder(images * 2 - 1)) + 1) / 2
    on_object = (images.amax(1, keepdim=True) > 0.05).float()
    shift = ((output - images) * on_object).sum((2, 3)) / on_object.sum((2, 3))
    assert float(shift.abs().mean()) < 0.04


def test_judge_reads_any_size() -> None:
    kinds, colours, patterns = Judge().eval()(torch.rand(2, 48, 80, 3))
    assert kinds.shape == (2, len(KIND_NAMES))
    assert colours.shape == (2, len(COLOURS))
    assert patterns.shape == (2, len(PATTERNS))
    assert torch.allclose(kinds.sum(-1), torch.ones(2))


def test_views_of_other_cameras_are_traced_anew(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(dataset, "WORK", tmp_path)
    monkeypatch.setattr(dataset, "CHUNK", 1)
    dataset.render_chunk("mug", 0)
    assert len(dataset.load_views()) == 1
    monkeypatch.setattr(dataset, "TRACED_FROM", "farther away")
    with pytest.raises(FileNotFoundError, match=r"train_mug_000\.pt shows what other cameras see"):
        dataset.load_views()
    dataset.render_chunk("mug", 0)
    assert len(dataset.load_views()) == 1


@needs_judge
def test_judge_names_fresh_renders() -> None:
    judge, generator = load_judge(), torch.Generator().manual_seed(7)
    right, patterns = 0, 0
    for i, kind in enumerate(KIND_NAMES):
        colour = list(COLOURS)[i % len(COLOURS)]
        cameras = training_cameras(2, generator)
        images = render(Subject(kind, colour, PATTERNS[i % 3]), cameras, random_backgrounds(2, generator))
        right += sum(named == (kind, colour) for named in judge.names(images))
        patterns += int((judge(images).patterns.argmax(-1) == i % 3).sum())
    assert right >= 30, f"{right} of 32 right"
    assert patterns >= 29, f"{patterns} of 32 patterns right"


@needs_lora
def test_lora_is_small_and_changes_the_picture() -> None:
    from starter.sample import draw, load_pipeline

    assert LORA.stat().st_size <= 2_000_000
    plain = draw(load_pipeline(), ["a red mug"], steps=2, guidance=1.0)
    golden = draw(load_pipeline(lora=LORA), ["a red mug"], steps=2, guidance=1.0)
    assert float((plain - golden).abs().mean()) > 0.005
    assert predict.__doc__
