"""The pages of the site that are made from the code: every setting, every key of a contract, every command.

Usage: ``python -m scripts.reference settings|contract-keys|commands`` prints one;
`lay_out_site` puts them into the site.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from praxis_mcp.settings.base import Section
from praxis_mcp.settings.model import PREFIX, Settings

_REFERENCE = re.compile(r"``([^`]+)``|`([A-Za-z][\w.]*)`")
_INDENT = "    "


def settings_page() -> str:
    """Each section of the settings as a table: name, type, default, meaning."""
    lines = [
        "# Settings",
        "",
        "Every setting, as the code has it. [configs/server.yaml](../configs/server.yaml) has all of them in one file.",
        f"A variable sets one, too: `{PREFIX}CALLS__MAX_CONCURRENCY` is `calls.max_concurrency`.",
    ]
    places: dict[type[BaseModel], str] = {}
    _find_sections("", Settings, places)
    for model, path in places.items():
        lines += ["", f"## {path or 'At the top'}", "", _first(model), ""]
        lines += ["| setting | is | default | |", "|---|---|---|---|"]
        meanings = _attributes(model)
        for name, field in model.model_fields.items():
            kind = _type(field.annotation)
            if (inside := next(_models(field.annotation, many=False), None)) is not None and inside[0] in places:
                kind = f"[{kind}](#{_address(places[inside[0]])})"
            lines.append(_row(name, kind, _default(field), meanings.get(name, "")))
    return "\n".join(lines) + "\n"


def contract_page() -> str:
    """Each key of a contract: what it may be, its default, its meaning."""
    from praxis_mcp.contracts.schemas.format_schema import contract_format_schema

    schema = contract_format_schema()["else"]
    lines = [
        "# Keys of a contract",
        "",
        "Every key, as `praxis-mcp schema` has it. [contracts.md](contracts.md) explains them, with examples.",
        "",
        "| key | is | default | |",
        "|---|---|---|---|",
    ]
    for name, part in schema["properties"].items():
        default = f"`{part['default']}`" if "default" in part else ""
        lines.append(_row(name, _kinds(part), default, part.get("description", "")))
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """What `--help` says of every command."""
    from typer.main import get_command

    from praxis_mcp.cli.app import make_app

    root = get_command(make_app())
    lines = ["# Commands", "", _prose(" ".join((root.help or "").split()))]
    for words, command in _commands(root, ("praxis-mcp",)):
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        usage = " ".join((*words, *(_metavar(param) for param in arguments), "[OPTIONS]"))
        text = re.sub(r"^Example: (.+)$", r"Example: `\1`", inspect.cleandoc(command.help or ""), flags=re.MULTILINE)
        lines += ["", f"## {' '.join(words)}", "", "```text", usage, "```", "", text, ""]
        if shown := [param for param in command.params if not getattr(param, "hidden", False) and param.name != "help"]:
            lines += ["| | default | |", "|---|---|---|"]
            lines += [_row(_spelling(param), _of_option(param.default), param.help or "") for param in shown]
    return "\n".join(lines) + "\n"


def _find_sections(path: str, model: type[BaseModel], places: dict[type[BaseModel], str]) -> None:
    """Where each section stands: a section that stands in several places is described once."""
    places[model] = path
    for name, field in model.model_fields.items():
        for kind, many in _models(field.annotation, many=False):
            if kind not in places and issubclass(kind, Section):
                _find_sections(f"{path}.{name}".strip(".") + (".NAME" if many else ""), kind, places)


def _address(heading: str) -> str:
    """Of a heading, as Markdown makes it."""
    return re.sub(r"[^\w-]", "", heading.lower())


def _models(annotation: Any, *, many: bool) -> Iterator[tuple[type[BaseModel], bool]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation, many
    origin = get_origin(annotation)
    for part in get_args(annotation):
        yield from _models(part, many=many or (inspect.isclass(origin) and issubclass(origin, Mapping)))


def _first(model: type[BaseModel]) -> str:
    text, _, _ = (inspect.getdoc(model) or "").partition("Attributes:\n")
    return _prose(" ".join(text.split("\n\n")[0].split()))


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring says of each field."""
    found: dict[str, str] = {}
    text = inspect.getdoc(model) or ""
    _, _, after = text.partition("Attributes:\n")
    names: list[str] = []
    for line in after.splitlines():
        begun = re.match(rf"{_INDENT}([\w, ]+): (.*)", line)
        if begun is not None:
            names = [name.strip() for name in begun[1].split(",")]
            found |= dict.fromkeys(names, begun[2])
        elif line.startswith(_INDENT * 2) and names:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        elif line.strip():
            break
    return {name: _prose(text) for name, text in found.items()}


def _prose(text: str) -> str:
    """A docstring's markup as Markdown's, and YAML's words for Python's."""
    text = re.sub(r"(?:; )?see `[A-Z]\w+`\.?", "", text)  # a class: its section stands on the page
    text = re.sub(r"\bNone\b", "null", text)
    return _REFERENCE.sub(lambda found: f"`{found[1] or found[2]}`", text).strip()


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0])
    if annotation is type(None):
        return "null"
    if origin is not None and str(origin).endswith("Literal"):
        return " or ".join(f"`{json.dumps(part)}`".replace('"', "") for part in parts)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return "a section"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"map to {_type(parts[1])}"
    if origin in (tuple, list, frozenset):
        return f"list of {_type(parts[0])}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in parts))
    names = {str: "text", SecretStr: "text", int: "number", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True) if not field.default_factory_takes_validated_data else None
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    if isinstance(value, tuple | list | frozenset):
        value = [str(item) for item in value]
    if isinstance(value, Mapping):
        value = dict(value)
    text = json.dumps(value, default=str, ensure_ascii=False)
    return f"`{text}`"


def _kinds(part: Mapping[str, Any]) -> str:
    """What a piece of JSON Schema allows, in words."""
    if "enum" in part:
        return " or ".join(f"`{value}`" for value in part["enum"] if value is not None)
    kinds = part.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else [*kinds]
    for option in part.get("anyOf", []):
        kinds += [option["type"]] if isinstance(option.get("type"), str) else option.get("type", [])
    words = {"object": "a map", "array": "a list", "string": "text", "integer": "a number", "number": "a number"}
    words |= {"boolean": "true or false"}
    if {"string", "number", "boolean"} <= {*kinds}:  # as YAML may read a text that is not quoted
        kinds = [kind for kind in kinds if kind not in ("number", "boolean")]
    return " or ".join(dict.fromkeys(words[kind] for kind in kinds if kind != "null"))


def _commands(group: Any, before: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, (*before, name))
        else:
            yield (*before, name), command


def _metavar(param: Any) -> str:
    name = (param.metavar or param.name).upper().strip("[].")
    return (name if param.required else f"[{name}]") + ("..." if param.nargs != 1 else "")


def _spelling(param: Any) -> str:
    if param.param_type_name == "argument":
        return _metavar(param)
    value = "" if param.is_flag else f" {(param.metavar or param.name.replace('_', '-')).upper()}"
    return ", ".join((*param.opts, *param.secondary_opts)) + value


def _of_option(default: Any) -> str:
    return "" if default is None or default is False or default in ((), "") or callable(default) else f"`{default}`"


def _row(*cells: str) -> str:
    first, *rest = cells
    return f"| `{first}` | " + " | ".join(cell.replace("|", "\\|") for cell in rest) + " |"


PAGES: Mapping[str, Callable[[], str]] = {
    "settings": settings_page,
    "contract-keys": contract_page,
    "commands": commands_page,
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PAGES:
        sys.exit(f"usage: python -m scripts.reference {'|'.join(PAGES)}")
    sys.stdout.write(PAGES[sys.argv[1]]())
