"""Bindings that no call could carry out: variables that no argument may set, files where other things lie, and two
parameters bound to one place."""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.problems import shape
from praxis_mcp.contracts.reading.findings import Findings
from praxis_mcp.contracts.specs import CommandSpec, DaggerEngineSpec
from praxis_mcp.contracts.values import HTTP_KINDS, BindKind, artifact_directory, is_variable_name
from praxis_mcp.contracts.variables import all_variable_names, is_reserved, programs_in, reader_of, variable_names
from praxis_mcp.diagnostics import Keys
from praxis_mcp.settings.base import SecretRef

_TAKEN: tuple[str, ...] = ("/proc", "/.praxis", "/.praxis-init")
"""Places in a container or sandbox where no engine lets a contract have anything."""

_ELSEWHERE = "Bind it to another variable, such as bind: {{env: TOOL_{0}}}, or to a flag, a position, stdin or a file."


def check_bindings(contract: ToolContract, places: Mapping[str, Keys], findings: Findings) -> None:
    """Report what no call could carry out.

    Args:
        contract: one whose engine runs a command.
        places: where each parameter is defined, by name.
        findings: gets the reports.
    """
    spec = contract.engine_spec
    assert isinstance(spec, CommandSpec)
    taken: dict[tuple[BindKind, object], str] = {}
    programs = programs_in((*spec.command, getattr(spec, "image", "")))
    for parameter in contract.parameters:
        where = places.get(parameter.name, ())
        if parameter.bind.kind in HTTP_KINDS:
            findings.error(
                (*where, "bind"),
                f"{parameter.bind.kind.value} is a place in an HTTP request, which a command has not.",
                "Bind it to env, a flag, a position, stdin or a file, or write engine: http and url.",
            )
            continue
        if parameter.bind.kind is BindKind.ENV and parameter.bind.target is None:
            _warn_of_reader(parameter, programs, where, findings)
        for target in _targets(parameter, where, findings):
            if parameter.bind.kind is BindKind.ENV and target in spec.env:
                _report_fixed(parameter, str(target), isinstance(spec.env[str(target)], SecretRef), where, findings)
            other = taken.setdefault((parameter.bind.kind, target), parameter.name)
            if other != parameter.name:
                findings.error(
                    (*where, "bind"),
                    f'"{other}" and "{parameter.name}" are both bound to {_describe(parameter.bind.kind, target)}.',
                    "Give one of them another binding.",
                )


def _targets(parameter: ToolParameter, where: Keys, findings: Findings) -> Sequence[object]:
    bind = parameter.bind
    if bind.kind is BindKind.STDIN:
        return (None,)
    if bind.kind is not BindKind.ENV:
        target = bind.target.rstrip("=") if bind.kind is BindKind.FLAG and isinstance(bind.target, str) else bind.target
        return (target,)
    names = all_variable_names(parameter)
    if not is_variable_name(names[0]):
        findings.error(
            where, f"There can be no variable named {shape(names[0])}.", 'Rename it, or bind it: bind: {env: "NAME"}.'
        )
        return ()
    elsewhere = _elsewhere(parameter)
    if is_reserved(names[0]):
        findings.error(
            where if bind.target is None else (*where, "bind"),
            f'"{parameter.name}" would set the variable {names[0]}, which steers the loader, the shell or an '
            "interpreter, so no argument may.",
            elsewhere,
        )
        return ()
    for name in names[1:]:
        if is_reserved(name):
            findings.warning(
                where,
                f'"{parameter.name}" is set as {names[0]} only: no argument may set {name}.',
                elsewhere,
            )
    return variable_names(parameter)


def _warn_of_reader(parameter: ToolParameter, programs: frozenset[str], where: Keys, findings: Findings) -> None:
    for name in variable_names(parameter):
        program = reader_of(name, programs)
        if program is not None:
            findings.warning(
                where,
                f'"{parameter.name}" is set as {name}, which {program} reads for itself.',
                _elsewhere(parameter),
            )


def _elsewhere(parameter: ToolParameter) -> str:
    return _ELSEWHERE.format(re.sub(r"\W", "_", parameter.name.upper(), flags=re.ASCII))


def _report_fixed(parameter: ToolParameter, name: str, secret: bool, where: Keys, findings: Findings) -> None:
    # The older SDK let arguments win, and contracts may count on it; a secret is nothing that a caller may replace.
    if findings.lenient and not secret:
        findings.warning(
            where, f'"{parameter.name}" replaces {name}, which env sets as well.', f"Remove {name} from env."
        )
        return
    what = f"the secret in {name}" if secret else f"{name}, which env sets"
    findings.error(
        where,
        f'"{parameter.name}" would replace {what}.',
        f"Remove {name} from env, or bind the parameter to another variable: bind: {{env: OTHER_NAME}}.",
    )


def misplaced(contract: ToolContract) -> Iterator[tuple[str | None, str, str]]:
    """What is where something else does: the parameter whose file it is, or None; the contract's field; a sentence.

    Engines differ in what they would make of it: one hides the file, another writes it into the mount, on the host.
    """
    spec = contract.engine_spec
    if not isinstance(spec, CommandSpec):
        return
    # That two mounts are not at one place, the model sees to.
    laid = [("mounts", "a mount", target.partition(":")[0]) for target in spec.mounts.values()]
    if isinstance(spec, DaggerEngineSpec):
        laid += [("cache_dirs", "a cache directory", place) for place in spec.cache_dirs]
    directory = artifact_directory(contract.artifacts)
    if directory is not None:
        laid.append(("artifacts", "artifacts", directory))
    taken: dict[str, str] = dict.fromkeys(_TAKEN, "the engine's own")
    for field, what, path in laid:
        place = _normal(path)
        if (other := taken.get(place)) is not None:
            both = "Two cache directories" if other == what else f"{what.capitalize()} and {other}"
            yield None, field, f"{both} are both at {place}."
        elif (above := next((path for path in _TAKEN if place.startswith(f"{path}/")), None)) is not None:
            yield None, field, f"Nothing of a contract can be at {place}: {above} is the engine's own."
        taken[place] = what
    outermost = _outermost(taken)
    for parameter in contract.parameters:
        if parameter.bind.kind is not BindKind.FILE:
            continue
        file = _normal(str(parameter.bind.target))
        other = _in_the_way(f"{file}/", outermost)
        if other is not None:
            yield (
                parameter.name,
                "bind",
                f'The file of "{parameter.name}", {file}, and what is at {other} are in each other\'s way.',
            )


def _outermost(places: Iterable[str]) -> list[str]:
    """The places that lie in no other, each with a slash at its end, sorted."""
    found: list[str] = []
    for place in sorted(f"{place}/" for place in places):
        if not (found and place.startswith(found[-1])):
            found.append(place)
    return found


def _in_the_way(file: str, outermost: list[str]) -> str | None:
    """The place that holds a file or is below it; looked up, not searched: a contract may have thousands of both."""
    index = bisect_right(outermost, file)
    if index and file.startswith(outermost[index - 1]):
        return outermost[index - 1].rstrip("/")
    if index < len(outermost) and outermost[index].startswith(file):
        return outermost[index].rstrip("/")
    return None


def _normal(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")


def _describe(kind: BindKind, target: object) -> str:
    match kind:
        case BindKind.ENV:
            return f"the variable {target}"
        case BindKind.STDIN:
            return "standard input"
        case _:
            return f"the {kind.value} {target}"
