"""The corpus of `tools/fuzz`, replayed: what was found once, whole files, and these cut off and changed at random."""

import random
import tracemalloc
from pathlib import Path

import pytest

from tools.fuzz.readers import READERS, feed

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(p for p in CORPUS.rglob("*") if p.is_file())
CHANGED, CUT = 25, 6
"""Variants of each file."""
MOST_BYTES = 64 << 20
"""That a file of a few thousand bytes may take."""


def test_every_reader_has_a_corpus_and_all_of_it_is_small():
    assert {p.parent.name for p in FILES} == set(READERS)
    assert sum(p.stat().st_size for p in FILES) < 200_000


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name.startswith("whole")], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_whole_files_are_taken(path):
    assert feed(path.parent.name, path.read_bytes())


def variants(data, seed):
    """The file itself, then cut off, then with bytes changed, removed and repeated."""
    chance = random.Random(seed)
    yield data
    for _ in range(CUT):
        yield data[: chance.randrange(len(data) + 1)]
    for _ in range(CHANGED):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(max(len(changed), 1))
            new = chance.choice((b"", b"\xff", b"\x00", b"\x7f\xff\xff\xff", b"9", b"-", changed[at : at + 7] * 2))
            changed[at : at + len(new)] = new
        yield bytes(changed)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_what_cannot_be_read_is_refused_by_name_within_its_bound_of_memory(path):
    """`feed` raises whatever is not a refusal."""
    feed(path.parent.name, path.read_bytes())  # imports what it needs
    tracemalloc.start()
    for data in variants(path.read_bytes(), path.name):
        feed(path.parent.name, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST_BYTES
