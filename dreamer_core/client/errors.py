"""What can go wrong between a client and a server."""

from __future__ import annotations


class Refused(ValueError):
    """What the user gave is wrong; the message says what to do."""


class NoAnswer(Refused):
    """Nobody answers at the address of the server."""


class Failed(RuntimeError):
    """The run, or the way of its files to the client, ended without a result."""


class WrongAnswer(Failed):
    """A reply is an error, broke off, or is not what ComfyUI would say; `reply` is its JSON, if it has any."""

    def __init__(self, message: str, status: int = 200, reply: object = None) -> None:
        super().__init__(message)
        self.status, self.reply = status, reply
