"""Text of others, as logs and terminals show it, and numbers that JSON can write and Python cannot hold."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from praxis_mcp.contracts.model import ToolContract
from praxis_mcp.contracts.reading.loading import load_text
from praxis_mcp.engines.base import ExecutionResult
from praxis_mcp.engines.output import Captured
from praxis_mcp.errors import OutputMisfit
from praxis_mcp.execution.result_checks import structured_output
from praxis_mcp.serving.mcp.progress import MAX_PROGRESS, parse_progress
from praxis_mcp.support.text import all_finite, printable, unseen, visible

SEEN_FORMATS = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
"""Characters of the category Cf that have a shape (Unicode 15, chapter 9.2, "Signs Spanning Numbers" and the like)."""


def test_every_control_format_and_surrogate_of_unicode_is_shown_by_its_number() -> None:
    for number in range(sys.maxunicode + 1):
        hidden = unicodedata.category(chr(number)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and number not in SEEN_FORMATS
        if hidden:
            shown = printable(f"a{chr(number)}b")
            assert shown.isprintable(), hex(number)
            assert unseen(f"a{chr(number)}b") or chr(number) in "\n\t", hex(number)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("bad\nFORGED", "bad\\nFORGED"),
        ("\x1b[8mhidden\x1b[0m", "\\x1b[8mhidden\\x1b[0m"),
        ("\x9b31mred", "\\x9b31mred"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("do\U000e0041\U000e0042", "do\\U000e0041\\U000e0042"),
        ("a\u200bb\ufeffc\u3164d", "a\\u200bb\\ufeffc\\u3164d"),
        ("a\u200db", "a\\u200db"),
        ("x\U000e0100", "x\\U000e0100"),
        ("half \ud800", "half \\ud800"),
        ("\u2028\u0085", "\\u2028\\x85"),
    ],
)
def test_what_steers_or_hides_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert unseen(text) or "\n" in text


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "naïve 日本語 עברית",
        "1\ufe0f\u20e3 👩\u200d💻 ❤\ufe0f ❤\ufe0f\u200d🔥",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "क्\u200dष",
        "\ue0a0",
    ],
)
def test_honest_text_of_any_script_stays_as_it_is(text: str) -> None:
    assert printable(text) == visible(text) == text
    assert unseen(text) == ()


def test_bits_written_in_joiners_are_shown() -> None:
    assert printable("é\u200d\u200c\u200d") == "é\\u200d\\u200c\\u200d"
    assert printable("é\ufe00\ufe01\ufe02") == "é\\ufe00\\ufe01\\ufe02"


def test_lines_and_tabs_stay_where_several_lines_are_shown() -> None:
    assert visible("one\n\ttwo\r\nthree\x1b") == "one\n\ttwo\nthree\\x1b"
    assert unseen("one\n\ttwo\r\nthree") == ()


@given(st.text())
def test_what_is_shown_is_one_line_and_shown_again_the_same(text: str) -> None:
    shown = printable(text)
    assert shown.splitlines() in ([], [shown])
    assert printable(shown) == shown
    assert visible(visible(text)) == visible(text)


@pytest.mark.parametrize("text", ['{"a": 1e999}', "[[-1e999]]", "1e400"])
def test_output_with_such_a_number_is_not_json(text: str) -> None:
    contract = ToolContract.create_local_tool("t", ["x"], output="json")
    stdout = Captured(head=text.encode(), total=len(text))
    with pytest.raises(OutputMisfit, match="1e999"):
        structured_output(contract, ExecutionResult("1", "local", "none", 0, stdout=stdout))
    assert not all_finite(json.loads(text))


def test_every_other_value_is_finite_however_deep() -> None:
    deep: object = 1.5e308
    for _ in range(100_000):
        deep = [deep]
    assert all_finite(deep)
    while isinstance(deep, list):  # freed level by level: Python's own way would recurse
        deep = deep.pop()
    assert all_finite({"a": [1, 10**400, "1e999", None, True, 0.0]})


def test_a_contract_in_json_cannot_hold_such_a_number() -> None:
    document = (
        '{"name": "t", "image": "x", "command": ["x"], "parameters": {"a": {"type": "number", "default": 1e999}}}'
    )
    loaded = load_text(document, Path("contract.json"))
    assert loaded.contract is None
    assert "too large a number" in loaded.diagnostics[0].message


@pytest.mark.parametrize("number", ["1.7976931348623157e308", "1e999", str(2**53 + 2)])
def test_progress_beyond_what_floats_count_is_not_progress(number: str) -> None:
    assert parse_progress(f'{{"progress": {number}}}') is None
    assert parse_progress(f'{{"progress": {int(MAX_PROGRESS)}}}') == (MAX_PROGRESS, None, "")
