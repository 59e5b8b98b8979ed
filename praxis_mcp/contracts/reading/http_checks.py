"""Contracts of `engine: http` that no request could carry: two parameters in one place, a place in the URL that none
fills, headers that are not the contract's to set."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from praxis_mcp.contracts.http_places import Place, place_of
from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.reading.findings import Findings
from praxis_mcp.contracts.specs import URL_PLACE, HttpEngineSpec
from praxis_mcp.contracts.values import HTTP_KINDS, BindKind
from praxis_mcp.diagnostics import Keys

RESERVED_HEADERS = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect",
    "authorization", "proxy-authorization", "proxy-connection", "cookie", "accept-encoding", "content-type",
})  # fmt: skip
"""Headers that no argument may set: they frame the request, or say who asks."""
_FRAMING = RESERVED_HEADERS - {"authorization", "cookie", "content-type", "proxy-authorization"}


def check_places(contract: ToolContract, places: Mapping[str, Keys], findings: Findings) -> None:
    """Report what no request could carry.

    Args:
        contract: one of `engine: http`.
        places: where each parameter is defined, by name.
        findings: gets the reports.
    """
    spec = contract.engine_spec
    assert isinstance(spec, HttpEngineSpec)
    in_url = URL_PLACE.findall(urlsplit(spec.url).path)
    taken: dict[Place, str] = {Place(BindKind.QUERY, name): "query" for name in spec.query}
    taken |= {Place(BindKind.QUERY, name): "url" for name, _ in parse_qsl(urlsplit(spec.url).query, True)}
    taken |= {Place(BindKind.HEADER, name.lower()): "headers" for name in spec.headers}
    body: list[str] = []
    for parameter in contract.parameters:
        where = (*places.get(parameter.name, ()), "bind")
        if "bind" in parameter.model_fields_set and parameter.bind.kind not in HTTP_KINDS:
            findings.error(where, "A request has no such place.", "Bind it to path, query, header or body.")
            continue
        kind, name = place_of(parameter, spec)
        key = Place(kind, name.lower() if kind is BindKind.HEADER else name)
        if (other := taken.setdefault(key, parameter.name)) != parameter.name:
            findings.error(where, f'"{other}" has the place {kind.value} {name} already.', "Choose another one.")
        if kind is BindKind.PATH and name not in in_url:
            findings.error(where, f"The path of url has no {{{name}}}.", f"Write {{{name}}} where its value belongs.")
        if kind is BindKind.PATH and not (parameter.required or parameter.has_default):
            findings.error(where[:-1], "What is a part of the path is always needed.", "Write required: true.")
        if kind is BindKind.HEADER and name.lower() in RESERVED_HEADERS:
            findings.error(where, f"No argument may set the header {name}.", "Write it in headers, or remove it.")
        if kind is BindKind.BODY:
            body.append(name)
            if parameter.bind.deep and spec.body != "form":
                findings.error(where, "Only in a query or a form a value is written as deep.", "Leave deep out.")
    filled = {place.name for place in taken if place.kind is BindKind.PATH}
    for name in in_url:
        if name not in filled:
            findings.error(("url",), f"No parameter fills {{{name}}}.", f"Declare the parameter {name}.")
    _check_fixed(spec, body, findings)


def _check_fixed(spec: HttpEngineSpec, body: list[str], findings: Findings) -> None:
    for name in spec.headers:
        if name.lower() in _FRAMING:
            findings.error(("headers", name), f"{name} is set by the request itself.", "Remove it.")
        elif name.lower() == "authorization" and (spec.auth_token is not None or spec.basic_user is not None):
            findings.error(("headers", name), "The request has another authentication already.", "Remove one.")
    if "" in body and len(body) > 1:
        findings.error(
            ("parameters",), "One parameter is the whole body, and others are parts of it.", "Bind them apart."
        )
    if spec.body == "text" and body not in ([], [""]):
        findings.error(("body",), "A body of text is one parameter.", "Write bind: body in that one.")
    if spec.body in ("form", "multipart") and "" in body:
        findings.error(("body",), "A form has fields, not one text.", "Bind each parameter by its name, or body: text.")
    if body and spec.method in ("GET", "HEAD"):
        findings.error(("method",), f"{spec.method} has no body.", "Choose another method, or bind: query.")
    if spec.has_secrets and spec.url.lower().startswith("http://") and not _stays_here(spec.url):
        findings.warning(("url",), "The request's secrets travel unencrypted over http.", "Write https://.")


def _stays_here(url: str) -> bool:
    """Whether its host is this machine's loopback, where nobody listens on the way."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
