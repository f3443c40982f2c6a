"""Teachers: the protocol and the mathematics that all share; a folder beside them for each family of models."""

from .teacher import Conditioning, PlainTeacher, Request, Teacher, TextEncoder

__all__ = ["Conditioning", "PlainTeacher", "Request", "Teacher", "TextEncoder"]
