"""One server and client for each transport and era, shared by the tests that change nothing about them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.serving.clients import LINES, Peer, connect
from tests.serving.sample_tools import write_sample_tools


@pytest.fixture(scope="session")
def sample_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sample-tools")
    write_sample_tools(directory)
    return directory


@pytest.fixture(
    scope="session",
    params=LINES,
    ids=lambda pair: "-".join(pair),
)
async def peer(request: pytest.FixtureRequest, anyio_backend: str, sample_directory: Path) -> AsyncIterator[Peer]:
    """A client on a server of the sample tools."""
    transport, era = request.param
    async with connect(transport, era, sample_directory) as client:
        yield Peer(client, transport, era)
