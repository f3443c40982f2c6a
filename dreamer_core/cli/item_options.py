"""An object of a work list as the options of `generate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn

from ..batch.work_list import Item
from ..errors import InputError
from . import generate
from .best_of_options import check_best_of
from .exports import parse_exports

OWN = ("command", "run", "prompt", "show", "out", "resume", "overwrite", "set")
"""What a line of a list cannot say."""


class _ItemParser(argparse.ArgumentParser):
    """Errors are raised, for there are other lines."""

    def error(self, message: str) -> NoReturn:
        raise InputError("options", "options of generate", message)


@cache
def _parser() -> argparse.ArgumentParser:
    parser = _ItemParser(prog="batch", add_help=False, exit_on_error=False, allow_abbrev=False)
    generate.add_command(parser.add_subparsers(dest="command", parser_class=_ItemParser))
    return parser


@cache
def _names() -> frozenset[str]:
    """What has an option of its own."""
    return frozenset(vars(_parser().parse_args(["generate"]))) - frozenset(OWN)


def option_words(item: Item) -> list[str]:
    """The words of a command line that says the same."""
    words: list[str] = []
    for name, value in item.options.items():
        if name == "prompt" or value is None or (value is False and name in _names()):
            continue
        if name in OWN:
            raise InputError(f"line {item.line}: {name}", "an option of generate that a list may say", "another one")
        if name not in _names():
            words += ["--set", f"{name}={value}"]
            continue
        flag = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list) else [value]:
            words += [flag] if one is True else [f"{flag}={one}"]
    return words


def item_args(item: Item, shared: Sequence[str] = ()) -> argparse.Namespace:
    """The parsed and checked options of an object; `shared` are words that come before its own.

    Errors: InputError that names the line.
    """
    try:
        words = ["generate", *shared, *option_words(item), "--", str(item.options["prompt"])]
        args = _parser().parse_args(words)
        if args.show or args.out is not None or args.resume or args.overwrite:
            raise InputError("options", "none of --show, --out, --resume and --overwrite", "one of them")
        everything = generate.checked(args)
        if everything is not None:
            check_best_of(args, everything.optimization)
        parse_exports(args.export)
    except (InputError, argparse.ArgumentError) as error:
        lead = f"line {item.line}"
        if not isinstance(error, InputError):
            raise InputError(lead, "options of generate", str(error)) from error
        field = error.field if error.field.startswith("line ") else f"{lead}: {error.field}"
        raise InputError(field, error.expected, error.got, error.remedy) from error
    return args


def checked_items(items: Sequence[Item], shared: Sequence[str]) -> None:
    """Errors: InputError with what is wrong in the first bad line, and how many more are."""
    wrong: dict[int, InputError] = {}
    seen: set[Any] = set()
    for item in items:
        seed_apart = tuple((name, str(value)) for name, value in item.options.items() if name != "seed")
        if item.line in wrong or (seed_apart in seen and str(item.options.get("seed", 0)).isdecimal()):
            continue  # a grid of a thousand seeds is checked once
        seen.add(seed_apart)
        try:
            item_args(item, shared)
        except InputError as error:
            wrong[item.line] = error
    if wrong:
        first = next(iter(wrong.values()))
        more = f"{first.remedy}; " if first.remedy else ""
        others = ", ".join(str(line) for line in list(wrong)[1:6])
        remedy = f"{more}wrong are also lines {others}" if others else first.remedy
        raise InputError(first.field, first.expected, first.got, remedy)
