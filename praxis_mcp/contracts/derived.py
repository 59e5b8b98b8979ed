"""What is derived from a contract, kept for as long as the contract lives."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Derived(Generic[K, V]):
    """Values by the object that they are derived from, each freed with its object.

    By identity, where a `WeakKeyDictionary` would hash: contracts and settings are frozen, but hold mappings. A value
    must not hold its object, which would then never be freed.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[K], V]] = {}

    def get(self, source: K, make: Callable[[], V]) -> V:
        """What is kept of `source`; made now if nothing is yet, or what it raises."""
        kept, key = self._kept, id(source)
        found = kept.get(key)
        if found is not None and found[0]() is source:
            return found[1]
        value = make()
        kept[key] = (weakref.ref(source, lambda _: kept.pop(key, None)), value)
        return value
