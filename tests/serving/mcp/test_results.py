"""Results of runs as content, for every protocol revision; the runs themselves are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp_types.methods import validate_server_result
from mcp_types.version import KNOWN_PROTOCOL_VERSIONS

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.diagnostics import Diagnostic
from praxis_mcp.engines.base import Artifact, ExecutionResult, RemoteContent
from praxis_mcp.engines.output import Captured
from praxis_mcp.errors import ArgumentError, ContractError, EngineUnavailable, ExecutionError
from praxis_mcp.serving.mcp.blocks import INLINE_MEDIA, MAX_NAMED_ARTIFACTS
from praxis_mcp.serving.mcp.dialect import Dialect
from praxis_mcp.serving.mcp.failures import describe_error
from praxis_mcp.serving.mcp.results import ResultWriter
from praxis_mcp.settings.model import Settings
from tests.serving.clients import text_of

pytestmark = pytest.mark.anyio

PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def contract(**fields: Any) -> ToolContract:
    spec = {"image": "scratch:1", "command": ["run"], **fields.pop("spec", {})}
    return ToolContract.model_validate({"name": "tool", "engine": "dagger", "engine_spec": spec, **fields})


def run(exit_code: int | None = 0, stdout: bytes = b"", stderr: bytes = b"", **fields: Any) -> ExecutionResult:
    return ExecutionResult(
        "0" * 32,
        "docker",
        "container",
        exit_code,
        stdout=Captured(stdout, total=len(stdout)),
        stderr=Captured(stderr, total=len(stderr)),
        **fields,
    )


async def written(tool: ToolContract, result: ExecutionResult, version: str = "2025-11-25", **settings: Any) -> Any:
    """What a client of that revision gets, checked against that revision's own schema."""
    answer = await ResultWriter(Settings(**settings), Dialect(version)).write(tool, result)
    wire = answer.model_dump(by_alias=True, mode="json", exclude_none=True)
    validate_server_result("tools/call", version, wire)
    return answer


@pytest.mark.parametrize(
    ("result", "spec", "expected"),
    [
        (run(137, out_of_memory=True), {"memory_limit": "64Mi"}, ["out of memory (limit 64 MiB)", "memory_limit"]),
        (run(137, timed_out=True), {"timeout": 5}, ["time limit of 5 s", "timeout (5 s)"]),
        (run(137), {}, ["SIGKILL", "memory ran out"]),
        (run(126), {}, ["could not be executed"]),
        (run(127, stderr=b"sh: frob: not found\n"), {}, ["was not found", "missing from its image (scratch:1)"]),
        (run(1, stderr=b"open /x: Read-only file system\n"), {}, ["Hint:", "read-only except for /tmp", ":rw"]),
        (run(1, stderr=b"Read-only file system"), {"read_only": False}, ["to its own file system", "without :rw"]),
        (run(1, stderr=b"write: No space left on device"), {}, ["Hint:", "full"]),
        (run(1, stderr=b"curl: (6) Could not resolve host: x"), {}, ["network: none"]),
        (run(1, stderr=b"fork: Resource temporarily unavailable"), {"pids_limit": 9}, ["9 processes"]),
        (run(None), {}, ["how it ended is not known", "It wrote nothing."]),
        (run(1, stdout=b"\0\xff\2" * 50), {}, ["150 bytes of binary output"]),
    ],
)
async def test_a_failure_says_what_happened_and_what_to_change(
    result: ExecutionResult, spec: dict, expected: list[str]
) -> None:
    answer = await written(contract(spec=spec), result)
    assert answer.is_error
    for piece in expected:
        assert piece in text_of(answer)


async def test_a_network_error_of_a_tool_with_a_network_gives_no_false_hint() -> None:
    answer = await written(contract(spec={"network": "bridge"}), run(1, stderr=b"Could not resolve host: x"))
    assert "Hint" not in text_of(answer)


async def test_a_failure_shows_the_last_lines_only_and_links_the_rest() -> None:
    stderr = b"".join(b"error line %d\n" % number for number in range(10_000))
    answer = await written(contract(), run(1, stderr=stderr))
    assert "error line 9999" in text_of(answer)
    assert "error line 9000" not in text_of(answer)
    assert len(text_of(answer)) < 8000
    assert [block.uri for block in answer.content if block.type == "resource_link"] == [
        f"praxis://runs/{'0' * 32}/stderr"
    ]


async def test_head_and_tail_are_never_cut_inside_a_character() -> None:
    stdout = Captured(head="é€".encode() + b"\xf0\x9f", tail=b"\x98\x80" + "ü".encode(), total=5000)
    result = ExecutionResult("0" * 32, "docker", "container", 0, stdout=stdout)
    text = text_of(await written(contract(), result))
    assert "\N{REPLACEMENT CHARACTER}" not in text
    assert text.startswith("é€\n[… ")
    assert text.endswith("…]\nü")


async def test_text_in_another_encoding_is_still_text() -> None:
    answer = await written(contract(), run(stdout="Größe: über alles, schöne Wörter".encode("latin-1")))
    assert [block.type for block in answer.content] == ["text"]
    assert "alles" in text_of(answer)


@pytest.mark.parametrize("version", KNOWN_PROTOCOL_VERSIONS)
async def test_every_revision_gets_only_content_that_it_knows(version: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a")
    artifacts = (Artifact("a.csv", tmp_path / "a.csv", 1),)
    linked = await written(contract(), run(stdout=b"made", artifacts=artifacts), version)
    kinds = [block.type for block in linked.content]
    assert kinds == (["text", "resource_link"] if version >= "2025-06-18" else ["text", "text"])
    assert f"praxis://runs/{'0' * 32}/artifacts/a.csv" in linked.model_dump_json()
    sound = await written(contract(), run(stdout=b"fLaC\0" + bytes(60)), version)
    assert [block.type for block in sound.content] == (["audio"] if version >= "2025-03-26" else ["resource"])


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
@pytest.mark.parametrize("value", ["[1]", '"text"', "5", "{}"])
async def test_structured_content_without_a_schema_has_the_shape_of_its_era(version: str, value: str) -> None:
    answer = await written(contract(output="json"), run(stdout=value.encode()), version)
    plain = {"[1]": [1], '"text"': "text", "5": 5, "{}": {}}[value]
    wrapped = version == "2025-11-25" and value != "{}"
    assert answer.structured_content == ({"result": plain} if wrapped else plain)


async def test_an_object_behind_a_schema_without_a_type_is_wrapped_as_its_schema_is() -> None:
    tool = contract(output="json", output_schema={"anyOf": [{"type": "object"}, {"type": "null"}]})
    assert (await written(tool, run(stdout=b"{}"))).structured_content == {"result": {}}
    assert (await written(tool, run(stdout=b"{}"), "2026-07-28")).structured_content == {}


async def test_large_json_is_structured_whole_while_its_text_is_cut() -> None:
    data = b"[" + b"1," * 50_000 + b"1]"
    answer = await written(contract(output="json"), run(stdout=data), "2026-07-28")
    assert len(answer.structured_content) == 50_001
    assert len(text_of(answer)) < 40_000


@pytest.mark.parametrize("data", [b"NaN", b"[1] [2]", b"[" * 5000 + b"]" * 5000, b'"\xff"', b""])
async def test_what_only_some_parsers_take_is_not_json(data: bytes) -> None:
    answer = await written(contract(output="json"), run(stdout=data))
    assert answer.is_error
    assert "not the JSON" in text_of(answer)


async def test_a_byte_order_mark_before_json_is_forgiven() -> None:
    answer = await written(contract(output="json"), run(stdout=b"\xef\xbb\xbf{}\n"))
    assert answer.structured_content == {}


async def test_large_and_many_artifacts_are_linked_and_counted(tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(PNG_HEAD + bytes(INLINE_MEDIA))
    small = tmp_path / "small.txt"
    small.write_text("x")
    artifacts = (
        Artifact("large.png", large, INLINE_MEDIA + 8),
        *(Artifact(f"{number}.txt", small, 1) for number in range(MAX_NAMED_ARTIFACTS + 9)),
    )
    answer = await written(contract(), run(artifacts=artifacts))
    assert answer.content[0].type == "resource_link"
    assert answer.content[0].mime_type == "image/png"
    assert "10 more files" in text_of(answer)


async def test_an_artifact_that_is_a_link_to_a_file_of_the_host_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG_HEAD + b"secret")
    (tmp_path / "out.png").symlink_to(tmp_path / "secret.png")
    answer = await written(contract(), run(artifacts=(Artifact("out.png", tmp_path / "out.png", 14),)))
    assert [block.type for block in answer.content] == ["resource_link"]


async def test_file_names_that_are_not_unicode_survive(tmp_path: Path) -> None:
    name = b"caf\xe9.txt".decode("utf-8", "surrogateescape")
    result = run(stdout=b"x", artifacts=(Artifact(name, tmp_path / "gone", 3),), changed_files=(tmp_path / name,))
    answer = await written(contract(), result, root=tmp_path)
    assert "caf%E9.txt" in answer.model_dump_json()
    assert "Changed files: caf" in text_of(answer)


async def test_artifacts_that_were_left_out_are_named_and_counted() -> None:
    names = tuple(f"{number:02}.png" for number in range(25))
    text = text_of(await written(contract(), run(stdout=b"x", artifacts_left_out=names)))
    assert "Left out of the artifacts" in text
    assert "00.png, 01.png" in text
    assert text.endswith("19.png and 5 more")


async def test_changed_files_are_named_from_the_project_root_and_counted(tmp_path: Path) -> None:
    files = tuple(tmp_path / f"{number:03}.txt" for number in range(30))
    text = text_of(await written(contract(), run(stdout=b"x", changed_files=files), root=tmp_path))
    assert "Changed files: 000.txt, 001.txt" in text
    assert text.endswith("019.txt and 10 more")


ANSWER = RemoteContent(
    blocks=(
        {"type": "text", "text": "from afar"},
        {"type": "resource_link", "uri": "far://a", "name": "a", "mimeType": "text/csv", "size": 3},
        {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"},
        {"type": "hologram", "depth": 3},
    ),
    structured=[1, 2],
    meta={"org.example/cost": 5},
)


@pytest.mark.parametrize("version", KNOWN_PROTOCOL_VERSIONS)
async def test_a_remote_answer_reaches_every_revision_in_words_that_it_knows(version: str) -> None:
    answer = await written(contract(), run(stdout=b"from afar", remote=ANSWER), version)
    kinds = [block.type for block in answer.content]
    assert kinds[0] == "text"
    assert kinds[1] == "text", "what the link names cannot be read here"
    assert kinds[2] == ("audio" if version >= "2025-03-26" else "resource")
    assert "a: far://a" in text_of(answer)
    assert "hologram" in text_of(answer)
    assert answer.structured_content == ([1, 2] if version == "2026-07-28" else {"result": [1, 2]})
    assert answer.meta["org.example/cost"] == 5


async def test_a_remote_error_is_passed_on_as_one() -> None:
    said = RemoteContent(blocks=({"type": "text", "text": "no such city"},))
    answer = await written(contract(), run(1, stdout=b"no such city", remote=said))
    assert answer.is_error
    assert text_of(answer) == "no such city"


async def test_a_remote_answer_is_held_to_our_own_output_schema() -> None:
    tool = contract(output="json", output_schema={"type": "object", "required": ["a"]})
    answer = await written(tool, run(stdout=b"{}", remote=RemoteContent(structured={})))
    assert answer.is_error
    assert '"a" in the output is required' in text_of(answer)
    plain = await written(tool, run(stdout=b'{"a": 1}', remote=RemoteContent()))
    assert plain.structured_content == {"a": 1}


async def test_long_remote_text_is_cut_and_kept_whole_as_a_resource() -> None:
    text = "word " * 20_000
    said = RemoteContent(
        blocks=({"type": "text", "text": text}, {"type": "image", "data": "AA==", "mimeType": "image/png"})
    )
    answer = await written(contract(), run(stdout=text.encode(), remote=said))
    assert [block.type for block in answer.content] == ["text", "resource_link", "image"]
    assert f"praxis://runs/{'0' * 32}/stdout" in text_of(answer)
    assert answer.content[1].uri == f"praxis://runs/{'0' * 32}/stdout"
    assert len(text_of(answer)) < 40_000


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ArgumentError("t: bad.", problems=["a", "b"], remedy="Fix."), ["- a\n- b", "Fix."]),
        (EngineUnavailable("No daemon.", remedy="Start it."), ["No daemon.\nStart it."]),
        (ExecutionError("Broke.", output="last words"), ["Broke.", "last words"]),
        (ContractError("Bad.", diagnostics=[Diagnostic("x is odd", "Even it.")]), ["- x is odd Even it."]),
    ],
)
def test_an_error_is_written_with_its_problems_and_remedy(error: Any, expected: list[str]) -> None:
    for piece in expected:
        assert piece in describe_error(error)
