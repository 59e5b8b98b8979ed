"""What a call changed in copies of its writable mounts, brought to the host: all of it, or none.

For engines whose tools see copies: they put what changed into private directories, which no tool reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from praxis_mcp.engines.changes import NOTHING_KEPT, Changed, ChangeKeeper
from praxis_mcp.engines.mounts.write_back import Changes, NotUndone, WriteBack
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Mount
from praxis_mcp.plans.protected import find_forbidden
from praxis_mcp.support.rooted import HeldDirectory, identity_of


@dataclass(frozen=True, slots=True)
class Part:
    """What changed in one mount.

    Attributes:
        target: the mount's, as the tool sees it.
        root: the directory of the host that the changes are of, without links; of a file, the one that it is in.
        staging: a private directory with the new content of what was added or modified, at the same paths.
        changes: what changed.
    """

    target: str
    root: Path
    staging: Path
    changes: Changes


async def bring_back(
    mounts: Sequence[Mount],
    parts: Iterable[Part | None],
    keeper: ChangeKeeper = NOTHING_KEPT,
    mask: Callable[[str], str] = str,
) -> Changed:
    """Bring what changed in mounts to the host; the files that changed, as paths there.

    Args:
        mounts: all of the blueprint's.
        parts: what changed; None where nothing did.
        keeper, mask: see `write_parts`.

    Raises:
        ExecutionError: the changes reach what no tool may change, the host refuses, or its files are not what the tool
            saw; nothing was written.
    """
    found = [part for part in parts if part is not None]
    refuse_protected(mounts, {part.target: part.changes for part in found})
    return await write_parts(found, keeper, mask)


def refuse_protected(mounts: Sequence[Mount], changes: Mapping[str, Changes]) -> None:
    """Refuse changes of what steers the server: the tool may have changed a copy, or moved what is around it.

    Args:
        mounts: all of the blueprint's.
        changes: of each mount, by its target.

    Raises:
        ExecutionError: one reaches such a place.
    """
    for target, found in changes.items():
        mount = next(mount for mount in mounts if mount.target == target)
        place = find_forbidden(mount, mounts, (*found.added, *found.modified), found.removed)
        if place is not None:
            raise ExecutionError(
                f"What the tool changed in {mount.source} was not written, none of it: it would move or replace "
                f"{place}, which no tool may.",
                remedy="Have the tool leave the directories around it in their place, or mount something narrower.",
            )


async def write_parts(
    parts: Sequence[Part], keeper: ChangeKeeper = NOTHING_KEPT, mask: Callable[[str], str] = str
) -> Changed:
    """Write what changed: all of it, or nothing; the files that changed.

    Args:
        parts: what changed.
        keeper: what is kept of these files.
        mask: masks secrets in that.

    Raises:
        ExecutionError: the host refuses, or its files are not what the tool saw.
    """
    if not parts:
        return Changed()
    try:
        return await anyio.to_thread.run_sync(_write, parts, keeper, mask)
    except NotUndone as exc:
        raise ExecutionError(
            f"What the tool changed could not all be written: {exc.filename}: {exc.strerror}.",
            remedy="Look at these files: what was there before may be next to them.",
        ) from exc
    except OSError as exc:
        raise ExecutionError(
            f"What the tool changed was not written, none of it: {exc.filename or parts[-1].root}: {exc.strerror}.",
            remedy="The server's user must be able to write there, the disk must have room, and nobody else may "
            "move the files about meanwhile.",
        ) from exc


def _write(parts: Sequence[Part], keeper: ChangeKeeper, mask: Callable[[str], str]) -> Changed:
    with ExitStack() as held, WriteBack(mask) as back:
        for part in parts:
            top = held.enter_context(HeldDirectory.at(part.root))
            if part.changes.identity is not None and identity_of(top.status) != part.changes.identity:
                raise FileNotFoundError(None, "is not the directory that the tool saw", str(part.root))
            back.add(top, held.enter_context(HeldDirectory.at(part.staging, links=True)), part.changes)
        before = keeper.look_at(back.touched, mask)
        paths = back.commit()
        after = keeper.look_at(paths, mask)
        return Changed(paths, keeper.describe(before, after, [part.root for part in parts], mask))
