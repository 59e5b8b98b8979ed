"""Requests to HTTP APIs as tools: what a contract fixes and a call's arguments fill in, nothing else.

A status of 400 and above is a failed result, which a model reads and acts on; an API that cannot be reached is an
error.
"""

from __future__ import annotations

import base64
import codecs
import http
from contextlib import suppress
from importlib.metadata import version
from urllib.parse import quote, urljoin, urlsplit

import anyio
import anyio.to_thread
import httpcore2
import httpx2

from praxis_mcp.engines.base import (
    EngineCapabilities,
    EngineStatus,
    ExecutionContext,
    ExecutionEngine,
    ExecutionResult,
    RemoteContent,
)
from praxis_mcp.engines.http.connecting import PublicNetwork
from praxis_mcp.engines.http.sending import Answer, send
from praxis_mcp.engines.phases import Phase
from praxis_mcp.errors import ExecutionError
from praxis_mcp.plans.model import Capability, HttpTarget, Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.text import counted

ISOLATION = "remote"
MAX_REDIRECTS = 5
_CONNECTIONS = 64
_KEPT_CONNECTIONS = 16
_KEPT_IDLE_SECONDS = 30
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SHOWN_LOCATION = 500
_SHOWN_TYPE = 100
_OF_URLS = "%:/?#[]@!$&'()*+,;=~"
"""What stays as it is in a URL; the rest is encoded, as browsers do it."""
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/javascript", "application/x-www-form")
_NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
"""Codecs of Python's that no page is written in. The time of the first two grows with the square of a text's length."""
_MEDIA = ("image/", "audio/")
_MAX_MEDIA = 1024 * 1024
"""Bytes of an image or a sound that a result carries inline."""


class HttpEngine(ExecutionEngine):
    """Sends the requests of plans over one pool of connections. Whether a host is there shows when it is called: the
    engine itself is always available."""

    name = "http"

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._pool: httpcore2.AsyncConnectionPool | None = None
        self._lock = anyio.Lock()

    async def run(self, plan: Plan, context: ExecutionContext) -> ExecutionResult:
        """See `ExecutionEngine.run`.

        Raises:
            LimitUnsupported: the host, or one that it redirects to, is not on the public internet, and the settings do
                not allow it.
            ExecutionError: it cannot be reached, does not speak HTTP, or has a certificate that nobody trusts.
        """
        target = plan.blueprint.http
        assert target is not None
        context.phases.enter(Phase.START)
        pool = await self._opened()
        context.phases.enter(Phase.RUN)
        answer = None
        with anyio.move_on_after(plan.blueprint.limits.timeout):
            answer = await _follow(pool, target, plan)
        context.phases.enter(Phase.COLLECT)
        if answer is None:
            return ExecutionResult(
                plan.call.run_id, self.name, ISOLATION, None, timed_out=True, phases=context.phases.seconds
            )
        text, remote = _content_of(answer)
        async with context.collectors(plan) as (stdout, stderr):
            await stdout.write(text.encode(errors="replace"))
            await stderr.write(f"{_summary(answer, target)}\n".encode(errors="replace"))
        is_good = answer.status < 300 and not answer.is_cut
        return ExecutionResult(
            run_id=plan.call.run_id,
            engine=self.name,
            isolation=ISOLATION,
            exit_code=0 if is_good else 1,
            stdout=stdout.captured,
            stderr=stderr.captured,
            phases=context.phases.seconds,
            remote=remote if is_good else None,
        )

    async def get_capabilities(self) -> EngineCapabilities:
        """The time limit is ours: a request that exceeds it is cancelled."""
        return EngineCapabilities(self.name, ISOLATION, frozenset({Capability.HTTP_REQUESTS, Capability.TIMEOUT}))

    async def probe(self) -> EngineStatus:
        """Always available: it needs nothing that is not installed."""
        return EngineStatus(self.name, available=True, version=f"httpcore2 {version('httpcore2')}")

    async def cleanup(self) -> None:
        """Close every connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    async def _opened(self) -> httpcore2.AsyncConnectionPool:
        async with self._lock:
            if self._pool is None:
                try:  # it reads the certificates of a few hundred authorities
                    certificates = await anyio.to_thread.run_sync(httpx2.create_ssl_context)
                except OSError as exc:  # ssl.SSLError is one
                    raise ExecutionError(
                        "The certificates of authorities cannot be read.",
                        remedy="See what SSL_CERT_FILE and SSL_CERT_DIR name in the server's environment.",
                    ) from exc
                self._pool = httpcore2.AsyncConnectionPool(
                    ssl_context=certificates,
                    max_connections=_CONNECTIONS,
                    max_keepalive_connections=_KEPT_CONNECTIONS,
                    keepalive_expiry=_KEPT_IDLE_SECONDS,
                    network_backend=PublicNetwork(self.settings.policy.private_hosts),
                )
            return self._pool


async def _follow(pool: httpcore2.AsyncConnectionPool, target: HttpTarget, plan: Plan) -> Answer:
    url, method, body = plan.call.url, target.method, plan.call.body
    own = {"User-Agent": f"praxis-mcp/{version('praxis-mcp')}", "Accept": "*/*", "Accept-Encoding": "identity"}
    given = {name.lower() for name in plan.call.headers}
    headers = {**{name: value for name, value in own.items() if name.lower() not in given}, **plan.call.headers}
    origin, followed = _origin(url), 0
    while True:
        answer = await send(pool, method, url, headers, body, target.max_response)
        location = answer.headers.get("location")
        if answer.status not in _REDIRECTS or location is None:
            return answer
        leads_to = _leads_to(url, location)
        answer.refused_redirect = leads_to or location
        if (
            not target.follow_redirects
            or method not in ("GET", "HEAD")
            or leads_to is None
            or ((is_other := _origin(leads_to) != origin) and target.has_secrets)
            or followed == MAX_REDIRECTS
        ):
            return answer
        if is_other:
            headers = own
        url, followed = leads_to.partition("#")[0], followed + 1


def _leads_to(url: str, location: str) -> str | None:
    """Where a redirect leads; None where no request can be sent there: an API may write anything."""
    try:
        found = quote(urljoin(url, location), safe=_OF_URLS, encoding="latin-1")
        parts = urlsplit(found)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return found if is_usable and not {"@", "%"} & set(parts.netloc) else None


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    with suppress(ValueError):
        return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.netloc, None


def _content_of(answer: Answer) -> tuple[str, RemoteContent | None]:
    """The body as text; and as a block, where it is an image or a sound."""
    kind = answer.media_type
    size = counted(len(answer.body), "byte")
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        return f"{size}, compressed in a way that was not asked for.", None
    if kind.startswith(_MEDIA) and not kind.startswith("image/svg") and len(answer.body) <= _MAX_MEDIA:
        data = base64.b64encode(answer.body).decode("ascii")
        block = {"type": kind.partition("/")[0], "data": data, "mimeType": kind}
        return f"{size} of {kind}.", RemoteContent((block,))
    charset = "utf-8"
    for part in answer.headers.get("content-type", "").split(";")[1:]:
        name, _, value = part.strip().partition("=")
        if name.lower() == "charset":
            charset = value.strip('"')
    is_text = kind.startswith(_TEXT_TYPES) or kind.endswith(("+json", "+xml"))
    try:
        if codecs.lookup(charset).name in _NO_CHARSETS:
            charset = "utf-8"
        return answer.body.decode(charset, "replace" if is_text else "strict"), None
    except (LookupError, ValueError):
        if is_text:
            return answer.body.decode("utf-8", "replace"), None
    return f"{size} of {kind or 'an unknown type'}, which is not text.", None


def _summary(answer: Answer, target: HttpTarget) -> str:
    """What is known besides the body, in a line for a model."""
    phrase = http.HTTPStatus(answer.status).phrase if answer.status in set(http.HTTPStatus) else ""
    words = [f"HTTP {answer.status} {phrase}".strip()]
    if answer.media_type:
        words.append(answer.media_type[:_SHOWN_TYPE])
    if (after := answer.headers.get("retry-after", "")).isdigit():
        words.append(f"retry after {after[:8]} s")
    if answer.is_cut:
        words.append(f"cut: the answer has more than {counted(target.max_response, 'byte')}; ask for less")
    if answer.refused_redirect:
        words.append(f"it leads to {answer.refused_redirect[:_SHOWN_LOCATION]}, which was not followed")
    return ", ".join(words)
