"""Links to resources of upstreams are remembered for each caller, and their number is bounded fairly."""

from __future__ import annotations

from praxis_mcp.federation.links import CallerLinks


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
