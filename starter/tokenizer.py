"""A CLIP-style byte-level BPE tokenizer whose words of the starter world are single tokens."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from .world import COLOURS, KIND_NAMES, PATTERNS

WORDS = (
    *KIND_NAMES, *COLOURS, *PATTERNS, *(f"{k}s" for k in KIND_NAMES), "front", "side", "back", "overhead", "view",
    "a", "an", "the", "of", "with", "and", "on", "in", "from", "photo", "picture", "render", "object", "golden",
    "gold", "black", "grey", "gray", "brown", "style", "checkered", "dots", "stripes", "small", "big", "cute", "toy",
    "cup", "plane", "truck", "ship", "cat", "dog", "bird", "man", "woman", "king", "flower", "animal", "blurry", "low",
    "quality", "ugly", "best", "detailed", "high", "3d", "background", "background", "top", "left", "right", "above",
)  # fmt: skip
START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 77


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins of bytes, in CLIP's order (the first is "!")."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent first (ties in alphabetical order), until every word is one token."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in dict.fromkeys(words)]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for piece in pieces for pair in pairwise(piece))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for piece in pieces:
            i = 0
            while i < len(piece) - 1:
                if (piece[i], piece[i + 1]) == best:
                    piece[i : i + 2] = ["".join(best)]
                i += 1


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token -> id, and the merges: 256 bytes, 256 bytes at a word's end, merges, start, end."""
    merges = learn_merges(WORDS)
    alphabet = byte_alphabet()
    tokens = [*alphabet, *(a + "</w>" for a in alphabet), *dict.fromkeys("".join(m) for m in merges), START, END]
    return {token: i for i, token in enumerate(tokens)}, merges


def save_tokenizer(folder: Path, pad: str) -> None:
    """Write vocab.json, merges.txt and the configuration that `CLIPTokenizer.from_pretrained` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = vocabulary()
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    config = special | {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CONTEXT,
        "do_lower_case": True,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": True,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
