"""Which settings file counts, where the project root is, and why: decided before a single setting is read.

A file that somebody named (``--config``, ``PRAXIS_CONFIG``) counts as it is. One that was merely found, because a
server was started in or for its directory, can hold commands to start, policy, places to write to and servers to send
secrets to: the whole of it is left aside until the user approves it with ``praxis-mcp trust``.

Relative host paths start at the project that the contracts belong to, by one rule, whatever directory a client starts
the server in: it is the nearest directory, upwards from the contracts, that holds a mark of a project. Never the root
of the file system, the home directory or one that everybody may write to: those hold many projects, and a mark there
may be anyone's.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from praxis_mcp.errors import SettingsError
from praxis_mcp.settings.trust import TrustStore, digest, read_whole
from praxis_mcp.support.files import expand, home
from praxis_mcp.support.text import printable

if TYPE_CHECKING:
    import yaml

CONFIG_VARIABLE = "PRAXIS_CONFIG"
_MAX_SETTINGS_FILE = 1024 * 1024
"""Bytes of a settings file that was found by itself."""
_NAME_PROJECT = "Start this in the project, or name its directory: praxis-mcp trust DIRECTORY."


_SECTIONS = ("agent", "agents", "p2p", "llm", "a2a", "websocket")
"""Sections of the configuration of an agent of the older SDK that neither settings nor contracts have."""


SETTINGS_FILES = ("praxis.yaml", "praxis.yml")
TOOLS = "tools"
"""The usual name of a directory of contracts: it belongs to the directory that holds it."""

_ROOTS = (*SETTINGS_FILES, ".git", ".hg", ".jj", ".svn")
_MANIFESTS = ("pyproject.toml", "package.json", "Cargo.toml", "go.mod")
"""Marks of a project too, but not of one that begins at the contracts themselves: a tool may have its own."""


@dataclass(frozen=True, slots=True)
class LeftAside:
    """A settings file that was found and does not count.

    Attributes:
        file: where.
        reason: why, as the end of a sentence.
        remedy: how to have it count.
    """

    file: Path
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"The settings file {self.file} was left aside: {self.reason}. {self.remedy}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where settings come from.

    Attributes:
        file: the settings file in force, absolute; None where there is none.
        file_reason: why that one.
        root_reason: why the root is where it is.
        left_aside: files that were found and do not count.
    """

    file: Path | None = None
    file_reason: str = "no settings file"
    root_reason: str = "given"
    left_aside: tuple[LeftAside, ...] = ()

    def __str__(self) -> str:
        return f"{self.file} ({self.file_reason})" if self.file else "none"


@dataclass(frozen=True, slots=True)
class Sources:
    """What is known before the settings are put together.

    Attributes:
        origin: see `Origin`.
        values: of the file in force, and the root and tools where those follow from where things lie.
        base: where relative paths in the settings start.
        overrides: settings that win over every source: what the caller gave, with its paths made absolute.
        text: what the file in force holds.
    """

    origin: Origin
    values: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    base: Path | None = None
    text: str = ""


def find_sources(file: Path | None, given: Mapping[str, Any], *, flags: Mapping[str, Any]) -> Sources:
    """Decide on the settings file and the root.

    Args:
        file: the file that the caller names; None asks `CONFIG_VARIABLE`, then looks in the project.
        given: settings from the environment and the flags: a root and tools among them, where those were given.
        flags: those of them that are flags.

    Raises:
        SettingsError: the named file cannot be read, a file is malformed, or a relative root leads to ``/`` or the home
            directory.
    """
    start = _start()
    root = _given_root(given["root"], start) if "root" in given else None
    root_reason = "--root" if "root" in flags else "PRAXIS_ROOT"
    tools = [
        path for path in (_absolute(item, root or start) for item in _paths(given.get("tools"))) if path is not None
    ]
    named = file or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        sources = _named(named, start, "named by --config" if file else f"named by {CONFIG_VARIABLE}", tools)
    else:
        sources = _found(start, root, tools, has_tools="tools" in given)
    return replace(sources, origin=replace(sources.origin, root_reason=root_reason)) if root is not None else sources


def _named(file: Path, start: Path, reason: str, tools: Sequence[Path]) -> Sources:
    try:
        path = start / expand(file)
        text = path.read_text(encoding="utf-8")
    except ValueError as exc:
        if isinstance(exc, UnicodeDecodeError):
            raise SettingsError(f"The settings file {file} is not UTF-8 text.") from exc
        raise SettingsError(f"The settings file {file} cannot be read: {exc}.") from exc
    except OSError as exc:
        raise SettingsError(f"The settings file {file} cannot be read: {exc.strerror}.") from exc
    values = parse(text, path)
    folder = path.resolve().parent
    if "root" not in values and is_top(folder):
        # Relative paths start at the file, wherever the root is.
        values["tools"] = [folder / expand(Path(str(item))) for item in _paths(values.get("tools", ["tools"]))]
        values["root"] = project_of((*tools, *values["tools"], folder / "tools")[0])
        return Sources(Origin(path, reason, "the project of the tools"), values, base=folder, text=text)
    return _sources(values, text, folder, path, reason)


def _found(start: Path, root: Path | None, tools: Sequence[Path], *, has_tools: bool) -> Sources:
    # Whose server this is does not depend on the root, which may be where a client happens to work.
    project = project_of(tools[0]) if tools else root or project_at(start)
    root_reason = "the project of the tools" if tools else "the project of the directory that this was started in"
    values: dict[str, Any] = {"root": project}
    # The root follows from the tools, so that those cannot start at it.
    overrides = {"tools": tools} if tools else {}
    if not has_tools:
        values["tools"] = [tools_at(start, project) if root is None else project / "tools"]
    left_aside: list[LeftAside] = []
    file = _settings_file(project)
    if file is not None:
        content, aside = _approved(file)
        if content is not None:
            return replace(sources_of(file, content), overrides=overrides)
        left_aside += [aside] if aside else []
    other = _settings_file(start) if start != project else None
    if other is not None:
        left_aside.append(
            LeftAside(
                other,
                f"this server is of another project, {project}",
                f"To use it, name it: --config {shlex.quote(str(other))} (praxis-mcp trust approves a file for its own "
                "directory only).",
            )
        )
    origin = Origin(None, root_reason=root_reason, left_aside=tuple(left_aside))
    return Sources(origin, values, overrides, project)


def sources_of(file: Path, content: bytes) -> Sources:
    """What a settings file that was found, and approved, makes of the settings. Its directory is the one where it was
    found, wherever a link leads.

    Raises:
        SettingsError: it is malformed.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise SettingsError(f"The settings file {file} is not UTF-8 text.") from exc
    return _sources(parse(text, file), text, file.parent, file, "approved by praxis-mcp trust")


def _sources(values: dict[str, Any], text: str, folder: Path, file: Path, reason: str) -> Sources:
    root_reason = "root: in the settings file" if "root" in values else "the directory of the settings file"
    root = _root_in(values, folder, file)
    return Sources(Origin(file, reason, root_reason), {**values, "root": root}, base=root, text=text)


def _approved(file: Path) -> tuple[bytes | None, LeftAside | None]:
    """What an approved file holds, or why it does not count."""
    approve = f"Look at it, then approve it: praxis-mcp trust {shlex.quote(str(file))}"
    try:
        content = read_whole(file, _MAX_SETTINGS_FILE)
    except FileNotFoundError:
        return None, None  # gone meanwhile, or a link that leads nowhere
    except OSError as exc:
        return None, LeftAside(file, f"it cannot be read ({exc.strerror})", "Name a settings file with --config.")
    approval = TrustStore("settings").find(file)
    if approval is None:
        return None, LeftAside(file, "nobody has approved it", approve)
    if approval.sha256 != digest(content):
        return None, LeftAside(file, "it has changed since it was approved", approve)
    return content, None


def settings_file_in(place: Path) -> Path:
    """The settings file that a user means by a directory or a file.

    Raises:
        SettingsError: there is none, or it has a name under which it is never found.
    """
    if place.is_dir():
        file = _settings_file(place)
        if file is None:
            raise SettingsError(f"There is no {SETTINGS_FILES[0]} in {place}.", remedy=_NAME_PROJECT)
        return file
    if not place.suffix and not place.exists():
        raise SettingsError(f"There is no {place}.", remedy=_NAME_PROJECT)
    if place.name not in SETTINGS_FILES:
        raise SettingsError(
            f"{place} needs no approval: only {' and '.join(SETTINGS_FILES)} are found by themselves.",
            remedy="Name it with --config.",
        )
    return place


def read_settings_file(file: Path) -> bytes:
    """What a settings file holds, for `TrustStore.approve`.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return read_whole(file, _MAX_SETTINGS_FILE)
    except OSError as exc:
        raise SettingsError(f"The settings file {file} cannot be read: {exc.strerror}.") from exc


def parse(text: str, path: Path) -> dict[str, Any]:
    """The settings that a file holds, as they are written.

    Raises:
        SettingsError: they are malformed.
    """
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise _malformed(path, exc) from exc
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise SettingsError(f"The settings file {path} must hold a mapping, not a {type(values).__name__}.")
    if is_agent_configuration(values):
        raise SettingsError(
            f"{path} is the configuration of an agent of the older Praxis SDK, not a settings file.",
            remedy=f"{_contracts_in(values)} Settings have a new form (praxis-mcp schema --settings), or left "
            "out: praxis-mcp serve --tools tools",
        )
    return values


def _malformed(path: Path, exc: yaml.YAMLError) -> SettingsError:
    """What is wrong with a file that is not YAML, on one line, with its place."""
    context, problem, mark = (getattr(exc, name, None) for name in ("context", "problem", "problem_mark"))
    begun = getattr(exc, "context_mark", None)
    place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    start = f"that begins in line {begun.line + 1}:" if context and begun else ""
    why = " ".join(part for part in (context, start, problem) if part)
    return SettingsError(
        f"The settings file {place} is not valid YAML: {why or str(exc).splitlines()[0]}.",
        remedy="Fix it there; text that begins with a sign goes in quotation marks, and tabs do not indent.",
    )


def _contracts_in(values: Mapping[str, Any]) -> str:
    names = tool_names(values)
    if not names:
        return "No entry of it is a contract."
    listed = ", ".join(map(printable, names[:5])) + (" and others" if len(names) > 5 else "")
    return (
        f"Each of its tools with an engineSpec is a contract ({listed}): write it to a file of its own, "
        "tools/NAME/contract.yaml, in the directory that its mounts start at. Check them: praxis-mcp validate tools."
    )


def _root_in(values: Mapping[str, Any], folder: Path, file: Path) -> Path:
    """The root of a file: as it says, from its own directory, so that it works from whatever directory it is named."""
    try:
        return Path(os.path.normpath(folder / expand(Path(str(values.get("root", ""))))))
    except ValueError as exc:
        raise SettingsError(f"In the settings file {file}, root is wrong: {exc}.") from exc


def _settings_file(directory: Path) -> Path | None:
    return next((directory / name for name in SETTINGS_FILES if (directory / name).is_file()), None)


def _start() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as exc:
        raise SettingsError(
            "The directory that this was started in does not exist any more.", remedy="Change to one that does."
        ) from exc


def _given_root(value: Any, start: Path) -> Path | None:
    root = _absolute(value, start)
    # A client's configuration says --root . once, and the client starts servers in / or the home directory, too.
    if root is not None and is_top(root) and not Path(str(value)).is_absolute() and not str(value).startswith("~"):
        raise SettingsError(
            f"The root {value} is {root}, where this was started, and that is not a project.",
            remedy="Start it in a project, or give the absolute path if you mean it.",
        )
    return root


def _absolute(value: Any, base: Path) -> Path | None:
    try:
        return Path(os.path.normpath(base / expand(Path(str(value)))))
    except ValueError:
        return None  # reported when the settings are checked


def _paths(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def is_agent_configuration(values: Mapping[Any, Any]) -> bool:
    """Whether a file holds the configuration of an agent of the older SDK, which is often taken for settings or for a
    contract."""
    return any(isinstance(values.get(name), Mapping) for name in _SECTIONS) and "command" not in values


def tool_names(values: Mapping[Any, Any]) -> list[str]:
    """The tools in it that are contracts, in their order; what the agent itself did has no specification."""
    agent = values.get("agent")
    lists = (agent.get("tools") if isinstance(agent, Mapping) else None, values.get("tools"))
    entries = [entry for items in lists if isinstance(items, list) for entry in items]
    return [
        str(entry["name"])
        for entry in entries
        if isinstance(entry, Mapping) and entry.get("name") and ("engineSpec" in entry or "engine_spec" in entry)
    ]


def project_of(directory: Path) -> Path:
    """The project of a directory (or file) of contracts that somebody named, absolute.

    Where nothing marks one, the directory that holds ``tools``; of a directory that has another name, itself.
    """
    start = directory.parent if directory.is_file() else directory
    found = _marked(start, is_contracts=True)
    if found is not None:
        return found
    for place in (start, *start.parents):
        if place.name == TOOLS and not is_shared(place.parent):
            return place.parent
    return start


def project_at(directory: Path) -> Path:
    """The project that a directory is in, where nobody named contracts. Without a mark it is the directory itself; of
    one that holds many projects, its ``tools``."""
    found = _marked(directory, is_contracts=False)
    if found is not None:
        return found
    return directory / TOOLS if is_shared(directory) else directory


def tools_at(directory: Path, project: Path) -> Path:
    """The directory of contracts where nobody named one: ``tools`` here or in the nearest directory above, up to the
    project; the project's own where there is none."""
    for place in (directory, *directory.parents):
        if place == project or not place.is_relative_to(project):
            break
        if (place / TOOLS).is_dir():
            return place / TOOLS
    return project if project.name == TOOLS and is_shared(project.parent) else project / TOOLS


def is_shared(directory: Path) -> bool:
    """Whether a directory holds many projects rather than being one: the root of the file system, the home directory,
    or one that everybody may write to, such as ``/tmp``."""
    if is_top(directory):
        return True
    try:
        return os.name != "nt" and bool(directory.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False


def is_top(directory: Path) -> bool:
    """Whether that is the root of the file system or the home directory, however it is spelled."""
    places = {Path(directory.anchor), Path(os.path.realpath(directory.anchor))}
    where = home()
    if where is not None:
        places |= {where, Path(os.path.realpath(where))}
    return directory in places or Path(os.path.realpath(directory)) in places


def _marked(start: Path, *, is_contracts: bool) -> Path | None:
    for place in (start, *start.parents):
        marks = _ROOTS if is_contracts and place == start else (*_ROOTS, *_MANIFESTS)
        if any(os.path.lexists(place / mark) for mark in marks) and not is_shared(place):
            return place
    return None
