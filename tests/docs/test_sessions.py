"""What README.md and docs/ show at a prompt happens: each page's commands are typed, in its order, by a new user.

A block of ```` ```console ```` is run, and the lines shown below a command are found in what it writes, in their order;
`…` stands for anything, a number of milliseconds for any. ```` ```console shown ```` is not run: it needs what tests do
not have. A block of YAML that begins with the name of its file is written there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kit.command_line import praxis

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).with_name("praxis-mcp")
STAYS = re.compile(r"praxis-mcp (serve .*--http|dev|console|test .*--watch)")
"""Commands that run until Ctrl-C: they get it once they have written something."""
FINDS = re.compile(r"praxis-mcp (lint|lock --check|import)")
"""Commands whose exit code 1 says that they found something."""
GREET = """\
name: greet
description: Greets whoever asks for it.
command: [sh, "{contract_dir}/greet.sh"]
engine: local
examples:
  - expect: hello
"""


@dataclass
class Step:
    """What a reader does: types a command, with what is shown below it, or writes a file: its name, and its text."""

    line: int
    command: str
    shown: list[str] = field(default_factory=list)
    file: bool = False


def steps(page: Path) -> list[Step]:
    """What a reader of a page does, in its order."""
    found: list[Step] = []
    block = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            block = line[3:]
        elif block == "console" and line.startswith("$ "):
            found.append(Step(number, line[2:]))
        elif block == "yaml" and (name := re.fullmatch(r"# (\S+\.yaml)", line)):
            found.append(Step(number, name[1], file=True))
        elif block == "console" or (
            block == "yaml" and found and found[-1].file and number - found[-1].line == len(found[-1].shown) + 1
        ):
            found[-1].shown.append(line)
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _start(home: Path) -> None:
    _write(home / ".claude.json", "{}\n")


def _checks(home: Path) -> None:
    _write(
        home / "tools/pick/contract.yaml",
        "name: pick\ndescription: Picks one of several colors by its number.\nengine: local\ncommand: [echo]\n"
        "parameters:\n  colors:\n    type: array\n    description: the colors to pick from\n  count: integer\n"
        "examples:\n  - arguments: {colors: [red], count: 1}\n",
    )


def _project(home: Path) -> None:
    _write(home / "project/tools/greet/contract.yaml", GREET)
    _write(home / "project/tools/greet/greet.sh", "printf hello\n")


def _trust(home: Path) -> None:
    _project(home)
    _write(home / "project/praxis.yaml", "reload: approved\n")


def _served(home: Path) -> None:
    _write(home / "tools/greet/contract.yaml", GREET)
    _write(home / "tools/greet/greet.sh", "printf hello\n")


def _importing(home: Path) -> None:
    servers = '{"mcpServers": {"files": {"command": "files-mcp", "args": ["."]}}}'
    for place in (".config/Claude/claude_desktop_config.json", ".vscode/mcp.json", "servers.json"):
        _write(home / place, servers)
    _write(home / "tools/greet/contract.yaml", GREET)
    api = {
        "openapi": "3.1.0",
        "info": {"title": "Issues", "version": "1"},
        "servers": [{"url": "https://api.example.com/v1"}],
        "paths": {
            "/issues": {
                "get": {"operationId": "listIssues", "tags": ["issues"], "responses": {}},
                "post": {"operationId": "createIssue", "responses": {}},
            }
        },
    }
    for name in ("api.yaml", "api.json"):
        _write(home / name, json.dumps(api))


PAGES: dict[str, Callable[[Path], None]] = {
    "README.md": _start,
    "docs/console.md": _served,
    "docs/contracts.md": _served,
    "docs/http.md": _served,
    "docs/importing.md": _importing,
    "docs/start.md": _start,
    "docs/checks.md": _checks,
    "docs/lock.md": _project,
    "docs/trust.md": _trust,
}
NEEDS = {
    "README.md": pytest.mark.docker,
    "docs/lock.md": pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its key by openssl"),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home" / "me"
    place.mkdir(parents=True)
    return place


def test_no_page_with_commands_is_left_out() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert {str(page.relative_to(ROOT)) for page in pages if any(not step.file for step in steps(page))} == set(PAGES)


@pytest.mark.parametrize("page", [pytest.param(page, marks=NEEDS.get(page, ())) for page in PAGES])
def test_the_commands_of_a_page_do_what_it_shows(page: str, home: Path) -> None:
    PAGES[page](home)
    typed = steps(ROOT / page)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "PRAXIS_"))}
    env = {**kept, "HOME": str(home), "PATH": f"{PROGRAM.parent}:{kept['PATH']}", "PRAXIS_HTTP__PORT": "0"}
    where = home
    for step in typed:
        at = f"{page}:{step.line}: {step.command}"
        words = shlex.split(step.command, comments=True)
        if words[0] == "cd":
            where = where / words[1]
            continue
        if words[0] == "export":
            name = words[1].partition("=")[0]
            env[name] = subprocess.check_output(
                ["sh", "-c", f'{step.command}\nprintf %s "${name}"'], env=env, text=True
            )
            continue
        if step.file:
            _write(where / step.command, "\n".join(step.shown))
            continue
        code, written = _run(step, words, where, env)
        assert code in ((0, 1) if FINDS.match(step.command) else (0,)), f"{at}\n{written}"
        _found(step.shown, written.replace(str(home), "/home/me"), at)


def _run(step: Step, words: list[str], cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    """Its exit code, and what it wrote to both streams."""
    if STAYS.match(step.command):
        return _until_it_is_interrupted(words, step.shown, cwd, env)
    if words[0] == "praxis-mcp":
        done = praxis(*words[1:], cwd=cwd, env=env)
    else:
        shell = ["sh", "-c", step.command]
        done = subprocess.run(shell, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr + done.stdout


def _until_it_is_interrupted(words: list[str], shown: list[str], cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    """The same of a command that stays: Ctrl-C comes once it has written as much as is shown, a line at least."""
    process = subprocess.Popen(
        words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    limit = threading.Timer(60, process.kill)
    limit.start()
    with process:
        assert process.stdout is not None
        written = process.stdout.readline()
        while shown and not _pattern(shown[-1]).search(written) and (line := process.stdout.readline()):
            written += line
        process.send_signal(signal.SIGINT)
        written += process.stdout.read()
    limit.cancel()
    return process.returncode, written


def _found(shown: list[str], written: str, at: str) -> None:
    """Each shown line stands in what was written, behind the last."""
    position = 0
    for line in shown:
        match = _pattern(line).search(written, position)
        assert match, f"{at}\nnot written: {line}\n{written}"
        position = match.end()


def _pattern(line: str) -> re.Pattern[str]:
    """What a shown line is like."""
    text = re.sub(r"\d+(?=\\? ms)|(?<=127\\.0\\.0\\.1:)\d+", r"\\d+", re.escape(line).replace("…", ".*"))
    return re.compile(f"^{text}$", re.MULTILINE)
