"""Contracts of `engine: http`: what is refused when they are read."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from praxis_mcp.contracts.reading.loading import LoadedContract, load_text


def load(**fields: Any) -> LoadedContract:
    base = {"name": "ask", "description": "Asks.", "engine": "http", "url": "https://api.example.com/u/{id}"}
    return load_text(yaml.safe_dump({**base, "parameters": {"id": "string"}, **fields}))


def test_a_whole_contract_loads_without_findings() -> None:
    loaded = load(
        method="POST",
        query={"v": 2},
        headers={"X-A": "b"},
        auth_token={"secret": "TOKEN"},
        parameters={"id": "string", "q": {"bind": "query"}, "title": "string", "t": {"bind": {"header": "X-T"}}},
        examples=[{"arguments": {"id": "1", "q": "a", "title": "b", "t": "c"}}],
    )
    assert loaded.contract is not None
    assert not loaded.diagnostics


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "api.example.com/{id}"}, "whole URL"),
        ({"url": "ftp://x.example/{id}"}, "whole URL"),
        ({"url": "https://{id}.example.com/"}, "Only the path"),
        ({"url": "https://x.example/?q={id}"}, "Only the path"),
        ({"url": "https://u:p@x.example/{id}"}, "no user"),
        ({"url": "https://x.example/{id}#f"}, "after #"),
        ({"url": "https://x.example/a/../{id}"}, ". and .."),
        ({"url": "https://x.example:99999/{id}"}, "URL"),
        ({"url": "https://x.example/{id} x"}, "whole URL"),
        ({"url": "https://x.example/{other}"}, "No parameter fills {other}"),
        ({"url": "https://x.example/{id"}, "Only the path"),
        ({"method": "TRACE"}, "not one of GET"),
        ({"memory_limit": "1g"}, 'has no "memory_limit"'),
        ({"image": "x"}, 'has no "image"'),
        ({"mounts": {".": "/x"}}, 'has no "mounts"'),
        ({"network": "none"}, 'has no "network"'),
        ({"artifacts": ["/out/*"]}, "artifacts"),
        ({"cache": "pure"}, "cache"),
        ({"basic_user": "x"}, "go together"),
        ({"basic_user": "x", "basic_password": "y", "auth_token": "z"}, "exclude each other"),
        ({"headers": {"Host": "evil.example"}}, "set by the request itself"),
        ({"headers": {"Authorization": "x"}, "auth_token": "z"}, "another authentication"),
        ({"parameters": {"id": {"bind": "stdin"}}}, "no such place"),
        ({"parameters": {"id": {"bind": {"header": "Host"}}}}, "No argument may set"),
        ({"parameters": {"id": {"bind": {"header": "Authorization"}}}}, "No argument may set"),
        ({"parameters": {"id": {"bind": {"header": "a b"}}}}, "header's name"),
        ({"parameters": {"id": {"type": "string", "required": False}}}, "always needed"),
        ({"parameters": {"id": "string", "a": {"bind": "body"}}}, "has no body"),
        ({"parameters": {"id": "string", "a": {"bind": {"query": "x"}}, "b": {"bind": {"query": "x"}}}}, "already"),
        ({"query": {"a": "1"}, "parameters": {"id": "string", "a": "string"}}, "already"),
        ({"method": "POST", "parameters": {"id": "string", "a": {"bind": "body"}, "b": "string"}}, "whole body"),
        ({"method": "POST", "body": "text", "parameters": {"id": "string", "b": "string"}}, "body of text"),
        ({"parameters": {"id": "string", "x": {"bind": {"path": "nope"}}}}, "has no {nope}"),
    ],
)
def test_what_no_request_could_carry_is_refused_in_words(fields: dict[str, Any], said: str) -> None:
    loaded = load(**fields)
    messages = [f"{item.message} {item.remedy}" for item in loaded.diagnostics if item.is_error]
    assert any(said in message for message in messages), messages
    assert loaded.contract is None


def test_a_place_in_a_request_means_nothing_to_a_command() -> None:
    text = yaml.safe_dump(
        {"name": "a", "description": "b", "image": "x", "command": ["y"], "parameters": {"q": {"bind": "query"}}}
    )
    (found,) = [item for item in load_text(text).diagnostics if item.is_error]
    assert "HTTP request" in found.message


def test_secrets_over_http_are_a_warning() -> None:
    loaded = load(url="http://api.example.com/{id}", auth_token={"secret": "T"})
    assert loaded.contract is not None
    assert "unencrypted" in loaded.diagnostics[0].message


@pytest.mark.parametrize(
    ("host", "is_warned_of"),
    [
        ("127.0.0.1:8080", False),
        ("[::1]", False),
        ("localhost:8080", False),
        ("10.0.0.1", True),
        ("localhost.example.com", True),
    ],
)
def test_secrets_that_leave_the_machine_unencrypted_are_warned_of(host: str, is_warned_of: bool) -> None:
    loaded = load(url=f"http://{host}/u/{{id}}", auth_token={"secret": "TOKEN"})
    assert loaded.contract is not None
    assert any("unencrypted" in item.message for item in loaded.diagnostics) is is_warned_of
