"""Placeholders that cannot be replaced where they stand, and what only looks like one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from praxis_mcp.contracts.commands import CONTRACT_DIR, folder_for_command, runs_shell
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.problems import quoted
from praxis_mcp.contracts.reading.findings import Findings
from praxis_mcp.contracts.reading.spellings import Reading
from praxis_mcp.contracts.specs import (
    CommandSpec,
    DaggerEngineSpec,
    HttpEngineSpec,
    LocalEngineSpec,
    RemoteMCPEngineSpec,
)
from praxis_mcp.contracts.values import BindKind
from praxis_mcp.contracts.variables import all_variable_names
from praxis_mcp.diagnostics import Keys

_BRACES = re.compile(r"(\$?)\{(\{?)\s*([A-Za-z_][\w.-]*)\s*\}?\}")
_DOLLAR = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_OF_THE_PROJECT = ("root", "project", "workspace", "pwd", "cwd")


class _Kind(Enum):
    WORD = auto()
    """A word of a command, which may well hold braces and dollars of its own."""
    VALUE = auto()
    """A variable's value, of which the same is true."""
    HEADER = auto()
    """An address, a header or a token."""
    PATH = auto()
    """A path that the placeholder may begin."""
    INSIDE = auto()
    """A path in the tool's own file system, which the placeholder cannot be part of."""


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    keys: Keys
    kind: _Kind


def check_placeholders(contract: ToolContract, reading: Reading, findings: Findings) -> None:
    """Report placeholders that cannot be replaced where they stand, and what only looks like one."""
    shown = not isinstance(contract.engine_spec, DaggerEngineSpec) or folder_for_command(contract) is not None
    names = {parameter.name for parameter in contract.parameters}
    variables = {name for parameter in contract.parameters for name in all_variable_names(parameter)}
    variables |= set(getattr(contract.engine_spec, "env", ())) | set(
        getattr(contract.engine_spec, "env_passthrough", ())
    )
    for item in _texts(contract, reading, findings):
        if CONTRACT_DIR in item.text:
            _check_contract_dir(item, findings, shown=shown)
        match item.kind:
            case _Kind.PATH | _Kind.INSIDE:
                _check_path(item, findings)
            case _Kind.WORD:
                _check_near_misses(item, findings, variables)
                _check_word(item, contract, findings, names, variables)
            case _Kind.VALUE | _Kind.HEADER:
                _check_near_misses(item, findings, set())
                _check_value(item, findings)


def _texts(contract: ToolContract, reading: Reading, findings: Findings) -> Iterator[_Text]:
    spec, place = contract.engine_spec, reading.spec_place
    if isinstance(spec, RemoteMCPEngineSpec):
        if isinstance(spec.address, str):
            yield _Text(spec.address, (*place, "address"), _Kind.HEADER)
        else:
            yield from (_Text(word, (*place, "address", i), _Kind.WORD) for i, word in enumerate(spec.address))
        yield from _values(spec.headers, (*place, "headers"), _Kind.HEADER)
        yield from _values({"": spec.auth_token}, (*place, "auth_token"), _Kind.HEADER)
    elif isinstance(spec, HttpEngineSpec):
        for key in ("headers", "query"):
            yield from _values(getattr(spec, key), (*place, key), _Kind.HEADER)
        return
    else:
        yield from (_Text(word, (*place, "command", i), _Kind.WORD) for i, word in enumerate(spec.command))
        for source, target in spec.mounts.items():
            yield _Text(source, (*place, "mounts", source), _Kind.PATH)
            yield _Text(target, (*place, "mounts", source), _Kind.INSIDE)
    yield from _values(spec.env, (*place, "env"), _Kind.VALUE)
    if isinstance(spec, LocalEngineSpec) and spec.cwd is not None:
        key = "cwd" if (*place, "cwd") in findings.document.marks else "working_dir"
        yield _Text(spec.cwd, (*place, key), _Kind.PATH)
    if isinstance(spec, DaggerEngineSpec):
        if spec.working_dir is not None:
            yield _Text(spec.working_dir, (*place, "working_dir"), _Kind.PATH)
        yield from (_Text(path, (*place, "cache_dirs", i), _Kind.INSIDE) for i, path in enumerate(spec.cache_dirs))
    yield from (_Text(glob, ("artifacts", i), _Kind.INSIDE) for i, glob in enumerate(contract.artifacts))
    for parameter in contract.parameters:
        if parameter.bind.kind is BindKind.FILE:
            yield _Text(str(parameter.bind.target), (*reading.parameters.places[parameter.name], "bind"), _Kind.INSIDE)


def _values(values: Mapping[str, object], keys: Keys, kind: _Kind) -> Iterator[_Text]:
    for name, value in values.items():
        if isinstance(value, str):
            yield _Text(value, (*keys, name) if name else keys, kind)


def _check_contract_dir(item: _Text, findings: Findings, *, shown: bool) -> None:
    if item.kind is _Kind.INSIDE:
        findings.error(
            item.keys,
            f"{CONTRACT_DIR} has no meaning in {quoted(item.text)}: this is a path in the tool's own file system.",
            "Write an absolute path, such as /work.",
        )
    elif item.kind is _Kind.HEADER:
        findings.error(item.keys, f"{CONTRACT_DIR} has no meaning in an address or a header.", "Remove it.")
    elif not shown and item.keys[-2:-1] != ("mounts",):
        findings.error(
            item.keys,
            f"The command cannot see {CONTRACT_DIR}, the contract's own folder: no mount shows it.",
            f'Add it to the mounts: "{CONTRACT_DIR}": /tool.',
        )


def _check_path(item: _Text, findings: Findings) -> None:
    rest = item.text.replace(CONTRACT_DIR, "")
    found = _BRACES.search(rest)
    dollar = _DOLLAR.search(rest)
    name = found[3] if found is not None else dollar[1] if dollar is not None else ""
    if name:
        written = found[0] if found is not None else dollar[0] if dollar is not None else ""
        findings.unknown(item.keys, f"{quoted(written)} is not a placeholder.", _instead(name, item.kind))


def _instead(name: str, kind: _Kind) -> str:
    if kind is _Kind.INSIDE:
        return "Write an absolute path: nothing is replaced in it."
    if is_near_miss(name):
        return f"Write {CONTRACT_DIR}."
    plain = name.lower()
    if plain == "home":
        return "Write ~/, which is the home directory."
    if any(word in plain for word in _OF_THE_PROJECT):
        return "Write a relative path, such as ./data: it starts at the project root."
    return f"Only {CONTRACT_DIR} and ~ are replaced in a path; a relative one starts at the project root."


def _check_near_misses(item: _Text, findings: Findings, variables: set[str]) -> None:
    for dollar, double, name in _BRACES.findall(item.text):
        exact = f"{dollar}{{{double}{name}" == CONTRACT_DIR[:-1]
        if not exact and is_near_miss(name) and not (dollar and name in variables):
            findings.unknown(
                item.keys,
                f'"{dollar}{{{double}{name}" is not a placeholder (did you mean "{CONTRACT_DIR}"?).',
                f"Write {CONTRACT_DIR}.",
            )


def is_near_miss(name: str) -> bool:
    """Whether somebody who writes ``{name}`` means ``{contract_dir}``."""
    plain = re.sub(r"[\W_]", "", name).lower()
    if plain in ("contractfolder", "contractpath", "contractdirectory", "tooldir", "tooldirectory", "toolfolder"):
        return True
    return difflib.SequenceMatcher(None, plain, "contractdir").ratio() > 0.8


def _check_word(item: _Text, contract: ToolContract, findings: Findings, names: set[str], variables: set[str]) -> None:
    if re.search(r"\s", item.text):
        return  # a program's own text, as after `sh -c`
    for _, _, name in _BRACES.findall(item.text):
        if name in names:
            findings.warning(
                item.keys,
                f"{quoted(item.text)} stays as it is written: arguments are never put into the command's words.",
                f"Remove it, and bind {name} to a position or a flag, as in bind: {{position: 1}}.",
            )
            return
    spec = contract.engine_spec
    if not isinstance(spec, CommandSpec) or runs_shell(spec) or getattr(spec, "use_entrypoint", False):
        return
    for name in _DOLLAR.findall(item.text):
        if name in variables:
            findings.warning(
                item.keys,
                f"{quoted(item.text)} stays as it is written: no shell reads this command.",
                "Bind the parameter to a position or a flag, or have a shell run the command: [sh, -c, '… \"$"
                + name
                + "\"'].",
            )
            return


def _check_value(item: _Text, findings: Findings) -> None:
    if item.kind is _Kind.VALUE and re.search(r"\s", item.text):
        return
    found = re.search(r"\$\{([A-Za-z_]\w*)\}", item.text) or re.fullmatch(r"\$([A-Za-z_]\w*)", item.text)
    if found is not None:
        findings.warning(
            item.keys,
            f'"{found[0]}" stays as it is written: variables are not replaced in contracts.',
            f"Write {{secret: {found[1]}}} for the whole value"
            + (f", or list {found[1]} under env_passthrough." if item.kind is _Kind.VALUE else "."),
        )
