"""Each check finds what it is for, at its place, and nothing in a contract that is as it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from praxis_mcp.checks.lint import Linted, failing, lint
from praxis_mcp.checks.table import CHECKS, LONGEST_READ_DESCRIPTION, MOST_TOOLS_IN_CLIENTS, known_codes
from praxis_mcp.diagnostics import Severity
from praxis_mcp.errors import ArgumentError
from praxis_mcp.settings.model import Settings

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
PLAIN: dict[str, Any] = {
    "name": "pick",
    "description": "Picks some of the colors, by chance.",
    "image": "busybox:1.36",
    "command": ["sh", "-c", "true"],
    "parameters": {"count": {"type": "integer", "description": "How many.", "minimum": 1}},
    "examples": [{"arguments": {"count": 1}}],
}


def parameter(**keywords: Any) -> dict[str, Any]:
    return {"parameters": {"count": {"type": "integer", "description": "How many.", **keywords}}, "examples": [{}]}


def root(**keywords: Any) -> dict[str, Any]:
    properties = {"count": {"type": "integer", "description": "How many.", "default": 1}}
    return {"parameters": {"type": "object", "properties": properties, **keywords}, "examples": [{}]}


ASSEMBLED = "gh" + "p_" + "a1B2" * 9  # in pieces, so that no scanner of this repository finds it
ONE_TOOL: list[tuple[str, dict[str, Any], str]] = [
    ("contract", {"timout": 5}, "timout"),
    ("long-name", {"name": "p" * 48}, "name"),
    ("long-name", {"name": "p" * 65}, "name"),
    ("name-characters", {"name": "pick.colors"}, "name"),
    ("name-start", {"name": "2pick"}, "name"),
    ("no-description", {"description": None}, "description"),
    ("short-description", {"description": "Picks colors."}, "description"),
    ("short-description", {"name": "pick_some_nice_colors", "description": "Pick some nice colors."}, "description"),
    ("long-description", {"description": "Picks. " * LONGEST_READ_DESCRIPTION}, "description"),
    ("unfinished-text", {"description": "Picks some colors. TODO: which?"}, "description"),
    ("unfinished-text", parameter(description="FIXME", default=1), "parameters.count.description"),
    ("parameter-description", parameter(description="", default=1), "parameters.count"),
    (
        "parameter-name",
        {"parameters": {"how many": {"type": "integer", "description": "So many."}}},
        "parameters.how many",
    ),
    ("hidden-text", {"description": "Picks some of the\u202e colors, by chance."}, "description"),
    ("hidden-text", parameter(description="How\U000e0041 many.", default=1), "parameters.count.description"),
    ("root-combination", root(anyOf=[{"required": ["count"]}, {}]), "parameters.anyOf"),
    ("reference", parameter(type="object", properties={"a": {"$ref": "#/$defs/a"}}, default={}), "properties.a.$ref"),
    ("type-list", parameter(type=["integer", "null"], default=1), "parameters.count.type"),
    (
        "no-type",
        {"parameters": {"count": {"type": "any", "description": "How many.", "default": 1}}},
        "parameters.count",
    ),
    ("array-items", parameter(type="array", default=[]), "parameters.count"),
    ("array-items", parameter(type="object", properties={"a": {"type": "array"}}, default={}), "properties.a"),
    ("empty-choice", parameter(type="string", enum=["", "a"], default="a"), "parameters.count.enum"),
    ("choice-types", parameter(enum=[1, 2], default=1), "parameters.count.enum"),
    ("constant", parameter(type="string", const="a", default="a"), "parameters.count.const"),
    ("costly-tool", parameter(description="How many. " * 1000, default=1), "name"),
    ("no-examples", {"examples": []}, ""),
    ("latest-image", {"image": "busybox"}, "image"),
    ("latest-image", {"image": "localhost:5000/busybox:latest"}, "image"),
    ("secret-in-contract", {"env": {"SERVICE_TOKEN": "correct-horse-battery"}}, "env.SERVICE_TOKEN"),
    ("secret-in-contract", {"command": ["sh", "-c", f"curl -H 'Authorization: {ASSEMBLED}'"]}, "command[2]"),
    ("secret-in-contract", parameter(type="string", default=ASSEMBLED), "parameters.count.default"),
    ("weak-isolation", {"privileged": True}, "privileged"),
    ("weak-isolation", {"drop_capabilities": False}, "drop_capabilities"),
    ("weak-isolation", {"network": "host"}, "network"),
    ("long-timeout", {"timeout": 3600}, "timeout"),
]
DEFINED = {"parameters": {"$defs": {"a": {"type": "string"}}}}


async def linted(directory: Path, *contracts: dict[str, Any], **settings: Any) -> Linted:
    for number, contract in enumerate(contracts):
        written = {key: value for key, value in {**PLAIN, **contract}.items() if value is not None}
        text = yaml.safe_dump(written, sort_keys=False, allow_unicode=False)
        (directory / f"{number}.contract.yaml").write_text(text)
    return await lint(Settings(tools=(directory,), **settings), "praxis-mcp")


async def test_nothing_is_found_in_a_contract_as_it_should_be(tmp_path: Path) -> None:
    kept = {
        "env": {"TOKEN": {"secret": "SERVICE_TOKEN"}, "TOKEN_FILE": "/run/token", "PASSWORD": ""},
        "parameters": {
            "count": {"type": "integer", "description": "How many."},
            "colors": {"type": "array", "items": {"type": "string"}, "description": "Of which.", "default": []},
        },
    }
    assert (await linted(tmp_path, kept)).findings == ()


@pytest.mark.parametrize(("code", "change", "field"), ONE_TOOL)
async def test_a_check_finds_what_it_is_for_at_its_place(
    tmp_path: Path, code: str, change: dict[str, Any], field: str
) -> None:
    if code == "reference":
        parameters = {"type": "object", "properties": change["parameters"], **DEFINED["parameters"]}
        change = {**change, "parameters": parameters}
    found = [item for item in (await linted(tmp_path, change)).findings if item.code == code]
    assert [item.field for item in found if item.field.endswith(field)], found
    for item in found:
        assert item.path == tmp_path / "0.contract.yaml"
        assert item.line or item.code == "contract"
        assert item.severity is CHECKS[code].severity


async def test_a_text_that_yaml_cuts_at_a_comment_is_found(tmp_path: Path) -> None:
    text = yaml.safe_dump({**PLAIN, "description": None}).replace(
        "description: null", "description: Picks four # colors"
    )
    (tmp_path / "pick.contract.yaml").write_text(text)
    (found,) = [item for item in (await linted(tmp_path)).findings if item.code == "cut-text"]
    assert found.field == "description"


async def test_tools_that_a_model_would_mix_up_are_found(tmp_path: Path) -> None:
    found = await linted(
        tmp_path,
        {"name": "pick_color"},
        {"name": "pickColor", "description": "Something else is done by this one."},
        {"name": "choose", "description": "Picks some of the colors, by chance!"},
    )
    assert {(item.code, item.path and item.path.name[0]) for item in found.findings} == {
        ("similar-names", "0"),  # sorted by name, pickColor comes first
        ("same-description", "0"),
    }


async def test_many_tools_and_their_cost_are_found_once(tmp_path: Path) -> None:
    tools = [
        {"name": f"tool_{number}", "description": "Does it. " * 100} for number in range(MOST_TOOLS_IN_CLIENTS + 1)
    ]
    found = [item for item in (await linted(tmp_path, *tools)).findings if item.code != "same-description"]
    assert [item.code for item in found] == ["costly-list", "many-tools"]


async def test_texts_of_the_settings_that_models_read_are_checked(tmp_path: Path) -> None:
    found = await linted(
        tmp_path,
        {},
        server={"instructions": "Be\u200b quick. " * LONGEST_READ_DESCRIPTION},
        upstreams={"web": {"address": "http://127.0.0.1:1/mcp", "describe": {"find": "Finds\u2066 it."}}},
    )
    assert [(item.code, item.field) for item in found.findings] == [
        ("hidden-text", "server.instructions"),
        ("hidden-text", "upstreams.web.describe.find"),
        ("long-instructions", "server.instructions"),
    ]


async def test_a_contract_leaves_checks_out_for_itself_alone(tmp_path: Path) -> None:
    found = await linted(
        tmp_path,
        {"examples": [], "x-lint-ignore": ["no-examples", "no-exampels"]},
        {"name": "other", "description": "Does what is not like it.", "examples": []},
    )
    assert [(item.code, item.field) for item in found.findings] == [("contract", "x-lint-ignore"), ("no-examples", "")]
    assert found.ignored == 1


async def test_what_contracts_share_is_found_once_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "_defaults.yaml").write_text("image: busybox\n")
    found = await linted(
        tmp_path, {"image": None}, {"name": "other", "description": "Does what is not like it.", "image": None}
    )
    assert [(item.code, item.path, item.line) for item in found.findings] == [
        ("latest-image", tmp_path / "_defaults.yaml", 1)
    ]


async def test_codes_of_no_check_are_refused_with_a_guess() -> None:
    with pytest.raises(ArgumentError, match='did you mean "no-examples"'):
        known_codes(["no-exampels"], "--ignore")


async def test_only_errors_fail_unless_it_is_strict(tmp_path: Path) -> None:
    warned = (await linted(tmp_path, {"examples": []})).findings
    assert {item.severity for item in warned} == {Severity.WARNING}
    assert (failing(warned, strict=False), failing(warned, strict=True), failing((), strict=True)) == (
        False,
        True,
        False,
    )


async def test_the_sample_tools_pass() -> None:
    done = await lint(Settings(tools=(ROOT / "tools",)), "praxis-mcp")
    assert (done.tools, done.findings, done.ignored) == (19, (), 1)


def test_every_check_is_tried() -> None:
    elsewhere = {"cut-text", "similar-names", "same-description", "costly-list", "many-tools", "long-instructions"}
    assert {code for code, *_ in ONE_TOOL} | elsewhere == CHECKS.keys()
