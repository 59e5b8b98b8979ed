"""nginx as deploy/nginx.conf has it, in front of real servers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import httpx2

from tests.kit.ports import held_port
from tests.kit.until import until
from tests.serving.clients import LIMIT
from tests.serving.http_server import HttpServer, http_client

CONFIGURATION = Path(__file__).parents[2] / "deploy/nginx.conf"
STICKY = "hash $http_authorization$remote_addr consistent;"


@asynccontextmanager
async def balancer(servers: Sequence[str], place: Path, *, sticky: bool = True) -> AsyncIterator[str]:
    """The address of nginx in front of two servers, by their addresses.

    Args:
        servers: such as ``http://127.0.0.1:8000``.
        place: where it keeps its files.
        sticky: whether each caller keeps to one server; else they have its requests in turn.
    """
    with held_port() as port:
        text = CONFIGURATION.read_text()
        user = "user root;" if os.geteuid() == 0 else ""
        for shown, real in (
            ("10.0.0.11:8000", servers[0].partition("//")[2]),
            ("10.0.0.12:8000", servers[1].partition("//")[2]),
            ("listen 8080;", f"listen 127.0.0.1:{port};"),
            (STICKY, STICKY if sticky else ""),
        ):
            assert shown in text
            text = text.replace(shown, real)
        words = f"daemon off; pid {place}/pid; error_log stderr; worker_processes 1; {user}"
        places = "".join(
            f"{kind}_temp_path {place}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = text.replace("http {", f"http {{ access_log off; {places}", 1)
        (place / "nginx.conf").write_text(text)
        place.chmod(0o755)
        process = subprocess.Popen(
            ["nginx", "-p", str(place), "-c", str(place / "nginx.conf"), "-e", "stderr", "-g", words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            await until(lambda: _answers(address, process))
            yield address
        finally:
            process.terminate()
            await anyio.to_thread.run_sync(process.wait, LIMIT)


async def runs_a_call(server: HttpServer, token: str) -> bool:
    """Whether it runs a call now, by what it shows the holder of that token."""
    async with http_client(token) as client:
        text = (await client.get(f"{server.base}/metrics")).text
    return "praxis_calls_running 1" in text


async def _answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "nginx has ended"
    try:
        async with http_client() as client:
            return (await client.get(f"{address}/health")).status_code == 200
    except httpx2.TransportError:
        return False
