"""Patterns come from strangers: what one, a schema or an upstream may cost to compile is bounded before it is spent."""

import time
from contextlib import suppress
from typing import Any

import pytest

from praxis_mcp.contracts.schemas import patterns
from praxis_mcp.contracts.schemas.patterns import (
    CACHE_BYTES,
    PATTERN_BYTES,
    MalformedPattern,
    PatternBudget,
    UnusablePattern,
    compile_pattern,
    estimate,
    unusable_patterns,
)
from praxis_mcp.federation.remote_tools import UPSTREAM_BYTES, adapt

ORDINARY = [
    "^[a-z][a-z0-9_-]{0,62}$", r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$", r"^[\w.+-]{1,64}@[\w-]+(\.[\w-]+)+$",
    "^(GET|POST|PUT|DELETE)$", r"^https?://[^\s/$.?#].[^\s]*$", "(?i)^[0-9a-f]{64}$", "^.{1,4000}$",
    r"^\p{L}[\p{L}\s'-]{0,80}$", "^[^/]{1,255}(/[^/]{1,255})*$",
]  # fmt: skip
LARGE = [
    "[" * 70_000, r"\p{" * 30_000, "a" * 70_000,
    r"\w{1000}", r"(?:\w{20}){20}", r"(\w{20}){20}", r"(?<a>\w{20}){20}", r"\w{2}{2}{2}{2}{2}{2}{2}{2}{2}{2}",
    r"[\w[a]]{400}", r"[]\w]{400}", r"[^]\w]{400}", "(?x)\\w {400}", "(?x)\\w # so\n {400}", r"\pL{400}", r"\p{L}{400}",
    r"(?i:\w){400}", ".{20000}", "a{999999}", "a{9}{9}{9}{9}{9}{9}{9}", "(?i)" + "[b-\U0010fffe]" * 700, "é{30000}",
    "a{" + "9" * 6000 + "}", r"\w" * 400, "(?:a|" * 200 + r"\w{400}" + ")" * 200,
]  # fmt: skip
JUST_WITHIN = [
    "[" * 60_000, r"\p{" * 20_000, "[a" * 30_000, "(?x" * 20_000, "(" * 60_000, "[]" * 30_000, "\\" * 60_000,
    r"\w{150}", r"[\w[a]]{150}", "(?x)\\w {150}", r"(?:\w{10}){15}", r"\pL{150}", ".{4000}", "(?i)[b-\U0010fffe]{15}",
    "a{50000}", "|" * 30_000, r"[[:^alpha:]]{2000}", r"[\x{100}-\x{10ff0}]{1000}",
]  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_cache", patterns._Cache())


@pytest.mark.parametrize("pattern", ORDINARY)
def test_ordinary_patterns_are_compiled(pattern: str) -> None:
    compile_pattern(pattern)


@pytest.mark.parametrize("pattern", LARGE)
def test_a_large_pattern_is_refused_without_being_compiled(pattern: str) -> None:
    begin = time.thread_time()
    with pytest.raises(UnusablePattern, match="too large"):
        compile_pattern(pattern)
    assert time.thread_time() - begin < 0.1


@pytest.mark.parametrize("pattern", JUST_WITHIN)
def test_the_estimate_is_in_proportion_to_the_work(pattern: str) -> None:
    begin = time.thread_time()
    with suppress(UnusablePattern):  # of some, Rust's own bound is smaller
        patterns._compiled(pattern)
    spent = time.thread_time() - begin
    # Some 6 ms for a MiB on a quiet machine.
    assert spent < 0.3 + 0.06 * estimate(pattern) / 1024**2


def test_the_patterns_of_a_schema_are_bounded_together() -> None:
    schema: dict[str, Any] = {"properties": {f"a{i}": {"pattern": rf"\w{{100}}{i}"} for i in range(60)}}
    begin = time.thread_time()
    refused = list(unusable_patterns(schema))
    assert time.thread_time() - begin < 2
    assert 50 <= len(refused) < 60
    assert "together" in refused[0][1]
    same: dict[str, Any] = {"properties": {f"a{i}": {"pattern": r"\w{100}"} for i in range(60)}}
    assert list(unusable_patterns(same)) == []


def test_a_refusal_is_remembered_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    for pattern in ("(", "(?=a)", r"\w{1000}"):
        with pytest.raises(UnusablePattern) as first:
            compile_pattern(pattern)
        monkeypatch.setattr(patterns, "_compiled", None)  # nothing would be left to do it again with
        with pytest.raises(UnusablePattern) as second:
            compile_pattern(pattern)
        monkeypatch.undo()
        assert (type(first.value), str(first.value)) == (type(second.value), str(second.value))
        assert isinstance(first.value, MalformedPattern) is (pattern == "(")


def test_what_is_kept_is_bounded_by_bytes() -> None:
    cache = patterns._Cache()
    for index in range(100):
        cache.keep(str(index), UnusablePattern(), CACHE_BYTES // 10)
    assert sum(cache.find(str(index)) is not None for index in range(100)) == 9
    assert cache.find("99") is not None
    cache.keep("larger than all", UnusablePattern(), CACHE_BYTES)
    assert cache.find("larger than all") is None
    assert cache.find("99") is not None


def test_a_tool_of_an_upstream_loses_the_patterns_that_are_too_much_and_says_so() -> None:
    schema = {"type": "object", "properties": {f"a{i}": {"pattern": rf"\w{{150}}{i}"} for i in range(300)}}
    raw = {"name": "t", "inputSchema": schema, "outputSchema": schema}
    begin = time.thread_time()
    tool = adapt(raw, "up", "up_t", None)
    assert time.thread_time() - begin < 3
    assert len(tool.input_schema["properties"]) == 300
    assert sum("pattern" in part for part in tool.input_schema["properties"].values()) == 3
    assert any("takes too much memory" in note for note in tool.notes)
    assert len(tool.notes) <= 40


def test_the_tools_of_an_upstream_are_bounded_together() -> None:
    budget = PatternBudget(UPSTREAM_BYTES)
    schemas = [{"properties": {"a": {"pattern": rf"\w{{140}}{index}"}}} for index in range(50)]
    raws = [{"name": f"t{index}", "inputSchema": schema} for index, schema in enumerate(schemas)]
    tools = [adapt(raw, "up", raw["name"], None, budget) for raw in raws]
    kept = [tool for tool in tools if "pattern" in tool.input_schema["properties"]["a"]]
    assert 0 < len(kept) <= UPSTREAM_BYTES // (PATTERN_BYTES // 2)
