"""`praxis-mcp health` says whether the server of its settings answers, as health checks of containers ask it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from subprocess import CompletedProcess

import anyio.to_thread
import pytest

from tests.kit.command_line import praxis
from tests.kit.contracts import write_tool
from tests.kit.ports import held_port
from tests.kit.until import until
from tests.serving.http.test_start import make_certificate
from tests.serving.http_server import running_http

pytestmark = pytest.mark.anyio


async def health(directory: Path, *words: str, **environment: str) -> CompletedProcess[str]:
    def run() -> CompletedProcess[str]:
        return praxis("health", *words, cwd=directory, env={**os.environ, **environment})

    return await anyio.to_thread.run_sync(run)


async def test_a_server_lives_and_is_ready_until_it_is_told_to_end(tmp_path: Path) -> None:
    write_tool(tmp_path, "t", ["true"])
    async with running_http(tmp_path, http={"drain_delay": "600"}) as server:
        own = {"PRAXIS_HTTP__PORT": server.base.rpartition(":")[2], "PRAXIS_HTTP__HOST": "127.0.0.1"}

        async def says(status: int, text: str, *words: str) -> bool:
            done = await health(tmp_path, *words, **own)
            return (done.returncode, done.stdout + done.stderr) == (status, f"{text}\n")

        assert await says(0, "ok")
        await until(lambda: says(0, "ready", "--ready"))
        server.signal(signal.SIGTERM)
        await until(lambda: says(1, "shutting down", "--ready"))
        assert await says(0, "ok")
        server.signal(signal.SIGTERM)
        assert await server.exit_code() == 0


async def test_over_tls_it_trusts_the_certificate_of_the_settings(tmp_path: Path) -> None:
    write_tool(tmp_path, "t", ["true"])
    certificate, key = make_certificate(tmp_path)
    tls = {"tls_certificate": str(certificate), "tls_key": str(key)}
    async with running_http(tmp_path, http=tls) as server:
        own = {f"PRAXIS_HTTP__{name.upper()}": value for name, value in tls.items()}
        done = await health(tmp_path, PRAXIS_HTTP__PORT=server.base.rpartition(":")[2], **own)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


async def test_where_nobody_answers_it_says_so_and_ends_with_1(tmp_path: Path) -> None:
    with held_port() as port:
        done = await health(tmp_path, PRAXIS_HTTP__PORT=str(port))
        asked = await health(tmp_path, "--port", str(port), "--json")
    assert done.returncode == 1
    assert done.stderr.startswith(f"No server answers at port {port} of 127.0.0.1: ")
    assert "asked with the same --port; without it, the port is the settings' http.port, 8000" in done.stderr
    assert asked.returncode == 1
    assert f"at port {port} of" in json.loads(asked.stdout)["status"]
