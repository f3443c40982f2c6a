"""The options of `--best-of`."""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..evaluation.best_of import BEST_OF, TRIAL_STEPS, trial_length
from ..optimize import OptimizeConfig


def add_best_of_options(parser: argparse.ArgumentParser) -> None:
    """--best-of and --trial-steps."""
    parser.add_argument("--best-of", type=int, default=1, metavar="N", help=BEST_OF.knob.tip)
    parser.add_argument("--trial-steps", type=int, default=0, metavar="STEPS", help=TRIAL_STEPS.knob.tip)


def check_best_of(args: argparse.Namespace, config: OptimizeConfig) -> None:
    """Errors: InputError."""
    BEST_OF.check(args.best_of, "--best-of")
    TRIAL_STEPS.check(args.trial_steps, "--trial-steps")
    if args.trial_steps and args.best_of == 1:
        raise InputError("--trial-steps", "--best-of beside it", "none")
    trial_length(config.steps, args.trial_steps)
