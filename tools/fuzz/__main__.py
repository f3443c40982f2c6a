"""Fuzz one reader with atheris (libFuzzer): `python -m tools.fuzz READER --seconds 600`; needs `pip install atheris`.

The seconds are the processor's, so that other work beside it takes nothing away.
Starts from tests/core/corpus/READER. What crashes a reader, takes ten seconds or more memory than allowed is written
into --findings and ends the run; put it into the corpus, which the tests replay, and mend the reader.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "core" / "corpus"
INSTRUMENTED = ["dreamer_core.formats", "dreamer_core.initializers", "dreamer_core.teachers", "dreamer_core.optimize"]
INSTRUMENTED += ["dreamer_core.batch", "dreamer_core.cli.run_folder"]
LIMITS = {"timeout": 10, "rss_limit_mb": 3072, "malloc_limit_mb": 1024, "max_len": 4096}


def main() -> None:
    """Does not return: libFuzzer ends the process, with 0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader")
    parser.add_argument("--seconds", type=int, default=600, help="of the processor (default: 600)")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    args = parser.parse_args()
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tools.fuzz.readers import READERS, feed, quiet
    if args.reader not in READERS:
        sys.exit(f"READER: expected one of {', '.join(READERS)}, got {args.reader}")
    args.findings.mkdir(parents=True, exist_ok=True)
    grown = tempfile.mkdtemp(prefix="dreamer-xl-fuzz-")  # what libFuzzer finds interesting
    options = [f"-{name}={value}" for name, value in LIMITS.items()]
    options += [f"-artifact_prefix={args.findings}/{args.reader}-"]
    quiet()
    runs = 0

    def once(data: bytes) -> None:
        nonlocal runs
        feed(args.reader, data)
        runs += 1
        if time.process_time() > args.seconds:
            print(f"{args.reader}: {runs:,} runs in {time.process_time():.0f} s of the processor", flush=True)
            shutil.rmtree(grown)
            os._exit(0)  # libFuzzer knows no end by the processor's time

    atheris.Setup([sys.argv[0], *options, grown, str(CORPUS / args.reader)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
