"""Questions to a daemon that closes its connections, as daemons may."""

from pathlib import Path

import anyio
import anyio.abc
import pytest

from praxis_mcp.engines.docker.inquiry import DockerInquiry
from praxis_mcp.engines.docker.stream import Address

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("header", ["Connection: close", "Server: closes without a word"])
async def test_each_question_is_answered_though_the_daemon_closes_after_it(tmp_path: Path, header: str) -> None:
    path = tmp_path / "docker.sock"
    asked = 0

    async def serve(stream: anyio.abc.SocketStream) -> None:
        nonlocal asked
        async with stream:
            await stream.receive()
            asked += 1
            await stream.send(f'HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: 11\r\n\r\n{{"Id":"{asked}"}} '.encode())

    with anyio.fail_after(20):
        async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            inquiry = DockerInquiry(Address(str(path)), "/v1.41")
            found = [await inquiry.image("tool") for _ in range(3)]
            assert found == [{"Id": "1"}, {"Id": "2"}, {"Id": "3"}]
            await inquiry.aclose()
            tasks.cancel_scope.cancel()
