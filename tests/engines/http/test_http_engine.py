"""Requests to a real server: what arrives there, what comes back, and what is never sent."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator, Iterator
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import anyio
import pytest

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.http.engine import HttpEngine
from praxis_mcp.errors import ArgumentError, ExecutionError, LimitUnsupported, SettingsError
from praxis_mcp.execution.runner import fill_arguments
from praxis_mcp.plans.public_hosts import is_public
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import PolicySettings
from tests.engines.http.api import PIXEL, Api, serving
from tests.kit.command_line import praxis
from tests.kit.contracts import write_contract
from tests.kit.ports import held_port

pytestmark = pytest.mark.anyio

LIMIT = 60.0


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with serving() as server:
        yield server


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[HttpEngine]:
    settings = Settings(root=tmp_path, policy=PolicySettings(private_hosts=("127.0.0.1",)))
    async with HttpEngine(settings) as engine:
        yield engine


def contract(url: str, parameters: dict[str, Any] | None = None, output: str = "text", **spec: Any) -> ToolContract:
    return ToolContract.model_validate(
        {
            "name": "ask",
            "description": "Asks an API.",
            "engine": "http",
            "engine_spec": {"url": url, "timeout": 30, **spec},
            "parameters": parameters or {},
            "output": output,
        }
    )


async def run(engine: HttpEngine, found: ToolContract, **arguments: Any) -> ExecutionResult:
    with anyio.fail_after(LIMIT):
        return await engine.execute(found, arguments)


async def told(engine: HttpEngine, found: ToolContract, **arguments: Any) -> dict[str, Any]:
    """What the server says that it was asked."""
    result = await run(engine, found, **arguments)
    assert result.exit_code == 0, result.stderr.text
    return json.loads(result.output)


async def test_parameters_go_into_path_query_headers_and_body_by_their_bindings(engine: HttpEngine, api: Api) -> None:
    found = contract(
        f"{api.url}/users/{{id}}/items?fixed=1",
        {
            "id": "string",
            "title": "string",
            "count": {"type": "integer", "default": 3},
            "tags": {"type": "array", "items": {"type": "string"}, "bind": {"query": "tag", "repeat": True}},
            "ids": {"type": "array", "items": {"type": "integer"}, "bind": "query"},
            "trace": {"type": "string", "bind": {"header": "X-Trace"}},
            "note": {"type": ["string", "null"], "required": False},
        },
        method="post",
        query={"api": "v 2"},
    )
    asked = await told(engine, found, id="a b", title="T", tags=["x", "y&z"], ids=[1, 2], trace="t-1", note=None)
    assert asked["method"] == "POST"
    assert asked["path"] == "/users/a%20b/items?fixed=1&api=v%202&tag=x&tag=y%26z&ids=1%2C2"
    assert asked["headers"]["x-trace"] == "t-1"
    assert asked["headers"]["content-type"] == "application/json"
    assert json.loads(asked["body"]) == {"title": "T", "count": 3, "note": None}


async def test_without_bindings_what_is_not_in_the_path_goes_into_the_query_of_a_get(
    engine: HttpEngine, api: Api
) -> None:
    found = contract(f"{api.url}/u/{{id}}", {"id": "integer", "q": "string", "all": "boolean"})
    assert (await told(engine, found, id=7, q="é", all=True))["path"] == "/u/7?q=%C3%A9&all=true"


async def test_a_form_and_a_text_are_bodies_too(engine: HttpEngine, api: Api) -> None:
    form = contract(
        f"{api.url}/x", {"a": "string", "b": {"type": "array", "items": {"type": "string"}}}, method="POST", body="form"
    )
    asked = await told(engine, form, a="1&2", b=["x", "y"])
    assert (asked["headers"]["content-type"], asked["body"]) == ("application/x-www-form-urlencoded", "a=1%262&b=x&b=y")
    text = contract(f"{api.url}/x", {"content": {"type": "string", "bind": "body"}}, method="PUT", body="text")
    asked = await told(engine, text, content="héllo")
    assert (asked["headers"]["content-type"], asked["body"]) == ("text/plain; charset=utf-8", "héllo")
    whole = contract(f"{api.url}/x", {"items": {"type": "array", "bind": "body"}}, method="POST")
    assert json.loads((await told(engine, whole, items=[1, {"a": 2}]))["body"]) == [1, {"a": 2}]


async def test_objects_go_into_a_query_and_a_form_in_depth(engine: HttpEngine, api: Api) -> None:
    value = {"gt": 1, "in": ["a", "b"], "rows": [{"x": 1}, {"x": None, "y": True}], "none": None}
    found = contract(f"{api.url}/x", {"when": {"type": "object", "bind": {"query": "w", "deep": True}}})
    asked = await told(engine, found, when=value)
    pairs = [("w[gt]", "1"), ("w[in][]", "a"), ("w[in][]", "b"), ("w[rows][0][x]", "1"), ("w[rows][1][y]", "true")]
    assert parse_qsl(asked["path"].partition("?")[2]) == pairs
    parameters = {"w": {"type": "object", "bind": {"body": "w", "deep": True}}, "b": "string"}
    asked = await told(engine, contract(f"{api.url}/x", parameters, method="POST", body="form"), w=value, b="&w[gt]=2")
    assert parse_qsl(asked["body"]) == [*pairs, ("b", "&w[gt]=2")]


async def test_a_form_in_parts_carries_texts_json_and_files_and_no_value_ends_its_part(
    engine: HttpEngine, api: Api
) -> None:
    base64 = {"type": "string", "contentEncoding": "base64", "required": False}
    parameters = {
        "text": "string", "meta": {"type": "object"}, "file": base64,
        "odd": {"type": "string", "bind": {"body": 'a"\r\nX: b'}},
    }  # fmt: skip
    found = contract(f"{api.url}/x", parameters, method="POST", body="multipart")
    asked = await told(engine, found, text="é\r\n--x--", meta={"a": 1}, file="aGk=", odd="")
    message = BytesParser(policy=HTTP).parsebytes(
        f"Content-Type: {asked['headers']['content-type']}\r\n\r\n{asked['body']}".encode()
    )
    parts = list(message.iter_parts())
    assert [part.get_payload(decode=True) for part in parts] == ["é\r\n--x--".encode(), b'{"a":1}', b"hi", b""]
    assert [part.get_filename() for part in parts] == [None, None, "file", None]
    assert parts[1].get_content_type() == "application/json"
    assert parts[3]["Content-Disposition"].params["name"] == "a%22%0D%0AX: b"
    with pytest.raises(ArgumentError, match="not base64"):
        await run(engine, found, text="", meta={}, file="no!", odd="")


async def test_what_an_api_tells_of_one_form_in_parts_forges_no_part_of_another(engine: HttpEngine, api: Api) -> None:
    found = contract(f"{api.url}/x", {"text": "string"}, method="POST", body="multipart")
    first, again = await told(engine, found, text="a"), await told(engine, found, text="a")
    assert first["headers"]["content-type"] == again["headers"]["content-type"]
    _, _, boundary = first["headers"]["content-type"].partition("boundary=")
    text = f'a\r\n--{boundary}\r\nContent-Disposition: form-data; name="admin"\r\n\r\n1'
    asked = await told(engine, found, text=text)
    head = f"Content-Type: {asked['headers']['content-type']}\r\n\r\n"
    (part,) = BytesParser(policy=HTTP).parsebytes((head + asked["body"]).encode()).iter_parts()
    assert part.get_payload(decode=True) == text.encode()


def in_depth(levels: int) -> Any:
    return {"a": in_depth(levels - 1)} if levels else 1


@pytest.mark.parametrize(
    "value",
    [
        {"a][b": 1},
        {"": 1},
        {"a": {"]": 1}},
        {"\ud800": 1},
        in_depth(100),
        {"k" * 1100: 1},
        {"k" * 1000: [1] * 20_000},  # 20 MB of names, of 41 kB
    ],
    ids=lambda value: repr(value)[:20],
)
@pytest.mark.parametrize("place", ["query", "body"])
async def test_a_member_keeps_its_own_name_and_a_few_bytes_make_no_flood_of_names(
    engine: HttpEngine, api: Api, place: str, value: Any
) -> None:
    parameters = {"w": {"type": "object", "bind": {place: "w", "deep": True}}}
    before = len(api.seen)
    with pytest.raises(ArgumentError, match='"w"'):
        await run(engine, contract(f"{api.url}/x", parameters, method="POST", body="form"), w=value)
    assert len(api.seen) == before


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("a/b", "/u/a%2Fb/x"),
        ("?q=1", "/u/%3Fq%3D1/x"),
        ("#f", "/u/%23f/x"),
        ("%2e%2e", "/u/%252e%252e/x"),
        ("@evil.example", "/u/%40evil.example/x"),
        ("a\\b", "/u/a%5Cb/x"),
        ("...", "/u/.../x"),
        ("ü", "/u/%C3%BC/x"),
    ],
)
async def test_an_argument_stays_one_segment_of_the_path(engine: HttpEngine, api: Api, value: str, sent: str) -> None:
    assert (await told(engine, contract(f"{api.url}/u/{{id}}/x", {"id": "string"}), id=value))["path"] == sent


@pytest.mark.parametrize("value", ["", ".", "..", "../x", "a/../b", "..\\x", "a\r\nb", "a\0b", "\ud800"])
async def test_an_argument_that_would_be_another_path_is_refused(engine: HttpEngine, api: Api, value: str) -> None:
    before = len(api.seen)
    with pytest.raises(ArgumentError, match='"id"'):
        await run(engine, contract(f"{api.url}/u/{{id}}/x", {"id": "string"}), id=value)
    assert len(api.seen) == before


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0", "é", " a", "a\x7f"])
async def test_an_argument_cannot_become_another_header(engine: HttpEngine, api: Api, value: str) -> None:
    found = contract(f"{api.url}/x", {"h": {"type": "string", "bind": {"header": "X-H"}}})
    with pytest.raises(ArgumentError, match='"h"'):
        await run(engine, found, h=value)


async def test_secrets_are_sent_and_masked_in_what_comes_back(
    engine: HttpEngine, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "s3cr3t-token")
    monkeypatch.setenv("API_USER", "someone")
    monkeypatch.setenv("API_PASSWORD", "pa55word!")
    secret = {"secret": "API_TOKEN"}
    bearer = await run(
        engine, contract(f"{api.url}/x", auth_token=secret, query={"key": secret}, headers={"X-K": secret})
    )
    _, path, headers, _ = api.seen[-1]
    assert headers["Authorization"] == "Bearer s3cr3t-token"
    assert headers["X-K"] == "s3cr3t-token"
    assert path == "/x?key=s3cr3t-token"
    assert "s3cr3t" not in bearer.output
    basic = await run(
        engine, contract(f"{api.url}/x", basic_user={"secret": "API_USER"}, basic_password={"secret": "API_PASSWORD"})
    )
    assert api.seen[-1][2]["Authorization"] == "Basic c29tZW9uZTpwYTU1d29yZCE="
    assert "c29tZW9uZTpwYTU1" not in basic.output
    monkeypatch.setenv("API_TOKEN", "s3cr3t\r\nX-Evil: 1")
    with pytest.raises(SettingsError, match="header"):
        await run(engine, contract(f"{api.url}/x", auth_token=secret))


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_a_status_of_400_and_above_is_a_failed_result_with_its_body(
    engine: HttpEngine, api: Api, status: int
) -> None:
    result = await run(engine, contract(f"{api.url}/status/{status}"))
    assert result.exit_code == 1
    assert "as you asked" in result.output
    assert f"HTTP {status}" in result.stderr.text
    assert "retry after 7 s" in result.stderr.text


async def test_what_comes_back_is_text_where_it_is_text_and_named_where_it_is_not(engine: HttpEngine, api: Api) -> None:
    assert (await run(engine, contract(f"{api.url}/latin"))).output == "é"
    assert "not text" in (await run(engine, contract(f"{api.url}/binary"))).output
    nothing = await run(engine, contract(f"{api.url}/nothing"))
    assert (nothing.exit_code, nothing.output) == (0, "")
    assert "HTTP 204" in nothing.stderr.text
    pixel = await run(engine, contract(f"{api.url}/pixel"))
    assert pixel.remote is not None
    (block,) = pixel.remote.blocks
    assert (block["type"], block["mimeType"]) == ("image", "image/png")
    assert len(block["data"]) >= len(PIXEL)
    head = await run(engine, contract(f"{api.url}/x", method="HEAD"))
    assert (head.exit_code, head.output) == (0, "")


async def test_an_answer_above_its_bound_is_cut_and_a_failure(engine: HttpEngine, api: Api) -> None:
    fits = await run(engine, contract(f"{api.url}/big/1000", max_response=1000))
    assert (fits.exit_code, len(fits.output)) == (0, 1000)
    cut = await run(engine, contract(f"{api.url}/big/1001", max_response=1000))
    assert cut.exit_code == 1
    assert "more than 1000 bytes" in cut.stderr.text


async def test_a_request_ends_at_its_deadline(engine: HttpEngine, api: Api) -> None:
    result = await run(engine, contract(f"{api.url}/slow/50", timeout=0.5))
    assert result.timed_out
    assert (await run(engine, contract(f"{api.url}/nothing"))).exit_code == 0


async def test_a_redirect_is_a_failure_that_says_where_it_leads_unless_it_may_be_followed(
    engine: HttpEngine, api: Api
) -> None:
    url = f"{api.url}/redirect?to=/arrived"
    refused = await run(engine, contract(url))
    assert refused.exit_code == 1
    assert f"leads to {api.url}/arrived" in refused.stderr.text
    assert (await told(engine, contract(url, follow_redirects=True)))["path"] == "/arrived"
    posted = await run(engine, contract(url, method="POST", follow_redirects=True))
    assert posted.exit_code == 1
    assert (await run(engine, contract(f"{api.url}/loop", follow_redirects=True))).exit_code == 1


async def test_secrets_never_follow_a_redirect_to_another_host(
    engine: HttpEngine, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "s3cr3t-token")
    with serving() as other:
        url = f"{api.url}/redirect?to={other.url}/taken"
        kept = await run(engine, contract(url, follow_redirects=True, auth_token={"secret": "API_TOKEN"}))
        assert kept.exit_code == 1
        assert not other.seen
        found = contract(url, {"h": {"type": "string", "bind": {"header": "X-H"}}}, follow_redirects=True)
        assert (await run(engine, found, h="mine")).exit_code == 0
        assert "mine" not in str(other.seen)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "javascript:1"])
async def test_a_redirect_to_something_else_than_http_is_not_followed(engine: HttpEngine, api: Api, to: str) -> None:
    assert (await run(engine, contract(f"{api.url}/redirect?to={to}", follow_redirects=True))).exit_code == 1


@pytest.mark.parametrize(
    "to", ["http://[::1", "http://127.0.0.1:99999/", "//[x]/", "http://127.0.0.1:0/", "http://\xe9/"]
)
@pytest.mark.parametrize("follow_redirects", [False, True])
async def test_a_redirect_that_leads_nowhere_is_a_failure_that_says_so(
    engine: HttpEngine, api: Api, to: str, follow_redirects: bool
) -> None:
    found = contract(
        f"{api.url}/redirect?to={quote(to, safe='', encoding='latin-1')}", follow_redirects=follow_redirects
    )
    result = await run(engine, found)
    assert result.exit_code == 1
    assert "which was not followed" in result.stderr.text


@pytest.mark.parametrize("charset", ["punycode", "PunyCode", "idna", "undefined", "unicode_escape", "nothing", "hex"])
async def test_an_unknown_charset_is_taken_for_utf_8(engine: HttpEngine, api: Api, charset: str) -> None:
    # Of the first, a MiB would take minutes, in which nothing else is served.
    body = b"a" * 500_000 + b"-" + b"a9b" * 170_000
    api.typed = (f"text/plain; charset={charset}", body)
    assert (await run(engine, contract(f"{api.url}/typed"))).stdout.total == len(body)


async def test_hosts_that_are_not_public_are_refused_by_address_unless_the_settings_allow_them(
    api: Api, tmp_path: Path
) -> None:
    before = len(api.seen)
    port = api.server_port
    async with HttpEngine(Settings(root=tmp_path)) as closed:
        for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "[::1]", "169.254.169.254"):
            with pytest.raises(LimitUnsupported, match="public internet") as refused:
                await run(closed, contract(f"http://{host}:{port}/x"))
            assert "private_hosts" in (refused.value.remedy or "")
    assert len(api.seen) == before
    allowed = PolicySettings(private_hosts=(f"LOCALHOST:{port}",))
    async with HttpEngine(Settings(root=tmp_path, policy=allowed)) as opened:
        assert (await run(opened, contract(f"http://localhost:{port}/nothing"))).exit_code == 0
        with pytest.raises(LimitUnsupported):
            await run(opened, contract(f"http://127.0.0.1:{port}/nothing"))
        # A redirect is judged as well.
        found = contract(f"http://localhost:{port}/redirect?to=http://127.0.0.1:{port}/x", follow_redirects=True)
        with pytest.raises(LimitUnsupported):
            await run(opened, found)


async def test_explain_and_doctor_say_that_a_host_of_this_machine_is_not_allowed_yet(tmp_path: Path) -> None:
    write_contract(tmp_path / "tools", "ask", description="Asks.", engine="http", url="http://127.0.0.1:9/x")
    for words in (("explain", "ask"), ("doctor",)):
        done = praxis(*words, cwd=tmp_path)
        assert "127.0.0.1 is not on the public internet" in done.stdout + done.stderr
        assert "policy.private_hosts: [127.0.0.1]" in done.stdout + done.stderr
        assert done.returncode != 0


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("10.0.0.1", False), ("100.64.0.1", False), ("0.0.0.0", False),
        ("169.254.169.254", False), ("192.168.1.1", False), ("224.0.0.1", False), ("255.255.255.255", False),
        ("::1", False), ("::", False), ("fe80::1", False), ("fd00::1", False), ("fec0::1", False),
        ("::ffff:10.0.0.1", False), ("::ffff:8.8.8.8", True), ("64:ff9b::10.0.0.1", False), ("64:ff9b::808:808", True),
        ("2002:0a00:0001::1", False), ("ff02::1", False), ("198.18.0.1", False), ("240.0.0.1", False),
        ("fd00:ec2::254", False), ("168.63.129.16", False), ("192.0.0.192", False), ("::ffff:168.63.129.16", False),
    ],
)  # fmt: skip
async def test_an_address_is_public_only_if_all_that_it_holds_is(address: str, expected: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is expected


async def test_a_host_that_cannot_be_reached_is_an_error(engine: HttpEngine, api: Api) -> None:
    with held_port() as port, pytest.raises(ExecutionError, match="cannot be reached"):
        await run(engine, contract(f"http://127.0.0.1:{port}/"))
    with pytest.raises(ExecutionError, match="cannot be found"):
        await run(engine, contract("http://no-such-host.invalid/"))
    with pytest.raises(ExecutionError, match="HTTP"):
        await run(engine, contract(f"{api.url}/garbage"))
    # Without TLS where the URL asks for it.
    with pytest.raises(ExecutionError):
        await run(engine, contract(f"https://127.0.0.1:{api.server_port}/"))


async def test_calls_at_once_share_connections_and_do_not_mix(engine: HttpEngine, api: Api) -> None:
    found = contract(f"{api.url}/u/{{id}}", {"id": "integer"})
    paths: dict[int, str] = {}

    async def ask(number: int) -> None:
        paths[number] = (await told(engine, found, id=number))["path"]

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(ask, number)
    assert paths == {number: f"/u/{number}" for number in range(50)}


async def test_explain_shows_the_request_with_its_secrets_masked(tmp_path: Path) -> None:
    write_contract(
        tmp_path / "tools",
        "ask",
        engine="http",
        url="https://api.example.com/u/{id}",
        method="POST",
        auth_token={"secret": "API_TOKEN"},
        parameters={"id": "string", "title": "string"},
    )
    import os

    done = praxis("explain", "ask", "title=T", "--json", cwd=tmp_path, env={**os.environ, "API_TOKEN": "s3cr3t-token"})
    facts = json.loads(done.stdout)
    assert facts["engine"] == "http"
    assert facts["request"]["method"] == "POST"
    assert facts["request"]["url"] == "https://api.example.com/u/%3Cid%3E"
    assert facts["request"]["headers"]["Authorization"] == "Bearer ***"
    assert "s3cr3t" not in done.stdout
    shown = praxis("explain", "ask", "id=1", "title=T", cwd=tmp_path, env={**os.environ, "API_TOKEN": "s3cr3t-token"})
    assert "POST https://api.example.com/u/1" in shown.stdout
    assert "network" not in shown.stdout, "none would say the opposite of what a request does"
    assert "s3cr3t" not in shown.stdout


async def test_placeholders_for_what_was_not_given_fit_their_places(tmp_path: Path) -> None:
    found = contract("https://x.example/{id}", {"id": "string"})
    filled, missing = fill_arguments(found, {})
    assert (filled, missing) == ({"id": "<id>"}, ("id",))
