"""Collects diagnostics while a contract is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from praxis_mcp.diagnostics import Diagnostic, Severity

if TYPE_CHECKING:
    from praxis_mcp.contracts.documents import Document

Keys = tuple[str | int, ...]
"""Where a value is: keys of mappings and indices of lists, from the root."""


@dataclass(slots=True)
class Findings:
    """What is wrong with one document.

    Attributes:
        path: the file.
        document: what it holds; gives each finding its line.
        lenient: the document is written in one of the older spellings, where an unknown key is a warning.
        diagnostics: what was found so far.
    """

    path: Path | None
    document: Document
    lenient: bool = False
    diagnostics: list[Diagnostic] = field(default_factory=list)

    @property
    def has_errors(self) -> bool:
        """Whether the contract cannot be used."""
        return any(diagnostic.is_error for diagnostic in self.diagnostics)

    def error(self, keys: Keys, message: str, remedy: str = "") -> None:
        """Something that keeps the contract out of the catalog."""
        self._add(keys, message, remedy, Severity.ERROR)

    def warning(self, keys: Keys, message: str, remedy: str = "") -> None:
        """Something that its author should know."""
        self._add(keys, message, remedy, Severity.WARNING)

    def unknown(self, keys: Keys, message: str, remedy: str) -> None:
        """A key that means nothing: an error in our own spelling; ignored, with a warning, in the older ones."""
        if self.lenient:
            self._add(keys, f"{message.removesuffix('.')}, and is ignored.", remedy, Severity.WARNING)
        else:
            self._add(keys, message, remedy, Severity.ERROR)

    def _add(self, keys: Keys, message: str, remedy: str, severity: Severity) -> None:
        line, column = self.document.place(keys)
        self.diagnostics.append(
            Diagnostic(
                message=message,
                remedy=remedy,
                field=dotted(keys),
                severity=severity,
                path=self.path,
                line=line,
                column=column,
            )
        )


def dotted(keys: Keys) -> str:
    """``parameters.text.enum[2]``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text
