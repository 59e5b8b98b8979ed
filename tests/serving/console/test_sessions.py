"""Sessions of browsers."""

from __future__ import annotations

import pytest

from praxis_mcp.serving.access import ALL_TOOLS, BadToken, Caller
from praxis_mcp.serving.console.sessions import MAX_SESSIONS, PER_CALLER, SESSION_IDLE, SESSION_LIFETIME, Sessions

pytestmark = pytest.mark.anyio


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Tokens:
    """Every token is its caller's name, unless it is among the `refused`."""

    def __init__(self) -> None:
        self.refused: set[str] = set()

    async def identify(self, token: str) -> Caller:
        if token in self.refused:
            raise BadToken("The token has expired")
        return Caller(token, frozenset({ALL_TOOLS}))


async def test_a_link_opens_one_session_and_the_next_link_another() -> None:
    sessions = Sessions(None)
    first = sessions.new_ticket()
    opened = sessions.redeem(first)
    assert opened is not None
    found = await sessions.find(opened)
    assert found is not None
    assert found.viewer.is_owner
    assert sessions.redeem(first) is None
    assert sessions.redeem("") is None
    second = sessions.new_ticket()
    third = sessions.new_ticket()
    assert sessions.redeem(second) is None
    assert sessions.redeem(third) not in (None, opened)


async def test_a_session_ends_when_its_token_is_no_longer_accepted() -> None:
    tokens = Tokens()
    sessions = Sessions(tokens.identify)
    anna = await sessions.log_in("anna")
    found = await sessions.find(anna)
    assert found
    assert await sessions.stands(found)
    tokens.refused.add("anna")
    assert not await sessions.stands(found)
    assert await sessions.find(anna) is None
    tokens.refused.clear()
    assert await sessions.find(anna) is None
    with pytest.raises(BadToken):
        await Sessions(None).log_in("anna")


async def test_a_session_ends_by_itself_unused_or_not() -> None:
    clock = Clock()
    sessions = Sessions(Tokens().identify, clock)
    unused, used = await sessions.log_in("anna"), await sessions.log_in("anna")
    while clock.now + SESSION_IDLE / 2 <= SESSION_LIFETIME:
        clock.now += SESSION_IDLE / 2
        assert await sessions.find(used)
    assert await sessions.find(unused) is None
    clock.now = SESSION_LIFETIME + 1
    assert await sessions.find(used) is None


async def test_sessions_are_bounded_for_each_caller_and_in_all() -> None:
    clock = Clock()
    sessions = Sessions(Tokens().identify, clock)
    first = await sessions.log_in("anna")
    bert = await sessions.log_in("bert")
    for _ in range(PER_CALLER - 1):
        clock.now += 1
        await sessions.log_in("anna")
    last = await sessions.log_in("anna")
    assert await sessions.find(first) is None
    assert await sessions.find(last)
    assert await sessions.find(bert)
    for number in range(MAX_SESSIONS):
        clock.now += 1
        await sessions.log_in(f"caller {number}")
    newest = await sessions.log_in("caller")
    assert await sessions.find(bert) is None
    assert await sessions.find(newest)


async def test_a_session_that_was_ended_and_one_that_never_was_are_not_found() -> None:
    sessions = Sessions(Tokens().identify)
    anna = await sessions.log_in("anna")
    sessions.end(anna)
    for session_id in (anna, "", "x", "\udce9"):
        assert await sessions.find(session_id) is None
