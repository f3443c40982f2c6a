"""gsply (MIT) at arm's length: imported where it is needed."""

from __future__ import annotations

from typing import Any

from ..errors import InputError

INSTALL = "pip install gsply"


def import_gsply(field: str, what: str) -> Any:
    """The module. Errors: InputError that says what to install."""
    try:
        import gsply
    except Exception as error:  # numba, which it imports, raises several kinds for an unsupported numpy
        raise InputError(
            field, f"the package gsply, which {what} needs", f"none that can be used ({error})", INSTALL
        ) from error
    return gsply
