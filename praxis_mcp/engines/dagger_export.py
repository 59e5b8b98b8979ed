"""Changes in writable mounts, brought back to the host: all of them, or none.

The engine writes what has changed into a directory beside its destination first; only when all of it is there is it
moved into place, by renaming. Links are moved as links and never followed: a tool could point one at any file of this
machine.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread

from praxis_mcp.engines.dagger_errors import QueryFailed
from praxis_mcp.engines.dagger_query import Field, chain
from praxis_mcp.engines.dagger_session import Session
from praxis_mcp.engines.dagger_workspace import STAGING, Upload, real_source
from praxis_mcp.engines.scratch import remove_directory
from praxis_mcp.errors import ExecutionError


@dataclass(frozen=True, slots=True)
class Changes:
    """What a call did to one writable mount; paths are relative to it, those of directories end in a slash."""

    added: tuple[str, ...] = ()
    modified: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.modified or self.removed)


def changes_fields(uploads: Sequence[Upload]) -> list[Field]:
    """What to ask of the container after the command, to learn what became of the writable directories."""
    paths = (Field("addedPaths"), Field("modifiedPaths"), Field("removedPaths"))
    return [
        Field("directory", {"path": item.mount.target}, (Field("changes", {"from": item.id}, paths),), alias)
        for alias, item in _writable_directories(uploads).items()
    ]


def read_changes(uploads: Sequence[Upload], answer: Mapping[str, Any]) -> dict[str, Changes]:
    """The changes of each writable directory, by target, from what `changes_fields` gave."""
    changes: dict[str, Changes] = {}
    for alias, item in _writable_directories(uploads).items():
        found = answer[alias]["changes"]
        paths = (tuple(found[name]) for name in ("addedPaths", "modifiedPaths", "removedPaths"))
        changes[item.mount.target] = Changes(*paths)
    return changes


def _writable_directories(uploads: Sequence[Upload]) -> dict[str, Upload]:
    wanted = [item for item in uploads if item.mount.writable and item.is_directory]
    return {f"mount{index}": item for index, item in enumerate(wanted)}


async def export_changes(
    session: Session, container: str, upload: Upload, changes: Changes | None, run_id: str
) -> tuple[Path, ...]:
    """Bring the changes of one writable mount back; the files that changed, as paths on the host.

    Args:
        session: where the command ran.
        container: id of the container after the command.
        upload: the mount.
        changes: of a directory; None for a file.
        run_id: id of the run.

    Raises:
        ExecutionError: the host refuses; says whether something was written.
    """
    target = real_source(upload.mount)
    if changes is not None and not changes:
        return ()
    base = target if upload.is_directory else target.parent
    staging = base / f"{STAGING}{run_id}"
    try:
        await _stage(session, container, upload, staging)
        if changes is None:
            return await anyio.to_thread.run_sync(_replace_file, staging / "file", target)
        return await anyio.to_thread.run_sync(_apply, target, staging, changes)
    except QueryFailed as exc:
        raise ExecutionError(
            f"What the tool changed in {upload.mount.source} could not be written there, and nothing was: "
            f"{exc.message}.",
            remedy="The server's user must be able to write there, and the disk must have room.",
        ) from exc
    except OSError as exc:
        raise ExecutionError(
            f"What the tool changed in {upload.mount.source} could not all be moved into place: "
            f"{exc.filename or ''} {exc.strerror}.",
            remedy="The server's user must be able to write to every file there.",
        ) from exc
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(remove_directory, staging)


async def _stage(session: Session, container: str, upload: Upload, staging: Path) -> None:
    start = Field("loadContainerFromID", {"id": container})
    if upload.is_directory:
        steps = [
            start,
            Field("directory", {"path": upload.mount.target}),
            Field("changes", {"from": upload.id}),
            Field("layer"),
        ]
        await session.query(chain(steps, Field("export", {"path": str(staging)})))
    else:
        steps = [start, Field("file", {"path": upload.mount.target})]
        await anyio.to_thread.run_sync(staging.mkdir)
        await session.query(chain(steps, Field("export", {"path": str(staging / "file")})))


def _replace_file(staged: Path, target: Path) -> tuple[Path, ...]:
    if staged.read_bytes() == target.read_bytes():
        return ()
    try:
        staged.replace(target)
    except OSError:  # the file is writable, its directory is not
        shutil.copyfile(staged, target)
    return (target,)


def _apply(root: Path, staging: Path, changes: Changes) -> tuple[Path, ...]:
    for path in changes.removed:
        _remove(_below(root, path))
    for path in sorted(changes.added):
        if path.endswith("/"):
            _make_directory(root, path)
    touched: list[Path] = [_below(root, path) for path in changes.removed]
    for path in (*changes.added, *changes.modified):
        if not path.endswith("/") and _move(staging, root, path):
            touched.append(_below(root, path))
    _copy_modes(root, staging, changes.added)
    return tuple(sorted(set(touched)))


def _below(root: Path, path: str) -> Path:
    parts = path.strip("/").split("/")
    if ".." in parts or not parts[0]:
        raise OSError(None, "is outside the mount", path)
    return root.joinpath(*parts)


def _make_directory(root: Path, path: str) -> None:
    """A real directory at `path`, as are all above it: a link on the way would lead out of the mount."""
    place = root
    for part in path.strip("/").split("/"):
        place = _below(place, part)
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            place.mkdir()
            continue
        if not stat.S_ISDIR(mode):
            place.unlink()
            place.mkdir()


def _move(staging: Path, root: Path, path: str) -> bool:
    staged, target = _below(staging, path), _below(root, path)
    try:
        mode = staged.lstat().st_mode
    except FileNotFoundError:  # a device or socket, which the engine does not hand out
        return False
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        return False
    if "/" in path:
        _make_directory(root, path.rpartition("/")[0])
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    staged.replace(target)
    return True


def _remove(target: Path) -> None:
    if any(parent.is_symlink() for parent in target.parents):
        return  # not what the tool saw there
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _copy_modes(root: Path, staging: Path, added: Sequence[str]) -> None:
    # Last: a directory may be closed to writing.
    for path in sorted(added, reverse=True):
        if path.endswith("/"):
            staged = _below(staging, path)
            if staged.is_dir():
                _below(root, path).chmod(stat.S_IMODE(staged.stat().st_mode))
