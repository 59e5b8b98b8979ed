"""Runs as resources, whatever the transport and the era."""

import json

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from praxis_mcp.serving.mcp.dialect import RESOURCE_NOT_FOUND
from praxis_mcp.serving.mcp.results import META_KEY
from tests.serving.clients import LIMIT, Peer

pytestmark = pytest.mark.anyio


async def run_of(peer: Peer, tool: str, arguments: dict | None = None) -> str:
    return (await peer.call(tool, arguments)).meta[META_KEY]["runId"]


async def read(peer: Peer, uri: str) -> list:
    with anyio.fail_after(LIMIT):
        return (await peer.client.read_resource(uri)).contents


async def test_recent_runs_are_listed_newest_first_with_a_summary(peer: Peer) -> None:
    first = await run_of(peer, "quiet")
    second = await run_of(peer, "fail")
    with anyio.fail_after(LIMIT):
        listed = (await peer.client.list_resources(cache_mode="bypass")).resources
    assert [item.uri for item in listed[:2]] == [f"praxis://runs/{second}", f"praxis://runs/{first}"]
    assert "exit code 3" in (listed[0].description or "")
    (summary,) = await read(peer, listed[0].uri)
    about = json.loads(summary.text)
    assert (about["tool"], about["exit_code"], about["stderr"]) == ("fail", 3, f"praxis://runs/{second}/stderr")


async def test_both_streams_and_the_files_of_a_run_can_be_read(peer: Peer) -> None:
    run = await run_of(peer, "fail")
    (stderr,) = await read(peer, f"praxis://runs/{run}/stderr")
    assert stderr.text == "cannot frob: no widget\n"
    files = await run_of(peer, "files")
    (image,) = await read(peer, f"praxis://runs/{files}/artifacts/dot.png")
    assert image.mime_type == "image/png"
    assert image.blob
    with anyio.fail_after(LIMIT):
        templates = (await peer.client.list_resource_templates()).resource_templates
    assert "praxis://runs/{run_id}/stdout{?offset,limit}" in [template.uri_template for template in templates]


async def test_a_part_is_read_by_offset_and_limit_and_names_the_next(peer: Peer) -> None:
    run = await run_of(peer, "echo", {"text": "äöü"})  # cache: pure keeps the bytes equal from run to run
    part, note = await read(peer, f"praxis://runs/{run}/stdout?offset=0&limit=5")
    assert part.text == "äö"  # a character is never cut in two
    assert note.uri == f"praxis://runs/{run}/stdout?offset=4&limit=5"
    assert "3 of 7 bytes remain" in note.text
    (part,) = await read(peer, note.uri)
    assert part.text == "ü\n"


@pytest.mark.parametrize(
    "uri",
    [
        "praxis://runs/00000000000000000000000000000000",
        "praxis://runs/RUN/nothing",
        "praxis://runs/RUN/artifacts/../../../etc/passwd",
        "praxis://runs/RUN/artifacts/%2e%2e%2fstdout",
        "file:///etc/passwd",
        "praxis://other/RUN",
        "http://[bad",
    ],
)
async def test_what_does_not_exist_is_the_eras_own_error(peer: Peer, uri: str) -> None:
    run = await run_of(peer, "quiet")
    with pytest.raises(MCPError) as caught:
        await read(peer, uri.replace("RUN", run))
    assert caught.value.code == (INVALID_PARAMS if peer.era == "modern" else RESOURCE_NOT_FOUND)


@pytest.mark.parametrize("query", ["offset=-1", "limit=0", "offset=many", "first=3", "offset=99999999999999999999"])
async def test_a_malformed_range_is_refused_with_the_reason(peer: Peer, query: str) -> None:
    run = await run_of(peer, "quiet")
    with pytest.raises(MCPError) as caught:
        await read(peer, f"praxis://runs/{run}/stdout?{query}")
    assert caught.value.code == INVALID_PARAMS


async def test_an_offset_beyond_the_end_gives_nothing(peer: Peer) -> None:
    run = await run_of(peer, "fail")
    (part,) = await read(peer, f"praxis://runs/{run}/stdout?offset=5000")
    assert part.text == ""
