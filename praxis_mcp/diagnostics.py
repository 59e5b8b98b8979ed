"""What is wrong with a contract, where, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

Keys = tuple[str | int, ...]
"""Where a value is in a document: keys of mappings and indices of lists, from the root."""


def dotted(keys: Iterable[str | int]) -> str:
    """``parameters.text.enum[2]``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


class Severity(StrEnum):
    """An error keeps the contract out of the catalog; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding.

    Attributes:
        message: what is wrong, one sentence.
        remedy: how to fix it, one sentence.
        field: dotted path inside the contract, such as ``parameters.text.type``; empty for the whole file.
        path: the contract's file, where it came from one.
        line: 1-based line in that file; 0 when unknown.
        column: 1-based column; 0 when unknown.
        code: the check of docs/checks.md that found it; empty for what only `praxis-mcp validate` looks for.
    """

    message: str
    remedy: str = ""
    field: str = ""
    severity: Severity = Severity.ERROR
    path: Path | None = None
    line: int = 0
    column: int = 0
    code: str = ""

    @property
    def is_error(self) -> bool:
        """Whether the contract cannot be used."""
        return self.severity is Severity.ERROR

    def __str__(self) -> str:
        place = str(self.path) if self.path else "<contract>"
        if self.line:
            place += f":{self.line}"
            if self.column:
                place += f":{self.column}"
        where = f" [{self.field}]" if self.field else ""
        remedy = f" {self.remedy}" if self.remedy else ""
        return f"{place}: {self.severity.value}{where}: {self.message}{remedy}"
