"""A small HTTP API on this machine, which tells what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PIXEL = b"\x89PNG\r\n\x1a\n" + b"\0" * 16


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Answers whatever was asked, by its path."""
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, encoding="latin-1")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        server: Any = self.server
        server.seen.append((self.command, self.path, dict(self.headers), body))
        match parts.path.split("/")[1:]:
            case ["status", code]:
                self._send(int(code), b'{"error": "as you asked"}', "application/json", {"Retry-After": "7"})
            case ["redirect"]:
                self._send(int(query.get("code", ["302"])[0]), b"", "text/plain", {"Location": query["to"][0]})
            case ["loop"]:
                self._send(302, b"", "text/plain", {"Location": "/loop"})
            case ["big", size]:
                self._send(200, b"x" * int(size), "text/plain", {})
            case ["slow", seconds]:
                time.sleep(float(seconds))
                self._send(200, b"late", "text/plain", {})
            case ["pixel"]:
                self._send(200, PIXEL, "image/png", {})
            case ["binary"]:
                self._send(200, b"\xff\xfe\x00", "application/octet-stream", {})
            case ["latin"]:
                self._send(200, "é".encode("latin-1"), "text/plain; charset=ISO-8859-1", {})
            case ["typed"]:
                self._send(200, server.typed[1], server.typed[0], {})
            case ["nothing"]:
                self._send(204, b"", "", {})
            case ["garbage"]:
                self.wfile.write(b"SSH-2.0-OpenSSH\r\n")
                self.close_connection = True
            case _:
                told = {
                    "method": self.command,
                    "path": self.path,
                    "headers": {name.lower(): value for name, value in self.headers.items()},
                    "body": body.decode(),
                }
                self._send(200, json.dumps(told).encode(), "application/json", {})

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(body)
            except OSError:  # who asked has gone
                self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


for _method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"):
    setattr(_Handler, f"do_{_method}", _Handler.answer)


class Api(ThreadingHTTPServer):
    """The server. `seen` has method, path, headers and body of each request; `typed` is a type, and what has it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.typed: tuple[str, bytes] = ("text/plain", b"")

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[Api]:
    """A server that lives as long as this."""
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
