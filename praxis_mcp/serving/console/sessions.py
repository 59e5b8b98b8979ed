"""Who looks at the console: sessions of browsers, opened with a bearer token or with a link that works once.

A session is a random id in a cookie; what it stands for is in this process's memory only, so that it ends with the
process. The token that opened it is checked again at each request: a session reaches no further, and lasts no longer.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from praxis_mcp.execution.records.row import StoredRun, storable_name
from praxis_mcp.serving.access import ANYONE, READ_METRICS, READ_RUNS, BadToken, Caller

SESSION_LIFETIME = 12 * 3600.0
"""Seconds that a session lasts at most."""
SESSION_IDLE = 3600.0
"""Seconds without a request after which a session ends."""
MAX_SESSIONS = 256
PER_CALLER = 16
"""Sessions of one caller; beyond that, the one ends that has not been used for longest."""
_RANDOM_BYTES = 32

Identify = Callable[[str], Awaitable[Caller]]
"""Whose token that is; raises `BadToken`."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks.

    Attributes:
        caller: whose calls and runs are theirs.
        is_owner: came by the link that the server printed for the person who started it, and may see what that person
            can: every run in the store.
    """

    caller: Caller
    is_owner: bool = False

    @property
    def sees_all_runs(self) -> bool:
        """Whether runs of other callers are shown to them."""
        return self.is_owner or READ_RUNS in self.caller.scopes

    def owns(self, run: StoredRun) -> bool:
        """Whether a run is theirs. Runs of callers without a name are nobody's."""
        return self.is_owner or (bool(run.caller) and run.caller == storable_name(self.caller.name))

    @property
    def sees_operations(self) -> bool:
        """Whether the state of engines and upstreams is shown to them."""
        return self.is_owner or READ_METRICS in self.caller.scopes


@dataclass(slots=True)
class Session:
    """One browser.

    Attributes:
        viewer: who that is.
        csrf: what each of its forms must carry: another site's page cannot know it.
        token: what opened it; empty for the owner.
        began, used: when it was opened and used last, by the clock of `Sessions`.
        is_over: was logged out, or gave way to a newer one of its caller.
    """

    viewer: Viewer
    csrf: str = field(repr=False)
    token: str = field(repr=False)
    began: float
    used: float
    is_over: bool = False

    def is_form_of(self, csrf: str) -> bool:
        """Whether a form with that value was made for this session."""
        return hmac.compare_digest(csrf.encode("utf-8", "surrogatepass"), self.csrf.encode())


class Sessions:
    """The sessions of one process.

    Args:
        identify: whose a bearer token is; None where there are no tokens.
        clock: seconds.
    """

    def __init__(self, identify: Identify | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._identify = identify
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._ticket = ""

    @property
    def takes_tokens(self) -> bool:
        """Whether a bearer token opens a session."""
        return self._identify is not None

    def new_ticket(self) -> str:
        """What opens one session of the owner; the one before it does not any more."""
        ticket = secrets.token_urlsafe(_RANDOM_BYTES)
        self._ticket = _digest(ticket)
        return ticket

    def redeem(self, ticket: str) -> str | None:
        """The id of a session of the owner; None where the ticket does not open one (any more)."""
        if not self._ticket or not hmac.compare_digest(_digest(ticket), self._ticket):
            return None
        self._ticket = ""
        return self._open(Viewer(ANYONE, is_owner=True), "")

    async def log_in(self, token: str) -> str:
        """The id of a session of the caller whose token that is.

        Raises:
            BadToken: it is not accepted.
        """
        if self._identify is None:
            raise BadToken("This server takes no tokens")
        caller = await self._identify(token)
        return self._open(Viewer(caller), token)

    async def find(self, session_id: str) -> Session | None:
        """The session of that id, if its token still stands for its caller."""
        key = _digest(session_id)
        session = self._sessions.get(key)
        if session is None or not await self.stands(session):
            self._sessions.pop(key, None)
            return None
        session.used = self._clock()
        return session

    async def stands(self, session: Session) -> bool:
        """Whether it has not ended meanwhile: for an answer that goes on. It does not count as used by that."""
        now = self._clock()
        return (
            not session.is_over
            and now - session.began <= SESSION_LIFETIME
            and now - session.used <= SESSION_IDLE
            and await self._still_known(session)
        )

    def end(self, session_id: str) -> None:
        """It is over."""
        session = self._sessions.pop(_digest(session_id), None)
        if session is not None:
            session.is_over = True

    async def _still_known(self, session: Session) -> bool:
        if session.viewer.is_owner or self._identify is None:
            return session.viewer.is_owner
        try:
            return await self._identify(session.token) == session.viewer.caller
        except BadToken:
            return False

    def _open(self, viewer: Viewer, token: str) -> str:
        own = [key for key, item in self._sessions.items() if item.viewer == viewer]
        if len(own) >= PER_CALLER:
            self._end_oldest(own)
        elif len(self._sessions) >= MAX_SESSIONS:
            self._end_oldest(list(self._sessions))
        session_id = secrets.token_urlsafe(_RANDOM_BYTES)
        now = self._clock()
        csrf = secrets.token_urlsafe(_RANDOM_BYTES)
        self._sessions[_digest(session_id)] = Session(viewer, csrf, token, now, now)
        return session_id

    def _end_oldest(self, keys: list[str]) -> None:
        oldest = self._sessions.pop(min(keys, key=lambda key: self._sessions[key].used))
        oldest.is_over = True


def _digest(value: str) -> str:
    # Looked up by its hash, so that how long that takes reveals nothing of an id.
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
