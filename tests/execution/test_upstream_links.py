"""Links to resources of upstreams are remembered for each caller, and their number is bounded fairly."""

from __future__ import annotations

from praxis_mcp.execution.upstream_links import CallerLinks


def test_a_link_is_its_callers_and_its_upstreams() -> None:
    links = CallerLinks()
    links.remember("anna", "up", "note://one")
    assert links.holds("anna", "up", "note://one")
    assert not links.holds("ben", "up", "note://one")
    assert not links.holds("", "up", "note://one")
    assert not links.holds("anna", "down", "note://one")
    assert not links.holds("anna", "up", "note://two")


def test_an_address_of_any_text_can_be_remembered() -> None:
    links = CallerLinks()
    links.remember("", "up", "note://\ud800")
    assert links.holds("", "up", "note://\ud800")


def test_the_oldest_link_is_forgotten_and_one_that_is_linked_again_is_new() -> None:
    links = CallerLinks(most=2)
    for uri in ("first", "second", "first", "third"):
        links.remember("anna", "up", uri)
    assert [links.holds("anna", "up", uri) for uri in ("first", "second", "third")] == [True, False, True]


def test_a_caller_with_many_links_costs_others_none_of_theirs() -> None:
    links = CallerLinks(most=100)
    links.remember("ben", "up", "kept")
    for number in range(1000):
        links.remember("anna", "up", str(number))
    assert links.holds("ben", "up", "kept")
    assert sum(links.holds("anna", "up", str(number)) for number in range(1000)) == 99


def test_callers_without_end_are_forgotten_too() -> None:
    links = CallerLinks(most=10)
    for number in range(1000):
        links.remember(str(number), "up", "note")
    assert sum(links.holds(str(number), "up", "note") for number in range(1000)) == 10
