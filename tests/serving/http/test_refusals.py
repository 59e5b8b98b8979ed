"""What is refused over HTTP, with which status, on every route."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import anyio
import httpx2
import pytest

from tests.kit.until import until
from tests.serving.clients import LIMIT
from tests.serving.credentials import ALL, ECHO_ONLY, EXPIRED, METRICS, Issuer, auth_settings
from tests.serving.http_server import ACCEPT, HttpServer, http_client, initialize_body, running_http

pytestmark = pytest.mark.anyio

OPEN = (("GET", "/health"), ("GET", "/ready"), ("GET", "/.well-known/oauth-protected-resource/mcp"))
GUARDED = (
    ("POST", "/mcp"),
    ("GET", "/mcp"),
    ("DELETE", "/mcp"),
    ("GET", "/sse"),
    ("POST", "/messages/?session_id=00000000000000000000000000000000"),
    ("GET", "/metrics"),
    ("GET", "/no/such/page"),
)
TOOL_ROUTES = tuple(route for route in GUARDED if route[1] != "/metrics")
MAX_BODY = 20_000


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
async def secured(
    anyio_backend: str, issuer: Issuer, sample_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[HttpServer]:
    auth = auth_settings(issuer, tmp_path_factory.mktemp("keys"))
    async with running_http(sample_directory, http={"auth": auth, "max_body": str(MAX_BODY)}) as server:
        yield server


async def ask(
    server: HttpServer,
    route: tuple[str, str],
    token: str = "",
    *,
    content: bytes = b"{}",
    more: Mapping[str, str] | None = None,
    **headers: str,
) -> httpx2.Response:
    method, path = route
    async with http_client(token) as client:
        given = {**ACCEPT, "Content-Type": "application/json", **headers, **(more or {})}
        return await client.request(method, server.base + path, headers=given, content=content)


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
async def test_a_request_without_credentials_learns_where_to_get_some(
    secured: HttpServer, route: tuple[str, str]
) -> None:
    response = await ask(secured, route)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == (
        'Bearer scope="tools:*", resource_metadata="https://tools.example.com/.well-known/oauth-protected-resource/mcp"'
    )


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
async def test_an_unknown_or_expired_token_is_invalid(secured: HttpServer, route: tuple[str, str]) -> None:
    for token in ("praxis_wrong", EXPIRED, ALL + "x", "x" * 20_000):
        response = await ask(secured, route, token)
        assert response.status_code == 401
        assert 'error="invalid_token"' in response.headers["www-authenticate"]


async def test_credentials_in_another_form_are_refused(secured: HttpServer) -> None:
    for credentials in (f"Basic {ALL}", "Bearer", f"Bearer: {ALL}", ALL):
        response = await ask(secured, ("POST", "/mcp"), Authorization=credentials)
        assert response.status_code == 401
    assert (await ask(secured, ("POST", f"/mcp?access_token={ALL}"))).status_code == 401
    async with http_client() as client:
        twice = [("Authorization", f"Bearer {ALL}"), ("Authorization", f"Bearer {ALL}")]
        assert (await client.get(secured.base + "/metrics", headers=twice)).status_code == 401


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
async def test_a_forged_or_misdirected_jwt_is_invalid(
    secured: HttpServer, issuer: Issuer, route: tuple[str, str]
) -> None:
    for what, token in issuer.forged().items():
        response = await ask(secured, route, token)
        assert response.status_code == 401, what
        assert 'error="invalid_token"' in response.headers["www-authenticate"], what


@pytest.mark.parametrize("route", TOOL_ROUTES, ids=" ".join)
async def test_a_token_that_covers_no_tools_has_insufficient_scope(
    secured: HttpServer, issuer: Issuer, route: tuple[str, str]
) -> None:
    for token in (METRICS, issuer.token(scope="openid profile"), issuer.token(drop=("scope",))):
        response = await ask(secured, route, token)
        assert response.status_code == 403
        assert 'error="insufficient_scope"' in response.headers["www-authenticate"]
        assert 'scope="tools:*"' in response.headers["www-authenticate"]


async def test_metrics_need_a_scope_of_their_own(secured: HttpServer, issuer: Issuer) -> None:
    response = await ask(secured, ("GET", "/metrics"), ALL)
    assert response.status_code == 403
    assert 'scope="metrics:read"' in response.headers["www-authenticate"]
    for token in (METRICS, issuer.token(scope=None, scp=["metrics:read"]), issuer.token(scope="metrics:read")):
        assert (await ask(secured, ("GET", "/metrics"), token)).status_code == 200


async def test_the_metadata_names_resource_issuer_and_scopes(secured: HttpServer) -> None:
    for path in ("/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"):
        document = (await ask(secured, ("GET", path))).json()
        assert document["resource"] == "https://tools.example.com/mcp"
        assert document["authorization_servers"] == ["https://login.example.com"]
        assert document["scopes_supported"] == ["tools:*", "metrics:read", "runs:read"]


@pytest.mark.parametrize("route", [*OPEN, *GUARDED], ids=" ".join)
async def test_a_foreign_host_is_refused(secured: HttpServer, route: tuple[str, str]) -> None:
    for host in ("evil.example.com", "evil.example.com:80", "127.0.0.1.evil.com", "localhost.evil.com:8000"):
        assert (await ask(secured, route, ALL, Host=host)).status_code == 421


@pytest.mark.parametrize("route", [*OPEN, *GUARDED], ids=" ".join)
async def test_a_foreign_origin_is_refused(secured: HttpServer, route: tuple[str, str]) -> None:
    for origin in ("https://evil.example.com", "http://localhost.evil.com", "null", "http://127.0.0.1:8000.evil.com"):
        assert (await ask(secured, route, ALL, Origin=origin)).status_code == 403
    both = [("Origin", "http://localhost"), ("Origin", "https://evil.example.com")]
    async with httpx2.AsyncClient(base_url=secured.base) as client:
        for headers in (both, both[::-1]):
            assert (await client.request(*route, headers=headers)).status_code == 403


async def test_the_hosts_and_origins_of_this_machine_are_served(secured: HttpServer) -> None:
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "tools.example.com"):
        assert (await ask(secured, ("GET", "/health"), Host=host)).status_code == 200
    for origin in ("http://localhost:5173", "http://127.0.0.1", "https://[::1]:8000"):
        response = await ask(secured, ("GET", "/health"), Origin=origin)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] in (origin, "*")


async def test_a_browser_may_ask_first_without_credentials(secured: HttpServer) -> None:
    ahead = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, mcp-name"}
    response = await ask(secured, ("OPTIONS", "/mcp"), Origin="http://localhost:5173", more=ahead)
    assert response.status_code == 200
    assert "mcp-name" in response.headers["access-control-allow-headers"]
    assert (await ask(secured, ("OPTIONS", "/mcp"), Origin="https://evil.example.com", more=ahead)).status_code == 403


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
async def test_an_oversized_body_is_refused_declared_or_not(secured: HttpServer, route: tuple[str, str]) -> None:
    token = METRICS if route[1] == "/metrics" else ALL
    method, path = route
    assert (await ask(secured, route, token, content=b"x" * (MAX_BODY + 1))).status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * (MAX_BODY // 2)

    async with http_client(token) as client:
        assert (await client.request(method, secured.base + path, content=chunks())).status_code == 413


async def test_a_request_without_a_token_is_refused_before_its_body_is_read(secured: HttpServer) -> None:
    assert (await ask(secured, ("POST", "/mcp"), content=b"x" * (MAX_BODY * 5))).status_code == 401


async def test_health_says_nothing_and_readiness_follows_the_catalog(secured: HttpServer) -> None:
    assert (await ask(secured, ("GET", "/health"))).json() == {"status": "ok"}

    async def is_ready() -> bool:
        return (await ask(secured, ("GET", "/ready"))).status_code == 200

    await until(is_ready)


async def test_a_session_is_its_callers_own(secured: HttpServer, issuer: Issuer) -> None:
    async with http_client(ALL) as client:
        opened = await client.post(secured.mcp, json=initialize_body(), headers=ACCEPT)
        session = {"Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25", **ACCEPT}
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        assert (await client.post(secured.mcp, json=ping, headers=session)).status_code == 200
    for other in (ECHO_ONLY, issuer.token()):
        async with http_client(other) as client:
            assert (await client.post(secured.mcp, json=ping, headers=session)).status_code == 404
            assert (await client.delete(secured.mcp, headers=session)).status_code == 404


async def test_a_session_of_the_old_transport_is_its_callers_own(secured: HttpServer) -> None:
    async with http_client(ALL) as client, client.stream("GET", secured.sse) as stream:
        lines = stream.aiter_lines()
        with anyio.fail_after(LIMIT):
            while not (line := await anext(lines)).startswith("data: "):
                pass
        path = line.removeprefix("data: ")
        async with http_client(ECHO_ONLY) as other:
            assert (await other.post(secured.base + path, json=initialize_body())).status_code == 404
        async with http_client() as nobody:
            assert (await nobody.post(secured.base + path, json=initialize_body())).status_code == 401
        assert (await client.post(secured.base + path, json=initialize_body())).status_code == 202


async def test_no_token_and_no_session_reaches_the_log(secured: HttpServer) -> None:
    session = "0123456789abcdef0123456789abcdef"
    await ask(secured, ("POST", f"/messages/?session_id={session}"), ALL)
    await ask(secured, ("POST", "/mcp"), ALL, more={"Mcp-Session-Id": session})
    await ask(secured, ("GET", "/a%0Ab%1b[31m"), ALL)
    await until(lambda: any("/a\\nb\\x1b[31m" in line for line in secured.log))
    written = "\n".join(secured.log)
    assert "/messages/ 404" in written
    assert "token:all" in written
    for secret in (ALL, ECHO_ONLY, METRICS, session, "session_id"):
        assert secret not in written
