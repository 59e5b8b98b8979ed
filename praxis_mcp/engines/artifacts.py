"""Files that a call leaves behind as results: a fresh directory for them, and what of it is taken."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import anyio.to_thread

from praxis_mcp.contracts.values import compile_glob
from praxis_mcp.engines.base import Artifact, ExecutionContext
from praxis_mcp.engines.mounts.write_back import STAGING
from praxis_mcp.engines.mounts.write_back_steps import copy_file
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Plan
from praxis_mcp.plans.secrets import Masker
from praxis_mcp.support.logs import logger
from praxis_mcp.support.removal import remove_entry
from praxis_mcp.support.rooted import HeldDirectory, descend, walk

OUTPUT_DIR_VARIABLE = "PRAXIS_OUTPUT_DIR"
"""Tells the tool where it leaves artifacts."""

MAX_ARTIFACTS = 1000
MAX_TOTAL_SIZE = 2 * 1024**3
"""What one call may hand back; the rest is left out, and named in the result."""
BOUNDS = f"as a call may hand back {MAX_ARTIFACTS} files and {MAX_TOTAL_SIZE // 1024**3} GiB"
"""The same, for people."""

_MAX_ARTIFACT_ENTRIES = 50_000
_MAX_ARTIFACT_DEPTH = 32


async def make_artifact_directory(plan: Plan, context: ExecutionContext) -> Path | None:
    """A fresh, empty, writable directory below the run's own; None for a plan without artifacts.

    Anyone may write to it: the tool's user is seldom the server's. It is private all the same, because the run's
    directory around it is.

    Raises:
        ExecutionError: the plan declares artifacts, and the run has no directory to keep them in, or it is unusable.
    """
    if plan.blueprint.artifact_dir is None:
        return None
    if context.directory is None:
        raise ExecutionError(
            f"{plan.blueprint.tool} leaves artifacts, and this run has no directory for them.",
            remedy="Give the context a directory: ExecutionContext(directory=…).",
        )
    directory = context.directory / "artifacts"
    try:
        await anyio.to_thread.run_sync(make_open_directory, directory)
    except OSError as exc:
        raise ExecutionError(f"The artifact directory {directory} cannot be made: {exc.strerror}.") from exc
    return directory


async def remove_artifact_directory(context: ExecutionContext) -> None:
    """Remove the empty one of a run that has not begun, so that it can begin on another engine."""
    if context.directory is not None:
        with suppress(OSError):
            await anyio.to_thread.run_sync((context.directory / "artifacts").rmdir)


async def adopt_artifact_directory(plan: Plan, context: ExecutionContext, made: Path) -> tuple[str, ...]:
    """Put the artifact directory of something that was started before this run in the place of the run's own, which is
    empty.

    Returns:
        the names of artifacts that stayed behind because they exceed what a call may hand back.

    Raises:
        ExecutionError: it cannot be moved.
    """
    assert context.directory is not None
    directory = context.directory / "artifacts"
    try:
        return await anyio.to_thread.run_sync(_move, plan, made, directory)
    except OSError as exc:
        raise ExecutionError(
            f"{plan.blueprint.tool}: its artifacts cannot be moved to {directory}: {exc.strerror}."
        ) from exc


def make_open_directory(directory: Path) -> None:
    """Make a directory that anyone may write to; what is around it must be private."""
    directory.mkdir()
    directory.chmod(0o777)


def _move(plan: Plan, made: Path, directory: Path) -> tuple[str, ...]:
    try:
        made.rename(directory)
        return ()
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
    # Records on another file system: no more than a call may hand back is copied. A file of holes would fill the disk.
    with HeldDirectory.at(made, links=True) as source:
        taken, left_out = _chosen(plan, source, Masker(plan.call.secrets))
        for name, status in taken.items():
            above, _, last = name.rpartition("/")
            place = directory / above
            place.mkdir(parents=True, exist_ok=True)
            with descend(source, above) as here, HeldDirectory.at(place, links=True) as there:
                copy_file(here, last, there, last, status, 0o600)
    return left_out


class Collected(NamedTuple):
    """The artifacts of a call, sorted by name, and the names of those that exceed what it may hand back."""

    taken: tuple[Artifact, ...] = ()
    left_out: tuple[str, ...] = ()


async def collect_artifacts(plan: Plan, directory: Path | None) -> Collected:
    """The files in `directory` that the plan's patterns name; everything else in there is removed.

    Links are never followed and never taken, nor is anything that is not a regular file: a tool could point them at
    any file that the server may read. Call it when the tool can no longer run.
    """
    if directory is None:
        return Collected()
    return await anyio.to_thread.run_sync(_collect, plan, directory)


def _collect(plan: Plan, directory: Path) -> Collected:
    with HeldDirectory.at(directory, links=True) as top:
        masker = Masker(plan.call.secrets)
        found, left_out = _chosen(plan, top, masker)
        _remove_all_but(found.keys(), top, masker)
    taken = (Artifact(name, directory / name, status.st_size) for name, status in found.items())
    return Collected(tuple(taken), left_out)


def _chosen(plan: Plan, top: HeldDirectory, masker: Masker) -> tuple[dict[str, os.stat_result], tuple[str, ...]]:
    base = (plan.blueprint.artifact_dir or "").rstrip("/") + "/"
    wanted = [compile_glob(pattern.removeprefix(base)) for pattern in plan.blueprint.artifacts]
    taken: dict[str, os.stat_result] = {}
    left_out: list[str] = []
    total = 0
    for name, status in sorted(_regular_files(top, masker)):
        if not any(pattern.fullmatch(name) for pattern in wanted):
            continue
        if len(taken) >= MAX_ARTIFACTS or total + status.st_size > MAX_TOTAL_SIZE:
            left_out.append(name)
            continue
        total += status.st_size
        taken[name] = status
    if left_out:
        logger.warning("{} left {} artifacts more than a call may hand back", plan.blueprint.tool, len(left_out))
    return taken, tuple(left_out)


def _remove_all_but(names: Collection[str], top: HeldDirectory, masker: Masker) -> None:
    """Remove what is below, but for the files of these names and the directories that they are in."""
    around = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    waiting = [""]
    while waiting:
        place = waiting.pop()
        try:
            with descend(top, place) as here:
                for entry in here.entries():
                    name = f"{place}{entry.name}"
                    if name in around and stat.S_ISDIR(entry.status.st_mode):
                        waiting.append(f"{name}/")
                    elif name not in names and (failure := remove_entry(here, entry.name)) is not None:
                        shown = masker.text(name)
                        logger.debug("{}, which is not an artifact, cannot be removed: {}", shown, failure.strerror)
        except OSError as exc:  # a directory that the tool closed to others; reported when it was looked through
            logger.debug("{} cannot be looked through: {}", masker.text(top.path_of(place)), exc.strerror)


def _regular_files(top: HeldDirectory, masker: Masker) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file below, with its path from there; bounded in number and depth."""
    closed: list[str] = []

    def note(exc: OSError) -> None:
        if not closed:  # a tool may make very many
            logger.warning("artifacts in {} cannot be read: {}", masker.text(str(exc.filename)), exc.strerror)
            closed.append(exc.filename)

    for seen, (name, _, (_, status)) in enumerate(walk(top, _MAX_ARTIFACT_DEPTH, on_closed=note)):
        if seen >= _MAX_ARTIFACT_ENTRIES:
            logger.warning("more than {} entries among the artifacts; the rest is left out", _MAX_ARTIFACT_ENTRIES)
            return
        if stat.S_ISREG(status.st_mode):
            yield name, status


def rename_artifact(directory: Path, name: str, new_name: str) -> None:
    """Give an artifact another name, and remove directories that are empty then. The tool can no longer run. Blocks.

    Args:
        directory: the run's artifact directory.
        name, new_name: below it.

    Raises:
        OSError: that is not possible, or there is something of that name.
    """
    above, _, last = name.rpartition("/")
    new_above, _, new_last = new_name.rpartition("/")
    with HeldDirectory.at(directory, links=True) as top:
        with descend(top, above) as source, _made(top, new_above) as target:
            if target.look(new_last) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name)
            source.move(last, target, new_last)
        while above:
            above, _, last = above.rpartition("/")
            with suppress(OSError), descend(top, above) as around:
                around.remove_empty(last)


def copy_artifacts(artifacts: Iterable[Artifact], directory: Path) -> None:
    """Copy artifacts to a directory of the user's, below which no link is followed: a tool may have made it.

    A file that is there is replaced, and so is a link. Blocks.

    Raises:
        ExecutionError: one cannot be written; those before it have been.
    """
    name = ""
    try:
        with HeldDirectory.at(directory, links=True) as top:
            for artifact in artifacts:
                name = artifact.name
                above, _, last = name.rpartition("/")
                with _made(top, above) as target, HeldDirectory.at(artifact.file.parent, listed=False) as source:
                    _copy_into(target, last, source, artifact.file.name)
    except OSError as exc:
        raise ExecutionError(
            f"The artifact {name} cannot be copied to {directory}: {exc.strerror}.",
            remedy="No link may be in the place of a directory there, and the disk must have room.",
        ) from exc


def _made(top: HeldDirectory, path: str) -> HeldDirectory:
    here = top.enter(".")
    for part in filter(None, path.split("/")):
        with here:
            try:
                here.make(part)
                here.set_mode(part, 0o755)
            except FileExistsError:
                pass
            here = here.enter(part)
    return here


def _copy_into(target: HeldDirectory, name: str, source: HeldDirectory, source_name: str) -> None:
    status = source.look(source_name)
    if status is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source_name)
    waiting = f"{STAGING}{secrets.token_hex(8)}"
    try:
        copy_file(source, source_name, target, waiting, status, 0o644)
        target.move(waiting, target, name)
    except OSError:
        remove_entry(target, waiting)
        raise
