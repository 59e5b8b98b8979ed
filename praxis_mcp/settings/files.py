"""Which settings file counts, where the project root is, and why: decided before a single setting is read.

A file that somebody named (``--config``, ``PRAXIS_CONFIG``) counts as it is. One that was merely found, because a
server was started in or for its directory, can hold commands to start, policy, places to write to and servers to send
secrets to: the whole of it is left aside until the user approves it with ``praxis-mcp trust``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from praxis_mcp.errors import SettingsError
from praxis_mcp.settings.agent_files import is_agent_configuration, tool_names
from praxis_mcp.settings.project import SETTINGS_FILES, is_top, project_at, project_of, tools_at
from praxis_mcp.settings.trust import TrustStore, digest, read_regular
from praxis_mcp.support.files import expand
from praxis_mcp.support.text import printable

CONFIG_VARIABLE = "PRAXIS_CONFIG"
_MAX_SETTINGS_FILE = 1024 * 1024
"""Bytes of a settings file that was found by itself."""
_NAME_PROJECT = "Start this in the project, or name its directory: praxis-mcp trust DIRECTORY."


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
        content = read_regular(file, _MAX_SETTINGS_FILE)
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
        return read_regular(file, _MAX_SETTINGS_FILE)
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
        raise SettingsError(f"The settings file {path} is not valid YAML: {exc}") from exc
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise SettingsError(f"The settings file {path} must hold a mapping, not a {type(values).__name__}.")
    if is_agent_configuration(values):
        raise SettingsError(
            f"{path} is the configuration of an agent of the older Praxis SDK, not a settings file.",
            remedy=f"{_contracts_in(values)} Settings have a new form (configs/server.yaml shows them all), or left "
            "out: praxis-mcp serve --tools tools",
        )
    return values


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
        return None  # told when the settings are checked


def _paths(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
