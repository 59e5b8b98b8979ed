"""What was put in the place of a run's files, or of a directory on the way to them, leads no reader to other files; a
directory of records that its owner has linked elsewhere is read as any other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from mcp.shared.exceptions import MCPError

from praxis_mcp.serving.access import hash_token
from tests.kit import command_line
from tests.serving.http_server import client_of, http_client, running_http
from tests.serving.sample_tools import python, write_tool

SECRET = "this is another's"
LEAVES = """
import os, pathlib
deep = pathlib.Path(os.environ["PRAXIS_OUTPUT_DIR"]) / "deep"
deep.mkdir()
(deep / "report.txt").write_text("the whole report")
print("y" * 200_000)
"""
DIRECTORIES = (".", "artifacts", "artifacts/deep")
"""Of a run, as they are linked elsewhere one after the other."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose state, and what copies go to, are linked to another disk."""
    write_tool(tmp_path / "tools", "left", python(LEAVES), artifacts=["/out/*.md", "/out/deep/*"])
    for name in ("state", "copies"):
        (tmp_path / "disk" / name).mkdir(parents=True)
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    return tmp_path


@pytest.fixture
def praxis(project: Path) -> Callable[..., str]:
    def run(*words: str, on_stderr: str = "") -> str:
        environment = {
            **os.environ,
            "XDG_STATE_HOME": str(project / "state"),
            "PRAXIS_ENGINES__LOCAL__SANDBOX": "off",
        }
        done = command_line.praxis(*words, cwd=project, env=environment)
        assert done.returncode == 0, done.stderr
        assert on_stderr in done.stderr
        return done.stdout

    return run


def turn(run: Path, place: str) -> None:
    """Put a link in the place of a run's directory; files of the same names are where it leads."""
    here, elsewhere = run / place, run.parents[1] / "elsewhere" / place
    for path in list(here.rglob("*")):
        if path.is_file():
            other = elsewhere / path.relative_to(here)
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_text(SECRET)
    here.rename(run.parents[1] / f"away-{place.replace('/', '-')}")
    here.symlink_to(elsewhere)


@pytest.mark.parametrize("place", DIRECTORIES)
def test_commands_read_no_file_of_a_run_through_a_link_on_the_way(
    praxis: Callable[..., str], project: Path, place: str
) -> None:
    praxis("call", "left")
    assert praxis("runs", "logs", "last") == "y" * 200_000 + "\n"
    praxis("runs", "artifacts", "last", "--to", "copies")
    copy = project / "disk/copies/deep/report.txt"
    assert copy.read_text() == "the whole report"
    copy.unlink()

    (run,) = (project / "state/praxis-mcp/records/files").iterdir()
    turn(run, place)
    praxis("runs", "artifacts", "last", "--to", "copies", on_stderr="1 file no longer kept")
    assert not copy.exists()
    assert json.loads(praxis("runs", "artifacts", "last", "--json")) == []
    if place == ".":
        assert praxis("runs", "logs", "last", on_stderr="stdout is no longer kept") == ""
    assert SECRET not in praxis("runs", "show", "last") + praxis("runs", "diff", "last")


@pytest.mark.anyio
@pytest.mark.parametrize("place", DIRECTORIES)
async def test_a_server_reads_no_file_of_a_run_through_a_link_on_the_way(project: Path, place: str) -> None:
    tools, records = project / "tools", project / "state" / "records"
    http = {"auth": {"tokens": {"ada": {"sha256": hash_token("praxis_ada")}}}, "console": {"enabled": True}}
    own: dict[str, Any] = {"PRAXIS_RECORDS__DIRECTORY": str(records), "PRAXIS_ROOT": str(tools)}
    async with running_http(tools, "--http", http=http, **own) as server, client_of(server, "praxis_ada") as client:
        content: list[Any] = (await client.call_tool("left", {})).content
        links = [block.uri for block in content if block.type == "resource_link"]
        assert [uri.rpartition("/")[2] for uri in links] == ["stdout", "report.txt"]
        run_id = links[0].removesuffix("/stdout").rpartition("/")[2]
        page = f"{server.base}/console/runs/{run_id}"
        async with http_client(follow_redirects=True) as browser:
            origin = {"Origin": server.base}
            await browser.post(f"{server.base}/console/login", data={"token": "praxis_ada"}, headers=origin)
            for turned in (False, True):
                if turned:
                    await anyio.to_thread.run_sync(turn, records / "files" / run_id, place)
                for uri in links[1:] if place != "." else links:
                    address = f"{uri}?offset={int(turned)}"  # a client keeps what it has read
                    if turned:
                        with pytest.raises(MCPError, match=r"no longer kept|no resource"):
                            await client.read_resource(address)
                    else:
                        await client.read_resource(address)
                shown = (await browser.get(page)).text
                assert ("the whole report" in shown) != turned
                assert SECRET not in shown
                for part in ("artifacts/0", "stdout.txt"):
                    assert SECRET not in (await browser.get(f"{page}/{part}")).text
                answer = await browser.get(f"{page}/artifacts/0")
                assert (answer.status_code == 200) != turned
