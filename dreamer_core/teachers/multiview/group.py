"""A group: the views of one object that a multi-view teacher looks at together."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from ..teacher import Teacher


@runtime_checkable
class GroupTeacher(Protocol):
    """A teacher that can also look at whole groups of views."""

    @property
    def azimuths(self) -> Tensor | None:
        """Degrees of a group's views; None where the teacher has no adapter for groups."""
        ...

    def grouped(self, azimuths: Tensor) -> Teacher:
        """The teacher of groups of V views from `azimuths` [V] in degrees, with noise levels of its own.

        Its batches are whole groups, one view after the other, and no limit of memory cuts a group.
        """
        ...


def group_azimuths(teacher: Teacher) -> Tensor | None:
    """Degrees of the views of a teacher's groups; None where it only looks at single views."""
    return teacher.azimuths if isinstance(teacher, GroupTeacher) else None


def grouped(teacher: Teacher, azimuths: Tensor) -> Teacher:
    """The teacher of groups of views from these azimuths. Errors: TypeError for one that only looks at single views."""
    if not isinstance(teacher, GroupTeacher):
        raise TypeError(f"expected a teacher of groups of views, but got {type(teacher).__name__}")
    return teacher.grouped(azimuths)


def whole_groups(limit: int | None, views: int, batch: int) -> int:
    """Samples of one network call: at most `limit`, but whole groups, and at least one."""
    most = batch if limit is None else min(limit, batch)
    return max(views, most // views * views)


def check_groups(batch: int, azimuths: Tensor) -> int:
    """The number of groups in a batch. Errors: ValueError where it is not whole groups."""
    if batch % len(azimuths):
        raise ValueError(f"expected whole groups of {len(azimuths)} views, but got {batch} pictures")
    return batch // len(azimuths)
