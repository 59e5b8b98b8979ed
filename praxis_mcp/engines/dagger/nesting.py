"""Mounts within mounts in the Dagger engine, which makes no place in a read-only one, and for which a later mount takes
away all that is at or below it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import anyio.to_thread

from praxis_mcp.engines.dagger.query import Field, chain, value_at
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.dagger.workspace import Upload
from praxis_mcp.plans.model import Blueprint, Mount
from praxis_mcp.plans.view import Layer, View, depth, is_below, is_nested, laid, starts

_Place = tuple[str, bool]
"""A path below a mount, and whether a directory is there."""


def missing_places(blueprint: Blueprint) -> dict[str, tuple[_Place, ...]]:
    """What read-only mounts lack that something else may lie there, by target. Looks at files.

    Raises:
        ExecutionError: something has no place.
    """
    if not is_nested(blueprint):
        return {}
    view: View[Layer] = View()
    owners: dict[int, str] = {}
    found: dict[str, list[_Place]] = {}

    def make_place(path: str, *, is_directory: bool) -> str:
        place = view.resolve(path)
        gap = view.find_gap(place, is_directory=is_directory)
        if gap is not None:
            below = place[len(view.layers[gap.number].path) :].lstrip("/")
            found.setdefault(owners[gap.number], []).append((below, is_directory))
        return place

    for path, mount in laid(blueprint):
        place = make_place(path, is_directory=mount is None or os.path.isdir(mount.source))  # noqa: PTH112
        owners[len(view.layers)] = path
        view.layers.append(Layer(place, None) if mount is None else Layer(place, str(mount.source), mount.writable))
    for path in starts(blueprint):
        make_place(path, is_directory=True)
    return {target: tuple(places) for target, places in found.items()}


async def shield(session: Session, mount: Mount, uploads: Sequence[Upload]) -> Upload:
    """A part of an upload that is to lie read-only on top of it; nothing is brought in once more.

    Args:
        session: where the uploads are.
        mount: the part; a directory on the way to it needs none, since what a call moved is looked at in the end.
        uploads: of which one holds it.

    Raises:
        QueryFailed: the engine does not give it.
    """
    outer = max(
        (item for item in uploads if mount.source.is_relative_to(item.mount.source) and item.mount.writable),
        key=lambda item: len(item.mount.source.parts),
    )
    is_directory = await anyio.to_thread.run_sync(mount.source.is_dir)
    kind, below = "directory" if is_directory else "file", str(mount.source.relative_to(outer.mount.source))
    steps = [Field("loadDirectoryFromID", {"id": outer.id}), Field(kind, {"path": below})]
    answer = await session.query(chain(steps, Field("id")))
    found = str(value_at(answer, *(step.name for step in steps), "id"))
    return replace(outer, mount=mount, id=found, is_directory=is_directory)


async def with_places(session: Session, upload: Upload, places: Sequence[_Place]) -> Upload:
    """The upload with empty directories and files where something else will lie.

    Raises:
        QueryFailed: the engine cannot make them.
    """
    steps = [Field("loadDirectoryFromID", {"id": upload.id})]
    for path, is_directory in places:
        if is_directory:
            steps.append(Field("withNewDirectory", {"path": path, "permissions": 0o755}))
        else:
            steps.append(Field("withNewFile", {"path": path, "contents": "", "permissions": 0o644}))

    key = ("places", upload.mount.source, upload.mount.target)
    known: tuple[object, str] | None = session.recall(key)
    if known is not None and known[0] == (upload.id, places):
        return replace(upload, id=known[1])
    answer = await session.query(chain(steps, Field("id")))
    found = str(value_at(answer, *(step.name for step in steps), "id"))
    session.remember(key, ((upload.id, places), found))
    return replace(upload, id=found)


def in_order(session: Session, uploads: Sequence[Upload], own: Sequence[Field]) -> list[Field]:
    """The fields that mount the uploads, and once more what the container has of its own below any of them.

    Args:
        session: where they are.
        uploads: the contract's mounts.
        own: the fields that have mounted caches and the directory for artifacts.
    """
    targets = [item.mount.target for item in uploads]
    steps = [(item.mount.target, item.steps(session)) for item in uploads]
    steps += [(path, field) for field in own if is_below(path := str(field.arguments["path"]), targets)]
    return [field for _, field in sorted(steps, key=lambda item: depth(item[0]))]
