"""The pages about tools: what they show of each, and to whom."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import pytest

from praxis_mcp.serving.console.catalog_pages import TOOLS_ON_A_PAGE, parameters
from tests.kit.contracts import write_contract, write_tool
from tests.serving.console.ground import console

pytestmark = pytest.mark.anyio

TOKENS = {"anna": ("tools:shown_*",), "metrics": ("metrics:read",)}


def write_tools(directory: Path) -> None:
    tools = directory / "tools"
    write_tool(
        tools,
        "shown_one",
        ["echo", "one"],
        title="<b>One</b>",
        description="<script>alert(1)</script> says one.",
        parameters={"text": {"type": "string", "description": "what <i>to</i> say", "default": "<hi>"}},
        env={"TOKEN_LIKE": "in-the-contract"},
    )
    write_tool(tools, "other", ["true"], description="Another one.")
    write_tool(tools, "shown_lost", ["true"], mounts={str(directory / "lost"): "/data"})
    (tools / "broken.contract.json").write_text('{"name": "broken", "engine": "local", "command": 1}')
    write_contract(
        tools,
        "boxed",
        engine="docker",
        image="busybox",
        command=["true"],
        mounts={"./data": "/data:rw"},
    )
    (directory / "data").mkdir()


async def test_the_owner_sees_every_tool_what_it_may_do_and_what_is_wrong(tmp_path: Path) -> None:
    write_tools(tmp_path)
    async with console(tmp_path) as ground, ground.owner() as browser:
        page = (await browser.get("/console/tools")).text
        assert "<script>alert" not in page
        assert "&lt;b&gt;One&lt;/b&gt;" in page
        assert "writes to this machine" in page
        assert "broken.contract.json" in page
        one = (await browser.get("/console/tools/shown_one")).text
        assert "<script>alert" not in one
        assert "<i>to" not in one
        assert "in-the-contract" in one
        assert str(tmp_path / "tools") in one
        assert ">runs it<" in one
        assert "timeout" in one
        assert 'href="/console/runs?tool=shown_one"' in one
        assert str(tmp_path / "lost") in (await browser.get("/console/tools/shown_lost")).text
        boxed = await browser.get("/console/tools/boxed")
        assert boxed.status_code == 200
        assert str(tmp_path / "data") in boxed.text


async def test_callers_see_the_tools_that_they_may_call_and_nothing_of_this_machine(tmp_path: Path) -> None:
    write_tools(tmp_path)
    async with console(tmp_path, TOKENS) as ground:
        async with ground.caller("anna") as anna:
            page = (await anna.get("/console/tools")).text
            assert "shown_one" in page
            assert "Another one." not in page
            assert "broken" not in page
            one = (await anna.get("/console/tools/shown_one")).text
            assert "timeout" in one
            for hidden in (str(tmp_path), "in-the-contract", "TOKEN_LIKE", "&#39;echo&#39;"):
                assert hidden not in one
            lost = await anna.get("/console/tools/shown_lost")
            assert "cannot be found out now" in lost.text
            assert str(tmp_path) not in lost.text
            for name in ("other", "broken", "nothing", "shown_two"):
                answer = await anna.get(f"/console/tools/{name}")
                assert answer.status_code == 404
                assert "shown_one" not in answer.text
        async with ground.caller("metrics") as metrics:
            assert "There are no such tools" in (await metrics.get("/console/tools")).text


async def test_a_thousand_tools_are_found_by_words_and_page_by_page(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    for number in range(2 * TOOLS_ON_A_PAGE + 1):
        write_tool(tools, f"tool_{number:04}", ["true"], description=f"Does the thing number {number}.")
    async with console(tmp_path) as ground, ground.owner() as browser:
        seen: list[str] = []
        path = "/console/tools"
        while path:
            page = (await browser.get(path)).text
            seen += [part.partition('"')[0] for part in page.split('href="/console/tools/')[1:]]
            following = page.partition('<a href="/console/tools?')[2].partition('" rel="next"')
            path = f"/console/tools?{unescape(following[0])}" if following[1] else ""
        assert seen == [f"tool_{number:04}" for number in range(2 * TOOLS_ON_A_PAGE + 1)]
        found = (await browser.get("/console/tools?q=NUMBER+17.")).text
        assert "tool_0017" in found
        assert "tool_0018" not in found
        for odd in ("q=%00%ff", "after=zzzz", "after=%ff"):
            assert "There are no such tools" in (await browser.get(f"/console/tools?{odd}")).text


def test_parameters_of_any_schema_are_put_into_words() -> None:
    assert parameters({}) == []
    assert parameters({"properties": []}) == []
    properties = {"a": {"enum": [1, None]}, "b": True, "c": {"type": ["string", "null"]}, "d": {"$ref": "#/x"}}
    found = parameters({"properties": properties, "required": ["b"]})
    assert [item.kind for item in found] == ["one of 1, None", "any", "string or null", "any"]
    assert [item.is_required for item in found] == [False, True, False, False]
