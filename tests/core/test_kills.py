"""Runs that are killed without a word; `benchmarks/kills.py` does this at many random moments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3
FIRST_SAVE, STATE_OF_STEP_2, SPLAT_OF_STEP_3, FILM = 1, 8, 13, 20
"""Renames of a run that saves after every step: state and log, then metrics, state, splat and log each time."""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes that are killed")
def test_a_killed_run_goes_on_to_the_very_splat():
    """Nothing torn or stale, no row of the metrics lost, and all files there in the end."""
    options = ["--steps", str(STEPS), "--interval", "0"]
    renames = [str(n) for n in (FIRST_SAVE, STATE_OF_STEP_2, SPLAT_OF_STEP_3, FILM)]
    command = [sys.executable, "-m", "benchmarks.kills", *options, "--renames", *renames]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 killed (2 after the last step, 1 before the run, 1 in the steps)" in done.stdout
    assert "at most" in done.stdout
    assert "0 with faults" in done.stdout
