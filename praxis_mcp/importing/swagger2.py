"""Descriptions of OpenAPI 2.0 (Swagger), in the form of 3.0: as much of it as contracts are made of. Most of what is
published in that version was never converted, and no library on PyPI does it.

Schemas stay where they are and as they are: `importing.schemas` follows ``#/definitions/…`` like any other reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from praxis_mcp.importing.foreign import as_list, as_mapping
from praxis_mcp.importing.schemas import Schemas

_FORM, _MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
_NOT_OF_SCHEMAS = frozenset({"name", "in", "required", "collectionFormat", "allowEmptyValue", "schema"})
_STYLES = {
    "multi": {"style": "form", "explode": True},
    "ssv": {"style": "spaceDelimited", "explode": False},
    "pipes": {"style": "pipeDelimited", "explode": False},
}


def with_servers(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with `servers` and the security schemes of 3.0; its operations stay those of 2.0."""
    schemes = [scheme for scheme in ("https", "http") if scheme in as_list(document.get("schemes"))]
    host, path = document.get("host"), document.get("basePath")
    # Some leave out the / that it must begin with: as it is, it would be the end of the host's name.
    path = f"/{path.strip('/')}" if isinstance(path, str) else ""
    servers = [{"url": f"{(schemes or ['https'])[0]}://{host.rstrip('/')}{path}"}] if isinstance(host, str) else []
    found = as_mapping(document.get("securityDefinitions"))
    security = {
        name: {"type": "http", "scheme": "basic"} if as_mapping(scheme).get("type") == "basic" else scheme
        for name, scheme in found.items()
    }
    return {**document, "servers": servers, "components": {"securitySchemes": security}}


def operation_of(
    document: Mapping[str, Any], schemas: Schemas, item: Mapping[str, Any], operation: Mapping[str, Any], most: int
) -> dict[str, Any]:
    """An operation in the form of 3.0, with the parameters that all operations of its path have.

    Args:
        document: the whole.
        schemas: that follow its references.
        item: what the path has.
        operation: one of it.
        most: parameters that are looked at.

    Raises:
        ArgumentError: a reference leads nowhere, or out of the file.
    """
    consumes = as_list(operation.get("consumes", document.get("consumes"))) or ["application/json"]
    produces = as_list(operation.get("produces", document.get("produces")))
    declared: dict[tuple[str, str], Mapping[str, Any]] = {}
    for part in (*as_list(item.get("parameters")), *as_list(operation.get("parameters")))[:most]:
        found = as_mapping(schemas.followed(part))
        declared[str(found.get("name")), str(found.get("in"))] = found
    fields = {name: found for (name, place), found in declared.items() if place == "formData"}
    result = {
        **operation,
        "parameters": [
            _parameter(found) for (_, place), found in declared.items() if place not in ("body", "formData")
        ],
        "responses": {
            status: {"content": {str(kind): {} for kind in produces}} if "schema" in as_mapping(answer) else {}
            for status, part in as_mapping(operation.get("responses")).items()
            for answer in [schemas.followed(part)]
        },
    }
    if fields:
        has_file = any(found.get("type") == "file" for found in fields.values())
        kind = _MULTIPART if has_file or (_MULTIPART in consumes and _FORM not in consumes) else _FORM
        needed = [name for name, found in fields.items() if found.get("required") is True]
        schema = {"type": "object", "properties": {name: _schema(found) for name, found in fields.items()}}
        result["requestBody"] = {
            "required": bool(needed),
            "content": {kind: {"schema": {**schema, "required": needed}}},
        }
    elif (body := next((found for (_, place), found in declared.items() if place == "body"), None)) is not None:
        content = {str(kind): {"schema": body.get("schema")} for kind in consumes}
        result["requestBody"] = {
            "required": body.get("required"), "description": body.get("description"), "content": content,
        }  # fmt: skip
    return result


def _parameter(found: Mapping[str, Any]) -> dict[str, Any]:
    style = _STYLES.get(str(found.get("collectionFormat")), {"explode": False})
    kept = {key: found[key] for key in ("name", "in", "required", "description") if key in found}
    return {**kept, **style, "schema": _schema(found)}


def _schema(found: Mapping[str, Any]) -> dict[str, Any]:
    schema = {key: value for key, value in found.items() if key not in _NOT_OF_SCHEMAS}
    return {**schema, "type": "string", "format": "binary"} if schema.get("type") == "file" else schema
