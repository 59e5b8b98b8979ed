"""The objects of an API server, with their versions and the events that watches show."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

Object = dict[str, Any]


class Refused(Exception):
    """The object is there already, or is not."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass(frozen=True)
class StoredEvent:
    """A change: of which resource, ``ADDED``, ``MODIFIED`` or ``DELETED``, and the object behind it."""

    resource: str
    kind: str
    item: Object


class Store:
    """The objects of one namespace."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Object] = {}
        self._events: list[StoredEvent] = []
        self._changed = asyncio.Event()

    def names(self, *resources: str) -> list[str]:
        """What there is, as ``pods/NAME``; of all resources, or of these."""
        return [f"{kind}/{name}" for kind, name in self._objects if not resources or kind in resources]

    def get(self, resource: str, name: str) -> Object:
        """An object as it is now."""
        return copy.deepcopy(self._find(resource, name))

    def find(self, resource: str, query: Mapping[str, str]) -> list[Object]:
        """The objects that a list shows."""
        items = [item for (kind, _), item in self._objects.items() if kind == resource]
        return [copy.deepcopy(item) for item in items if _is(item, query)]

    @property
    def version(self) -> str:
        """Of the last change."""
        return str(len(self._events))

    def create(self, resource: str, body: Mapping[str, Any]) -> Object:
        """Make an object."""
        item = copy.deepcopy(dict(body))
        name = item["metadata"]["name"]
        if (resource, name) in self._objects:
            raise Refused(409, "AlreadyExists", f'{resource} "{name}" already exists')
        item["metadata"]["uid"] = str(uuid4())
        item["metadata"]["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._objects[resource, name] = item
        self._note(resource, "ADDED", item)
        return copy.deepcopy(item)

    def merge(self, resource: str, name: str, patch: Mapping[str, Any]) -> Object:
        """Change an object by a JSON merge patch."""
        item = self._find(resource, name)
        _merge(item, patch)
        self._note(resource, "MODIFIED", item)
        return copy.deepcopy(item)

    def remove(self, resource: str, name: str) -> None:
        """Remove an object at once."""
        item = self._find(resource, name)
        del self._objects[resource, name]
        self._note(resource, "DELETED", item)

    def owned_by(self, uid: str) -> list[tuple[str, str]]:
        """Resource and name of what an object owns."""
        return [
            key
            for key, item in self._objects.items()
            if any(owner["uid"] == uid for owner in item["metadata"].get("ownerReferences", []))
        ]

    def is_orphan(self, item: Object) -> bool:
        """Whether all that owned an object is gone."""
        owners = {owner["uid"] for owner in item["metadata"].get("ownerReferences", [])}
        return bool(owners) and not any(other["metadata"]["uid"] in owners for other in self._objects.values())

    async def watch(self, resource: str, query: Mapping[str, str]) -> AsyncIterator[StoredEvent]:
        """The changes since ``resourceVersion``, without end."""
        seen = int(query.get("resourceVersion") or 0)
        while True:
            changed = self._changed
            for event in self._events[seen:]:
                if event.resource == resource and _is(event.item, query):
                    yield event
            seen = len(self._events)
            if changed is self._changed:
                await changed.wait()

    def _find(self, resource: str, name: str) -> Object:
        try:
            return self._objects[resource, name]
        except KeyError:
            raise Refused(404, "NotFound", f'{resource} "{name}" not found') from None

    def _note(self, resource: str, kind: str, item: Object) -> None:
        item["metadata"]["resourceVersion"] = str(len(self._events) + 1)
        self._events.append(StoredEvent(resource, kind, copy.deepcopy(item)))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _is(item: Object, query: Mapping[str, str]) -> bool:
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    labels = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
    found = item["metadata"]
    return (not name or found["name"] == name) and labels.items() <= found.get("labels", {}).items()


def _merge(item: Object, patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            item.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(item.get(key), dict):
            _merge(item[key], value)
        else:
            item[key] = copy.deepcopy(value)
