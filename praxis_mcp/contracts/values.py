"""The small values that contracts are written in: sizes, networks, secrets and bindings."""

from __future__ import annotations

import operator
import re
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from praxis_mcp.contracts.problems import did_you_mean, quoted
from praxis_mcp.settings.base import TextOrSecret

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b?)\s*", re.IGNORECASE | re.ASCII)
_LARGEST_SIZE = 2**63 - 1
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}


def parse_size(value: object) -> int:
    """Bytes from a number of bytes or text such as ``512Mi``, ``512m``, ``1.5g``.

    Units are powers of 1024, as the Docker CLI reads them.

    Raises:
        ValueError: the text is not a size, not positive, or above 8 EiB.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError('write a number of bytes, or text such as "512Mi" or "2g"')
    match = _SIZE.fullmatch(str(value))
    if match is None:
        raise ValueError(f'{value!r} is not a size; write a number of bytes, or text such as "512Mi" or "2g"')
    size = float(match[1]) * _UNITS[match[2].lower()]
    if size > _LARGEST_SIZE:  # an infinity is not a whole number, and no engine can count further
        raise ValueError("a size is at most 8 EiB")
    if int(size) <= 0:
        raise ValueError("a size must be greater than zero")
    return int(size)


def refuse_boolean(value: object) -> object:
    """Refuse ``timeout: yes``: Python, and pydantic with it, counts true as 1.

    Raises:
        ValueError: the value is a boolean.
    """
    if isinstance(value, bool):
        raise ValueError(f"write a number, not {str(value).lower()}")
    return value


Real = Annotated[float, BeforeValidator(refuse_boolean)]
Whole = Annotated[int, BeforeValidator(refuse_boolean)]
ByteSize = Annotated[int, BeforeValidator(parse_size)]
"""A positive number of bytes; reads ``"512Mi"`` and the like."""


class Network(StrEnum):
    """What a tool can reach."""

    NONE = "none"
    """Nothing, loopback inside its own namespace aside."""
    BRIDGE = "bridge"
    """The outside, through the engine's own network."""
    HOST = "host"
    """Everything the host reaches; for containers the settings must allow it (`policy.host_network`)."""


NETWORK_WORDS = {
    "none": Network.NONE,
    "off": Network.NONE,
    "false": Network.NONE,
    "bridge": Network.BRIDGE,
    "default": Network.BRIDGE,
    "outbound": Network.BRIDGE,
    "full": Network.BRIDGE,
    "on": Network.BRIDGE,
    "true": Network.BRIDGE,
    "host": Network.HOST,
}


def parse_network(value: object) -> Network:
    """A `Network` from its name, an alias people write (`outbound`, `full`), or a YAML boolean."""
    word = str(value).strip().lower()
    if word not in NETWORK_WORDS:
        hint = did_you_mean(word, NETWORK_WORDS)
        raise ValueError(f'{value!r} is not a network{hint}; write "none", "bridge" or "host"')
    return NETWORK_WORDS[word]


def _plain_text(value: object) -> object:
    # YAML reads `PORT: 8080` and `DEBUG: true` as numbers and booleans; what the tool gets is text either way.
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return value


EnvValue = Annotated[TextOrSecret, BeforeValidator(_plain_text)]
"""Text, or ``{secret: NAME}``."""


def is_variable_name(value: object) -> bool:
    """Whether an environment can hold a variable of this name (environ(7)): what follows ``=`` would be its value."""
    return isinstance(value, str) and value != "" and "=" not in value and "\0" not in value


class BindKind(StrEnum):
    """The ways in which an argument's value reaches a tool."""

    ENV = "env"
    FLAG = "flag"
    POSITION = "position"
    STDIN = "stdin"
    FILE = "file"
    PATH = "path"
    QUERY = "query"
    HEADER = "header"
    BODY = "body"


HTTP_KINDS = frozenset({BindKind.PATH, BindKind.QUERY, BindKind.HEADER, BindKind.BODY})
"""Places in an HTTP request, for `engine: http`; the others are places of a command."""
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KINDS = tuple(kind.value for kind in BindKind)
_OPTIONS = ("repeat", "deep", "allow_dash")


class Binding(BaseModel):
    """How one parameter's value reaches the tool (compare CWL's ``inputBinding``).

    Written ``env``, ``stdin``, ``{env: NAME}``, ``{flag: --text}``, ``{position: 1}`` or ``{file: /work/in.txt}``; in a
    request ``query``, ``header``, ``body``, ``{path: id}``, ``{query: q}``, ``{header: X-Name}`` or ``{body: title}``.
    Whatever the kind, a value becomes exactly one word, one variable, one file or the standard input: never shell
    text.

    Attributes:
        kind: see `BindKind`.
        target: variable name (None: the parameter's own name and its upper case), flag, position (from 1), or the
            absolute path of the file inside the tool's file system; in a request the name there (None: the
            parameter's own; of a body, the whole of it).
        repeat: an array gives one word (or one flag and word, or one parameter of the query) for each item, instead of
            one word of JSON (in a query, of items with commas between).
        deep: in a query or a form, an object gives ``name[key]=value`` for each of its members, and an array
            ``name[]=value`` for each of its items, instead of JSON.
        allow_dash: lets a positional text begin with ``-``, which the tool may read as an option.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: BindKind = BindKind.ENV
    target: str | int | None = None
    repeat: bool = False
    # What is locked or approved has digests of this, which a key of a later version that is not used must not change.
    deep: bool = Field(default=False, exclude_if=operator.not_)
    allow_dash: bool = False

    @model_validator(mode="before")
    @classmethod
    def _read_short_forms(cls, data: Any) -> Any:
        if isinstance(data, str):
            if data not in ("env", "stdin", *HTTP_KINDS):
                raise ValueError(
                    f"{quoted(data)} is not a binding{did_you_mean(data, _KINDS)}; write env, stdin, {{env: NAME}}, "
                    "{flag: --name}, {position: 1} or {file: /path}, and in a request path, query, header or body"
                )
            return {"kind": data}
        if isinstance(data, dict) and data and "kind" not in data:
            unknown = [str(key) for key in data if key not in (*_KINDS, *_OPTIONS)]
            if unknown:
                raise ValueError(
                    f"{quoted(unknown[0])} is unknown in a binding{did_you_mean(unknown[0], (*_KINDS, *_OPTIONS))}; "
                    f"write one of {', '.join(_KINDS)}, and repeat, deep or allow_dash next to it"
                )
            kinds = [kind for kind in _KINDS if kind in data]
            if len(kinds) != 1:
                raise ValueError(f"a binding names exactly one of {', '.join(_KINDS)}")
            rest = {key: value for key, value in data.items() if key != kinds[0]}
            target = data[kinds[0]]
            return {"kind": kinds[0], "target": None if target is True else target, **rest}
        return data

    @model_validator(mode="after")
    def _check_target(self) -> Binding:
        if self.kind is BindKind.STDIN and self.target is not None:
            raise ValueError("stdin takes true; leave the binding out where the value is not standard input")
        if self.kind is BindKind.FLAG and not (isinstance(self.target, str) and self.target.startswith("-")):
            raise ValueError("a flag begins with a dash, such as --text (or --text= to join flag and value)")
        if self.kind is BindKind.POSITION and not (
            isinstance(self.target, int) and not isinstance(self.target, bool) and self.target >= 1
        ):
            raise ValueError("a position is a whole number from 1")
        if self.kind is BindKind.FILE and not (isinstance(self.target, str) and self.target.startswith("/")):
            raise ValueError("a file is an absolute path inside the tool's file system, such as /work/in.txt")
        if self.kind is BindKind.FILE and ".." in str(self.target).split("/"):
            raise ValueError("a file's path has no '..'")
        if self.kind is BindKind.FILE and str(self.target).endswith(("/", "/.")):
            raise ValueError("a file's path ends in its name")
        if self.kind is BindKind.ENV and self.target is not None and not is_variable_name(self.target):
            raise ValueError("an env binding names a variable: text without an equals sign")
        if self.kind in HTTP_KINDS and self.target is not None and not (isinstance(self.target, str) and self.target):
            raise ValueError("the place in a request is named by text")
        if self.kind is BindKind.HEADER and self.target is not None and not _HEADER_NAME.fullmatch(str(self.target)):
            raise ValueError(f"{quoted(str(self.target))} is not a header's name")
        if self.repeat and self.kind not in (BindKind.FLAG, BindKind.POSITION, BindKind.QUERY):
            raise ValueError("repeat goes with flag, position or query")
        if self.deep and (self.repeat or self.kind not in (BindKind.QUERY, BindKind.BODY) or self.is_whole_body):
            raise ValueError("deep goes with query, or a field of the body, and without repeat")
        return self

    @property
    def is_whole_body(self) -> bool:
        """Whether the value is the body of a request, not a part of it."""
        return self.kind is BindKind.BODY and self.target is None


CachePolicy = Literal["none", "pure"]
OutputKind = Literal["text", "json"]
ExecutionKind = Literal["call", "task", "optional"]
RetryPolicy = Literal["never", "safe"]


@lru_cache(maxsize=1024)
def compile_glob(glob: str) -> re.Pattern[str]:
    """A glob as a regular expression: ``*`` and ``?`` stay within one directory, ``**`` spans any number of them.

    Raises:
        ValueError: a range between brackets runs backwards.
    """
    pieces: list[str] = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])", glob):
        match part:
            case "**/":
                pieces.append("(?:[^/]+/)*")
            case "**":
                pieces.append(".*")
            case "*":
                pieces.append("[^/]*")
            case "?":
                pieces.append("[^/]")
            case _ if part.startswith("[") and part.endswith("]"):
                inside = part[1:-1].replace("\\", r"\\").replace("[", r"\[")
                pieces.append(f"[^/{inside[1:]}]" if inside.startswith("!") else f"[{inside}]")
            case _:
                pieces.append(re.escape(part))
    try:
        return re.compile("".join(pieces), re.DOTALL)
    except re.error as exc:
        raise ValueError(f'"{glob}" is not a valid pattern: {exc.msg}') from exc


def check_artifact_patterns(patterns: tuple[str, ...]) -> None:
    """Check that each pattern can be used, and that all lie in one directory.

    Raises:
        ValueError: they do not.
    """
    for pattern in patterns:
        if not pattern.startswith("/") or ".." in pattern.split("/"):
            raise ValueError(f'"{pattern}" is not an artifact pattern; write an absolute one, such as /out/*.png')
        compile_glob(pattern)
    root = artifact_directory(patterns)
    if root == "/":
        raise ValueError("artifacts need a directory of their own, such as /out/*.png")
    for pattern in patterns:
        if root is not None and not _fixed_part(pattern).startswith(root + "/"):
            raise ValueError(
                f"artifacts lie in one directory, but {quoted(pattern)} is not below {root}; put all of them "
                f"below one, as {root}/*.png, {root}/sub/*.txt and {root}/** are"
            )


def artifact_directory(patterns: tuple[str, ...]) -> str | None:
    """The directory that is fresh and writable in every call: the one before the first wildcard of the patterns, which
    holds those of the others: ``/out/*.png`` and ``/out/sub/**/*.txt`` give ``/out``. None without patterns."""
    return min((_fixed_part(pattern).rpartition("/")[0] or "/" for pattern in patterns), key=len, default=None)


def _fixed_part(pattern: str) -> str:
    """The directories before the first wildcard of a pattern, and a slash."""
    parts = pattern.split("/")[1:]
    fixed: list[str] = []
    for part in parts[:-1]:
        if any(character in part for character in "*?["):
            break
        fixed.append(part)
    return "".join(f"/{part}" for part in fixed) + "/"
