"""Bindings that no call could carry out: reserved variables, and two parameters bound to one place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from praxis_mcp.contracts.findings import Findings, Keys
from praxis_mcp.contracts.model import ToolParameter
from praxis_mcp.contracts.reserved import is_reserved
from praxis_mcp.contracts.values import BindKind
from praxis_mcp.contracts.variables import all_variable_names, variable_names

_ELSEWHERE = "Bind it to another variable, such as bind: {{env: TOOL_{0}}}, or to a flag, a position, stdin or a file."


def check_bindings(parameters: Sequence[ToolParameter], places: Mapping[str, Keys], findings: Findings) -> None:
    """Report reserved variables, and two parameters that are bound to the same place.

    Args:
        parameters: of one contract whose engine runs a command.
        places: where each parameter is defined, by name.
        findings: gets the reports.
    """
    taken: dict[tuple[BindKind, object], str] = {}
    for parameter in parameters:
        where = places.get(parameter.name, ())
        for target in _targets(parameter, where, findings):
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
    elsewhere = _ELSEWHERE.format(re.sub(r"\W", "_", parameter.name.upper(), flags=re.ASCII))
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


def _describe(kind: BindKind, target: object) -> str:
    match kind:
        case BindKind.ENV:
            return f"the variable {target}"
        case BindKind.STDIN:
            return "standard input"
        case _:
            return f"the {kind.value} {target}"
