"""A tool as the checks see it: its contract, and where in the file each part of it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from praxis_mcp.checks.table import CHECKS
from praxis_mcp.contracts.catalog.catalog import CatalogEntry
from praxis_mcp.contracts.discovery import DefaultsFinder, read_bytes
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.reading.defaults import DefaultsError, with_defaults
from praxis_mcp.contracts.reading.documents import DocumentError, read_document
from praxis_mcp.contracts.reading.findings import Findings
from praxis_mcp.contracts.reading.spellings import Reading, is_older, read_contract
from praxis_mcp.diagnostics import Keys, Severity

IGNORED = "x-lint-ignore"
"""The key of a contract with the codes of checks that are left out for it."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One tool.

    Attributes:
        entry: of the catalog.
        contract: its contract.
        reading: where its parts stand.
        findings: what was found of it.
        ignored: checks that its contract leaves out.
    """

    entry: CatalogEntry
    contract: ToolContract
    reading: Reading
    findings: Findings
    ignored: frozenset[str]

    def report(self, code: str, keys: Keys, message: str) -> None:
        """Add a finding.

        Args:
            code: of the check.
            keys: the part of the document.
            message: what is wrong, one sentence.
        """
        check = CHECKS[code]
        add = self.findings.error if check.severity is Severity.ERROR else self.findings.warning
        add(keys, message, check.fix, code)

    def place(self, parameter: str, *inside: str | int) -> Keys:
        """Where a parameter, or a part of its schema, stands."""
        return (*self.reading.parameters.places.get(parameter, self.reading.parameters.root), *inside)


def read_tool(entry: CatalogEntry, shared: DefaultsFinder) -> Checked | None:
    """The tool of an entry; None where its file has changed meanwhile and cannot be read any more.

    Args:
        entry: of the catalog.
        shared: finds what contracts share.

    Raises:
        ContractError: the entry came from a damaged cache.
    """
    try:
        text = read_bytes(entry.source).decode("utf-8-sig")
        document = read_document(text, is_json=entry.source.suffix.lower() == ".json")
        document = with_defaults(document, shared.of(str(entry.source)))
    except (OSError, UnicodeDecodeError, DocumentError, DefaultsError):
        return None
    lenient = is_older(document.data)
    reading = read_contract(document.data, Findings(entry.source, document, lenient))
    findings = Findings(entry.source, document, lenient)
    return Checked(entry, entry.contract, reading, findings, _ignored(document.data.get(IGNORED), findings))


def _ignored(written: object, findings: Findings) -> frozenset[str]:
    codes: Iterable[object] = written if isinstance(written, list) else () if written is None else (written,)
    known = frozenset(code for code in codes if isinstance(code, str) and code in CHECKS)
    if any(code not in known for code in codes):
        findings.warning((IGNORED,), "This names what is not a check.", "Write a list of codes: docs/checks.md.")
    return known
