"""Secrets in what an engine says of a run beside its output: names of files, and the words of an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from praxis_mcp.engines.base import Artifact, ExecutionResult
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.secrets import Masker


def mask_names(result: ExecutionResult, masker: Masker) -> ExecutionResult:
    """The result with secrets masked in the names of files. Artifacts are read by their names here; those whose names
    are the same then are told apart by a number."""
    if not masker or not (result.artifacts or result.artifacts_left_out or result.changed_files):
        return result
    names: set[str] = set()
    artifacts: list[Artifact] = []
    for item in result.artifacts:
        shown = name = masker.text(item.name)
        number = 2
        while shown in names:
            shown, number = f"{name}~{number}", number + 1
        names.add(shown)
        artifacts.append(replace(item, name=shown))
    return replace(
        result,
        artifacts=tuple(artifacts),
        artifacts_left_out=tuple(masker.text(name) for name in result.artifacts_left_out),
        changed_files=tuple(Path(masker.text(str(file))) for file in result.changed_files),
    )


def mask_error(error: ExecutionError, masker: Masker) -> None:
    """Mask secrets in what an error says, whoever put them there."""
    if not masker:
        return
    error.message = masker.text(error.message)
    error.args = (error.message,)
    error.remedy = masker.text(error.remedy) if error.remedy else error.remedy
    error.output = masker.text(error.output) if error.output else error.output
