"""An OpenTelemetry collector, as far as OTLP over HTTP goes: takes spans in, as its protocol says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.kit.until import until_blocking


class Collector:
    """What has arrived.

    Attributes:
        bodies: of requests, as they came.
        resource: attributes of what exported.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.bodies: list[bytes] = []
        self.resource: dict[str, Any] = {}
        self.spans: list[Span] = []
        self.status = 200

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(body)
        self.bodies.append(body)
        for resources in request.resource_spans:
            self.resource = attributes_of(resources.resource)
            for scoped in resources.scope_spans:
                self.spans += scoped.spans

    def named(self, name: str, count: int = 1) -> list[Span]:
        """So many spans of that name, once they are there."""
        found = lambda: [span for span in self.spans if span.name == name]  # noqa: E731
        until_blocking(lambda: len(found()) >= count, what=f"{name} is exported")
        return found()


def attributes_of(item: Any) -> dict[str, Any]:
    """The attributes of a span or a resource."""
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in item.attributes}


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a port of the loopback."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if found.status == 200:
                found.take(self.path, body)
            self.send_response(found.status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
