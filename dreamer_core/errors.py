"""The one error type for values that a user entered, and what ends a run."""

from __future__ import annotations


class InputError(ValueError):
    """A value from outside is unusable: the message names the field, what was expected, what came, what to do."""

    def __init__(self, field: str, expected: str, got: object, remedy: str = "") -> None:
        self.field, self.expected, self.got, self.remedy = field, expected, got, remedy
        text = f"{field}: expected {expected}, got {got}"
        # One line, whatever came from outside.
        super().__init__(" ".join((f"{text}; {remedy}" if remedy else text).splitlines()))


class DivergenceError(RuntimeError):
    """The optimisation cannot go on: its gradients stayed unusable, or nothing of the object is left."""


class ReplicaError(RuntimeError):
    """One of the processes that share the views of a step failed, or is gone; what the run has made is kept."""
