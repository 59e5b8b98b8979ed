"""What each request to the console must be like, and what each answer says to the browser."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from praxis_mcp.errors import SettingsError
from praxis_mcp.serving.console.gate import CONTENT_POLICY, is_from_here
from praxis_mcp.serving.console.templates import Pages
from tests.serving.console.ground import BASE, console, csrf_of

pytestmark = pytest.mark.anyio

ANNA = {"anna": ("tools:*",)}


async def test_without_a_session_there_is_a_login_and_nothing_else(tmp_path: Path) -> None:
    async with console(tmp_path, ANNA) as ground, ground.browser() as stranger:
        for path in ("/console", "/console/", "/console/runs", "/console/runs/abc", "/console/live", "/console/x"):
            answer = await stranger.get(path)
            assert answer.url.path == "/console/login"
            assert "Bearer token" in answer.text
        assert (await stranger.get("/console/live/events", headers={"Accept": "*/*"})).status_code == 401
        assert (await stranger.post("/console/runs/abc/cancel", data={"csrf": "x"})).status_code == 401
        assert (await stranger.get("/console/runs", headers={"Authorization": "Bearer anna"})).url.path.endswith(
            "login"
        )


async def test_a_token_opens_a_session_in_a_cookie_that_scripts_and_other_sites_never_get(tmp_path: Path) -> None:
    async with console(tmp_path, ANNA) as ground, ground.browser() as browser:
        refused = await browser.post("/console/login", data={"token": "wrong"})
        assert refused.status_code == 403
        assert "not known here" in refused.text
        assert not browser.cookies
        answer = await browser.post("/console/login", data={"token": " anna\n"}, follow_redirects=False)
        assert answer.status_code == 303
        name, *attributes = re.split("; ", answer.headers["set-cookie"])
        assert name.startswith("praxis-console-8000=")
        assert {"HttpOnly", "Path=/console", "SameSite=strict"} == set(attributes)
        assert "token:anna" in (await browser.get("/console/runs")).text
        behind_tls = await browser.post(
            "/console/login",
            data={"token": "anna"},
            headers={"Host": "localhost:8000", "Origin": "https://localhost:8000"},
            follow_redirects=False,
        )
        assert "Secure" in behind_tls.headers["set-cookie"]


async def test_the_cookie_of_a_link_behind_a_proxy_with_tls_is_sent_encrypted_only(tmp_path: Path) -> None:
    async with console(tmp_path) as ground, ground.browser() as browser:
        answer = await browser.get(ground.links[-1], headers={"X-Forwarded-Proto": "https"}, follow_redirects=False)
        assert "Secure" in answer.headers["set-cookie"]


async def test_the_link_of_the_owner_works_once_and_another_one_follows(tmp_path: Path) -> None:
    async with console(tmp_path) as ground, ground.browser() as browser, ground.browser() as other:
        assert "Bearer token" not in (await browser.get("/console")).text
        (link,) = ground.links
        assert not (await other.head(link)).cookies
        assert (await browser.get(link)).url.path == "/console/runs"
        again = await other.get(link)
        assert again.status_code == 403
        assert not other.cookies
        assert len(ground.links) == 2
        assert (await other.get(ground.links[-1])).url.path == "/console/runs"


async def test_where_callers_have_tokens_no_link_opens_the_console(tmp_path: Path) -> None:
    async with console(tmp_path, ANNA) as ground:
        assert ground.links == ["/console"]
    async with console(tmp_path, ANNA, streamable=False) as ground, ground.owner():
        assert len(ground.links) == 2


@pytest.mark.parametrize(
    "wanted", ["https://evil.example", "//evil.example", "/console/\\evil", "/mcp", "/consolex", ""]
)
async def test_a_login_leads_nowhere_but_into_the_console(tmp_path: Path, wanted: str) -> None:
    async with console(tmp_path, ANNA) as ground, ground.browser() as browser:
        answer = await browser.post("/console/login", data={"token": "anna", "next": wanted}, follow_redirects=False)
        assert answer.headers["location"] == "/console"


async def test_logging_in_leads_to_the_page_that_was_wanted(tmp_path: Path) -> None:
    async with console(tmp_path, ANNA) as ground, ground.browser() as browser:
        page = await browser.get("/console/live")
        assert 'name="next" value="/console/live"' in page.text
        answer = await browser.post("/console/login", data={"token": "anna", "next": "/console/live"})
        assert answer.url.path == "/console/live"


async def test_logging_out_ends_the_session_for_a_copy_of_its_cookie_too(tmp_path: Path) -> None:
    async with console(tmp_path, ANNA) as ground, ground.caller("anna") as browser:
        kept = dict(browser.cookies)
        page = await browser.get("/console/runs")
        assert (await browser.post("/console/logout", data={"csrf": "forged"})).status_code == 403
        assert (await browser.get("/console/runs")).url.path == "/console/runs"
        await browser.post("/console/logout", data={"csrf": csrf_of(page)})
        assert (await browser.get("/console/runs")).url.path == "/console/login"
        async with ground.browser() as thief:
            thief.cookies.update(kept)
            assert (await thief.get("/console/runs")).url.path == "/console/login"


async def test_the_forms_of_one_session_are_not_those_of_another(tmp_path: Path) -> None:
    async with console(tmp_path, ANNA) as ground, ground.caller("anna") as one, ground.caller("anna") as other:
        csrf = csrf_of(await one.get("/console/runs"))
        assert (await other.post("/console/logout", data={"csrf": csrf})).status_code == 403


async def test_every_answer_forbids_foreign_content_scripts_of_its_own_and_being_framed(tmp_path: Path) -> None:
    async with console(tmp_path, ANNA) as ground, ground.caller("anna") as browser:
        answers = [
            await browser.get(path)
            for path in (
                "/console/login",
                "/console/runs",
                "/console/live",
                "/console/runs/nothing",
                "/console/nothing",
                "/console/static/console.js",
                "/console/static/console.css",
            )
        ]
        answers.append(await browser.post("/console/logout", data={}))
        answers.append(await browser.get("/console/runs", headers={"Origin": "http://evil.example"}))
    for answer in answers[:-1]:
        assert answer.headers["content-security-policy"] == CONTENT_POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers
    assert "unsafe" not in CONTENT_POLICY
    for answer in answers[:5]:
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<[^>]* (style|on\w+)=", answer.text)
        assert not re.search(r"<script(?! src)", answer.text)
        assert set(re.findall(r"https?://[^\"'<\s]+", answer.text)) == set()


async def test_pages_of_other_origins_get_nothing_of_the_console(tmp_path: Path) -> None:
    async with console(tmp_path, ANNA) as ground, ground.caller("anna") as browser:
        # The rest of the server lets pages of this machine call: their scripts would read what this session may.
        for origin in ("http://localhost:3000", "http://127.0.0.1:3000", "null"):
            answer = await browser.get("/console/runs", headers={"Origin": origin})
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
        page = await browser.get("/console/runs", headers={"Origin": BASE})
        forged = await browser.post(
            "/console/logout", data={"csrf": csrf_of(page)}, headers={"Sec-Fetch-Site": "same-site"}
        )
        assert forged.status_code == 403


@pytest.mark.parametrize(
    ("method", "headers", "is_ours"),
    [
        ("GET", {}, True),
        ("POST", {"origin": "http://h:1"}, True),
        ("POST", {"origin": "https://H:1"}, True),
        ("POST", {"origin": "http://h:2"}, False),
        ("POST", {"origin": "http://h"}, False),
        ("POST", {"origin": "null"}, False),
        ("GET", {"sec-fetch-site": "none"}, True),
        ("GET", {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, False),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
        ("POST", {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}, False),
    ],
)
def test_only_links_lead_from_other_sites_into_the_console(method: str, headers: dict[str, str], is_ours: bool) -> None:
    assert is_from_here(method, Headers({"host": "h:1", **headers})) is is_ours


async def test_a_foreign_host_reaches_no_console(tmp_path: Path) -> None:
    async with console(tmp_path) as ground, ground.browser(Host="evil.example") as browser:
        assert (await browser.get(ground.links[-1])).status_code == 421


async def test_a_login_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with console(tmp_path, ANNA) as ground, ground.browser() as browser:
        answer = await browser.post("/console/login", data={"token": "x" * 30_000})
        assert answer.status_code == 400
        assert "too large" in answer.text


async def test_what_pages_load_is_kept_by_browsers_until_it_changes(tmp_path: Path) -> None:
    async with console(tmp_path) as ground, ground.owner() as browser:
        page = await browser.get("/console/runs")
        addresses = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page.text)
        assert len(addresses) == 3
        for address in addresses:
            answer = await browser.get(address)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            assert (await browser.get(address.partition("?")[0])).headers["cache-control"] == "no-cache"
        assert (await browser.get("/console/static/..%2fapp.py")).status_code == 404


async def test_without_the_setting_there_is_no_console_and_nothing_of_it_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, praxis_mcp.serving.http.serve\n"
        "found = [name for name in sys.modules if name.startswith(('praxis_mcp.serving.console', 'jinja2'))]\n"
        "assert not found, found"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=100).returncode == 0


def test_without_jinja_the_console_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(SettingsError, match=r"needs Jinja2, which is not installed\. .*pip install"):
        Pages()
