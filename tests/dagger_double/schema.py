"""Dagger's API as the installed SDK has it: its generated client names every type, field and argument, with types and
defaults, so that queries can be checked on any machine that has dagger-io.

What a client does not tell is left out: descriptions, and whether a field that gives an object may give none.
"""

import ast
import functools
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLE = "PRAXIS_DAGGER_SCHEMA"
_DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "dagger" / "schema-v0.21.8.json"
_SCALARS = {"str": "String", "int": "Int", "float": "Float", "bool": "Boolean"}
_OBJECTS = ("Type", "Root", "Query")
_NO_DEFAULT = object()


def introspection_file() -> Path:
    """An introspection of a real engine, to compare with: where `PRAXIS_DAGGER_SCHEMA` says, else in `shared/` beside
    the checkout; it need not be there."""
    return Path(os.environ.get(VARIABLE) or _DEFAULT)


def load_introspection() -> Any:
    """The schema in that file."""
    from graphql import build_client_schema

    return build_client_schema(json.loads(introspection_file().read_text()))


def generated_client() -> Path | None:
    """The source of the SDK's generated client; None where the SDK is not installed."""
    found = importlib.util.find_spec("dagger")  # which imports nothing
    places = (found.submodule_search_locations or ()) if found is not None else ()
    return next((path for place in places if (path := Path(place, "client", "gen.py")).is_file()), None)


def load(text: str | None = None) -> Any:
    """The schema, ready to check queries by: of these definitions, or of the installed SDK's."""
    from graphql import build_schema

    return build_schema(text or definitions())


@functools.cache
def definitions() -> str:
    """The schema in GraphQL's own language."""
    source = generated_client()
    if source is None:
        raise RuntimeError("dagger-io is not installed: pip install 'dagger-io>=0.21'")
    classes = [node for node in ast.parse(source.read_text()).body if isinstance(node, ast.ClassDef)]
    client = _Client({name: node for node in classes if (name := _graphql_name(node))})
    return "\n".join(client.definitions())


def _graphql_name(node: ast.ClassDef) -> str | None:
    """What the API calls a class of the client; None for those that only Python has."""
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    if not bases & {*_OBJECTS, "Scalar", "Enum", "Input"} or node.name == "Client":
        return None
    return node.name.removeprefix("_").removesuffix("Client") if node.name.startswith("_") else node.name


class _Client:
    """The classes of the generated client, by the names that the API has for them."""

    def __init__(self, classes: dict[str, ast.ClassDef]) -> None:
        self._classes = classes

    def definitions(self) -> Iterator[str]:
        yield "scalar ID" if "ID" not in self._classes else ""
        for name, node in self._classes.items():
            kind = self._kind(name)
            if kind == "Scalar":
                yield f"scalar {name}" if name not in ("ID", *_SCALARS.values()) else ""
            elif kind == "Enum":
                values = [item.targets[0].id for item in node.body if _is_value(item)]  # type: ignore[union-attr]
                yield f"enum {name} {{ {' '.join(values)} }}"
            elif kind == "Input":
                fields = (item for item in node.body if isinstance(item, ast.AnnAssign))
                yield f"input {name} {{ {' '.join(map(self._input_field, fields))} }}"
            else:
                methods = (item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
                yield f"type {name} {{ {' '.join(filter(None, (self._field(name, item) for item in methods)))} }}"

    def _kind(self, name: str) -> str:
        bases = [base.id for base in self._classes[name].bases if isinstance(base, ast.Name)]
        return next((base for base in bases if base in ("Scalar", "Enum", "Input")), "Type")

    def _input_field(self, node: ast.AnnAssign) -> str:
        assert isinstance(node.target, ast.Name)
        default = _NO_DEFAULT if node.value is None else node.value
        return f"{_camel(node.target.id)}: {self._argument_type(node.annotation, default)}"

    def _field(self, owner: str, method: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
        """A field; nothing for a method that selects none (`with_`, `__await__`)."""
        selected = _call(method, "_select") or _call(method, "execute_sync")
        if selected is None:
            return ""
        name = next(item.value for item in selected.args if isinstance(item, ast.Constant))
        given = method.args
        annotations = {item.arg: item.annotation for item in (*given.args, *given.kwonlyargs)}
        arguments: list[str] = []
        for call in _calls(method, "Arg"):
            label, value, *rest = call.args
            parameter = next(item.id for item in ast.walk(value) if isinstance(item, ast.Name) and item.id != "self")
            default = rest[0] if rest else _NO_DEFAULT
            assert isinstance(label, ast.Constant)
            arguments.append(f"{label.value}: {self._argument_type(annotations[parameter], default)}")
        inside = f"({', '.join(arguments)})" if arguments else ""
        if name == "id" or _call(method, "execute_sync") is not None:
            return f"{name}{inside}: ID!"
        kind = self._type(method.returns, is_argument=False)
        return f"{name}{inside}: {kind.replace('Self', owner)}"

    def _argument_type(self, annotation: ast.expr | None, default: Any) -> str:
        kind = self._type(annotation, is_argument=True)
        if default is _NO_DEFAULT:
            return kind
        # Python wants to write `None` for what is left out, whether the API takes a null or not.
        value = _literal(default)
        return kind.removesuffix("!") + (f" = {value}" if value != "null" else "")

    def _type(self, annotation: ast.expr | None, *, is_argument: bool) -> str:
        """A type as GraphQL writes it."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        if isinstance(annotation, ast.BinOp):  # … | None
            return self._type(annotation.left, is_argument=is_argument).removesuffix("!")
        if isinstance(annotation, ast.Subscript):
            return f"[{self._type(annotation.slice, is_argument=is_argument)}]!"
        assert isinstance(annotation, ast.Name), ast.dump(annotation) if annotation else annotation
        name = _SCALARS.get(annotation.id, annotation.id)
        is_object = name not in _SCALARS.values() and (name not in self._classes or self._kind(name) == "Type")
        return "ID!" if is_argument and is_object else f"{name}!"


def _is_value(item: ast.stmt) -> bool:
    return isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name) and item.targets[0].id[0] != "_"


def _calls(node: ast.AST, name: str) -> Iterator[ast.Call]:
    for item in ast.walk(node):
        if isinstance(item, ast.Call):
            function = item.func
            if getattr(function, "id", getattr(function, "attr", None)) == name:
                yield item


def _call(node: ast.AST, name: str) -> ast.Call | None:
    return next(_calls(node, name), None)


def _literal(value: ast.expr) -> str:
    """A default as GraphQL writes it."""
    if isinstance(value, ast.Attribute):  # CacheSharingMode.SHARED
        return value.attr
    return json.dumps(ast.literal_eval(value))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
