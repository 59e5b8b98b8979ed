"""Collects diagnostics while a contract is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from praxis_mcp.contracts.problems import did_you_mean, shape
from praxis_mcp.diagnostics import Diagnostic, Keys, Severity, dotted

if TYPE_CHECKING:
    from praxis_mcp.contracts.reading.documents import Document  # YAML, which a start with known contracts does without

MOST_FINDINGS = 200
"""Findings of one document: a megabyte of unknown keys is no reason for a hundred thousand sentences."""


@dataclass(slots=True)
class Findings:
    """What is wrong with one document.

    Attributes:
        path: the file.
        document: what it holds; gives each finding its line.
        lenient: the document is written in one of the older spellings, where an unknown key is a warning.
        diagnostics: what was found so far, each fault once, and no more than `MOST_FINDINGS` of them.
        has_errors: whether the contract cannot be used.
    """

    path: Path | None
    document: Document
    lenient: bool = False
    diagnostics: list[Diagnostic] = field(default_factory=list)
    has_errors: bool = False
    _seen: set[tuple[Keys, str]] = field(default_factory=set)

    def hint(self, name: str, choices: Iterable[str]) -> str:
        """`did_you_mean`, but nothing where no further finding is taken: a guess takes a tenth of a millisecond."""
        return "" if len(self.diagnostics) >= MOST_FINDINGS else did_you_mean(name, choices)

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

    def text(self, value: Any, keys: Keys) -> str:
        """Text; of a number or boolean, as it was written in the file. Anything else is reported, and empty."""
        if isinstance(value, str):
            return value
        word = self.document.written.get(keys)
        if value is not None and word is not None:
            return word
        self.error(keys, f"This must be text, not {shape(value)}.", "Write text, in quotation marks where in doubt.")
        return ""

    def _add(self, keys: Keys, message: str, remedy: str, severity: Severity) -> None:
        self.has_errors = self.has_errors or severity is Severity.ERROR
        # JSON Schema's metaschema reaches one keyword on eight ways, and reports it on each.
        if (keys, message) in self._seen or len(self.diagnostics) > MOST_FINDINGS:
            return
        self._seen.add((keys, message))
        if len(self.diagnostics) == MOST_FINDINGS:
            keys, message, remedy = (), f"More than {MOST_FINDINGS} findings: the rest is left out.", "Fix these first."
            severity = Severity.ERROR if self.has_errors else Severity.WARNING
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
