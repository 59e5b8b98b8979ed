"""The three spellings of a contract → the fields of one `ToolContract`.

- **Ours** is flat: the fields of the engine's specification stand next to ``name`` and ``parameters``. Unknown keys
  are errors.
- **The older two** keep the specification under ``engineSpec`` or ``engine_spec``, and the parameters under ``params``
  or ``parameters``. Unknown keys are warnings, those aside that
  look like a limit. What a contract leaves open there means what it meant when it was
  written, for plain Docker: the network is there, the root file system and mounts can be written, capabilities are
  kept.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from praxis_mcp.contracts.model import (
    SPEC_TYPES,
    Annotations,
    EngineType,
    Example,
    ToolContract,
    engine_names,
    spec_type,
)
from praxis_mcp.contracts.problems import as_question, quoted, shape
from praxis_mcp.contracts.reading.findings import Findings, validate_fields
from praxis_mcp.contracts.reading.parameters import Parameters, map_schema, read_parameters
from praxis_mcp.contracts.specs import AnyEngineSpec
from praxis_mcp.diagnostics import Keys

OLDER_SPEC_KEYS = ("engineSpec", "engine_spec")
SPEC_KEYS = {name: None for spec in SPEC_TYPES.values() for name in spec.model_fields}
_OWN = tuple(engine.value for engine in EngineType)
CONTRACT_KEYS = tuple(
    name for name in ToolContract.model_fields if name not in ("engine_spec", "input_keywords", "source", "is_older")
)
_M = TypeVar("_M", bound=BaseModel)
_TEXT_KEYS = ("name", "title", "description", "version", "language")
_EXAMPLE_KEYS = {name: name for name in Example.model_fields}
_OLDER_EXAMPLE_KEYS = {
    "parameters": "arguments",
    "params": "arguments",
    "expected_output": "expect",
    "expected_output_contains": "expect_contains",
}
_OLDER_DEFAULTS: dict[str, Any] = {"network": "bridge", "read_only": False, "drop_capabilities": False}
_LIMITING = re.compile(
    r"memory|mem$|^mem_|cpu|pids|processes|time_?out|time_?limit|deadline|limit|resource|quota|network|readonly|read_only"
    r"|capabilit|cap_drop|security|seccomp|isolat|sandbox|privilege",
    re.IGNORECASE,
)
"""Keys by which an author means to keep a tool within bounds. Whatever the spelling, they are obeyed or refused."""
_RESOURCE_LIMITS = "resource_limits"
"""``cpu`` and ``memory`` in one mapping, as the older SDK has them in a specification."""
_MEANT_FIELDS = (
    (r"^working_dir$", ("cwd",)),
    (r"^cwd$", ("working_dir",)),
    (r"^url$", ("address",)),
    (r"mem", ("memory_limit",)),
    (r"cpu", ("cpu_limit",)),
    (r"pid|process", ("pids_limit",)),
    (r"time|deadline", ("timeout",)),
    (r"network", ("network",)),
    (r"read_?only", ("read_only",)),
    (r"capabilit|cap_drop", ("drop_capabilities",)),
    (r"privilege", ("privileged",)),
    (r"resource|quota|^limits?$", ("memory_limit", "cpu_limit", "pids_limit")),
)
"""What an unknown key holds → the fields of a specification that say it."""


@dataclass(slots=True)
class Reading:
    """What a document says, as far as it could be understood.

    Attributes:
        fields: of `ToolContract`, without those below.
        engine: None where it is unknown.
        spec: the engine's specification; None where it is wrong.
        parameters: see `Parameters`.
        spec_place: the keys under which the specification stands; none in our own spelling.
        example_places: where each of the examples in `fields` stands.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    engine: EngineType | None = None
    spec: AnyEngineSpec | None = None
    parameters: Parameters = field(default_factory=Parameters)
    spec_place: Keys = ()
    example_places: list[Keys] = field(default_factory=list)


def is_older(data: Any) -> bool:
    """Whether a document is in one of the two older spellings."""
    return isinstance(data, Mapping) and any(key in data for key in (*OLDER_SPEC_KEYS, "params"))


def read_contract(data: Mapping[str, Any], findings: Findings) -> Reading:
    """Understand a document; everything wrong goes to `findings`."""
    reading = Reading()
    older = findings.lenient
    spec_keys = [key for key in OLDER_SPEC_KEYS if key in data]
    parameter_keys = [key for key in ("params", "parameters") if key in data]
    for keys in (spec_keys, parameter_keys):
        if len(keys) > 1:
            findings.error((keys[1],), f"{keys[0]} and {keys[1]} mean the same.", "Remove one of them.")
    parameter_key = parameter_keys[0] if parameter_keys else "parameters"
    reading.parameters = read_parameters(data.get(parameter_key), (parameter_key,), findings)

    spec: dict[str, Any] | None = None
    if older:
        reading.spec_place = (spec_keys[0],) if spec_keys else ("engineSpec",)
        written = data.get(reading.spec_place[0])
        if isinstance(written, Mapping):
            spec = dict(written)
        elif reading.spec_place[0] not in data:
            findings.error(reading.spec_place, *_without_specification(data.get("engine")))
        else:
            findings.error(
                reading.spec_place, "The engine's specification is a mapping.", "Write image, command and the like."
            )
    else:
        spec = {key: value for key, value in data.items() if key in SPEC_KEYS}
    reading.engine = _engine(data.get("engine"), spec or {}, findings)
    if reading.engine is not None and spec is not None:
        reading.spec = _spec(reading.engine, spec, reading.spec_place, findings)
    _root_fields(
        data, findings, reading, ignore={*spec_keys, *parameter_keys, *(() if older else spec or ()), "engine"}
    )
    return reading


def _without_specification(engine: Any) -> tuple[str, str]:
    if engine == EngineType.LOCAL.value:
        return (
            "The command is missing: in the older SDK such a tool was part of the agent itself.",
            "Write engineSpec: {command: [PROGRAM, ...]}, or use a server that has such tools as an upstream.",
        )
    return "The engine's specification is missing.", "Write engineSpec: with image, command and the like."


def _engine(value: Any, spec: Mapping[str, Any], findings: Findings) -> EngineType | None:
    if value is None:
        if "image" in spec or "build" in spec:
            return EngineType.DAGGER
        hint = ""
        if "address" in spec:
            hint = "Write engine: remote-mcp."
        elif "url" in spec:
            hint = "Write engine: http."
        elif "command" in spec:
            hint = "Write image: NAME for a command in a container, or engine: local for one on the host itself."
        findings.error(("engine",), "No engine is named.", hint or f"Write engine: with one of {', '.join(_OWN)}.")
        return None
    names = engine_names() if value is not None and value not in _OWN else _OWN
    if value in names:
        return EngineType(value)
    hint = findings.hint(value, names) if isinstance(value, str) else ""
    findings.error(("engine",), f"{shape(value)} is not an engine{hint}.", f"Write one of {', '.join(names)}.")
    return None


def _spec(engine: EngineType, spec: dict[str, Any], place: Keys, findings: Findings) -> AnyEngineSpec | None:
    expected = spec_type(engine, has_image="image" in spec or "build" in spec)
    known = expected.model_fields
    fields: dict[str, Any] = {}
    for key, value in spec.items():
        where = (*place, key)
        # The older SDK had one word for it, whatever the engine.
        if findings.lenient and key == "working_dir" and "cwd" in known and "cwd" not in spec:
            key = "cwd"
        if findings.lenient and key == _RESOURCE_LIMITS and "memory_limit" in known and isinstance(value, Mapping):
            _resource_limits(value, where, spec, fields, findings)
        elif key in known:
            # What stands there as null is left open; nulls that mean something do not occur in specifications.
            if value is not None:
                fields[key] = _plain_texts(value, where, findings) if key in ("env", "headers", "query") else value
        elif key in SPEC_KEYS:
            _unknown(key, where, f'The engine {engine.value} has no "{key}".', _instead(key, known), findings)
        elif not key.startswith("x-"):
            _unknown(key, where, f'"{key}" is unknown{findings.hint(key, known)}.', _instead(key, known), findings)
    if findings.lenient:
        fields = {**{key: value for key, value in _OLDER_DEFAULTS.items() if key in known}, **fields}
    mounts = fields.get("mounts")
    _check_mounts(mounts, (*place, "mounts"), findings)
    if findings.lenient and isinstance(mounts, Mapping):
        fields["mounts"] = {source: _writable(source, target) for source, target in mounts.items()}
    return validate_fields(expected, fields, findings, place)


def _resource_limits(
    value: Mapping[str, Any], where: Keys, spec: Mapping[str, Any], fields: dict[str, Any], findings: Findings
) -> None:
    """``cpu: 2000m`` and ``memory: 1Gi``, as agents' configuration files have them."""
    for name, item in value.items():
        key = {"cpu": "cpu_limit", "memory": "memory_limit"}.get(name)
        if key is None:
            findings.error((*where, name), f'There is no limit for "{name}".', "Remove it, or write cpu or memory.")
        elif key in spec:
            findings.error((*where, name), f"{name} and {key} mean the same.", "Remove one of them.")
        elif name == "cpu" and isinstance(item, str):
            match = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", item)
            if match is None:
                findings.error((*where, name), f"{shape(item)} is not a number of cores.", "Write 0.5 or 500m.")
            else:
                fields[key] = float(match[1]) / (1000 if match[2] else 1)
        else:
            fields[key] = item


def _unknown(key: str, where: Keys, message: str, remedy: str, findings: Findings) -> None:
    if _LIMITING.search(key):
        findings.error(where, message, remedy)
    else:
        findings.unknown(where, message, remedy)


def _instead(key: str, known: Container[str], otherwise: str = "Remove it.", place: str = "") -> str:
    """The remedy that names the fields which say what an unknown key says. `place`: where those stand."""
    for pattern, fields in _MEANT_FIELDS:
        usable = [f'"{name}"' for name in fields if name in known]
        if usable and re.search(pattern, key, re.IGNORECASE):
            *others, last = usable
            return f"Write {', '.join(others)}{' or ' if others else ''}{last}{place}."
    return otherwise


def _plain_texts(value: Any, keys: Keys, findings: Findings) -> Any:
    """Variables and headers as they were written: ``PORT: 0x1F`` and ``DEBUG: yes`` are text."""
    if not isinstance(value, Mapping):
        return value
    written = findings.document.written
    return {
        name: written.get((*keys, name), item) if isinstance(item, bool | int | float) else item
        for name, item in value.items()
    }


def _check_mounts(mounts: Any, keys: Keys, findings: Findings) -> None:
    if not isinstance(mounts, Mapping):
        return
    for source, target in mounts.items():
        if not isinstance(target, str):
            continue  # pydantic says so
        path, _, option = target.partition(":")
        if not path.startswith("/") or path.rstrip("/") == "" or ".." in path.split("/"):
            findings.error(
                (*keys, source),
                f"{shape(path)} is not a place for a mount.",
                f'Write an absolute path other than /, such as "{source}": /data.',
            )
        elif option not in ("", "ro", "rw"):
            findings.error((*keys, source), f"A mount has no option {quoted(option)}.", "Write :rw, :ro or nothing.")


def _writable(source: Any, target: Any) -> Any:
    """A mount as the older SDK had it, which exported every mounted directory after a call. It had no placeholder:
    anyone who writes one writes for today, where a mount is read-only unless it says otherwise."""
    is_plain = isinstance(target, str) and ":" not in target and "{contract_dir}" not in str(source)
    return f"{target}:rw" if is_plain else target


def _root_fields(data: Mapping[str, Any], findings: Findings, reading: Reading, ignore: set[str]) -> None:
    for key, value in data.items():
        if key in ignore:
            continue
        if key not in CONTRACT_KEYS:
            _unknown_key(key, findings, reading)
        elif value is None:
            continue
        elif key in _TEXT_KEYS:
            reading.fields[key] = findings.text(value, (key,))
        elif key == "tags" and isinstance(value, list):
            reading.fields[key] = [findings.text(item, (key, index)) for index, item in enumerate(value)]
        elif key == "examples":
            reading.fields[key] = _examples(value, findings, reading)
        elif key == "annotations":
            known = {name: name for name in Annotations.model_fields}
            reading.fields[key] = _model(Annotations, value, (key,), findings, known) or Annotations()
        elif key == "output_schema":
            reading.fields[key] = map_schema(value, (key,), findings)
        else:
            reading.fields[key] = value


def _unknown_key(key: str, findings: Findings, reading: Reading) -> None:
    if key.startswith("x-"):
        return  # a place for anchors, as Compose has it
    place = reading.spec_place[0] if findings.lenient else None
    fields = SPEC_KEYS if reading.engine is None else spec_type(reading.engine, has_image=True).model_fields
    if place is not None and key == _RESOURCE_LIMITS and "memory_limit" in fields:
        findings.error(
            (key,),
            f'"{key}" is next to {place}, where it means nothing.',
            f'Move it into {place}, where the older SDK has it, or write "memory_limit" and "cpu_limit" there.',
        )
        return
    if place is not None and key in SPEC_KEYS:
        if _LIMITING.search(key):
            findings.error((key,), f'"{key}" is next to {place}, where it means nothing.', f"Move it into {place}.")
        else:
            findings.warning((key,), f'"{key}" is next to {place}, and is ignored there.', f"Move it into {place}.")
        return
    known = CONTRACT_KEYS if place is not None else (*CONTRACT_KEYS, *SPEC_KEYS)
    remedy = _instead(key, fields, "Fix or remove it.", f" in {place}" if place is not None else "")
    meant = findings.guess(key, known)
    if meant and place is None and meant not in findings.document.data:
        findings.misspelled.add(meant)
        if meant in ("image", "build"):  # by which the engine needs no name
            findings.misspelled.add("engine")
    _unknown(key, (key,), f'"{key}" is unknown{as_question(meant)}.', remedy, findings)


def _examples(value: Any, findings: Findings, reading: Reading) -> list[Example]:
    if not isinstance(value, list):
        findings.error(("examples",), "Examples are a list.", "Write - arguments: {…} for each.")
        return []
    names = _EXAMPLE_KEYS | (_OLDER_EXAMPLE_KEYS if findings.lenient else {})
    examples: list[Example] = []
    for index, item in enumerate(value):
        where: Keys = ("examples", index)
        example = _model(Example, item, where, findings, names)
        if example is not None:
            examples.append(example)
            reading.example_places.append(where)
    return examples


def _model(model: type[_M], value: Any, keys: Keys, findings: Findings, names: Mapping[str, str]) -> _M | None:
    """A part of the contract that has keys of its own. `names`: each key that may be written → the field it means."""
    if not isinstance(value, Mapping):
        findings.error(keys, f"This must be a mapping, not {shape(value)}.")
        return None
    fields: dict[str, Any] = {}
    written_as: dict[str, str] = {}
    for key, item in value.items():
        where = (*keys, key)
        if key not in names:
            findings.unknown(where, f'"{key}" is unknown here{findings.hint(key, names)}.', "Fix or remove it.")
            continue
        name = names[key]
        if name in written_as:
            findings.error(where, f"{written_as[name]} and {key} mean the same.", "Remove one of them.")
            continue
        written_as[name] = key
        if name in ("name", "expect") and item is not None:
            fields[name] = findings.text(item, where)
        elif name == "expect_contains":
            pieces = item if isinstance(item, list) else [item]
            fields[name] = [findings.text(piece, where) for piece in pieces]
        elif item is not None or name == "expect_json":
            fields[name] = item
    return validate_fields(model, fields, findings, keys, written_as)
