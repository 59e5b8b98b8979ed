"""Addresses of what upstreams name, as they can be read here."""

from __future__ import annotations

import pytest

from praxis_mcp.engines.base import RemoteContent
from praxis_mcp.federation.addresses import (
    CallerLinks,
    address_here,
    address_there,
    granting,
    linked,
    with_addresses_here,
)


@pytest.mark.parametrize(
    "uri",
    [
        "note://linked",
        "https://x.example/a?b=c&d=%20#e",
        "praxis://runs/abc/stdout?offset=3&limit=4",
        "praxis://runs/abc/artifacts/a%20b%FF",
        "praxis://upstreams/w/praxis%3A%2F%2Fruns%2Fabc%2Fstdout?offset=3",
        "note://\ud800",
    ],
)
def test_an_address_here_names_the_one_there(uri: str) -> None:
    assert address_there(address_here("up", uri)) == ("up", uri)


def test_a_range_can_be_put_after_an_address_here() -> None:
    here = address_here("up", "praxis://runs/abc/stdout")
    assert address_there(f"{here}?offset=3") == ("up", "praxis://runs/abc/stdout?offset=3")
    assert address_here("up", "praxis://runs/abc/stdout?offset=3") == f"{here}?offset=3"


def test_a_link_lets_parts_of_the_same_run_be_read_and_nothing_else() -> None:
    links = CallerLinks()
    links.remember("anna", "up", "praxis://runs/abc", "tool")
    links.remember("anna", "up", "https://x.example/a", "tool")
    for uri in ("praxis://runs/abc", "praxis://runs/abc/stdout", "praxis://runs/abc/stdout?offset=3"):
        assert links.tool_of("anna", "up", uri) == "tool"
    for uri in ("praxis://runs/abcd", "praxis://runs/abcd/stdout", "praxis://runs/", "https://x.example/a?offset=3"):
        assert links.tool_of("anna", "up", uri) is None
    assert links.tool_of("ben", "up", "praxis://runs/abc/stdout") is None
    assert list(granting("note://a?b")) == ["note://a?b"]


def test_only_addresses_that_can_be_read_here_are_replaced() -> None:
    text = "see (praxis://runs/abc/stdout), praxis://runs/abc. Not praxis://runs/other/stdout, nor note://a"
    structured = {"at": "praxis://runs/abc/stdout"}
    content = RemoteContent(({"type": "text", "text": text},), structured)

    def here(uri: str) -> str | None:
        return "HERE" if uri.startswith("praxis://runs/abc") else None

    changed = with_addresses_here(content, "up", here)
    assert changed.blocks[0]["text"] == "see (HERE), HERE. Not praxis://runs/other/stdout, nor note://a"
    assert changed.structured == structured


def test_an_answer_of_another_kind_of_server_links_no_runs() -> None:
    for odd in (None, [], "x", {"runId": 7}, {"runId": "../x"}):
        assert list(linked(RemoteContent(meta={"io.github.praxis-mcp/run": odd}))) == []


def test_a_link_is_its_callers_and_its_upstreams() -> None:
    links = CallerLinks()
    links.remember("anna", "up", "note://one", "tool")
    assert links.tool_of("anna", "up", "note://one") == "tool"
    assert not links.tool_of("ben", "up", "note://one")
    assert not links.tool_of("", "up", "note://one")
    assert not links.tool_of("anna", "down", "note://one")
    assert not links.tool_of("anna", "up", "note://two")


def test_an_address_of_any_text_can_be_remembered() -> None:
    links = CallerLinks()
    links.remember("", "up", "note://\ud800", "tool")
    assert links.tool_of("", "up", "note://\ud800")


def test_the_oldest_link_is_forgotten_and_one_that_is_linked_again_is_new() -> None:
    links = CallerLinks(most=2)
    for uri in ("first", "second", "first", "third"):
        links.remember("anna", "up", uri, "tool")
    assert [links.tool_of("anna", "up", uri) is not None for uri in ("first", "second", "third")] == [True, False, True]


def test_a_caller_with_many_links_costs_others_none_of_theirs() -> None:
    links = CallerLinks(most=100)
    links.remember("ben", "up", "kept", "tool")
    for number in range(1000):
        links.remember("anna", "up", str(number), "tool")
    assert links.tool_of("ben", "up", "kept")
    assert sum(links.tool_of("anna", "up", str(number)) is not None for number in range(1000)) == 99


def test_callers_without_end_are_forgotten_too() -> None:
    links = CallerLinks(most=10)
    for number in range(1000):
        links.remember(str(number), "up", "note", "tool")
    assert sum(links.tool_of(str(number), "up", "note") is not None for number in range(1000)) == 10
