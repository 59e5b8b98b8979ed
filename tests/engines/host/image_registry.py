"""An image registry with one image, on this machine (distribution specification, "Pulling manifests", "Pulling blobs").

Docker pulls from registries on 127.0.0.0/8 without TLS. The image is scratch-tool's one program.
"""

import gzip
import hashlib
import json
import platform
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
NAME, TAG = "praxis-mcp/pulled", "1"


@dataclass
class Registry:
    """A running registry: its one image, the paths that were asked for, and a gate that keeps manifests back while it
    is shut."""

    image: str
    digest: str
    requests: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _layer() -> bytes:
    """A tar of scratch-tool's program."""
    make = "id=$(docker create scratch-tool:latest /tool) && docker cp $id:/tool - && docker rm $id >/dev/null"
    return subprocess.run(["/bin/sh", "-c", make], check=True, capture_output=True).stdout


def _image() -> tuple[bytes, dict[str, bytes]]:
    """A manifest, and its blobs by digest."""
    tar = _layer()
    layer = gzip.compress(tar)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    root = {"type": "layers", "diff_ids": [_digest(tar)]}
    config = json.dumps({"architecture": machine, "os": "linux", "config": {}, "rootfs": root}).encode()
    kind = "application/vnd.docker"
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": f"{kind}.container.image.v1+json", "size": len(config), "digest": _digest(config)},
        "layers": [{"mediaType": f"{kind}.image.rootfs.diff.tar.gzip", "size": len(layer), "digest": _digest(layer)}],
    }
    return json.dumps(manifest).encode(), {_digest(config): config, _digest(layer): layer}


@contextmanager
def image_registry() -> Iterator[Registry]:
    """A registry, and at the end its image removed from the daemon."""
    manifest, blobs = _image()
    paths = {f"/v2/{NAME}/blobs/{digest}": data for digest, data in blobs.items()}
    paths |= {f"/v2/{NAME}/manifests/{reference}": manifest for reference in (TAG, _digest(manifest))}
    paths["/v2/"] = b"{}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.requests.append(self.path)
            if "/manifests/" in self.path:
                registry.gate.wait(60)
            body = paths.get(self.path, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')
            self.send_response(200 if self.path in paths else 404)
            kind = MANIFEST_TYPE if "/manifests/" in self.path and self.path in paths else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", _digest(body))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        image = f"localhost:{server.server_port}/{NAME}:{TAG}"
        registry = Registry(image, _digest(manifest))
        registry.gate.set()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield registry
        finally:
            server.shutdown()
            subprocess.run(["docker", "rmi", image], check=False, capture_output=True)
