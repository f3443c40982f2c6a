"""The command line: `generate`, `restyle`, `edit`, `batch`, `evaluate`, `report`, `preview`, `render`, `info`,
`convert`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch

from .. import __version__
from ..errors import DivergenceError, InputError, ReplicaError
from ..optimize.shortage import is_out_of_memory
from . import batch, change, convert, evaluate, generate, info, preview, render, report

USAGE_ERROR = 2


class _Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="dreamer-xl" if Path(sys.argv[0]).stem == "dreamer-xl" else "python -m dreamer_core",
        description="Text to 3D Gaussian splats by Trajectory Score Matching (Dreamer XL).",
    )
    parser.add_argument("--version", action="version", version=f"dreamer_core {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (generate, change, batch, evaluate, report, preview, render, info, convert):
        module.add_command(commands)
    return parser


def _print_anything() -> None:
    """A character that the console's encoding lacks (code page 1252, say) is printed by its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where a test or a host has put its own
            stream.reconfigure(errors="backslashreplace")


def _out_of_memory(command: str, error: BaseException) -> int:
    what = (str(error).splitlines() or ["no more is said"])[0][:120]
    remedy = "try --memory low, fewer --views or a smaller --resolution or --count"
    print(f"{command}: out of memory ({what}); {remedy}", file=sys.stderr)
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 (the run failed), 2 (bad input) or 130 (interrupted)."""
    _print_anything()
    args = build_parser().parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except InputError as error:
        print(f"{args.command}: error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except DivergenceError as error:
        print(f"{args.command}: {error}", file=sys.stderr)
        return 1
    except ReplicaError as error:
        print(
            f"{args.command}: {error}; a run that has saved its state goes on with --resume and its --out",
            file=sys.stderr,
        )
        return 1
    except (MemoryError, torch.OutOfMemoryError) as error:
        return _out_of_memory(args.command, error)
    except OSError as error:
        print(f"{args.command}: cannot read or write a file: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if not is_out_of_memory(error):  # a processor's has no type
            raise
        return _out_of_memory(args.command, error)
    except KeyboardInterrupt:
        print(f"{args.command}: interrupted; nothing more was written", file=sys.stderr)
        return 130
