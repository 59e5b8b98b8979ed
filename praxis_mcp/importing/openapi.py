"""A description of an API in OpenAPI 2.0, 3.0 or 3.1 → one contract of `engine: http` for each operation.

References are followed within the document only: nothing is fetched. A schema that refers to itself keeps its shape to
a bounded depth, and is open beyond. Everything that grows is bounded, because a description may come from anyone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from praxis_mcp.contracts.reading.http_checks import RESERVED_HEADERS
from praxis_mcp.errors import ArgumentError
from praxis_mcp.importing.authentication import add_authentication
from praxis_mcp.importing.docker_run import ImportedTool
from praxis_mcp.importing.foreign import as_list, as_mapping
from praxis_mcp.importing.schemas import Schemas
from praxis_mcp.importing.swagger2 import operation_of, with_servers
from praxis_mcp.plans.public_hosts import says_it_is_private, setting_for

MOST_OPERATIONS = 2000
MOST_PARAMETERS = 300
"""Of one operation: a description can refer to the same ones from each."""
_LONGEST_TOOL_DESCRIPTION = 1000
_LONGEST_TOOL_NAME = 64
_PLACE = re.compile(r"\{([^{}]*)\}")
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_HAS_BODY = ("post", "put", "patch", "delete")
_CHANGES_NOTHING = ("get", "head", "options")
_PAGES = frozenset({
    "page", "per_page", "page_size", "pagesize", "pagetoken", "page_token", "cursor", "offset", "limit", "after",
    "before", "starting_after", "ending_before", "next_token", "nexttoken", "continuation_token",
})  # fmt: skip


@dataclass(slots=True)
class ImportedOperations:
    """What became of a description.

    Attributes:
        tools: one for each operation.
        notes: what concerns all of them, or operations that were left out.
    """

    tools: list[ImportedTool] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _LeftOutError(ValueError):
    """An operation that no contract can be made of; the message ends a sentence."""


def import_operations(
    document: Any, *, tags: tuple[str, ...] = (), operations: tuple[str, ...] = (), url: str | None = None
) -> ImportedOperations:
    """The operations of a description as contracts.

    Args:
        document: as it was read.
        tags: only operations with one of these.
        operations: only those with one of these ids, or ``GET /path``.
        url: of the server, in place of that in the description.

    Raises:
        ArgumentError: it is not a description of a known version, names no server, or has no such operations.
    """
    if not isinstance(document, Mapping) or not ({"openapi", "swagger"} & document.keys()):
        raise ArgumentError(
            "This is not an OpenAPI description.", remedy='Give a file that says openapi: 3.… or swagger: "2.0".'
        )
    version = str(document.get("openapi") or document.get("swagger"))
    is_older = re.match(r"2\.0$", version) is not None
    if not is_older and not re.match(r"3\.[012](\.|$)", version):
        raise ArgumentError(
            f"The description is of OpenAPI {version[:20]}, and 2.0, 3.0, 3.1 and 3.2 are understood.",
            remedy="Ask those who wrote it for one of these versions.",
        )
    result = ImportedOperations()
    schemas = Schemas(document)
    reader = _Reader(with_servers(document) if is_older else document, schemas, url)
    found = 0
    names: set[str] = set()
    has_any = False
    for path, method, item, operation in _operations(document, schemas):
        has_any = True
        label = f"{method.upper()} {path}"
        if tags and not set(tags) & {str(tag) for tag in as_list(operation.get("tags"))}:
            continue
        if operations and not {str(operation.get("operationId")), label} & set(operations):
            continue
        found += 1
        if found > MOST_OPERATIONS:
            raise ArgumentError(f"It has more than {MOST_OPERATIONS} operations.", remedy="Choose by --tag.")
        if is_older:
            operation, item = operation_of(document, schemas, item, operation, MOST_PARAMETERS + 1), {}
        try:
            tool = reader.tool(path, method, item, operation, names)
        except _LeftOutError as exc:
            result.notes.append(f"{label} is left out: {exc}.")
            continue
        names.add(tool.name.lower())
        result.tools.append(tool)
    if not has_any:
        raise ArgumentError("The description has no operations.", remedy="Give the file that has its paths.")
    if not found:
        raise ArgumentError("The description has no such operations.", remedy="Look at its tags and operationIds.")
    hosts = {urlsplit(str(tool.contract["url"])).hostname or "": None for tool in result.tools}
    for host in filter(says_it_is_private, hosts):
        result.notes.append(
            f"{host} is not on the public internet: tools reach it where the settings (praxis.yaml) say "
            f"{setting_for(host)}, and praxis-mcp trust has approved them."
        )
    if any(not example.get("run", True) for tool in result.tools for example in tool.contract["examples"]):
        result.notes.append(
            "Examples of what is not a GET say run: false, so that praxis-mcp test and dev do not send them: remove "
            "that where it does no harm."
        )
    return result


def _operations(document: Mapping[str, Any], schemas: Schemas) -> Iterator[tuple[str, str, Mapping[str, Any], Any]]:
    for path, item in as_mapping(document.get("paths")).items():
        item = as_mapping(schemas.followed(item))
        for method in _METHODS:
            if isinstance(item.get(method), Mapping):
                yield str(path), method, item, as_mapping(schemas.followed(item[method]))


class _Reader:
    def __init__(self, document: Mapping[str, Any], schemas: Schemas, url: str | None) -> None:
        self._document = document
        self.schemas = schemas
        self._url = url

    def tool(
        self, path: str, method: str, item: Mapping[str, Any], operation: Mapping[str, Any], taken: set[str]
    ) -> ImportedTool:
        if not path.startswith("/"):  # it would go on with the host's name, and lead to another one
            raise _LeftOutError("its path does not begin with /")
        tool = ImportedTool(_name(operation, method, path, taken), {})
        text = operation.get("description") or operation.get("summary") or item.get("summary")
        title, description = operation.get("summary"), _shown(text)
        contract = tool.contract
        contract["name"] = tool.name
        if isinstance(title, str) and title != text:
            contract["title"] = _shown(title, 100)
        contract["description"] = description or f"{method.upper()} {path}"
        if operation.get("deprecated") is True:
            tool.notes.append("The API calls this operation deprecated.")
        contract |= {"engine": "http", "method": method.upper()}
        parameters: dict[str, dict[str, Any]] = {}
        segments = self._parameters(tool, path, item, operation, parameters)
        for there in _PLACE.findall(path):
            if there not in segments:
                tool.notes.append(
                    f"The description does not declare {{{there[:64]}}} of its path: it is taken for text."
                )
                segments[there] = name = _parameter_name(there, parameters)
                parameters[name] = {"type": "string"}
        contract["url"] = self._base(operation, item) + _with_places(path, segments)
        if method in _HAS_BODY:
            self._body(tool, operation, parameters)
        requirements = operation.get("security", self._document.get("security"))
        schemes = as_mapping(as_mapping(self._document.get("components")).get("securitySchemes"))
        add_authentication(tool, requirements, schemes, parameters, self.schemas)
        if self._answers_json(operation):
            contract["output"] = "json"
        contract["annotations"] = {
            "read_only": method in _CHANGES_NOTHING,
            **({"destructive": True} if method == "delete" else {}),
            "open_world": True,
        }
        if parameters:
            contract["parameters"] = parameters
        arguments = {
            name: self.schemas.example(parameter)
            for name, parameter in parameters.items()
            if parameter.get("required", True) and "default" not in parameter
        }
        not_sent = {} if method in _CHANGES_NOTHING else {"run": False}  # examples are tests otherwise
        contract["examples"] = [{"name": "to be filled in", "arguments": arguments, **not_sent}]
        return tool

    def _base(self, operation: Mapping[str, Any], item: Mapping[str, Any]) -> str:
        base = self._url
        if base is None:
            servers = next(
                (found for part in (operation, item, self._document) if (found := as_list(part.get("servers")))), []
            )
            server = as_mapping(servers[0]) if servers else {}
            base = str(server.get("url") or "")
            for name, variable in as_mapping(server.get("variables")).items():
                base = base.replace(f"{{{name}}}", str(as_mapping(variable).get("default", "")))
        if not re.fullmatch(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[^{}?#]*)?", base):
            raise ArgumentError("The description names no server by a whole URL.", remedy="Name it: --server https://…")
        return base.rstrip("/")

    def _parameters(
        self,
        tool: ImportedTool,
        path: str,
        item: Mapping[str, Any],
        operation: Mapping[str, Any],
        parameters: dict[str, dict[str, Any]],
    ) -> dict[str, str]:
        """Adds those that an operation declares; the names of those in the path, by the names there."""
        declared: dict[tuple[str, str], Mapping[str, Any]] = {}
        listed = (*as_list(item.get("parameters")), *as_list(operation.get("parameters")))
        if len(listed) > MOST_PARAMETERS:
            raise _LeftOutError(f"it has more than {MOST_PARAMETERS} parameters")
        for part in listed:
            found = as_mapping(self.schemas.followed(part))
            declared[str(found.get("name")), str(found.get("in"))] = found
        segments: dict[str, str] = {}
        for (there, place), found in declared.items():
            is_required = found.get("required") is True or place == "path"
            if place == "cookie" or (place == "header" and there.lower() in RESERVED_HEADERS | _SET_ANYWAY):
                if is_required and place == "cookie":
                    raise _LeftOutError(f"it needs the cookie {there[:64]}")
                if there.lower() not in _SET_ANYWAY:
                    tool.notes.append(f"The {place} {there[:64]} is not carried over.")
                continue
            if place not in ("path", "query", "header") or (place == "path" and there not in _PLACE.findall(path)):
                continue
            schema = found.get("schema")
            if schema is None:  # in a media type
                schema = next(
                    (as_mapping(part).get("schema") for part in as_mapping(found.get("content")).values()), {}
                )
            parameter = self._parameter(schema, found.get("description"), is_required=is_required)
            name = _parameter_name(there, parameters)
            if place == "path":
                segments[there] = name
            else:
                bind: dict[str, Any] = {place: there}
                parameter["bind"] = bind
                style = str(found.get("style", "form"))
                if place == "query" and style == "deepObject":
                    bind["deep"] = True
                elif place == "query" and _is(parameter, "array") and style == "form":
                    if found.get("explode") is not False:
                        bind["repeat"] = True
                elif style not in ("form", "simple"):
                    tool.notes.append(f"{name} is sent with commas: the style {style[:32]} has no counterpart.")
                elif _is(parameter, "object"):
                    tool.notes.append(f"{name} is sent as JSON, since its members would be parameters of their own.")
            if there.lower() in _PAGES:
                tool.notes.append(f"Answers come in pages: {name} chooses one.")
            parameters[name] = parameter
        return segments

    def _parameter(self, schema: Any, description: Any, *, is_required: bool) -> dict[str, Any]:
        found = self.schemas.converted(schema)
        parameter: dict[str, Any] = {**found, "type": found["type"]} if "type" in found else {"type": "any", **found}
        if text := _shown(description or found.get("description")):
            parameter["description"] = text
        if not is_required:
            parameter["required"] = False
        elif "default" in parameter:
            parameter["required"] = True
            del parameter["default"]
        return parameter

    def _body(self, tool: ImportedTool, operation: Mapping[str, Any], parameters: dict[str, dict[str, Any]]) -> None:
        body = as_mapping(self.schemas.followed(operation.get("requestBody")))
        content = as_mapping(body.get("content"))
        if not content:
            return
        kinds = {str(kind).partition(";")[0].strip().lower(): as_mapping(part) for kind, part in content.items()}
        chosen = next((kind for kind in kinds if kind in (_JSON, "*/*") or kind.endswith("+json")), None)
        chosen = chosen or next((kind for kind in _FORMS if as_mapping(kinds.get(kind)).get("schema")), None)
        chosen = chosen or next((kind for kind in kinds if kind.startswith("text/")), None)
        if chosen is None:
            if body.get("required") is True:
                raise _LeftOutError(f"its body is {', '.join(kinds)[:100]}")
            tool.notes.append("Its body is not carried over: it is neither JSON, a form nor text.")
            return
        way = _FORMS.get(chosen, "text" if chosen.startswith("text/") else "json")
        if way != "json":
            tool.contract["body"] = way
        if way == "text" or chosen.endswith("+json"):
            tool.contract["headers"] = {"Content-Type": chosen}
        is_required = body.get("required") is True
        schema = self.schemas.converted(kinds[chosen].get("schema"))
        members = schema.get("properties")
        is_open = chosen in _FORMS or (way == "json" and schema.keys() <= _OF_PLAIN_OBJECTS)
        if is_open and isinstance(members, Mapping) and 0 < len(members) <= MOST_PARAMETERS:
            encodings = as_mapping(kinds[chosen].get("encoding"))
            needed = set(map(str, as_list(schema.get("required")))) if is_required else set()
            for there, part in members.items():
                if isinstance(part, Mapping) and part.get("readOnly") is True:
                    continue
                name = _parameter_name(there, parameters)
                bind = {"body": there}
                if way == "form" and as_mapping(encodings.get(there)).get("style") == "deepObject":
                    bind["deep"] = True
                parameter = self._parameter(part, None, is_required=there in needed)
                if way == "multipart":
                    parameter = _with_files(parameter)
                parameters[name] = {**parameter, "bind": bind}
            return
        if chosen in _FORMS:
            raise _LeftOutError("its form has no fields that are known")
        name = _parameter_name("body", parameters)
        parameter = self._parameter(kinds[chosen].get("schema") or {}, body.get("description"), is_required=is_required)
        parameters[name] = {**parameter, "bind": "body"}

    def _answers_json(self, operation: Mapping[str, Any]) -> bool:
        """Whether every answer of success has JSON."""
        good = [
            as_mapping(self.schemas.followed(answer))
            for status, answer in as_mapping(operation.get("responses")).items()
            if str(status).startswith("2")
        ]
        kinds = [[str(kind) for kind in as_mapping(answer.get("content"))] for answer in good]
        return bool(kinds) and all(
            len(found) == 1 and re.match(r"application/([\w.-]+\+)?json\b", found[0]) for found in kinds
        )


def _is(parameter: Mapping[str, Any], kind: str) -> bool:
    kinds = parameter.get("type")
    return kind == kinds or (isinstance(kinds, list) and kind in kinds)


def _with_files(parameter: dict[str, Any]) -> dict[str, Any]:
    """A field of a form in parts; bytes, which JSON has none of, as base64."""
    if parameter.get("format") == "binary" or "contentMediaType" in parameter:
        rest = {key: value for key, value in parameter.items() if key not in ("format", "contentMediaType")}
        return {**rest, "contentEncoding": "base64"}
    items = parameter.get("items")
    return {**parameter, "items": _with_files(items)} if isinstance(items, dict) else parameter


_JSON = "application/json"
_FORMS = {"application/x-www-form-urlencoded": "form", "multipart/form-data": "multipart"}
_OF_PLAIN_OBJECTS = frozenset({
    "type", "properties", "required", "description", "title", "additionalProperties", "example", "examples",
})  # fmt: skip
_SET_ANYWAY = frozenset({"accept", "content-type", "content-length", "authorization", "host"})
"""Headers that a request has without any parameter."""


def _with_places(path: str, segments: Mapping[str, str]) -> str:
    """The path, with the names of parameters in its places; without a fragment, which is only to tell paths apart."""
    return _PLACE.sub(lambda found: f"{{{segments[found[1]]}}}", path.partition("#")[0])


def _name(operation: Mapping[str, Any], method: str, path: str, taken: set[str]) -> str:
    given = operation.get("operationId")
    text = given if isinstance(given, str) and given.strip() else f"{method}_{path.strip('/')}"
    base = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-")[:_LONGEST_TOOL_NAME] or method
    name, number = base, 2
    while name.lower() in taken:
        ending = f"_{number}"
        name, number = base[: _LONGEST_TOOL_NAME - len(ending)] + ending, number + 1
    return name


def _parameter_name(there: str, taken: Mapping[str, Any]) -> str:
    base = re.sub(r"[^A-Za-z0-9_.-]+", "_", str(there)).strip("_")[:60] or "parameter"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


def _shown(text: Any, most: int = _LONGEST_TOOL_DESCRIPTION) -> str:
    """A description for a model: on one line, without what cannot be seen, and not endless."""
    if not isinstance(text, str):
        return ""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
