"""Arguments → words, variables, standard input and files. Never shell text.

What the kernel cannot carry is refused here, with the parameter's name and how to fix it: NUL bytes (execve(2) ends
words and variables at them), single words or variables over 128 KiB (``MAX_ARG_STRLEN``, execve(2)), all of them
together over about 1.5 MiB (below Linux's ``ARG_MAX`` of a quarter of the 8 MiB default stack).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from praxis_mcp.contracts.model import ToolContract, ToolParameter
from praxis_mcp.contracts.specs import CommandSpec, EngineSpec
from praxis_mcp.contracts.values import Binding, BindKind
from praxis_mcp.contracts.variables import variable_names
from praxis_mcp.errors import ArgumentError
from praxis_mcp.plans.model import CallFile
from praxis_mcp.settings.base import SecretRef

MAX_WORD = 128 * 1024 - 1
"""Bytes of one word, or of one ``NAME=value`` (Linux, MAX_ARG_STRLEN less its NUL)."""
MAX_TOTAL = 1536 * 1024
"""Bytes of all words and variables together."""


@dataclass(slots=True)
class Bound:
    """What a call's arguments have become."""

    flags: tuple[str, ...] = ()
    operands: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    stdin: bytes | None = None
    files: tuple[CallFile, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Flags, then operands."""
        return (*self.flags, *self.operands)


def bind_arguments(contract: ToolContract, arguments: Mapping[str, Any]) -> Bound:
    """Turn validated arguments, defaults applied, into what the command gets.

    Raises:
        ArgumentError: a value cannot be carried; every such value is named, and how to fix it.
    """
    bound = Bound()
    positions: list[tuple[int, list[str]]] = []
    flags: list[str] = []
    problems: list[str] = []
    for parameter in contract.parameters:
        value = arguments.get(parameter.name)
        if value is None:
            continue
        try:
            _bind(contract, parameter, value, bound, flags, positions)
        except ValueError as exc:
            problems.append(f'"{parameter.name}" {exc}')
    bound.flags = tuple(flags)
    bound.operands = tuple(word for _, words in sorted(positions, key=lambda item: item[0]) for word in words)
    if not problems and _size(bound) > MAX_TOTAL:
        problems.append(f"all arguments together exceed {MAX_TOTAL // 1024} KiB; bind the large ones to stdin or file")
    if problems:
        raise ArgumentError(f"{contract.name} cannot take these arguments: {'; '.join(problems)}.", problems=problems)
    return bound


def _bind(
    contract: ToolContract,
    parameter: ToolParameter,
    value: Any,
    bound: Bound,
    flags: list[str],
    positions: list[tuple[int, list[str]]],
) -> None:
    bind = parameter.bind
    match bind.kind:
        case BindKind.STDIN:
            bound.stdin = _content(parameter, value)
        case BindKind.FILE:
            bound.files = (*bound.files, CallFile(str(bind.target), _content(parameter, value)))
        case BindKind.ENV:
            text = _word(value)
            names = variable_names(parameter)
            if not names:
                raise ValueError("is bound to a variable that no argument may set; bind it to another one")
            fixed: Mapping[str, object] = getattr(contract.engine_spec, "env", {})
            if any(isinstance(fixed.get(name), SecretRef) for name in names):
                raise ValueError("is bound to a variable that holds a secret; bind it to another one")
            for name in names:
                bound.env[name] = _checked(text, extra=len(name.encode()) + 1)
        case BindKind.FLAG:
            flags.extend(_flag_words(str(bind.target), bind, value))
        case BindKind.POSITION:
            words = [_checked(_word(item)) for item in _items(bind, value)]
            if not bind.allow_dash and not ends_options(contract.engine_spec):
                _refuse_options(words)
            positions.append((int(bind.target or 0), words))


def _flag_words(flag: str, bind: Binding, value: Any) -> Iterable[str]:
    if isinstance(value, bool) and not flag.endswith("="):
        return [flag] if value else []
    words: list[str] = []
    for item in _items(bind, value):
        text = _word(item)
        # `--text=` keeps flag and value in one word, so that a value that begins with a dash stays a value.
        words += [_checked(flag + text)] if flag.endswith("=") else [flag, _checked(text)]
    return words


def _items(bind: Binding, value: Any) -> list[Any]:
    return list(value) if bind.repeat and isinstance(value, list) else [value]


def _refuse_options(words: list[str]) -> None:
    # A tool may read `-o file` out of a positional value, and `-1` as an option as well: not a shell's injection, but
    # one all the same.
    if any(word.startswith("-") and word != "-" for word in words):
        raise ValueError(
            "begins with a dash and could be read as an option; the contract's author can allow it by "
            '"--" at the end of the command or by allow_dash: true in the binding'
        )


def ends_options(spec: EngineSpec) -> bool:
    """Whether the command's own last word ends its options (POSIX utility syntax, guideline 10), so that no operand
    after it is taken for one. Elsewhere in a command, or in a shell's text, the word may mean anything."""
    return isinstance(spec, CommandSpec) and spec.command[-1] == "--" and not getattr(spec, "shell", False)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _checked(text: str, extra: int = 0) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no word or variable can carry; bind it to stdin or file")
    size = len(_encoded(text)) + extra
    if size > MAX_WORD:
        raise ValueError(
            f"has {size} bytes, more than the {MAX_WORD} that one word or variable can carry; bind it to stdin or file"
        )
    return text


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise ValueError(
            f"is not valid Unicode (a lone surrogate at character {exc.start}); send such bytes as base64 with "
            "contentEncoding: base64 in the parameter"
        ) from exc


def _content(parameter: ToolParameter, value: Any) -> bytes:
    text = _word(value)
    if parameter.keywords.get("contentEncoding") == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise ValueError("is not valid base64") from exc
    return _encoded(text)


def _size(bound: Bound) -> int:
    words = sum(len(word.encode()) + 9 for word in bound.words)  # 8 bytes of pointer and a NUL each
    return words + sum(len(name.encode()) + len(value.encode()) + 10 for name, value in bound.env.items())
