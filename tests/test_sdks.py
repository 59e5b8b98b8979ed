"""What is used of the SDKs beside their public names is there, in versions that were run."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]

MCP = "praxis_mcp/support/mcp_sdk.py"
DOCKER = "praxis_mcp/engines/docker/sdk.py"
DAGGER = "praxis_mcp/engines/dagger/sdk.py"
KUBERNETES = "praxis_mcp/engines/kubernetes/client.py"


def named(module: str, *names: str) -> Callable[[], Any]:
    def find() -> None:
        found = importlib.import_module(module)
        for name in names:
            getattr(found, name)

    return find


def connection_of_a_session() -> None:
    from mcp.server.connection import Connection
    from mcp.server.session import ServerSession

    from praxis_mcp.support.mcp_sdk import connection_of

    connection = Connection.__new__(Connection)
    session = ServerSession.__new__(ServerSession)
    for parameter in ("request_outbound", "connection"):
        assert parameter in inspect.signature(ServerSession).parameters
    session._connection = connection
    assert connection_of(session) is connection
    assert "self._connection = connection" in inspect.getsource(ServerSession.__init__)
    assert "exit_stack" in inspect.getsource(Connection)


def stamp_of_a_client_session() -> None:
    from mcp.client.session import ClientSession

    assert "self._stamp" in inspect.getsource(ClientSession.__init__)
    assert "self._stamp(data, opts)" in inspect.getsource(ClientSession)


def words_for_a_lost_stream() -> None:
    from mcp.client import streamable_http

    from praxis_mcp.support.mcp_sdk import LOST_STREAM

    source = inspect.getsource(streamable_http)
    assert f'"{LOST_STREAM}ended without a response"' in source
    assert f'f"{LOST_STREAM}failed: ' in source


def version_and_socket_of_a_docker_client() -> None:
    import docker

    from praxis_mcp.engines.docker.sdk import set_api_version, unix_socket_of

    api = docker.APIClient(base_url="unix:///nowhere/docker.sock", version="1.41")
    try:
        set_api_version(api, "1.43")
        assert (api.api_version, unix_socket_of(api)) == ("1.43", "/nowhere/docker.sock")
        assert "self._version" in inspect.getsource(docker.APIClient), "it asks with another version than it shows"
    finally:
        api.close()
    api = docker.APIClient(base_url="tcp://127.0.0.1:9", version="1.41")
    try:
        assert unix_socket_of(api) is None
    finally:
        api.close()


def socket_of_an_attached_stream() -> None:
    from docker.api.client import APIClient

    from praxis_mcp.engines.docker.sdk import half_closable

    assert "_get_raw_response_socket" in inspect.getsource(APIClient)
    mine, other = socket.socketpair()
    with mine, other, mine.makefile("rb", buffering=0) as stream:
        assert half_closable(stream) is mine
    assert half_closable(mine) is mine
    assert "sock._response = response" in inspect.getsource(APIClient), "closing it may leave the connection open"


def connection_to_a_dagger_session() -> None:
    from dagger.client._config import ConnectConfig
    from dagger.client._session import ConnectParams, SingleConnection

    params = ConnectParams(port=1, session_token="token")
    connection = SingleConnection(params, ConnectConfig(retry=None))
    client: Any = connection.session.client
    assert client.fetch_schema_from_transport is True, "there is nothing to turn off any more"
    assert callable(connection.session.get_session)
    source = inspect.getsource(importlib.import_module("dagger.provisioning._engine"))
    assert "ConnectParams.from_env()" in source, "dagger.Connection can be given an address now: use it"


def client_of_a_cluster() -> None:
    import httpx2
    import lightkube
    from lightkube.config.client_adapter import ConnectionParams

    where = {
        "clusters": [{"name": "it", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "it", "user": {"token": "the-token"}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "tools"}}],
        "current-context": "it",
    }
    found = lightkube.KubeConfig.from_dict(where).get(None)
    assert found is not None
    assert (found.cluster.server, found.namespace, found.context_name) == ("http://127.0.0.1:9", "tools", "it")
    client = httpx2.AsyncClient(**ConnectionParams().httpx_params(found))
    assert (str(client.base_url), callable(client.websocket)) == ("http://127.0.0.1:9", True)
    for name in ("from_file", "from_env"):
        assert callable(getattr(lightkube.KubeConfig, name))
    assert issubclass(lightkube.ConfigError, Exception)


NAMES: list[tuple[str, str, str, Callable[[], Any]]] = [
    ("mcp", MCP, "types of a transport", named("mcp.client._transport", "Transport", "TransportStreams")),
    ("mcp", MCP, "types of streams", named("mcp.shared._stream_protocols", "ReadStream", "WriteStream")),
    ("mcp", MCP, "redirects", named("mcp.shared._httpx_utils", "stream_within_origin")),
    ("mcp", MCP, "connection of a session", connection_of_a_session),
    ("mcp", MCP, "stamp of a session", stamp_of_a_client_session),
    ("mcp", MCP, "words for a lost stream", words_for_a_lost_stream),
    ("docker", DOCKER, "version and socket of a client", version_and_socket_of_a_docker_client),
    ("docker", DOCKER, "socket of an attached stream", socket_of_an_attached_stream),
    ("dagger-io", DAGGER, "connection to a session", connection_to_a_dagger_session),
    ("lightkube", KUBERNETES, "client of a cluster", client_of_a_cluster),
]


@pytest.mark.parametrize(("sdk", "adapter", "find"), [pytest.param(s, a, f, id=f"{s}: {n}") for s, a, n, f in NAMES])
def test_what_is_used_of_an_sdk_besides_its_public_names_is_there(
    sdk: str, adapter: str, find: Callable[[], Any]
) -> None:
    pytest.importorskip({"dagger-io": "dagger"}.get(sdk, sdk))
    try:
        find()
    except (ImportError, AttributeError, TypeError, AssertionError) as exc:
        pytest.fail(
            f"{sdk} {importlib.metadata.version(sdk)} lacks what {adapter} takes of it ({exc!r}): adapt that module "
            "(its docstring says what each is for), or keep the upper bound in pyproject.toml below that version."
        )


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {found.name: found for found in map(Requirement, lines)}


@pytest.mark.parametrize(("sdk", "parts"), [("mcp", 2), ("docker", 2), ("dagger-io", 3), ("lightkube", 1)])
def test_no_version_of_an_sdk_is_allowed_beyond_the_one_that_these_tests_run_with(sdk: str, parts: int) -> None:
    """`parts` of a version's numbers: a release that changes any of them is refused until it was run."""
    try:
        installed = Version(importlib.metadata.version(sdk))
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{sdk} is not installed")
    allowed = requirements()[sdk].specifier
    assert installed in allowed
    following = list(installed.release[:parts])
    following[-1] += 1
    beyond = ".".join(map(str, following))
    assert beyond not in allowed, f"{sdk} {beyond} was not run: bound it to <{beyond} in pyproject.toml"
