"""Dynamic prompts: `{red|blue}` and `__animal__`, by the library dynamicprompts."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

from ..errors import InputError

DRAWS, WILDCARDS = "draws", "wildcards"
"""Names in a work list: how many prompts to draw at random from a template, and the folder of the word lists."""
MOST = 10_000
"""Combinations of one template."""
DYNAMIC = re.compile(r"[{}]|__[\w/*-]+__")


def expanded(template: str, draws: Any, folder: Path, where: str) -> list[str]:
    """All prompts of a template, or `draws` of them at random, the same at every call; each once.

    `folder` has the word lists: `__animal__` is a line of animal.txt. A text without `{`, `}` and `__` is itself.
    Errors: InputError, `where` begins its field.
    """
    if draws is not None and (not str(draws).isdecimal() or not 1 <= int(draws) <= MOST):
        raise InputError(f"{where}: {DRAWS}", f"a whole number from 1 to {MOST}", draws)
    if not DYNAMIC.search(template):
        return [template]
    if "#" in template:  # where the library would cut the rest off
        remedy = "write it in words, or every prompt out"
        raise InputError(f"{where}: prompt", "a template without #, which begins a comment", repr(template), remedy)
    try:
        from dynamicprompts.generators import CombinatorialPromptGenerator, RandomPromptGenerator
        from dynamicprompts.wildcards import WildcardManager
    except ModuleNotFoundError as error:
        got, remedy = f"{template!r} without it", "pip install dynamicprompts, or write every prompt out"
        raise InputError(f"{where}: prompt", "the package dynamicprompts for { } and __", got, remedy) from error
    words = WildcardManager(folder)
    known = set(words.get_collection_names()) if folder.is_dir() else set()
    for name in re.findall(r"__([\w/*-]+)__", template):
        if not fnmatch.filter(known, name):
            raise InputError(f"{where}: prompt", f"a list {name}.txt in {folder}", "none")
    try:
        if draws is None:
            found = list(CombinatorialPromptGenerator(words).generate(template, max_prompts=MOST + 1))
        else:
            found = RandomPromptGenerator(words, seed=0).generate(template, num_images=int(draws))
    except Exception as error:  # of its parser, which is an implementation detail of the library
        reason = " ".join(str(error).split())
        raise InputError(f"{where}: prompt", "a template such as {red|blue}", f"{template!r} ({reason})") from error
    if len(found) > MOST:
        raise InputError(f"{where}: prompt", f"at most {MOST} combinations", "more", f"add {DRAWS}: 20, say")
    return list(dict.fromkeys(" ".join(prompt.split()) for prompt in found))
