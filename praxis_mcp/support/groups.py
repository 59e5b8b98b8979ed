"""Exceptions out of task groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwrapped() -> Iterator[None]:
    """Around a task group: an exception that leaves it alone leaves as itself, with its own cause, and not as a group
    of one, so that whoever called can catch it by its type."""
    try:
        yield
    except BaseExceptionGroup as group:
        found = leaves(group)
        if len(found) == 1:
            raise found[0] from found[0].__cause__
        raise


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group and the groups within it; of any other exception, itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in leaves(each)]
