"""Prompt weights, and prompts that are longer than one chunk."""

import pytest

from dreamer_core.teachers.sdxl.prompt_tokens import chunked, prompt_chunks, weighted_pieces

START, END, PAD = 1000, 1001, 0


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("", []),
        ("a red mug", [("a red mug", 1.0)]),
        ("a (red) mug", [("a ", 1.0), ("red", 1.1), (" mug", 1.0)]),
        ("a (red:1.3) mug", [("a ", 1.0), ("red", 1.3), (" mug", 1.0)]),
        ("((red))", [("red", 1.21)]),
        ("((red:1.3))", [("red", 1.3)]),  # a stated weight is not multiplied by those around it
        ("(big (red:0.5) mug:1.5)", [("big ", 1.5), ("red", 0.5), (" mug", 1.5)]),
        ("(a: b)", [("a: b", 1.1)]),
        ("(a:inf)", [("a:inf", 1.1)]),
        ("(:1.2)", [(":1.2", 1.1)]),
        ("()", []),
        (r"a \(red\) mug", [("a (red) mug", 1.0)]),
        (r"(a \(red\):1.2)", [("a (red)", 1.2)]),
        ("a (red mug", [("a ", 1.0), ("(red mug", 1.0)]),
        ("a red) mug", [("a red) mug", 1.0)]),
    ],
)
def test_weighted_pieces(prompt, pieces):
    found = weighted_pieces(prompt)
    assert [words for words, _ in found] == [words for words, _ in pieces]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in pieces])


def words_of(chunks):
    return [[t.id for t in c if t.id not in (START, END, PAD)] for c in chunks]


def cut(*lengths, length=12):
    """Chunks of pieces with these numbers of tokens, numbered from 1."""
    ids = iter(range(1, 999))
    pieces = [([next(ids) for _ in range(n)], 1.0) for n in lengths]
    chunks = chunked(pieces, start=START, end=END, pad=PAD, length=length)
    for c in chunks:
        assert len(c) == length
        words = sum(t.id not in (START, END, PAD) for t in c)
        assert [c[0].id, c[words + 1].id] == [START, END]
        assert all(t.id == PAD and t.weight == 1.0 for t in c[words + 2 :])
    return words_of(chunks)


def test_a_full_chunk_needs_no_second_one():
    assert cut() == [[]]
    assert cut(10) == [list(range(1, 11))]
    assert cut(5, 5) == [list(range(1, 11))]


def test_long_pieces_are_divided_and_short_ones_kept_together():
    assert cut(23) == [list(range(1, 11)), list(range(11, 21)), [21, 22, 23]]
    assert cut(7, 7) == [list(range(1, 8)), list(range(8, 15))]
    assert cut(7, 8) == [list(range(1, 11)), list(range(11, 16))]
    assert cut(10, 9) == [list(range(1, 11)), list(range(11, 20))]


def test_weights_stay_with_their_tokens():
    numbers = {"a": [1], "b": [2, 3], "c": [4]}
    chunks = prompt_chunks(
        "a (b:1.5)(c:0.5)", lambda words: numbers[words.strip()], start=START, end=END, pad=PAD, length=5
    )
    assert [[(t.id, t.weight) for t in c] for c in chunks] == [
        [(START, 1.0), (1, 1.0), (2, 1.5), (3, 1.5), (END, 1.0)],
        [(START, 1.0), (4, 0.5), (END, 1.0), (PAD, 1.0), (PAD, 1.0)],
    ]


def test_textual_inversion_is_warned_of(caplog):
    prompt_chunks("a mug embedding:style", lambda words: [1], start=START, end=END, pad=PAD)
    assert "Textual inversion embeddings are not loaded here" in caplog.text
