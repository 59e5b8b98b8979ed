"""Words of messages that depend on a number."""

from __future__ import annotations


def counted(number: float, noun: str, plural: str | None = None, *, form: str = "") -> str:
    """A number with its noun: ``1 error``, ``2 errors``, ``0 errors``.

    Args:
        number: how many.
        noun: of one.
        plural: of any other number; None is `noun` with an s.
        form: how the number is written, as for `format`.
    """
    return f"{number:{form}} {noun if number == 1 else plural or noun + 's'}"
