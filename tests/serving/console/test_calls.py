"""Forms made from tools' schemas, and calls made by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.errors import ArgumentError
from praxis_mcp.serving.console.forms import fields_of, read_arguments
from praxis_mcp.settings.sections import ServerSettings
from praxis_mcp.settings.toolsets import ToolsetSettings
from tests.kit.contracts import write_tool
from tests.serving.console.ground import console, csrf_of
from tests.serving.sample_tools import python

pytestmark = pytest.mark.anyio

TOKENS = {"anna": ("tools:say",), "bert": ("tools:*",)}
SCHEMA: dict[str, Any] = {
    "properties": {
        "text": {"type": "string", "default": "<hi>"},
        "short": {"type": "string", "maxLength": 20},
        "word": {"type": "string", "format": "password", "default": "never shown"},
        "count": {"type": "integer", "default": 3},
        "share": {"type": "number"},
        "mode": {"enum": ["fast", 2, None]},
        "loud": {"type": "boolean"},
        "names": {"type": "array", "default": ["é"]},
        "odd": True,
    },
    "required": ["text", "count"],
}


def write_tools(directory: Path) -> None:
    write_tool(
        directory / "tools",
        "say",
        python("import os; print(os.environ['TEXT'], os.environ['COUNT'])"),
        parameters={
            "text": {"type": "string"},
            "count": {"type": "integer", "minimum": 1, "default": 1},
            "pin": {"type": "integer", "writeOnly": True, "default": 0},
        },
    )
    write_tool(directory / "tools", "other", ["true"])


async def test_a_form_calls_its_tool_as_who_sent_it(tmp_path: Path) -> None:
    write_tools(tmp_path)
    async with console(tmp_path, TOKENS, actions=True) as ground, ground.caller("anna") as anna:
        page = await anna.get("/console/tools/say")
        fields = {"csrf": csrf_of(page), "a.text": "<b>two\r\nlines", "a.count": "2"}
        run = await anna.post("/console/tools/say/call", data=fields)
        assert run.url.path.startswith("/console/runs/")
        assert "&lt;b&gt;two\nlines 2" in run.text
        assert "token:anna" in run.text
        async with ground.caller("bert") as bert:
            assert (await bert.get(run.url.path)).status_code == 404


async def test_what_does_not_fit_is_said_and_what_was_written_stays(tmp_path: Path) -> None:
    write_tools(tmp_path)
    async with console(tmp_path, TOKENS, actions=True) as ground, ground.caller("anna") as anna:
        csrf = csrf_of(await anna.get("/console/tools/say"))
        fields = {"csrf": csrf, "a.text": "<kept>\u200b", "a.pin": "8086", "a.count": "many"}
        answer = await anna.post("/console/tools/say/call", data=fields)
        assert answer.status_code == 400
        assert "count has to be a number" in answer.text
        assert "&lt;kept&gt;\u200b" in answer.text  # shown by number, it would be sent so the next time
        assert "8086" not in answer.text
        assert answer.text.count('type="password"') == 1
        fields["a.count"] = "0"
        waiting = await anna.post("/console/tools/say/call", data=fields)
        assert waiting.url.path.startswith("/console/runs/")
        assert "count" in waiting.text
        assert "http-equiv" not in waiting.text
        async with ground.caller("bert") as bert:
            assert (await bert.get(waiting.url.path)).status_code == 404
        assert not ground.toolbox.records.entries()


async def test_only_who_may_call_a_tool_calls_it_and_only_by_a_form_of_theirs(tmp_path: Path) -> None:
    write_tools(tmp_path)
    async with console(tmp_path, TOKENS, actions=True) as ground, ground.caller("anna") as anna:
        csrf = csrf_of(await anna.get("/console/tools/say"))
        assert (await anna.post("/console/tools/say/call", data={"a.text": "x"})).status_code == 403
        assert (await anna.post("/console/tools/other/call", data={"csrf": csrf})).status_code == 404
        assert (await anna.post("/console/tools/nothing/call", data={"csrf": csrf})).status_code == 404
        assert not ground.toolbox.records.entries()


async def test_toolsets_of_the_server_and_of_a_token_hold_in_the_console_too(tmp_path: Path) -> None:
    write_tools(tmp_path)
    toolsets = {"talk": ToolsetSettings(tools=("say",)), "rest": ToolsetSettings(tools=("other",))}
    scopes = {"bert": ("tools:*", "runs:read")}
    served = ServerSettings(toolsets=("talk",))
    async with console(tmp_path, scopes, actions=True, toolsets=toolsets, server=served) as ground:
        for tool in ("say", "other"):
            await ground.toolbox.runner.call(tool, {"text": "x"} if tool == "say" else {}, caller="token:bert")
        said, other = (
            record.run_id for record in sorted(ground.toolbox.records.entries(), key=lambda one: one.tool)[::-1]
        )
        async with ground.caller("bert") as bert:
            csrf = csrf_of(await bert.get("/console/tools/say"))
            assert (await bert.get("/console/tools/other")).status_code == 404
            assert (await bert.post("/console/tools/other/call", data={"csrf": csrf})).status_code == 404
            runs = (await bert.get("/console/runs")).text
            assert said in runs
            assert other not in runs
            assert (await bert.get(f"/console/runs/{said}")).status_code == 200
            assert (await bert.get(f"/console/runs/{other}")).status_code == 404


async def test_a_console_that_only_shows_has_no_forms_and_calls_nothing(tmp_path: Path) -> None:
    write_tools(tmp_path)
    async with console(tmp_path) as ground, ground.owner() as browser:
        page = await browser.get("/console/tools/other")
        assert "Call it" not in page.text
        answer = await browser.post("/console/tools/other/call", data={"csrf": csrf_of(page)})
        assert answer.status_code == 403
        assert not ground.toolbox.records.entries()


def test_a_field_is_what_its_schema_says() -> None:
    fields = {field.name: field for field in fields_of(SCHEMA)}
    kinds = {name: field.kind for name, field in fields.items()}
    assert kinds == {
        "text": "text",
        "short": "line",
        "word": "secret",
        "count": "number",
        "share": "number",
        "mode": "choice",
        "loud": "choice",
        "names": "json",
        "odd": "json",
    }
    assert fields["text"].value == "<hi>"
    assert fields["count"].value == "3"
    assert fields["names"].value == '["é"]'
    assert fields["word"].value == ""
    assert fields["mode"].choices == (('"fast"', "fast"), ("2", "2"), ("null", "null"))
    again = {field.name: field.value for field in fields_of(SCHEMA, {"word": "secret", "count": "x"})}
    assert again["word"] == ""
    assert again["count"] == "x"
    assert again["text"] == ""
    assert fields_of({}) == []


def test_what_is_private_is_never_shown_whatever_its_type() -> None:
    types: list[Any] = ["string", "integer", "array", "boolean", ["string", "null"]]
    for kind in types:
        part = {"type": kind, "writeOnly": True, "default": "never shown"}
        for given in (None, {"a": "never shown"}):
            (field,) = fields_of({"properties": {"a": part}}, given)
            assert field.is_private
            assert field.value == ""


def test_a_default_that_holds_what_cannot_be_seen_is_not_sent_back_changed() -> None:
    schema = {"properties": {"text": {"type": "string", "default": "a\u202eb"}, "list": {"default": ["a\u202eb"]}}}
    text, items = fields_of(schema)
    assert text.value == ""
    assert items.value == '["a\\u202eb"]'


def test_what_is_written_becomes_arguments_of_the_right_kind() -> None:
    fields = fields_of(SCHEMA)
    given = {"text": "", "count": "4", "share": "0.5", "mode": "2", "loud": "true", "names": '["a"]', "odd": "{}"}
    expected = {"text": "", "count": 4, "share": 0.5, "mode": 2, "loud": True, "names": ["a"], "odd": {}}
    assert read_arguments(fields, given) == expected
    assert read_arguments(fields, {"count": "1"}) == {"text": "", "count": 1}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "count is required"),
        ({"count": "1.5"}, "count has to be an integer"),
        ({"count": "true"}, "count has to be an integer"),
        ({"count": "1e999"}, "count has to be an integer"),
        ({"count": "1", "share": "NaN"}, "share has to be a number"),
        ({"count": "1", "share": "x"}, "share has to be a number"),
        ({"count": "1", "names": "[" * 100_000}, "names has to be JSON"),
        ({"count": "1", "names": "[[1e999]]"}, "names holds a number that JSON cannot carry"),
        ({"count": "1", "loud": "maybe"}, "loud has to be JSON"),
    ],
)
def test_what_cannot_be_an_argument_is_refused_by_name(given: dict[str, str], why: str) -> None:
    with pytest.raises(ArgumentError, match=why):
        read_arguments(fields_of(SCHEMA), given)
