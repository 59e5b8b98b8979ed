"""A server process that tests kill while a call of a server that it started by command runs.

Usage: python -m tests.upstreams.victim FILE [alone]

FILE is `clinging_server`'s. With `alone` it starts it as where there is no praxis-init.
"""

import sys

import anyio

from praxis_mcp.support import praxis_init as native
from praxis_mcp.upstreams.spec import UpstreamSpec
from praxis_mcp.upstreams.upstream import UpstreamPool


async def main() -> None:
    if "alone" in sys.argv:
        native.host_init_path = lambda: None
    words = (sys.executable, "-m", "tests.kit.clinging_server", sys.argv[1])
    upstream = UpstreamPool().get(UpstreamSpec("the server", words))
    await upstream.connect()
    print("connected", flush=True)
    await upstream.call("say", {}, timeout=600)  # which is never answered


anyio.run(main)
