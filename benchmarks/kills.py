"""`kill -9` at random moments of small runs, and what the same command makes of them: `python -m benchmarks.kills`.

Half of the kills come at a random time, half at a random rename, when a file is whole and does not have its name yet.
The run is then started again and must end with the very splat of one that nobody killed. `--node` does the same with
Optimize and Export of ComfyUI's nodes, under ComfyUI's Python and with COMFYUI_PATH set. Needs `fork` (not Windows).
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kill_targets import CommandLine, Node, Target

SLACK = 1.0
"""Seconds that a save and a step may take on top of the interval."""


@dataclass
class Trial:
    """One kill and what followed."""

    moment: str
    """Where it was killed."""
    killed: bool
    stage: str
    """What the run was doing."""
    lost_steps: int = 0
    lost_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Child:
    """A forked process that works until it ends or is killed; it notes when it had made a step."""

    def __init__(self, work: Callable[[Callable[[int], None]], None], steps: int, folder: Path) -> None:
        self._folder, self._log = folder, folder.with_suffix(".log")
        self._times = np.frombuffer(mmap.mmap(-1, 8 * (steps + 1)), np.float64)
        self._renames = np.frombuffer(mmap.mmap(-1, 8), np.int64)
        self._work = work

    def run(self, seconds: float | None = None, rename: int | None = None) -> int:
        """The exit code, or -9; killed after `seconds`, or before its `rename`-th rename (from 1)."""
        sys.stdout.flush()
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            self._be(rename)
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            if seconds is not None and time.monotonic() - began >= seconds:
                os.kill(pid, signal.SIGKILL)
                seconds = None
            time.sleep(0.005)

    def _be(self, rename: int | None) -> None:
        """Does not return."""
        code = 1
        try:
            out = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)

            def audit(event: str, arguments: tuple[Any, ...]) -> None:
                if event == "os.rename" and self._folder in Path(os.fsdecode(arguments[1])).parents:
                    self._renames[0] += 1
                    if self._renames[0] == rename:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(audit)
            self._work(self._note)
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _note(self, steps: int) -> None:
        self._times[steps] = time.monotonic()

    @property
    def steps(self) -> int:
        """Steps made before it ended."""
        return int(np.flatnonzero(self._times)[-1]) if self._times.any() else 0

    def lost(self, saved: int) -> float:
        """Seconds of work between step `saved` and the last one."""
        steps = self.steps
        if steps <= saved:
            return 0.0
        return float(self._times[steps] - (self._times[saved] or self._times[self._times > 0].min()))

    @property
    def renames(self) -> int:
        return int(self._renames[0])


def kill_once(target: Target, folder: Path, wanted: str, moment: dict[str, Any], interval: float) -> Trial:
    """Start, kill, look, start again, compare."""
    folder.mkdir(parents=True)
    log = folder.with_suffix(".log")
    first = Child(partial(target.start, folder), target.steps, folder)
    code = first.run(**moment)
    trial = Trial(json.dumps(moment), code == -signal.SIGKILL, target.stage(folder, first.steps))
    if code not in (0, -signal.SIGKILL):
        trial.faults.append(f"the first start ended with {code}")
    trial.faults += [f"torn: {text}" for text in target.torn(folder)]
    saved = target.saved(folder)
    trial.lost_steps, trial.lost_seconds = first.steps - saved, round(first.lost(saved), 3)
    if trial.lost_steps > 1 and trial.lost_seconds > interval + SLACK:  # one step is always at stake
        trial.faults.append(f"{trial.lost_seconds:.1f} s of work were lost")
    second = Child(partial(target.again, folder), target.steps, folder)
    if code := second.run():
        trial.faults.append(f"the next start ended with {code}: {log.read_text(errors='replace')[-300:]}")
        return trial
    if target.digest(folder) != wanted:
        trial.faults.append("another splat than without the kill")
    trial.faults += [f"torn after the next start: {text}" for text in target.torn(folder)]
    trial.faults += [f"stale: {path.name}" for path in target.stale(folder)]
    trial.faults += target.missing(folder)
    return trial


def measure(
    target: Target, base: Path, kills: int, interval: float, seed: int = 0, chosen: Sequence[int] = ()
) -> list[Trial]:
    """Trials until `kills` of them hit the run, or one at each of the `chosen` renames.

    A run without a kill says what is wanted.
    """
    chance = random.Random(seed)
    for name in ("compiling", "whole"):  # a run that compiles kernels may round the last bit differently
        folder = base / name
        folder.mkdir()
        whole = Child(partial(target.start, folder), target.steps, folder)
        began = time.monotonic()
        if code := whole.run():
            sys.exit(f"the run without a kill ended with {code}:\n{folder.with_suffix('.log').read_text()[-3000:]}")
    seconds, wanted = time.monotonic() - began, target.digest(folder)
    print(f"without a kill: {seconds:.1f} s, {whole.renames} renames", flush=True)
    trials: list[Trial] = []
    i = 0
    while i < len(chosen) if chosen else sum(t.killed for t in trials) < kills:
        by_time = {"seconds": round(chance.uniform(0, seconds), 2)}
        by_rename = {"rename": chosen[i] if chosen else chance.randint(1, max(whole.renames, 1))}
        moment = by_time if i % 2 and not chosen else by_rename
        trial = kill_once(target, base / f"kill{i}", wanted, moment, interval)
        print(f"{i}: {asdict(trial)}", flush=True)
        trials.append(trial)
        i += 1
    return trials


def told(trials: list[Trial]) -> str:
    """The result in one line."""
    killed = [t for t in trials if t.killed]
    stages = {stage: sum(t.stage == stage for t in killed) for stage in sorted({t.stage for t in killed})}
    bad = [t for t in trials if t.faults]
    worst = max((t.lost_seconds for t in killed), default=0.0)
    return (
        f"{len(killed)} of {len(trials)} killed ({', '.join(f'{n} {s}' for s, n in stages.items())}); at most "
        f"{worst:.1f} s and {max((t.lost_steps for t in killed), default=0)} steps lost; {len(bad)} with faults"
    )


def main() -> int:
    """The figures on standard output; 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="that hit, rather than come after the end (default: 20)")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two saves (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--renames", type=int, nargs="+", default=[], help="kill before these renames instead")
    parser.add_argument("--node", action="store_true", help="ComfyUI's nodes instead of the command line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dreamer-xl-kills-") as scratch:
        base = Path(scratch)
        kind = Node if args.node else CommandLine
        trials = measure(
            kind(base, args.steps, args.interval), base, args.kills, args.interval, args.seed, args.renames
        )
    print(told(trials))
    return int(any(t.faults for t in trials))


if __name__ == "__main__":
    sys.exit(main())
