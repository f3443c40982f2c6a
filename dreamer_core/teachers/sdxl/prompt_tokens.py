"""Prompt weights and long prompts by ComfyUI's rules, so that a text means the same here and there."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

EMPHASIS = 1.1
"""What a pair of brackets without a number multiplies the weight by."""
KEEP_TOGETHER = 8
"""Pieces of fewer tokens than this are not split over two chunks."""
_LITERAL = {"(": "\ue000", ")": "\ue001"}  # private-use characters stand for brackets that were written \( and \)


@dataclass(frozen=True)
class Token:
    """One token of a chunk."""

    id: int
    weight: float = 1.0


def _top_level(text: str) -> list[str]:
    """`text` cut where brackets of the outermost level open and close; an unclosed one stays part of the last piece."""
    cuts, depth = [0], 0
    for i, character in enumerate(text):
        if character == "(":
            if depth == 0:
                cuts.append(i)
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                cuts.append(i + 1)
    return [piece for a, b in zip(cuts, [*cuts[1:], len(text)]) if (piece := text[a:b])]


def _stated_weight(inside: str, otherwise: float) -> tuple[str, float]:
    """`words:1.2` as words and weight; a weight that is no finite number is part of the words."""
    words, _, number = inside.rpartition(":")
    try:
        weight = float(number)
    except ValueError:
        return inside, otherwise
    return (words, weight) if words and math.isfinite(weight) else (inside, otherwise)


def _weighted(text: str, weight: float) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for piece in _top_level(text):
        if len(piece) >= 2 and piece[0] == "(" and piece[-1] == ")":
            found += _weighted(*_stated_weight(piece[1:-1], weight * EMPHASIS))
        else:
            found.append((piece, weight))
    return found


def weighted_pieces(prompt: str) -> list[tuple[str, float]]:
    r"""(words, weight) pieces: (x) weighs 1.1 times what is around it, (x:1.3) exactly 1.3, \( and \) are brackets.

    >>> weighted_pieces("a (red:1.2) mug")
    [('a ', 1.0), ('red', 1.2), (' mug', 1.0)]
    """
    text = re.sub(r"\\([()])", lambda match: _LITERAL[match[1]], prompt)
    restored = {ord(mark): bracket for bracket, mark in _LITERAL.items()}
    return [(words.translate(restored), weight) for words, weight in _weighted(text, 1.0)]


def plain_words(prompt: str) -> str:
    """The prompt without weights and the brackets that gave them, for a model that knows none."""
    return "".join(words for words, _ in weighted_pieces(prompt))


def chunked(
    pieces: Sequence[tuple[Sequence[int], float]],  # token ids and weight of every piece
    *,
    start: int,
    end: int,
    pad: int,
    length: int = 77,
) -> list[list[Token]]:
    """Chunks of `length` tokens: start, words, end, padding. A short piece that does not fit begins the next chunk."""
    chunks: list[list[Token]] = []
    words: list[Token] = []
    room = length - 2

    def close() -> None:
        padding = [Token(pad)] * (room - len(words))
        chunks.append([Token(start), *words, Token(end), *padding])
        words.clear()

    for ids, weight in pieces:
        rest = [Token(i, weight) for i in ids]
        divisible = len(rest) >= KEEP_TOGETHER
        while len(words) + len(rest) > room:
            taken = room - len(words) if divisible else 0
            words += rest[:taken]
            rest = rest[taken:]
            close()
        words += rest
    close()
    return chunks


def prompt_chunks(
    prompt: str, tokenize: Callable[[str], Sequence[int]], *, start: int, end: int, pad: int, length: int = 77
) -> list[list[Token]]:
    """The chunks of a prompt; `tokenize` gives the ids of some words without start and end."""
    if re.search(r"(^|\s)embedding:", prompt):
        log.warning("Textual inversion embeddings are not loaded here: %r is read as words", prompt)
    pieces = [(tokenize(words), weight) for words, weight in weighted_pieces(prompt)]
    return chunked(pieces, start=start, end=end, pad=pad, length=length)
