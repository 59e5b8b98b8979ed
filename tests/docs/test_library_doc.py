"""The code of docs/library.md runs and prints what it says; so does the example."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from praxis_mcp.support.logs import NAME, logger

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "library.md"
EXAMPLE = ROOT / "examples" / "library.py"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.anyio
async def test_the_code_of_the_page_runs_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "my-tools").mkdir()
    (tmp_path / "my-tools" / "greet.contract.yaml").write_text(blocks("yaml")[0])
    monkeypatch.chdir(tmp_path)
    request.addfinalizer(lambda: logger.enable(NAME))  # the page disables it
    printed: list[str] = []
    namespace: dict[str, Any] = {"print": lambda *words: printed.append(" ".join(str(word).strip() for word in words))}
    code = blocks("python")
    for number, block in enumerate(code):
        program = compile(block, f"{PAGE.name}, block {number + 1}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with anyio.fail_after(60):
            outcome = eval(program, namespace)  # runs it: at the top level there may be awaits
            if inspect.isawaitable(outcome):
                await outcome
    assert printed == re.findall(r"# → (.*)$", "\n".join(code), re.MULTILINE)
    assert len(printed) >= 6


def test_the_example_runs() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "tools: ['greet']",
        "True Hello, Ada",
        'wrong arguments: "whom" is unknown (did you mean "who"?); "who" is required and was not given',
        "0 4",
        "wrong contract: parameters.n.default",
    ]


def test_every_name_that_the_page_imports_is_a_public_one() -> None:
    import praxis_mcp

    names = {
        alias.name
        for block in [*blocks("python"), EXAMPLE.read_text(encoding="utf-8")]
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module == "praxis_mcp"
        for alias in node.names
    }
    assert names
    assert names <= set(praxis_mcp.__all__)
