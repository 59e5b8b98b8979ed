"""The console in a real browser: what its user sees and reaches, and what a hostile tool does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, Page, async_playwright

from praxis_mcp.execution.toolbox import open_toolbox
from praxis_mcp.settings.model import Settings
from praxis_mcp.settings.sections import EngineSettings, LocalSettings, RecordSettings
from tests.kit import node
from tests.kit.contracts import write_tool
from tests.kit.until import WITHIN, until
from tests.serving.console.test_live import STEPS, calling, link_of
from tests.serving.console.test_run_pages import HOSTILE, write_tools
from tests.serving.http_server import HttpServer, running_http
from tests.serving.sample_tools import python

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.timeout(600)]

PHONE = {"width": 360, "height": 640}
DESK = {"width": 1200, "height": 800}
LONG = 100 * 1024 * 1024


@dataclass
class Site:
    """A server, and runs that are in its store."""

    server: HttpServer
    directory: Path
    runs: dict[str, str]


@dataclass
class Visit:
    """A page that has logged in, and what it must not do."""

    page: Page
    base: str
    dialogs: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    async def open(self, path: str) -> Page:
        answer = await self.page.goto(f"{self.base}{path}")
        assert answer is not None
        assert answer.status == 200, path
        return self.page

    def assert_harmless(self) -> None:
        assert (self.dialogs, self.troubles, self.foreign) == ([], [], [])


@pytest.fixture(scope="module")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    """The one browser of this worker."""
    async with async_playwright() as playwright:
        # Chromium has no sandbox of its own for root, who runs CI.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*options, "--disable-dev-shm-usage"], timeout=WITHIN * 1000
        )
        yield chromium
        await chromium.close()


@pytest.fixture(scope="module")
async def site(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    directory = tmp_path_factory.mktemp("console")
    write_tools(directory)
    tools = directory / "tools"
    write_tool(tools, "long", python(f"print('x' * 1000 + '\\n', end='') or print('y' * {LONG} + 'the end')"))
    write_tool(tools, "fail", ["sh", "-c", "echo partial; echo 'no widget' >&2; exit 3"])
    parameters = {"go": {"type": "string"}, "long": {"type": "string"}}
    write_tool(tools, "steps", ["sh", "-c", STEPS], parameters=parameters)
    settings = Settings(
        tools=(tools,),
        root=directory,
        engines=EngineSettings(local=LocalSettings(sandbox="off")),
        records=RecordSettings(directory=directory / "records"),
    )
    async with open_toolbox(settings, keep_records=True) as toolbox:
        runs = {
            name: (await toolbox.runner.call(name, {})).run_id for name in ("hostile", "files", "fail", "quiet", "long")
        }
    records = str(directory / "records")
    async with running_http(
        directory, "--http", "--console", PRAXIS_RECORDS__DIRECTORY=records, PRAXIS_HTTP__CONSOLE__ACTIONS="true"
    ) as server:
        yield Site(server, directory, runs)


@asynccontextmanager
async def visit(
    browser: Browser,
    site: Site,
    viewport: dict[str, int] = DESK,
    scheme: Literal["light", "dark"] = "light",
    *,
    scripts: bool = True,
) -> AsyncIterator[Visit]:
    context = await browser.new_context(
        viewport={"width": viewport["width"], "height": viewport["height"]},
        color_scheme=scheme,
        java_script_enabled=scripts,
    )
    context.set_default_timeout(WITHIN * 1000)
    page = await context.new_page()
    found = Visit(page, site.server.base)

    async def dismiss(dialog: Any) -> None:
        found.dialogs.append(dialog.message)
        await dialog.dismiss()

    page.on("dialog", dismiss)
    page.on("pageerror", lambda error: found.troubles.append(str(error)))
    page.on("console", lambda message: found.troubles.append(message.text) if message.type == "error" else None)
    page.on("request", lambda sent: None if sent.url.startswith(found.base) else found.foreign.append(sent.url))
    try:
        await page.goto(await link_of(site.server))
        yield found
    finally:
        await context.close()


def paths(site: Site) -> list[str]:
    """Every page."""
    fixed = ("runs", "live", "status", "tools", "tools/steps", "tools/files")
    return [f"/console/{path}" for path in (*fixed, *(f"runs/{run_id}" for run_id in site.runs.values()))]


@pytest.mark.node
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_page_can_be_used_by_everybody(
    browser: Browser,
    site: Site,
    scheme: Literal["light", "dark"],
    node_programs: Callable[[Callable[[], str]], str],
) -> None:
    axe = node_programs(node.axe)
    async with visit(browser, site, scheme=scheme) as visited:
        for path in paths(site):
            page = await visited.open(path)
            await page.evaluate(axe)
            found = await page.evaluate("async () => (await axe.run()).violations")
            serious = [
                (item["id"], [part["html"][:200] for part in item["nodes"]])
                for item in found
                if item["impact"] in ("serious", "critical")
            ]
            assert serious == [], path
        visited.assert_harmless()


async def test_every_page_fits_a_phone(browser: Browser, site: Site) -> None:
    async with visit(browser, site, PHONE) as visited:
        for path in paths(site):
            page = await visited.open(path)
            width = await page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["width"], path
        visited.assert_harmless()


async def test_the_pages_work_without_scripts(browser: Browser, site: Site) -> None:
    async with visit(browser, site, scripts=False) as visited:
        page = await visited.open("/console/runs")
        await page.get_by_label("Tool").fill("fail")
        await page.get_by_role("button", name="Show").click()
        await page.get_by_role("link", name=site.runs["fail"][:12]).click()
        await page.get_by_text("no widget").wait_for()
        assert await page.get_by_role("heading", name="Where the time went").is_visible()


async def test_a_run_is_found_and_read_by_keyboard_alone(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as visited:
        page = await visited.open("/console/runs")

        async def focused() -> str:
            return await page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id")

        async def tab_to(text: str) -> None:
            for _ in range(40):
                await page.keyboard.press("Tab")
                if await focused() == text:
                    outline = "getComputedStyle(document.activeElement).outlineStyle"
                    assert await page.evaluate(outline) == "solid"
                    return
            raise AssertionError(f"{text} is not reached by Tab")

        await page.keyboard.press("Tab")
        assert await focused() == "Skip to the content"
        assert (await page.get_by_text("Skip to the content").bounding_box() or {})["x"] >= 0
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        await page.keyboard.press("Tab")
        assert await focused() == "tool"
        await page.keyboard.type("fail")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/runs?tool=fail**")
        await tab_to(site.runs["fail"][:12])
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/runs/{site.runs['fail']}")
        await tab_to("no widget")
        visited.assert_harmless()


async def test_what_a_hostile_tool_wrote_runs_nothing_and_hides_nothing(browser: Browser, site: Site) -> None:
    async with visit(browser, site) as visited:
        page = await visited.open(f"/console/runs/{site.runs['hostile']}")
        shown = await page.locator("pre[data-stream=stdout]").text_content()
        assert shown is not None
        assert "<script>alert(1)</script>" in shown
        assert r"red\x1b]0;title\x07\u202eevil" in shown
        assert HOSTILE.partition("\x1b")[0] in shown
        await visited.open(f"/console/runs/{site.runs['files']}")
        loaded = "Array.from(document.images, image => image.complete && image.naturalWidth > 0)"
        await page.get_by_role("img", name="dot.png").scroll_into_view_if_needed()
        await until(lambda: page.evaluate(f"{loaded}.every(Boolean)"))
        assert await page.evaluate(loaded) == [True]
        assert await page.evaluate("document.scripts.length") == 1
        visited.assert_harmless()


async def test_a_hundred_megabytes_are_shown_by_their_ends(browser: Browser, site: Site) -> None:
    async with visit(browser, site, PHONE) as visited:
        page = await visited.open(f"/console/runs/{site.runs['long']}")
        await page.get_by_text("100 MiB", exact=False).first.wait_for()
        assert await page.get_by_text("the end").count() == 1
        assert await page.evaluate("document.body.textContent.length") < 100_000
        async with page.expect_download() as waiting:
            await page.get_by_role("link", name="Download stdout").click()
        saved = await (await waiting.value).path()
        assert saved.stat().st_size == LONG + 1000 + len("\nthe end\n")
        visited.assert_harmless()


async def test_a_run_appears_shows_its_output_and_its_end_by_itself(browser: Browser, site: Site) -> None:
    go = site.directory / "go"
    async with visit(browser, site) as visited:
        page = await visited.open("/console/live")
        await page.get_by_text("Live: new output appears by itself.").wait_for()
        async with calling(site.directory, go, "0"):
            link = page.locator("[data-renew] a")
            await link.wait_for()
            await link.click()
            await page.get_by_text("one <b>").wait_for()
            await page.get_by_text("Live: new output appears by itself.").wait_for()
            go.touch()
            await page.locator(".summary .good").wait_for()
            await page.get_by_role("region", name="stderr").get_by_text("two").wait_for()
        visited.assert_harmless()


async def test_a_tool_is_called_by_its_form_and_its_run_is_cancelled(browser: Browser, site: Site) -> None:
    async with visit(browser, site, PHONE) as visited:
        page = await visited.open("/console/tools/steps")
        await page.get_by_label("go").fill(str(site.directory / "never"))
        await page.get_by_label("long").fill("0")
        await page.get_by_role("button", name="Call steps").focus()
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/console/runs/*")
        await page.get_by_text("one <b>").wait_for()
        await page.get_by_role("button", name="Cancel this run").click()
        await page.locator(".summary .bad").get_by_text("cancelled").wait_for()
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        visited.assert_harmless()
