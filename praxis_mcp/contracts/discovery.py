"""Finds contracts below directories, reads their bytes, and tells when they may have changed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel

from praxis_mcp.diagnostics import Diagnostic, Severity
from praxis_mcp.support.files import read_regular
from praxis_mcp.support.logs import logger
from praxis_mcp.support.tasks import unwrapped

MAX_BYTES = 1024 * 1024
"""Bytes of a file; a larger one is not a contract."""

_SUFFIXES = (".yaml", ".yml", ".json")
_NAMES = frozenset("contract" + suffix for suffix in _SUFFIXES)
_ENDINGS = tuple(".contract" + suffix for suffix in _SUFFIXES)
_YAML = (".yaml", ".yml")
DEFAULTS_NAME = "_defaults.yaml"
"""A file of this name holds what the contracts in its directory, and below, share; see `contracts.reading.defaults`."""
_NO_DEFAULTS = ("_defaults.yml", "_defaults.json")
MOST_OTHERS = 100
"""Files without a contract's name that a scan looks into."""
_LOOKED_AT = 64 * 1024
_HAS_NAME = re.compile(rb"^name:[ \t]*\S", re.MULTILINE)
_HAS_ENGINE = re.compile(rb"^(?:command|engine|engineSpec|engine_spec):", re.MULTILINE)
_SKIPPED = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})


def is_searched(name: str) -> bool:
    """Whether contracts are looked for in directories of this name: not in hidden ones, nor in package managers'."""
    return not name.startswith(".") and name not in _SKIPPED


def is_contract_name(name: str) -> bool:
    """Whether a file of this name is a contract: ``contract.yaml``, ``NAME.contract.json`` and the like."""
    # Names with a dot before them are editors' and archivers' own (`.#contract.yaml`, `._contract.yaml`).
    return (name in _NAMES or name.endswith(_ENDINGS)) and not name.startswith(".")


def find_contracts(directories: Sequence[Path], others: list[str] | None = None) -> tuple[list[str], list[Diagnostic]]:
    """Every contract in or below the directories, in a stable order, each once however many ways lead there.

    Links are followed as far as they lead to what is in one of the directories, and loops of them end: anyone who may
    write there must not have other people's files served as tools. Hidden directories and those of package managers are
    left out. A file among the directories is a contract whatever its name. Paths are text, because a thousand `Path`
    objects take as long as finding the files.

    Args:
        directories: where to look.
        others: gets the YAML files there that have no contract's name (see `misnamed_contracts`).
    """
    files: dict[str, None] = {}
    links: dict[str, None] = {}
    problems: list[Diagnostic] = []
    seen: set[tuple[int, int]] = set()
    tops = tuple(os.path.realpath(directory).rstrip("/") + "/" for directory in directories)
    for directory in directories:
        if directory.is_file():
            files[str(directory)] = None
        elif directory.is_dir():
            _walk(str(directory), tops, files, links, problems, seen, others)
        else:
            problems.append(
                Diagnostic(
                    message=f"The tools directory {directory} does not exist.",
                    remedy="Go to the directory that has it, make one with a tool in it by praxis-mcp init, or name "
                    "another with --tools DIRECTORY.",
                    path=directory,
                )
            )
    known = {os.path.realpath(path) for path in files if path not in links} if links else set()
    for link in links:
        target = os.path.realpath(link)
        if target in known:
            del files[link]
        known.add(target)
    return list(files), problems


def _walk(
    top: str,
    tops: tuple[str, ...],
    files: dict[str, None],
    links: dict[str, None],
    problems: list[Diagnostic],
    seen: set[tuple[int, int]],
    others: list[str] | None,
) -> None:
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        try:
            status = os.stat(directory)  # noqa: PTH116
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(directory) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            below: list[str] = []
            for entry in found:
                name = entry.name
                is_contract = is_contract_name(name) and not entry.is_dir()
                if not is_contract and not (is_searched(name) and entry.is_dir()):
                    if others is not None and name.endswith((*_YAML, *_NO_DEFAULTS)) and not name.startswith("."):
                        others.append(entry.path)
                    continue
                if entry.is_symlink() and (problem := _why_not_followed(entry.path, tops, is_contract)) is not None:
                    problems.append(problem)
                elif is_contract:
                    files[entry.path] = None
                    if entry.is_symlink():
                        links[entry.path] = None
                else:
                    below.append(entry.path)
        except FileNotFoundError:
            continue  # gone since its parent was read
        except OSError as exc:
            problems.append(
                Diagnostic(
                    message=f"The directory {directory} cannot be read: {exc.strerror}.",
                    remedy="Fix its permissions, or move it out of the tools directory.",
                    path=Path(directory),
                )
            )
            continue
        waiting += reversed(below)


def misnamed_contracts(others: Sequence[str], known: Collection[str] = ()) -> list[Diagnostic]:
    """What looks like a contract but does not have the name of one: a warning each, or nobody would learn it.

    Args:
        others: YAML files, of which the first `MOST_OTHERS` are looked at.
        known: those that are contracts all the same, because they were named themselves.
    """
    found: list[Diagnostic] = []
    for path in others[:MOST_OTHERS]:
        if path.endswith(tuple(f"/{name}" for name in _NO_DEFAULTS)):
            found.append(
                Diagnostic(
                    message="The file is not read: what contracts share is in a file named _defaults.yaml.",
                    remedy="Rename it.",
                    severity=Severity.WARNING,
                    path=Path(path),
                )
            )
            continue
        try:
            content = read_regular(path, _LOOKED_AT) if path not in known else b""
        except OSError:
            continue
        if _HAS_NAME.search(content) and _HAS_ENGINE.search(content):
            name = os.path.basename(path)  # noqa: PTH119
            ending = name.rpartition(".")[2]
            found.append(
                Diagnostic(
                    message=f"{name} looks like a contract, but is not served because of its name.",
                    remedy=f"Name it {name.removesuffix('.' + ending)}.contract.{ending}, or contract.{ending} in a "
                    "folder of its own.",
                    severity=Severity.WARNING,
                    path=Path(path),
                )
            )
    return found


@dataclass(frozen=True, slots=True)
class DefaultsFile:
    """What contracts in one directory, and below, share, as it was read.

    Attributes:
        path: the file.
        content: its bytes.
        problem: what keeps it from being read, if anything; no contract below is usable then.
    """

    path: Path
    content: bytes = b""
    problem: Diagnostic | None = None


class DefaultsFinder:
    """Finds the `DEFAULTS_NAME` files that count for contracts; each directory is looked at once.

    Args:
        directories: of contracts; nothing above them counts.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._tops = frozenset(os.path.abspath(path) for path in directories)  # noqa: PTH100
        self._real_tops = tuple(os.path.realpath(path).rstrip("/") + "/" for path in directories)
        self._known: dict[str, DefaultsFile | None] = {}

    def of(self, contract: str) -> tuple[DefaultsFile, ...]:
        """Those of a contract, the nearest last: from the directory of contracts that it is in down to its own; of a
        contract in none of them, that of its own directory."""
        folder = os.path.dirname(os.path.abspath(contract))  # noqa: PTH100, PTH120
        above, counted = folder, 1
        chain = [folder]
        while (parent := os.path.dirname(above)) != above:  # noqa: PTH120
            if above in self._tops:
                counted = len(chain)
            above = parent
            chain.append(above)
        found = [self._in(path) for path in reversed(chain[:counted])]
        return tuple(item for item in found if item is not None)

    def _in(self, folder: str) -> DefaultsFile | None:
        if folder not in self._known:
            self._known[folder] = self._read(os.path.join(folder, DEFAULTS_NAME))  # noqa: PTH118
        return self._known[folder]

    def _read(self, file: str) -> DefaultsFile | None:
        path = Path(file)
        try:
            is_link = stat.S_ISLNK(os.lstat(file).st_mode)
        except OSError:
            return None
        if is_link and (problem := _why_not_followed(file, self._real_tops, is_contract=True)) is not None:
            return DefaultsFile(path, problem=problem)
        try:
            return DefaultsFile(path, read_bytes(file))
        except OSError as exc:
            problem = Diagnostic(message=f"The file cannot be read: {exc.strerror or exc}.", path=path)
            return DefaultsFile(path, problem=problem)


def _why_not_followed(link: str, tops: tuple[str, ...], is_contract: bool) -> Diagnostic | None:
    target = os.path.realpath(link)
    if f"{target}/".startswith(tops):
        return None
    return Diagnostic(
        message=f"{link} is a link that leads out of the tools directory, to {target}: it is not followed.",
        remedy=f"Name {target} as a tools directory of its own (--tools, or tools: in the settings), or copy it here.",
        severity=Severity.ERROR if is_contract else Severity.WARNING,
        path=Path(link),
    )


def read_bytes(path: str | Path) -> bytes:
    """A file's bytes, but never more than one above `MAX_BYTES`; does not wait for the writer of a pipe.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    return read_regular(path, MAX_BYTES)


DEBOUNCE = 0.1
"""Seconds that a burst of changes may go on before it is reported, at once where it pauses for half of that."""
DIRECTORIES_CHECK_INTERVAL = 0.5
"""Seconds between looks at the directories themselves, which may be made, deleted or replaced."""
WATCH_POLL_INTERVAL = 2.0
"""Seconds between looks at everything, where the system cannot watch it for us."""

_Identity = dict[Path, tuple[int, int] | None]


async def watch_contracts(
    directories: Sequence[Path], look: Callable[[], Awaitable[None]], others: Callable[[], Sequence[Path]] = tuple
) -> None:
    """Await `look` whenever a contract may have been added, changed or removed, and once when the watch begins.

    Scripts and data next to a contract are of no interest. A directory that does not exist yet, or is deleted and made
    again, is watched as soon as it is there. Runs until cancelled.

    Args:
        directories: of contracts.
        look: what to await.
        others: gives the files, and the directories of which every file matters, as they are now.
    """
    can_watch = True
    while True:
        watched = partial(_watched, directories, others)
        identity = await anyio.to_thread.run_sync(_identity, watched())
        present = [path for path, known in identity.items() if known is not None]
        if present and can_watch:
            try:
                await _watch(present, watched, identity, look, others())
                await anyio.lowlevel.checkpoint()
            except _CannotWatch as exc:
                if isinstance(exc.__cause__, FileNotFoundError):
                    await anyio.sleep(DIRECTORIES_CHECK_INTERVAL)  # deleted meanwhile
                    continue
                # Most often the limit of inotify watches (fs.inotify.max_user_watches).
                logger.warning(
                    "contracts are polled every {:g} s, as they cannot be watched: {}",
                    WATCH_POLL_INTERVAL,
                    exc.__cause__,
                )
                can_watch = False
            continue
        await look()
        await anyio.sleep(WATCH_POLL_INTERVAL if present else DIRECTORIES_CHECK_INTERVAL)


class _CannotWatch(Exception):
    """The system refuses; the cause says why."""


def _watched(directories: Sequence[Path], others: Callable[[], Sequence[Path]]) -> tuple[Path, ...]:
    return (*directories, *others())


async def _watch(
    present: Sequence[Path],
    watched: Callable[[], tuple[Path, ...]],
    identity: _Identity,
    look: Callable[[], Awaitable[None]],
    others: Sequence[Path],
) -> None:
    """Watch until other directories are to be watched, or one of them is another than before.

    Raises:
        _CannotWatch: the watch cannot begin.
    """
    from watchfiles import awatch
    from watchfiles._rust_notify import WatchfilesRustInternalError

    async with _set_when_cancelled() as stop:
        batches = awatch(
            *present,
            watch_filter=None,
            debounce=int(DEBOUNCE * 1000),
            step=int(DEBOUNCE * 500),
            rust_timeout=int(DIRECTORIES_CHECK_INTERVAL * 1000),
            yield_on_timeout=True,
            ignore_permission_denied=True,
            stop_event=stop,
        )
        is_first = True
        async with aclosing(batches):
            while True:
                try:
                    batch = await anext(batches, None)
                except (OSError, WatchfilesRustInternalError) as exc:
                    raise _CannotWatch from exc
                if batch is None:
                    return  # stopped: this task is being cancelled
                # What changed before the watch began is seen by no watch: the first batch always counts, be it empty.
                if is_first or (
                    batch and await anyio.to_thread.run_sync(_any_matters, [path for _, path in batch], others)
                ):
                    is_first = False
                    await look()
                if await anyio.to_thread.run_sync(_identity, watched()) != identity:
                    return


@asynccontextmanager
async def _set_when_cancelled() -> AsyncIterator[anyio.Event]:
    """An event that is set as soon as the task is cancelled: watchfiles itself notices only when its wait times out,
    because anyio waits for the worker thread."""
    stop = anyio.Event()

    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            yield stop
            tasks.cancel_scope.cancel()


def _any_matters(paths: Sequence[str], others: Sequence[Path]) -> bool:
    places = [path for other in others for path in (other, Path(os.path.realpath(other)))]
    return any(_matters(Path(path)) or any(Path(path).is_relative_to(place) for place in places) for path in paths)


def _matters(path: Path) -> bool:
    # A directory that was moved here or away carries its contracts along, and is the only one to be reported. Of one
    # that is gone, only a name without an ending hints that it was a directory.
    name = path.name
    return is_contract_name(name) or name == DEFAULTS_NAME or "." not in name[1:] or path.is_dir()


def _identity(directories: Sequence[Path]) -> _Identity:
    return {path: _identity_of(path) for path in directories}


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
