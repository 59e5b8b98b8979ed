"""tools/call, whatever the transport and the era."""

import base64
import json
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from praxis_mcp.serving.mcp.results import META_KEY
from tests.serving.clients import LIMIT, Peer, text_of
from tests.serving.sample_tools import PNG

pytestmark = pytest.mark.anyio


async def test_a_call_returns_what_the_tool_wrote_and_names_its_run(peer: Peer) -> None:
    result = await peer.call("echo", {"text": "grüße; $(id) `id`"})
    assert not result.is_error
    assert text_of(result) == "grüße; $(id) `id`\n"
    about = result.meta[META_KEY]
    assert about["engine"] == "local"
    assert about["exitCode"] == 0
    assert about["durationMs"] >= 0
    assert len(about["runId"]) == 32


async def test_an_unknown_tool_is_a_protocol_error_that_names_a_similar_one(peer: Peer) -> None:
    with pytest.raises(MCPError) as caught:
        await peer.call("ecoh")
    assert caught.value.code == INVALID_PARAMS
    assert "echo" in caught.value.message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, '"text" is required'),
        ({"txt": "a"}, 'did you mean "text"'),
        ({"text": "a", "times": 0}, "must be at least 1"),
        ({"text": "a", "times": "many"}, "a whole number"),
        ({"text": "nul\0byte"}, "NUL"),
    ],
)
async def test_bad_arguments_are_an_error_that_the_model_can_fix(peer: Peer, arguments: dict, expected: str) -> None:
    result = await peer.call("echo", arguments)
    assert result.is_error
    assert expected in text_of(result)
    assert text_of(await peer.call("echo", {"text": "still here"})) == "still here\n"


async def test_an_argument_of_a_megabyte_is_refused_with_how_to_fix_it(peer: Peer) -> None:
    result = await peer.call("echo", {"text": "x" * 1024 * 1024})
    assert result.is_error
    assert "stdin or file" in text_of(result)
    assert len(text_of(result)) < 2000


async def test_a_failed_command_shows_its_exit_code_and_the_end_of_its_output(peer: Peer) -> None:
    result = await peer.call("fail")
    assert result.is_error
    text = text_of(result)
    assert "exit code 3" in text
    assert "cannot frob: no widget" in text
    assert "partial" in text


async def test_a_signal_is_named(peer: Peer) -> None:
    result = await peer.call("crash")
    assert result.is_error
    assert "SIGSEGV" in text_of(result)


async def test_a_command_that_does_not_exist_is_named_with_the_remedy(peer: Peer) -> None:
    result = await peer.call("no_such_command")
    assert result.is_error
    assert "praxis-no-such-command" in text_of(result)


async def test_a_timeout_names_the_limit_and_what_to_do(peer: Peer) -> None:
    result = await peer.call("slow")
    assert result.is_error
    text = text_of(result)
    assert "time limit of 0.4 s" in text
    assert "timeout" in text.partition("Hint:")[2]


async def test_output_that_is_too_long_is_shown_as_head_and_tail_and_the_whole_can_be_read(peer: Peer) -> None:
    result = await peer.call("big")
    text = text_of(result)
    assert not result.is_error
    assert text.startswith("line 0\n")
    assert text.rstrip().endswith("line 39999")
    assert len(text) < 40_000
    uri = f"praxis://runs/{result.meta[META_KEY]['runId']}/stdout"
    assert uri in text
    whole = await read_all(peer, uri)
    assert whole == "".join(f"line {number}\n" for number in range(40_000))


async def read_all(peer: Peer, uri: str) -> str:
    parts: list[str] = []
    following: str | None = uri
    while following:
        with anyio.fail_after(LIMIT):
            contents: list[Any] = list((await peer.client.read_resource(following)).contents)
        parts.append(contents[0].text)
        following = contents[1].uri if len(contents) > 1 else None
    return "".join(parts)


async def test_a_tool_that_writes_nothing_says_so_and_shows_its_warnings(peer: Peer) -> None:
    assert "nothing was written" in text_of(await peer.call("quiet"))
    warned = await peer.call("warn")
    assert not warned.is_error
    assert "no match found" in text_of(warned)


async def test_json_output_is_structured_content_that_fits_the_listed_schema(peer: Peer) -> None:
    with anyio.fail_after(LIMIT):
        await peer.client.list_tools()  # from here on the client checks structured content against the schema
    stats = await peer.call("stats")
    assert stats.structured_content == {"words": 3, "missing": None}
    assert json.loads(text_of(stats)) == stats.structured_content
    numbers = await peer.call("numbers")
    assert numbers.structured_content == ([1, 2, 3] if peer.era == "modern" else {"result": [1, 2, 3]})
    assert json.loads(text_of(numbers)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("wrong", "must be a whole number"),
        ("not_json", "not the JSON it declares"),
        ("cut_json", "max_output"),
        ("surrogate", "not the JSON it declares"),
    ],
)
async def test_output_that_is_not_what_the_contract_declares_is_an_error(peer: Peer, tool: str, expected: str) -> None:
    result = await peer.call(tool)
    assert result.is_error
    assert result.structured_content is None
    assert expected in text_of(result)


async def test_an_image_on_standard_output_is_image_content(peer: Peer) -> None:
    (block,) = (await peer.call("picture")).content
    assert (block.type, block.mime_type) == ("image", "image/png")
    assert base64.b64decode(block.data) == base64.b64decode(PNG)


async def test_sound_on_standard_output_is_audio_content(peer: Peer) -> None:
    (block,) = (await peer.call("sound")).content
    assert (block.type, block.mime_type) == ("audio", "audio/wav")


async def test_other_binary_output_is_a_blob(peer: Peer) -> None:
    (block,) = (await peer.call("binary")).content
    assert block.type == "resource"
    assert base64.b64decode(block.resource.blob) == bytes(range(256)) * 4


async def test_artifacts_are_images_or_links_that_can_be_read(peer: Peer) -> None:
    result = await peer.call("files")
    assert "made" in text_of(result)
    (image,) = [block for block in result.content if block.type == "image"]
    assert base64.b64decode(image.data) == base64.b64decode(PNG)
    (link,) = [block for block in result.content if block.type == "resource_link"]
    assert (link.name, link.mime_type, link.size) == ("übersicht 1.csv", "text/csv", 8)
    assert await read_all(peer, link.uri) == "a,b\n1,2\n"


async def test_what_a_tool_prints_never_reaches_the_wire(peer: Peer) -> None:
    assert text_of(await peer.call("printer")) == "to-stdout\nto-fd1\n"
    assert text_of(await peer.call("echo", {"text": "after"})) == "after\n"


async def test_twenty_calls_at_once_all_get_their_own_answer(peer: Peer) -> None:
    answers: dict[int, str] = {}

    async def one(number: int) -> None:
        answers[number] = text_of(await peer.call("echo", {"text": f"number {number}"}))

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, number)
    assert answers == {number: f"number {number}\n" for number in range(20)}
