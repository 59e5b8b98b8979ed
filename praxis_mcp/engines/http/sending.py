"""One request and its answer, which is bounded, unpacked, and asked for again where a kept connection turns out to be
closed; and what goes wrong, in words."""

from __future__ import annotations

import os
import ssl
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpcore2

from praxis_mcp.engines.http.connecting import CONNECT_TIMEOUT
from praxis_mcp.errors import ExecutionError
from praxis_mcp.upstreams.transports.kept_connections import needs_proxy

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that ask for no change (RFC 9110, 9.2.1)."""
_PACKED = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB, _GZIP = 47, 31
_GZIP_BEGINS = b"\x1f\x8b"
_MOST_MEMBERS = 10_000
"""Of one answer: an empty one has 20 bytes, and each is copied for what comes before it."""
_OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_EXPIRED = 10
_ENDED = (httpcore2.ReadError, httpcore2.WriteError, httpcore2.RemoteProtocolError)
_CLOSED = ("disconnected", "closed connection")
"""How h11 and httpcore2 call it that a connection ends too early, as they do what is not HTTP."""


@dataclass(slots=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP.
        headers: the first of each name, in small letters.
        body: unpacked, if it was packed.
        is_cut: whether there was more of it.
        refused_redirect: where it leads, if nobody went there.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    is_cut: bool = False
    refused_redirect: str = ""

    @property
    def media_type(self) -> str:
        """Without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class _Unpacker:
    """Unpacks what came as zlib or gzip, of which one member may follow the other (RFC 1952, 2.2). Anything else
    that follows is left out, as other clients do."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._members = 1
        self._held = b""
        self._is_over = False

    @property
    def is_whole(self) -> bool:
        """Whether the last member has come to its end."""
        return self._member.eof

    def unpack(self, piece: bytes, most: int) -> bytearray:
        """What a piece holds, `most` bytes at most: behind those nothing more can be unpacked.

        Raises:
            zlib.error: it is damaged, or of too many members.
        """
        content, piece = bytearray(), self._held + piece
        self._held = b""
        while piece and len(content) < most and not self._is_over:
            if self._member.eof:
                if len(piece) < len(_GZIP_BEGINS) and _GZIP_BEGINS.startswith(piece):
                    self._held = piece
                    break
                self._is_over = not piece.startswith(_GZIP_BEGINS)
                if self._is_over:
                    break
                self._members += 1
                if self._members > _MOST_MEMBERS:
                    raise zlib.error
                self._member = zlib.decompressobj(_GZIP)
            content += self._member.decompress(piece, most - len(content))
            piece = self._member.unused_data
        return content


async def send(
    pool: httpcore2.AsyncConnectionPool,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    most: int,
) -> Answer:
    """The answer to one request. Where a kept connection ends before anything came back, a request that changes nothing
    is sent once more.

    Args:
        pool: of connections.
        method: of the request.
        url: in ASCII.
        headers: in ASCII, without those that frame the request.
        body: None where there is none.
        most: bytes of the answer's body, packed and unpacked.

    Raises:
        LimitUnsupported: the host is not on the public internet, and the settings do not allow it.
        ExecutionError: the host cannot be reached, or does not speak HTTP.
    """
    host = urlsplit(url).netloc
    sent = [("Host", host), *headers.items()]
    if body is not None or method in ("POST", "PUT", "PATCH"):
        sent.append(("Content-Length", str(len(body or b""))))
    for is_last in (False, True):
        steps: set[str] = set()

        async def watch(step: str, _: Any, steps: set[str] = steps) -> None:
            steps.add(step)

        try:
            async with pool.stream(
                method,
                url,
                headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in sent],
                content=body or b"",
                extensions={"timeout": {"connect": CONNECT_TIMEOUT, "pool": CONNECT_TIMEOUT}, "trace": watch},
            ) as response:
                return await _received(response, most)
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, UnicodeError) as exc:
            is_new = "connection.connect_tcp.started" in steps
            has_begun = "http11.receive_response_headers.complete" in steps
            if is_last or is_new or has_begun or method not in _SAFE or not isinstance(exc, _ENDED):
                raise _failure(exc, url, method) from exc
        except zlib.error as exc:
            raise ExecutionError(f"{host} did not answer as HTTP has it: what it packed cannot be unpacked.") from exc
    raise AssertionError  # the last one returns or raises


async def _received(response: httpcore2.Response, most: int) -> Answer:
    headers: dict[str, str] = {}
    for name, value in response.headers:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    unpacker = None
    if headers.get("content-encoding", "").strip().lower() in _PACKED:
        unpacker = _Unpacker()
        del headers["content-encoding"]
    content, arrived = bytearray(), 0
    async for piece in response.aiter_stream():
        arrived += len(piece)
        content += piece if unpacker is None else unpacker.unpack(piece, most + 1 - len(content))
        if max(arrived, len(content)) > most:
            return Answer(response.status, headers, bytes(content[:most]), is_cut=True)
    if unpacker is not None and arrived and not unpacker.is_whole:
        raise zlib.error
    return Answer(response.status, headers, bytes(content))


def _failure(exc: Exception, url: str, method: str) -> ExecutionError:
    """What went wrong. The library's own words may quote what the host sent, and are left out."""
    host = urlsplit(url).netloc
    causes = list(_causes(exc))
    if (found := next((item for item in causes if isinstance(item, ssl.SSLCertVerificationError)), None)) is not None:
        return _certificate_failure(found, host)
    if isinstance(exc, httpcore2.PoolTimeout):
        return ExecutionError(
            f"No connection to {host} was free within {CONNECT_TIMEOUT:g} s: too many requests are under way.",
            remedy="Call again later, or let fewer calls run at once.",
        )
    if any(isinstance(item, ssl.SSLError) for item in causes):
        return ExecutionError(
            f"{host} does not speak TLS as it is spoken today.",
            remedy="See whether its url begins with https:// rightly, and which versions of TLS it has.",
        )
    if isinstance(exc, httpcore2.ConnectError | httpcore2.ConnectTimeout):
        numbers = [item.errno for item in causes if isinstance(item, OSError) and item.errno]
        reason = os.strerror(numbers[-1]) if numbers else ""
        if isinstance(exc, httpcore2.ConnectTimeout):
            reason = f"no answer within {CONNECT_TIMEOUT:g} s"
        remedy = "See whether it is there, then call again."
        if needs_proxy(url):
            remedy += " Proxies of the environment are not used, since a proxy looks up the name by itself."
        return ExecutionError(f"{host} cannot be reached{f' ({reason})' if reason else ''}.", remedy=remedy)
    if isinstance(exc, httpcore2.NetworkError) or any(words in str(exc) for words in _CLOSED):
        repeat = "Call again." if method in _SAFE else "It may have done what was asked: look before you call again."
        return ExecutionError(f"{host} closed the connection before it gave a whole answer in HTTP.", remedy=repeat)
    return ExecutionError(
        f"{host} did not answer as HTTP has it ({type(exc).__name__}).", remedy="See whether its url is that of an API."
    )


def _certificate_failure(exc: ssl.SSLCertVerificationError, host: str) -> ExecutionError:
    if exc.verify_code in _OTHER_NAME:
        remedy = "Write the name that the certificate has in url; if it is right, somebody else answers there."
    elif exc.verify_code == _EXPIRED:
        remedy = "The host's operator has to renew it; see whether this machine's clock is right, too."
    else:
        remedy = (
            "If an authority of your own has signed it, name a file with the certificates that you trust in the "
            "variable SSL_CERT_FILE of the server's environment, or add yours to those of this machine."
        )
    return ExecutionError(f"The certificate of {host} was refused: {exc.verify_message}.", remedy=remedy)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = exc
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
