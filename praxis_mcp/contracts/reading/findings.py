"""Collects diagnostics while a contract is read, pydantic's errors among them. Values that may be secrets are never
repeated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from praxis_mcp.contracts.problems import as_question, closest, did_you_mean, shape
from praxis_mcp.diagnostics import Diagnostic, Keys, Severity, dotted

if TYPE_CHECKING:
    from praxis_mcp.contracts.reading.documents import Document  # YAML, which a start with known contracts does without

MOST_FINDINGS = 200
"""Findings of one document: a megabyte of unknown keys must not become a hundred thousand sentences."""


_M = TypeVar("_M", bound=BaseModel)
_MESSAGES = {
    "missing": "This is missing.",
    "extra_forbidden": "This key is unknown here.",
    "string_type": "This must be text.",
    "dict_type": "This must be a mapping.",
    "tuple_type": "This must be a list.",
    "list_type": "This must be a list.",
    "bool_parsing": "This must be true or false.",
    "bool_type": "This must be true or false.",
    "int_parsing": "This must be a whole number.",
    "int_type": "This must be a whole number.",
    "int_from_float": "This must be a whole number.",
    "float_parsing": "This must be a number.",
    "float_type": "This must be a number.",
    "model_type": "This must be a mapping.",
    "model_attributes_type": "This must be a mapping.",
    "string_too_short": "This must not be empty.",
    "too_short": "This must not be empty.",
}
_REMEDIES = {
    "command": 'Write a list of words, such as ["python", "/tool/main.py"].',
    "mounts": 'Write a mapping of host path to path for the tool, such as ./data: "/data:rw".',
    "env": "Write a mapping of names to text or {secret: NAME}.",
    "headers": "Write a mapping of names to text or {secret: NAME}.",
    "auth_token": "Write {secret: NAME}.",
    "env_passthrough": "Write a list of variable names.",
    "build": "Write {python: requirements.txt}, {packages: [NAME==VERSION]}, {dockerfile: Dockerfile} or {context: .}.",
    "image": 'Write an image reference, such as image: "python:3.11-slim".',
    "address": "Write the server's URL, or the list of words that starts it.",
    "working_dir": "Write an absolute path inside the container.",
    "cache_dirs": "Write a list of absolute directories inside the container.",
    "timeout": "Write seconds, such as timeout: 60.",
    "memory_limit": 'Write bytes, or text such as "512Mi".',
    "cpu_limit": "Write cores, such as cpu_limit: 0.5.",
    "network": "Write none, bridge or host.",
    "user": 'Write a name, a uid, or "uid:gid".',
    "name": "Write name: my_tool.",
    "engine": "Write dagger, docker, sandbox, local, kubernetes, remote-mcp or http.",
    "tags": "Write a list of words.",
    "artifacts": "Write a list of patterns, such as [/out/*.png].",
    "bind": "Write env, stdin, {env: NAME}, {flag: --name}, {position: 1} or {file: /path}.",
    "output": "Write text or json.",
    "cache": "Write none or pure.",
    "transport": "Write auto, http, sse or stdio.",
}
_UNIONS = ("env", "headers", "auth_token", "address")
"""Fields of several types: pydantic reports one error for each of them, of which none says it all."""


@dataclass(slots=True)
class Findings:
    """What is wrong with one document.

    Attributes:
        path: the file.
        document: what it holds; gives each finding its line.
        lenient: the document is written in one of the older spellings, where an unknown key is a warning.
        diagnostics: what was found so far, each fault once, and no more than `MOST_FINDINGS` of them.
        has_errors: whether the contract cannot be used.
        misspelled: keys at the root that are not there, because one that was refused was most likely meant to be it.
    """

    path: Path | None
    document: Document
    lenient: bool = False
    diagnostics: list[Diagnostic] = field(default_factory=list)
    has_errors: bool = False
    misspelled: set[str] = field(default_factory=set)
    _seen: set[tuple[Keys, str]] = field(default_factory=set)

    def hint(self, name: str, choices: Iterable[str]) -> str:
        """`did_you_mean`, of a `guess`."""
        return as_question(self.guess(name, choices))

    def guess(self, name: str, choices: Iterable[str]) -> str:
        """`closest`, but nothing where no further finding is taken: a guess takes a tenth of a millisecond."""
        return "" if len(self.diagnostics) >= MOST_FINDINGS else closest(name, choices)

    def to_show(self) -> list[Diagnostic]:
        """The diagnostics, but for what is said of a key only because it was misspelled: one error says it."""
        return [item for item in self.diagnostics if item.field not in self.misspelled]

    def error(self, keys: Keys, message: str, remedy: str = "", code: str = "") -> None:
        """Something that keeps the contract out of the catalog; or an error of the check of that code."""
        self._add(keys, message, remedy, Severity.ERROR, code)

    def warning(self, keys: Keys, message: str, remedy: str = "", code: str = "") -> None:
        """Something that its author should know; of the check of that code, if any."""
        self._add(keys, message, remedy, Severity.WARNING, code)

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

    def _add(self, keys: Keys, message: str, remedy: str, severity: Severity, code: str = "") -> None:
        self.has_errors = self.has_errors or severity is Severity.ERROR
        # JSON Schema's metaschema reaches one keyword on eight ways, and reports it on each.
        if (keys, message) in self._seen or len(self.diagnostics) > MOST_FINDINGS:
            return
        self._seen.add((keys, message))
        if len(self.diagnostics) == MOST_FINDINGS:
            keys, code, message, remedy = (
                (),
                "",
                f"More than {MOST_FINDINGS} findings: the rest is left out.",
                "Fix these first.",
            )
            severity = Severity.ERROR if self.has_errors else Severity.WARNING
        line, column = self.document.place(keys)
        self.diagnostics.append(
            Diagnostic(
                message=message,
                remedy=remedy,
                field=dotted(keys),
                severity=severity,
                path=self.document.file(keys) or self.path,
                line=line,
                column=column,
                code=code,
            )
        )


def validate_fields(
    model: type[_M],
    fields: object,
    findings: Findings,
    keys: Keys = (),
    names: Mapping[str, str] | None = None,
    context: Any = None,
) -> _M | None:
    """The model of what was read; None where pydantic refuses it, which is reported.

    Args:
        model: its type.
        fields: in normal form: the model's own names.
        findings: gets the diagnostics.
        keys: where the fields stand in the document.
        names: each field → the key by which it is written, where that is another one.
        context: of the validation.
    """
    try:
        return model.model_validate(fields, context=context)
    except ValidationError as exc:
        written = names or {}
        report_errors(exc, findings, lambda loc: (*keys, *(written.get(str(part), part) for part in loc[:1]), *loc[1:]))
        return None


def report_errors(exc: ValidationError, findings: Findings, locate: Callable[[Keys], Keys]) -> None:
    """Turn every error into a diagnostic.

    Args:
        exc: what pydantic raised.
        findings: gets the diagnostics.
        locate: from pydantic's place to the one in the document.
    """
    seen: set[Keys] = set()
    for error in exc.errors(include_url=False):
        loc: Keys = error["loc"]
        union = next((index for index, part in enumerate(loc) if part in _UNIONS), None)
        if union is not None and not (loc[union] == "address" and error["type"] == "missing"):
            # The parts behind the name are pydantic's labels of the types it tried.
            loc = loc[: union + (2 if loc[union] in ("env", "headers") else 1)]
            message = "This is missing."
            if error["type"] != "missing":
                message = f"The value has none of the allowed forms{_meant_secret(error['input'])}."
        elif error["type"] == "literal_error":
            message = _none_of(error["input"], error["msg"])
        else:
            message = _MESSAGES.get(error["type"]) or _sentence(error["msg"])
        loc = tuple(part for part in loc if part != "[key]")
        if loc in seen:
            continue
        seen.add(loc)
        field = next((part for part in reversed(loc) if isinstance(part, str) and part in _REMEDIES), "")
        # Our own validators say how to fix it in the message itself.
        findings.error(locate(loc), message, "" if error["type"] == "value_error" else _REMEDIES.get(field, ""))


def _none_of(value: object, text: str) -> str:
    """A word that is not in a small vocabulary, with a guess at the one that was meant. None of these is a secret."""
    choices = re.findall(r"'([^']*)'", text)
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"{shape(value)} is not one of {', '.join(choices)}{hint}."


def _meant_secret(value: object) -> str:
    """A hint for ``{secrets: NAME}``."""
    key = next(iter(value), None) if isinstance(value, dict) and len(value) == 1 else None
    return did_you_mean(key, ["secret"]) if isinstance(key, str) and key != "secret" else ""


def _sentence(text: str) -> str:
    text = text.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return text[:1].upper() + text[1:].rstrip(".") + "."
