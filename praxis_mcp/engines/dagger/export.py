"""What a command leaves, brought back to the host: its artifacts, and its changes in writable mounts, all or none.

The engine's CLI writes by path, so it writes into a private directory of this call's own, which no tool reaches. From
there `bring_back` brings everything to the mounts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.to_thread

from praxis_mcp.engines.changes import Changed, ChangeKeeper
from praxis_mcp.engines.dagger.errors import QueryFailed
from praxis_mcp.engines.dagger.mounts import Upload
from praxis_mcp.engines.dagger.query import Field
from praxis_mcp.engines.dagger.session import Session
from praxis_mcp.engines.mounts.bring_back import Part, refuse_protected, write_parts
from praxis_mcp.engines.mounts.locks import real_source
from praxis_mcp.engines.mounts.write_back import Changes
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Blueprint

_LOST = "\ufffd"
"""What Dagger puts in place of bytes that are not UTF-8: what the name was, nobody can say."""


def changes_fields(uploads: Sequence[Upload]) -> list[Field]:
    """What to query of the container after the command, to learn what became of the writable directories."""
    # The layer knows of changed permissions, the lists do not.
    paths = (
        Field("addedPaths"),
        Field("modifiedPaths"),
        Field("removedPaths"),
        Field("layer", {}, (Field("entries"),)),
    )
    return [
        Field("directory", {"path": item.mount.target}, (Field("changes", {"from": item.id}, paths),), alias)
        for alias, item in _writable_directories(uploads).items()
    ]


def read_changes(uploads: Sequence[Upload], answer: Mapping[str, Any]) -> dict[str, Changes]:
    """The changes of each writable directory, by target, from what `changes_fields` gave."""
    changes: dict[str, Changes] = {}
    for alias, item in _writable_directories(uploads).items():
        found = answer[alias]["changes"]
        changes[item.mount.target] = Changes(
            tuple(found["addedPaths"]),
            tuple(found["modifiedPaths"]),
            tuple(found["removedPaths"]),
            others=bool(found["layer"]["entries"]),
        )
    return changes


def _writable_directories(uploads: Sequence[Upload]) -> dict[str, Upload]:
    wanted = [item for item in uploads if item.mount.writable and item.is_directory]
    return {f"mount{index}": item for index, item in enumerate(wanted)}


async def export_changes(
    session: Session,
    container: str,
    uploads: Sequence[Upload],
    changes: Mapping[str, Changes],
    scratch: Path,
    keeper: ChangeKeeper,
    mask: Callable[[str], str],
) -> Changed:
    """Bring the changes of a call's writable mounts back; the files that changed, as paths on the host.

    Args:
        session: where the command ran.
        container: id of the container after the command.
        uploads: the call's mounts.
        changes: of each writable directory, by target (`read_changes`).
        scratch: an existing, private directory of this call's own.
        keeper: what is kept of these files.
        mask: masks secrets in that.

    Raises:
        ExecutionError: the host refuses, or its files are not what the tool saw; nothing was written.
    """
    parts: list[Part] = []
    source = ""
    refuse_protected([item.mount for item in uploads], changes)
    try:
        for index, item in enumerate(item for item in uploads if item.mount.writable):
            source = str(item.mount.source)
            staging = scratch / f"changes{index}"
            found = changes.get(item.mount.target)
            if found is None:
                parts.append(await _stage_file(session, container, item, staging))
            elif found.added or found.modified or found.removed or found.others:
                parts.append(await _stage_directory(session, container, item, found, staging))
    except QueryFailed as exc:
        raise ExecutionError(
            f"What the tool changed in {source} could not be fetched from the engine, and nothing was written: "
            f"{exc.message}.",
            remedy=f"The disk that holds {scratch.parent} must have room for it.",
        ) from exc
    return await write_parts(parts, keeper, mask)


async def _stage_file(session: Session, container: str, upload: Upload, staging: Path) -> Part:
    target = real_source(upload.mount)
    await anyio.to_thread.run_sync(staging.mkdir)
    steps = [Field("loadContainerFromID", {"id": container}), Field("file", {"path": upload.mount.target})]
    await session.select(steps, Field("export", {"path": str(staging / target.name)}))
    changes = Changes(modified=(target.name,), identity=upload.identity)
    return Part(upload.mount.target, target.parent, staging, changes)


async def _stage_directory(session: Session, container: str, upload: Upload, changes: Changes, staging: Path) -> Part:
    for path in (*changes.added, *changes.modified, *changes.removed):
        if _LOST in path:
            raise ExecutionError(
                f"What the tool changed in {upload.mount.source} was not written: the name of {path!r} is not "
                "UTF-8, and Dagger cannot carry such names.",
                remedy="Have the tool write names in UTF-8, or use another engine.",
            )
    await anyio.to_thread.run_sync(staging.mkdir)
    if changes.others:
        steps = [
            Field("loadContainerFromID", {"id": container}),
            Field("directory", {"path": upload.mount.target}),
            Field("changes", {"from": upload.id}),
            Field("layer"),
        ]
        await session.select(steps, Field("export", {"path": str(staging)}))
    seen = await _seen_in(session, upload, [path for path in changes.removed if path.endswith("/")])
    changes = replace(changes, seen=seen, identity=upload.identity)
    return Part(upload.mount.target, real_source(upload.mount), staging, changes)


async def _seen_in(session: Session, upload: Upload, directories: Sequence[str]) -> frozenset[str]:
    """What the call saw in directories: their own paths are not among them."""
    if not directories:
        return frozenset()
    listed = [
        Field("directory", {"path": path}, (Field("glob", {"pattern": "**"}),), f"d{index}")
        for index, path in enumerate(directories)
    ]
    found = await session.select([Field("loadDirectoryFromID", {"id": upload.id})], *listed)
    return frozenset(
        f"{path}{name}".rstrip("/") for index, path in enumerate(directories) for name in found[f"d{index}"]["glob"]
    )


async def export_artifacts(session: Session, container: str, blueprint: Blueprint, directory: Path) -> None:
    """Everything that the command left in its artifact directory, into a directory of the host."""
    steps = [Field("loadContainerFromID", {"id": container}), Field("directory", {"path": blueprint.artifact_dir})]
    await session.select(steps, Field("export", {"path": str(directory)}))
