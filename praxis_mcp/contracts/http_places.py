"""Where each parameter of `engine: http` goes in the request.

A parameter goes where its binding says. One without a binding whose name is in the URL's path goes there; another goes
into the query of GET, HEAD, DELETE and OPTIONS, and is a member of the body of POST, PUT and PATCH.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from praxis_mcp.contracts.model import ToolParameter
from praxis_mcp.contracts.specs import URL_PLACE, HttpEngineSpec
from praxis_mcp.contracts.values import HTTP_KINDS, BindKind

_IN_BODY = frozenset({"POST", "PUT", "PATCH"})


class Place(NamedTuple):
    """A place in a request: its kind, and the name there; empty for the whole body."""

    kind: BindKind
    name: str


def place_of(parameter: ToolParameter, spec: HttpEngineSpec) -> Place:
    """Where a parameter goes. One that is bound to a place of a command `contracts.reading.http_checks` refuses."""
    bind = parameter.bind
    if "bind" in parameter.model_fields_set and bind.kind in HTTP_KINDS:
        return Place(bind.kind, "" if bind.is_whole_body else str(bind.target or parameter.name))
    if parameter.name in URL_PLACE.findall(urlsplit(spec.url).path):
        return Place(BindKind.PATH, parameter.name)
    return Place(BindKind.BODY if spec.method in _IN_BODY else BindKind.QUERY, parameter.name)
