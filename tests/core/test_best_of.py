"""Best of n: which trial is chosen, and that finishing it is the run of its seed."""

import json

import pytest

from dreamer_core.cli import best_of, main, session
from dreamer_core.errors import InputError
from dreamer_core.evaluation.best_of import best_trial, trial_length
from dreamer_core.evaluation.measure import Measure

SMALL = ["--preset", "starter", "--steps", "4", "--views", "1", "--resolution", "64", "--count", "150"]


def trial(direction, janus, prompt):
    return [
        Measure("direction", direction, "-"),
        Measure("janus", janus, "-", "lower"),
        Measure("prompt", prompt, "-"),
    ]


def test_ranks_choose():
    assert best_trial([trial(0.5, 0.5, 0.1), trial(0.9, 0.0, 0.15), trial(0.6, 0.4, 0.2)]) == 1
    assert best_trial([trial(0.5, 0.5, 0.1), trial(0.5, 0.5, 0.2)]) == 1
    assert best_trial([trial(0.5, 0.5, 0.1)] * 3) == 0
    assert best_trial([trial(0.9, 0.1, 0.1), trial(0.8, 0.0, 0.2)]) == 1  # two of three
    assert (trial_length(150, 0), trial_length(150, 20), trial_length(2, 0)) == (30, 20, 1)
    with pytest.raises(InputError, match="trial_steps: expected at most the 4 steps of a run, got 5"):
        trial_length(4, 5)


def test_the_best_trial_is_finished_as_if_it_were_alone(tiny_sdxl_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session, "write_mp4", lambda frames, path, metadata: None)  # other tests look at the film
    worth = iter([trial(0.2, 0.9, 0.1), trial(0.8, 0.1, 0.2)])
    monkeypatch.setattr(best_of, "judge_trial", lambda *args: next(worth))
    argv = ["generate", "a red mug", "--model", str(tiny_sdxl_dir), *SMALL, "--out"]
    best, alone = tmp_path / "best", tmp_path / "alone"
    assert main([*argv, str(best), "--seed", "6", "--best-of", "2", "--trial-steps", "2"]) == 0
    told = capsys.readouterr().err
    assert "seed 7: direction 0.800, janus 0.100, prompt 0.200  <- finished" in told
    assert told.count("Loading") == 1
    assert main([*argv, str(alone), "--seed", "7"]) == 0
    assert (best / "splat.ply").read_bytes() == (alone / "splat.ply").read_bytes()
    steps = [line.split(",")[0] for line in (best / "metrics.csv").read_text().splitlines()]
    assert steps == ["step", "0", "1", "2", "3"]
    record = json.loads((best / "best_of.json").read_text())
    assert (record["seed"], [t["seed"] for t in record["trials"]]) == (7, [6, 7])
    assert main([*argv[:-1], "--steps", "5", "--seed", "6", "--best-of", "2", "--out", str(best), "--resume"]) == 0
    assert json.loads((best / "run.json").read_text())["config"]["seed"] == 7
    assert main([*argv, str(best), "--steps", "1", "--overwrite"]) == 0
    assert not (best / "best_of.json").exists()  # of the run before, and no word about this one


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--best-of", "0"], "--best-of: expected a whole number from 1 to 64, got 0"),
        (["--trial-steps", "3"], "--trial-steps: expected --best-of beside it"),
        (["--best-of", "2", "--trial-steps", "9", "--steps", "4"], "trial_steps: expected at most the 4 steps"),
    ],
)
def test_what_best_of_may_not_say(options, message, tmp_path, capsys):
    assert main(["generate", "x", "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
