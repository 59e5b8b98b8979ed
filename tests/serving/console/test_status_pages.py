"""The page about engines and upstreams, and approvals there."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from tests.kit.upstreams import words
from tests.serving.clients import LIMIT
from tests.serving.console.ground import Ground, console, csrf_of

pytestmark = pytest.mark.anyio

TOKENS = {"anna": ("tools:*",), "metrics": ("tools:*", "metrics:read")}


def pinned(directory: Path) -> dict[str, Any]:
    return {
        "upstreams": {"up": {"address": words("stdio"), "pin": True}},
        "upstream_approvals": directory / "approvals.json",
    }


async def attempted(ground: Ground) -> None:
    with anyio.fail_after(LIMIT):
        await ground.toolbox.upstreams.wait_attempted()
    (report,) = ground.toolbox.upstreams.reports()
    assert not report.trouble


def approval_of(page: httpx2.Response, tool: str) -> dict[str, str]:
    """The form that approves a tool."""
    forms = page.text.split('action="/console/status/approve"')[1:]
    fields = [dict(re.findall(r'name="(\w+)" value="([^"]*)"', form.partition("</form>")[0])) for form in forms]
    return next({name: unescape(value) for name, value in each.items()} for each in fields if each["tool"] == tool)


async def test_the_state_of_engines_is_for_the_owner_and_callers_who_read_metrics(tmp_path: Path) -> None:
    async with console(tmp_path) as ground, ground.owner() as owner:
        page = (await owner.get("/console/status")).text
        for engine in ground.toolbox.engines.names():
            assert f"<dt>{engine}</dt>" in page
        assert "The settings name none." in page
    async with console(tmp_path, TOKENS) as ground:
        async with ground.caller("anna") as anna:
            assert (await anna.get("/console/status")).status_code == 403
            assert "/console/status" not in (await anna.get("/console/runs")).text
        async with ground.caller("metrics") as metrics:
            assert (await metrics.get("/console/status")).status_code == 200


async def test_a_tool_that_waits_is_shown_whole_and_approved_as_it_is_shown(tmp_path: Path) -> None:
    async with console(tmp_path, actions=True, **pinned(tmp_path)) as ground, ground.owner() as owner:
        await attempted(ground)
        page = await owner.get("/console/status")
        held = ground.toolbox.upstreams.reports()[0].held
        assert held
        tool = held[0]
        assert "Never approved." in page.text
        assert (tool.description or "") in unescape(page.text)
        form = approval_of(page, tool.remote_name)
        stale = await owner.post("/console/status/approve", data={**form, "fingerprint": "0" * 64})
        assert stale.status_code == 409
        assert (await owner.post("/console/status/approve", data={**form, "csrf": "x"})).status_code == 403
        assert (await owner.post("/console/status/approve", data={**form, "tool": ""})).status_code == 403
        assert not ground.toolbox.upstreams.reports()[0].tools
        after = await owner.post("/console/status/approve", data=form)
        assert after.url.path == "/console/status"
        served = [item.remote_name for item in ground.toolbox.upstreams.reports()[0].tools]
        assert served == [tool.remote_name]
        assert f"Approve {tool.remote_name} as" not in after.text


async def test_nobody_but_the_owner_approves_and_only_where_that_is_allowed(tmp_path: Path) -> None:
    async with (
        console(tmp_path, TOKENS, actions=True, **pinned(tmp_path)) as ground,
        ground.caller("metrics") as metrics,
    ):
        await attempted(ground)
        page = await metrics.get("/console/status")
        assert "for approval." in page.text
        tool = ground.toolbox.upstreams.reports()[0].held[0]
        form = {"upstream": "up", "tool": tool.remote_name, "fingerprint": tool.fingerprint, "csrf": csrf_of(page)}
        assert (await metrics.post("/console/status/approve", data=form)).status_code == 403
    async with console(tmp_path, **pinned(tmp_path)) as ground, ground.owner() as owner:
        await attempted(ground)
        page = await owner.get("/console/status")
        assert "Approve " not in page.text
        form["csrf"] = csrf_of(page)
        assert (await owner.post("/console/status/approve", data=form)).status_code == 403
        assert not ground.toolbox.upstreams.reports()[0].tools
