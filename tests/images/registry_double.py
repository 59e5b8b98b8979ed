"""A tiny registry on loopback that serves images honestly (OCI distribution specification, "Pull").

Manifests by tag and digest, blobs with ranges, tokens of its own authorization service. What is to go wrong, tests set.
"""

import base64
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from praxis_mcp.images.manifests import digest_of
from tests.images.tars import MadeImage, descriptor

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class RegistryDouble:
    """A running registry.

    Attributes:
        host: where, as in a reference.
        manifests: path below /v2/ → media type and content.
        blobs: digest → content.
        requests: method, path and Range of every request, in order.
        login: user and password that its authorization service wants; None lets everybody pull without a token.
        basic: whether it wants the password itself, instead of a token.
        cut_after: bytes of a blob after which the connection is closed, for so many requests.
        ranges: whether it knows ranges.
        busy: how many requests for blobs are answered by 503.
        gates: path → what its answer waits for.
        answers: path → status, headers and content that are sent in place of all that.
    """

    host: str
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    login: tuple[str, str] | None = None
    basic: bool = False
    cut_after: list[int] = field(default_factory=list)
    ranges: bool = True
    busy: int = 0
    gates: dict[str, threading.Event] = field(default_factory=dict)
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)

    def add(self, name: str, tag: str, made: MadeImage, machines: dict[str, MadeImage] | None = None) -> str:
        """Serve an image under a name; with `machines` as an index of several. Its reference."""
        for each in (made, *(machines or {}).values()):
            self.blobs |= each.blobs
            self.manifests[f"{name}/manifests/{each.digest}"] = (MANIFEST, each.manifest)
        served = (MANIFEST, made.manifest)
        if machines:
            entries = [
                descriptor(each.manifest, MANIFEST, platform={"os": "linux", "architecture": machine})
                for machine, each in machines.items()
            ]
            served = (INDEX, json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode())
            self.manifests[f"{name}/manifests/{digest_of(served[1])}"] = served
        self.manifests[f"{name}/manifests/{tag}"] = served
        return f"{self.host}/{name}:{tag}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: RegistryDouble

    def do_GET(self) -> None:
        registry, path = self.registry, urlsplit(self.path).path
        registry.requests.append((path, self.headers.get("Range")))
        if path in registry.gates:
            registry.gates[path].wait(60)
        if path in registry.answers:
            status, headers, content = registry.answers[path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self._end(content)
        elif path == "/token":
            self._token()
        elif not self._may_enter():
            self.send_response(401)
            realm = f'Bearer realm="http://{registry.host}/token",service="double"'
            self.send_header("WWW-Authenticate", 'Basic realm="double"' if registry.basic else realm)
            self._end(b"{}")
        elif (found := registry.manifests.get(path.removeprefix("/v2/"))) is not None:
            self.send_response(200)
            self.send_header("Content-Type", found[0])
            self._end(found[1])
        elif (blob := re.fullmatch(r"/v2/.*/blobs/(sha256:[0-9a-f]{64})", path)) and blob[1] in registry.blobs:
            self._blob(registry.blobs[blob[1]])
        else:
            self.send_response(200 if path == "/v2/" else 404)
            self._end(b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.do_GET()

    def _may_enter(self) -> bool:
        if self.registry.login is None:
            return True
        given = self.headers.get("Authorization", "")
        return given == (self._basic() if self.registry.basic else "Bearer the-token")

    def _basic(self) -> str:
        user, password = self.registry.login or ("", "")
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def _token(self) -> None:
        scope = parse_qs(urlsplit(self.path).query).get("scope", [""])[0]
        good = self.headers.get("Authorization") == self._basic() and re.fullmatch(r"repository:.+:pull", scope)
        self.send_response(200 if good else 401)
        self._end(b'{"token": "the-token", "expires_in": 300}')

    def _blob(self, data: bytes) -> None:
        registry = self.registry
        if registry.busy:
            registry.busy -= 1
            self.send_response(503)
            self._end(b"")
            return
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if registry.ranges else None
        self.send_response(206 if start else 200)
        rest = data[int(start[1]) :] if start else data
        if registry.cut_after:
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: registry.cut_after.pop(0)])
            self.close_connection = True
        else:
            self._end(rest)

    def _end(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def registry_double(tls: ssl.SSLContext | None = None) -> Iterator[RegistryDouble]:
    """A registry, until the block ends."""
    handler = type("Handler", (_Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        handler.registry = RegistryDouble(f"127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield handler.registry
        finally:
            server.shutdown()
