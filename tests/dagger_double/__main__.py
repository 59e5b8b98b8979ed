"""`dagger session`, doubled: python -m tests.dagger_double --state DIRECTORY session [options]."""

import argparse
import asyncio
import json
import os
import secrets
import socket
import sys
from pathlib import Path

import uvicorn

from tests.dagger_double.server import Server
from tests.kit.until import until


def main() -> int:
    parser = argparse.ArgumentParser(prog="dagger (a double)")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("command", choices=["session"])
    options, _ = parser.parse_known_args()
    if (options.state / "down").exists():
        print("Error: failed to connect to the engine (the double is told to be down)", file=sys.stderr)
        return 1
    asyncio.run(serve(options.state))
    return 0


async def serve(state: Path) -> None:
    token = secrets.token_hex(16)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = Server(state, token)
    config = uvicorn.Config(
        server.app(),
        log_level="error",
        lifespan="off",
        timeout_graceful_shutdown=1,
        # `dagger session` closes no idle connection (Go's http.Server without IdleTimeout). uvicorn's 5 s are the
        # client's own: a busy double closed a connection that was just used again, and the session counted as lost.
        timeout_keep_alive=3600,
    )
    web = uvicorn.Server(config)
    web.install_signal_handlers = lambda: None  # type: ignore[method-assign]

    async def end_with_stdin() -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
        web.should_exit = True

    with (state / "sessions").open("a") as log:
        log.write(f"{os.getpid()}\n")
    life_line = asyncio.create_task(end_with_stdin())
    serving = asyncio.create_task(web.serve(sockets=[listener]))
    await until(lambda: web.started or serving.done(), every=0.01)
    print(json.dumps({"port": listener.getsockname()[1], "session_token": token}), flush=True)
    await serving
    life_line.cancel()
    await server.close()


if __name__ == "__main__":
    raise SystemExit(main())
