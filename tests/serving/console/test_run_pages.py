"""The pages about runs: what they show, and to whom."""

from __future__ import annotations

import json
import sqlite3
import time
import tracemalloc
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.engines.base import Artifact
from praxis_mcp.engines.file_states import FileChange, FileState
from praxis_mcp.errors import RunCancelled
from praxis_mcp.execution.records.changes import pack_changes
from praxis_mcp.execution.records.database import Dialect
from praxis_mcp.execution.records.row import StoredRun
from praxis_mcp.serving.console.changes import MAX_DIFF_LINES, MAX_DIFF_TEXT, MAX_DIFFS, MAX_NAMED, changes_shown
from praxis_mcp.serving.console.preview import LOOKED_INTO, MAX_COLUMNS, MAX_ROWS, TEXT_SHOWN, preview
from praxis_mcp.serving.console.run_pages import RUNS_ON_A_PAGE, bars
from praxis_mcp.serving.console.text import END_SHOWN, excerpt
from praxis_mcp.settings.sections import RecordSettings
from tests.kit.contracts import write_tool
from tests.kit.postgres import shared_server
from tests.kit.records import DATABASES, URLS, database_in, records_place, settings_of
from tests.kit.until import until
from tests.serving.console.ground import Ground, console, csrf_of
from tests.serving.sample_tools import PNG, python

pytestmark = pytest.mark.anyio

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31mred\x1b[0m\x1b]0;title\x07\u202eevil"
TOKENS = {"anna": ("tools:*",), "bert": ("tools:*",), "auditor": ("tools:quiet", "runs:read")}


def write_tools(directory: Path) -> None:
    (directory / "tools").mkdir()
    tools = directory / "tools"
    write_tool(tools, "quiet", ["true"])
    write_tool(tools, "hostile", python(f"print({HOSTILE!r})"), title="<b>bold</b>")
    write_tool(tools, "wait", ["sh", "-c", "echo waiting; exec sleep 300"])
    files = {
        "page.html": b"<script>alert(3)</script>",
        "fake.png": b"<svg onload=alert(4)>",
        "<i>name.csv": b"name,note\nx,<script>\n",
        "data.json": json.dumps([{"a": 1, "b": "<b>"}, {"a": 2}]).encode(),
        "deep.json": json.dumps({"a": [1, {"b": None}]}).encode(),
        "bytes.bin": bytes(range(256)),
    }
    code = (
        "import base64, os, pathlib\n"
        "out = pathlib.Path(os.environ['PRAXIS_OUTPUT_DIR'])\n"
        f"[(out / name).write_bytes(data) for name, data in {files!r}.items()]\n"
        f"(out / 'dot.png').write_bytes(base64.b64decode('{PNG}'))\n"
    )
    write_tool(tools, "files", python(code), artifacts=["/out/*"])


async def run(ground: Ground, tool: str, caller: str = "") -> str:
    result = await ground.toolbox.runner.call(tool, {}, caller=caller and f"token:{caller}")
    return result.run_id


async def test_the_owner_sees_every_run_and_what_a_tool_wrote_as_harmless_text(tmp_path: Path) -> None:
    write_tools(tmp_path)
    async with console(tmp_path) as ground, ground.owner() as browser:
        run_id = await run(ground, "hostile")
        listed = (await browser.get("/console/runs")).text
        assert f'href="/console/runs/{run_id}"' in listed
        page = (await browser.get(f"/console/runs/{run_id}")).text
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    shown = unescape(page)
    assert "</pre><script>alert(1)</script>" in shown
    assert r"red\x1b]0;title\x07\u202eevil" in shown
    assert "local" in page
    assert str(tmp_path) in page
    assert ">Plan<" in page
    assert 'href="/console/tools/hostile"' in page


async def test_callers_see_their_own_runs_and_an_auditor_those_of_all(tmp_path: Path) -> None:
    write_tools(tmp_path)
    async with console(tmp_path, TOKENS) as ground:
        own, other, nobodys = [await run(ground, "files", name) for name in ("anna", "bert", "")]
        async with ground.caller("anna") as anna:
            listed = (await anna.get("/console/runs?caller=token:bert")).text
            assert own in listed
            assert other not in listed
            assert nobodys not in listed
            page = await anna.get(f"/console/runs/{own}")
            assert page.status_code == 200
            for hidden in (str(tmp_path), "PRAXIS_OUTPUT_DIR", "Plan"):
                assert hidden not in page.text
            for hidden in (other, nobodys, own[:12], "last"):
                for rest in ("", "/stdout.txt", "/artifacts/0", "/events"):
                    assert (await anna.get(f"/console/runs/{hidden}{rest}")).status_code == 404
        async with ground.caller("auditor") as auditor:
            listed = (await auditor.get("/console/runs")).text
            assert own in listed
            assert other in listed
            narrowed = (await auditor.get("/console/runs?caller=token:bert")).text
            assert own not in narrowed
            assert other in narrowed
            page = await auditor.get(f"/console/runs/{other}")
            assert page.status_code == 200
            assert str(tmp_path) not in page.text


async def test_callers_see_nothing_of_other_projects_in_the_same_store(tmp_path: Path) -> None:
    write_tools(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with console(tmp_path, root=elsewhere) as ground:
        run_id = await run(ground, "quiet", "anna")
    async with console(tmp_path, TOKENS) as ground:
        for name in ("anna", "auditor"):
            async with ground.caller(name) as browser:
                assert run_id not in (await browser.get("/console/runs")).text
                assert (await browser.get(f"/console/runs/{run_id}")).status_code == 404
    async with console(tmp_path) as ground, ground.owner() as browser:
        assert run_id in (await browser.get("/console/runs")).text


async def test_the_list_is_filtered_and_leads_to_older_runs(tmp_path: Path) -> None:
    write_tools(tmp_path)
    async with console(tmp_path) as ground, ground.owner() as browser:
        oldest = await run(ground, "quiet")
        other = await run(ground, "hostile")
        for _ in range(RUNS_ON_A_PAGE):
            await run(ground, "quiet")
        first = (await browser.get("/console/runs?tool=quiet")).text
        assert oldest not in first
        assert other not in first
        assert other in (await browser.get("/console/runs?tool=hostile&outcome=ok&age=1h&engine=local")).text
        assert "There are no such runs" in (await browser.get("/console/runs?tool=hostile&outcome=failed")).text
        link = unescape(first.partition('<a href="/console/runs?')[2].partition('"')[0])
        second = (await browser.get(f"/console/runs?{link}")).text
        assert oldest in second
        assert other not in second
        assert "Newest" in second
        for odd in ("before=x", "before=nan", "before=1e999", "age=2y", "outcome=nothing", "tool=%00%ff"):
            assert (await browser.get(f"/console/runs?{odd}")).status_code == 200


async def test_artifacts_are_shown_by_what_they_are_and_never_opened_as_pages(tmp_path: Path) -> None:
    write_tools(tmp_path)
    async with console(tmp_path) as ground, ground.owner() as browser:
        run_id = await run(ground, "files")
        page = (await browser.get(f"/console/runs/{run_id}")).text
        assert page.count("<img ") == 1
        assert "<script>alert" not in page
        assert "<td>&lt;script&gt;</td>" in page
        assert '<th scope="col">note</th>' in page
        assert "<td>&lt;b&gt;</td>" in page
        assert "&lt;i&gt;name.csv" in page
        names = [item["name"] for item in (await _facts(ground, run_id))["artifacts"]]
        for number, name in enumerate(names):
            answer = await browser.get(f"/console/runs/{run_id}/artifacts/{number}")
            assert answer.headers["content-type"] == "application/octet-stream"
            assert answer.headers["content-disposition"].startswith("attachment;")
            assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
            shown = await browser.get(f"/console/runs/{run_id}/artifacts/{number}?image")
            assert shown.status_code == (200 if name == "dot.png" else 404)
            if name == "dot.png":
                assert shown.headers["content-type"] == "image/png"
        assert (await browser.get(f"/console/runs/{run_id}/artifacts/{len(names)}")).status_code == 404


async def _facts(ground: Ground, run_id: str) -> dict[str, Any]:
    from praxis_mcp.execution.records.archive import open_archive

    def read() -> dict[str, Any]:
        with open_archive(ground.toolbox.settings.records) as archive:
            assert archive is not None
            return archive.find(run_id).as_json()

    return await anyio.to_thread.run_sync(read)


async def test_a_long_stream_is_shown_by_its_ends_and_downloaded_whole(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    write_tool(tmp_path / "tools", "long", python("print('first'); print('x\\n' * 1_000_000); print('last')"))
    write_tool(tmp_path / "tools", "binary", python("import sys; sys.stdout.buffer.write(bytes(range(256)) * 4)"))
    async with console(tmp_path) as ground, ground.owner() as browser:
        run_id = await run(ground, "long")
        page = await browser.get(f"/console/runs/{run_id}")
        assert len(page.content) < 4 * END_SHOWN
        assert "first" in page.text
        assert "last\n" in page.text
        assert "are left out here" in page.text
        whole = await browser.get(f"/console/runs/{run_id}/stdout.txt")
        assert len(whole.content) == 2_000_012
        assert whole.headers["content-disposition"].startswith("attachment;")
        for part in ("stdin.txt", "artifacts/0", "artifacts/" + "9" * 5000):  # more digits than Python reads
            assert (await browser.get(f"/console/runs/{run_id}/{part}")).status_code == 404
        binary = await run(ground, "binary")
        assert "This is not text" in (await browser.get(f"/console/runs/{binary}")).text
        assert len((await browser.get(f"/console/runs/{binary}/stdout.txt")).content) == 1024


async def test_a_run_that_goes_on_is_cancelled_by_its_caller_and_the_owner_only(tmp_path: Path) -> None:
    write_tools(tmp_path)
    ended: list[str] = []

    async def call(ground: Ground, caller: str) -> None:
        with pytest.raises(RunCancelled):
            await run(ground, "wait", caller)
        ended.append(caller)

    async with console(tmp_path, TOKENS, actions=True) as ground, anyio.create_task_group() as tasks:
        tasks.start_soon(call, ground, "anna")
        run_id = await until(lambda: next((item.run_id for item in ground.toolbox.records.entries()), ""))
        async with ground.caller("auditor") as auditor:
            page = await until(lambda: _page_with(auditor, f"/console/runs/{run_id}", "waiting"))
            assert "Cancel this run" not in page.text
            forged = await auditor.post(f"/console/runs/{run_id}/cancel", data={"csrf": csrf_of(page)})
            assert forged.status_code == 403
        async with ground.caller("bert") as bert:
            csrf = csrf_of(await bert.get("/console/runs"))
            assert (await bert.post(f"/console/runs/{run_id}/cancel", data={"csrf": csrf})).status_code == 404
        async with ground.caller("anna") as anna:
            assert run_id in (await anna.get("/console/live")).text
            page = await anna.get(f"/console/runs/{run_id}")
            assert (await anna.post(f"/console/runs/{run_id}/cancel", data={})).status_code == 403
            assert not ended
            answer = await anna.post(f"/console/runs/{run_id}/cancel", data={"csrf": csrf_of(page)})
            assert answer.url.path == f"/console/runs/{run_id}"
            await until(lambda: ended)
            assert "cancelled" in (await anna.get(f"/console/runs/{run_id}")).text
            assert "Nothing runs now" in (await anna.get("/console/live")).text


async def _page_with(browser: Any, path: str, text: str) -> Any:
    answer = await browser.get(path)
    return answer if answer.status_code == 200 and text in answer.text else None


async def test_a_console_that_only_shows_cancels_nothing(tmp_path: Path) -> None:
    write_tools(tmp_path)
    async with console(tmp_path) as ground, ground.owner() as browser, anyio.create_task_group() as tasks:
        tasks.start_soon(run, ground, "wait")
        run_id = await until(lambda: next((item.run_id for item in ground.toolbox.records.entries()), ""))
        page = await until(lambda: _page_with(browser, f"/console/runs/{run_id}", "waiting"))
        assert "Cancel this run" not in page.text
        answer = await browser.post(f"/console/runs/{run_id}/cancel", data={"csrf": csrf_of(page)})
        assert answer.status_code == 403
        assert ground.toolbox.records.entries()[0].is_running
        tasks.cancel_scope.cancel()


async def test_before_the_first_run_and_without_a_store_the_pages_say_that_nothing_is_recorded(tmp_path: Path) -> None:
    async with console(tmp_path) as ground, ground.owner() as browser:
        assert "Nothing is recorded yet" in (await browser.get("/console/runs")).text
        assert "There are no such runs" in (await browser.get("/console/runs?outcome=failed")).text
        assert "Nothing runs now" in (await browser.get("/console/live")).text
    records = RecordSettings(directory=tmp_path / "records", enabled=False)
    async with console(tmp_path, records=records) as ground, ground.owner() as browser:
        for path in ("/console/runs", "/console/live"):
            assert "Nothing is recorded yet" in (await browser.get(path)).text


@pytest.mark.parametrize("dialect", DATABASES)
async def test_looks_use_one_connection_for_as_long_as_the_server_lives(
    tmp_path: Path, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    connect = sqlite3.connect

    def counted(*args: Any, **more: Any) -> sqlite3.Connection:
        opened.append(args)
        return connect(*args, **more)

    monkeypatch.setattr(sqlite3, "connect", counted)
    write_tools(tmp_path)
    with records_place(tmp_path, dialect) as place:
        async with console(tmp_path, records=settings_of(place)) as ground, ground.owner() as browser:
            run_id = await run(ground, "quiet")
            for path in ("/console/runs", "/console/live", f"/console/runs/{run_id}") * 5:
                assert (await browser.get(path)).status_code == 200
        if dialect == "postgres":
            name = URLS[place].partition("@/")[2].partition("?")[0]
            active = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
            await until(lambda: shared_server().sql(active) == [(0,)])
            # https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-DATABASE-VIEW
            sessions = f"SELECT sessions FROM pg_stat_database WHERE datname = '{name}'"
            assert shared_server().sql(sessions) == [(2,)], "the writer's, and one for looks"
        else:
            assert len(opened) == 2, "the writer's, and one for looks"


async def test_a_run_whose_server_died_is_shown_as_lost_while_somebody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("praxis_mcp.serving.console.reader.LOST_LOOKED_FOR_EVERY", 0.0)
    async with console(tmp_path) as ground, ground.owner() as browser:
        await until(lambda: (tmp_path / "records" / "runs.db").exists())
        await until(lambda: _page_with(browser, "/console/runs", "Nothing is recorded"))
        database = database_in(tmp_path / "records")
        database.write([StoredRun("f" * 32, "gone", "quiet", "local", "", "", "", "", "", time.time())])
        database.close()
        assert "Nothing runs now" in (await browser.get("/console/live")).text
        assert ">lost<" in (await browser.get(f"/console/runs/{'f' * 32}")).text


async def test_a_damaged_store_is_said_to_be_unavailable_and_where_only_to_its_owner(tmp_path: Path) -> None:
    write_tools(tmp_path)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "runs.db").write_bytes(b"not a database" * 100)
    async with console(tmp_path, TOKENS) as ground, ground.caller("anna") as anna:
        answer = await anna.get("/console/runs")
        assert answer.status_code == 503
        assert str(tmp_path / "records") not in answer.text
    async with console(tmp_path) as ground, ground.owner() as owner:
        answer = await owner.get("/console/runs")
        assert answer.status_code == 503
        assert str(tmp_path / "records") in answer.text


def test_a_file_is_looked_into_only_so_far(tmp_path: Path) -> None:
    def shown(name: str, data: bytes) -> Any:
        file = tmp_path / "file"
        file.write_bytes(data)
        return preview(Artifact(name, file, len(data)))

    table = shown("a.csv", b"a,b\n" * 10_000)
    assert (table.kind, len(table.rows), table.is_cut) == ("table", MAX_ROWS + 1, True)
    wide = shown("a.tsv", b"\t".join(b"%d" % number for number in range(100)))
    assert (len(wide.rows[0]), wide.is_cut) == (MAX_COLUMNS, True)
    assert shown("a.csv", b'"' * (LOOKED_INTO + 5)).kind in ("table", "text")
    assert shown("a.csv", b"").kind == "text"
    assert shown("a.json", b"[" * 100_000).kind == "text"
    assert shown("a.json", b"[]").kind == "text"
    assert shown("a.json", b'{"a": 1').text == '{"a": 1'
    assert shown("a.txt", b"x" * (LOOKED_INTO + 1)).is_cut
    assert shown("a.png", b"\0\xff").kind == "binary"
    assert shown("a.txt", b"\x89PNG\r\n\x1a\n").kind == "image"


def test_json_that_would_be_huge_when_it_is_indented_is_not_made_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("[" * 900 + ",".join("1" * 50_000) + "]" * 900)
    tracemalloc.start()
    try:
        shown = preview(Artifact("a.json", file, file.stat().st_size))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert (shown.kind, len(shown.text), shown.is_cut) == ("text", TEXT_SHOWN, True)


def test_a_link_that_a_tool_left_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    link = tmp_path / "link"
    link.symlink_to(secret)
    assert preview(Artifact("link", link, 6)).kind == "gone"
    assert excerpt(link).is_gone
    assert excerpt(tmp_path).is_gone


def test_the_ends_of_a_stream_are_whole_characters() -> None:
    data = "é".encode() * END_SHOWN * 2
    shown = excerpt(b"x" + data)
    assert "\N{REPLACEMENT CHARACTER}" not in shown.head + shown.tail
    assert shown.left_out == len(data) + 1 - 2 * END_SHOWN
    assert excerpt(b"").head == ""


def test_phases_fill_the_bar_in_their_order() -> None:
    run = StoredRun(
        "r", "s", "t", "e", "", "", "", "", "", 0.0, phases='{"run": 3, "odd": 0.5, "plan": 0.5, "queue": 0}'
    )
    found = bars(run)
    assert [item.name for item in found] == ["plan", "queue", "run", "odd"]
    assert found[-1].start + found[-1].width == 1000
    assert [item.width for item in found] == [125, 0, 750, 125]
    assert bars(StoredRun("r", "s", "t", "e", "", "", "", "", "", 0.0)) == ()


async def test_the_page_of_a_run_shows_what_it_changed_as_harmless_text(tmp_path: Path) -> None:
    write_tools(tmp_path)
    states = [FileState("file", 9, 0o644, text) for text in ("old line\n", HOSTILE)]
    large = FileState("file", 100_000, 0o644, None, "00ff", "large")
    changes = [FileChange(Path("/work/edited"), *states), FileChange(Path("/work/<b>made"), None, large)]
    async with console(tmp_path, {**TOKENS, "editor": ("tools:*",)}) as ground:
        run_id = await run(ground, "quiet", "editor")
        database = database_in(tmp_path / "records")
        recorded = database.find(run_id)
        assert recorded is not None
        paths = json.dumps([str(item.path) for item in changes])
        database.write([replace(recorded, changes=pack_changes(changes), changed_files=paths)])
        database.close()
        async with ground.caller("auditor") as browser:
            page = (await browser.get(f"/console/runs/{run_id}")).text
        async with ground.caller("editor") as browser:
            own = (await browser.get(f"/console/runs/{run_id}")).text
    assert '<span class="minus">-old line' in page
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "+</pre><script>alert(1)</script>" in unescape(page)
    assert "created, file of 100000 bytes (large), SHA-256 00ff" in page
    assert "<b>made" not in page
    assert "old line" not in own, "another call may have written it"
    assert "/work/edited" in own


def test_differences_are_shown_up_to_a_bound_and_the_rest_is_named() -> None:
    state = FileState("file", 1, 0o644, "line\n" * (MAX_DIFF_LINES + 5))
    paths = [f"/work/{number:04d}" for number in range(MAX_DIFFS + MAX_NAMED + 7)]
    packed = pack_changes([FileChange(Path(path), None, state) for path in paths[: MAX_DIFFS + 3]])
    run = StoredRun("r", "s", "t", "e", "", "", "", "", "", 0.0, changes=packed, changed_files=json.dumps(paths))
    found = changes_shown(run, with_content=True)
    assert [item.path for item in found.files] == paths[:MAX_DIFFS]
    assert (len(found.files[0].lines), found.files[0].is_cut) == (MAX_DIFF_LINES, True)
    assert sum(len(text) for item in found.files for _, text in item.lines) <= MAX_DIFF_TEXT
    assert (found.others, found.left_out) == (tuple(paths[MAX_DIFFS : MAX_DIFFS + MAX_NAMED]), 7)
    damaged = changes_shown(replace(run, changes=b"x", changed_files=json.dumps(paths[:2])), with_content=True)
    assert (damaged.is_damaged, damaged.others) == (True, tuple(paths[:2]))
