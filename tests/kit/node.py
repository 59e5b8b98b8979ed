"""Independent MCP clients from the npm registry, and the Node they need, installed once a machine.

The machine's own node and npm may be older (Debian's, or Node 20): they only install. What runs is Node 22 from the
`node` package, which carries the program itself.
"""

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.cache import cache_dir, exclusive

NODE = "node@22.23.3"
INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
CONFORMANCE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
TYPESCRIPT_SDK = "@modelcontextprotocol/sdk@1.32.2"
AXE = "axe-core@4.14.1"
CLAUDE_CODE = "@anthropic-ai/claude-code@2.1.332"
CODEX = "@openai/codex@0.171.0"
JSONC_PARSER = "jsonc-parser@3.3.1"
TYPESCRIPT_CLIENT = "@modelcontextprotocol/client@2.4.0"
SCRIPTS = Path(__file__).parent
INSTALL_TIMEOUT = 600.0


class NodeUnavailable(Exception):
    """A package could not be installed; the message says why."""


@dataclass(frozen=True)
class NodeProgram:
    """A JavaScript program and the Node that runs it: `[*program.command, …]`, or `program.run(…)`."""

    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)

    def run(
        self, *arguments: str, timeout: float = 60.0, cwd: Path | None = None, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments],
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=cwd,
            input=text,
        )


def _installed(package: str) -> Path:
    """The directory of `package` at its pinned version, installed when it is not there yet."""
    name, _, version = package.rpartition("@")
    prefix = cache_dir() / "node" / f"{name.rpartition('/')[2]}-{version}"
    directory = prefix / "node_modules" / name
    if (prefix / ".complete").exists():
        return directory
    npm = shutil.which("npm")
    if npm is None:
        raise NodeUnavailable("npm is not on the PATH")
    with exclusive("node"):
        if (prefix / ".complete").exists():
            return directory
        shutil.rmtree(prefix, ignore_errors=True)  # what an interrupted install left
        prefix.mkdir(parents=True)
        command = [npm, "install", "--prefix", str(prefix), "--no-audit", "--no-fund", "--loglevel=error", package]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
        except subprocess.TimeoutExpired as exc:
            raise NodeUnavailable(f"installing {package} took over {INSTALL_TIMEOUT:.0f} s") from exc
        if done.returncode != 0:
            tail = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise NodeUnavailable(f"npm could not install {package}: {tail}")
        (prefix / ".complete").touch()
    return directory


@functools.cache
def node() -> Path:
    """The Node 22 program."""
    directory = _installed(NODE)
    for candidate in (directory / "bin" / "node", directory / "bin" / "node.exe"):
        if candidate.exists():
            return candidate
    raise NodeUnavailable(f"{NODE} is installed in {directory} without its program: its install script did not run")


@functools.cache
def inspector() -> NodeProgram:
    """The MCP Inspector's command line: `inspector().run(*server_command, "--method", "tools/list")`."""
    launcher = _installed(INSPECTOR) / "clients" / "launcher" / "build" / "index.js"
    # It writes a catalogue where it starts; by default in the home directory.
    catalog = {"MCP_CATALOG_PATH": str(cache_dir() / "node" / "inspector-catalog.json")}
    return NodeProgram((str(node()), str(launcher), "--cli"), catalog)


@functools.cache
def conformance() -> NodeProgram:
    """The MCP conformance suite: `conformance().run("server", "--url", url, "--requirements", "2025-11-25")`."""
    return NodeProgram((str(node()), str(_installed(CONFORMANCE) / "dist" / "index.js")))


@functools.cache
def axe() -> str:
    """The source of axe-core, which looks for what keeps people from using a page."""
    return (_installed(AXE) / "axe.min.js").read_text(encoding="utf-8")


@functools.cache
def typescript_v1() -> NodeProgram:
    """A client on version 1 of the TypeScript SDK: `typescript_v1().run(url, "http" or "sse")` prints JSON."""
    return _script("ts_client_v1.mjs", _installed(TYPESCRIPT_SDK))


@functools.cache
def typescript_sessions() -> NodeProgram:
    """The same client between two servers: `typescript_sessions().run(first_url, second_url)` prints JSON."""
    return _script("ts_sessions.mjs", _installed(TYPESCRIPT_SDK))


@functools.cache
def typescript_strict() -> NodeProgram:
    """What version 1 of the TypeScript SDK refuses: tools as JSON on standard input, reasons by name out."""
    return _script("ts_strict_tools.mjs", _installed(TYPESCRIPT_SDK))


@functools.cache
def typescript_v2() -> NodeProgram:
    """A client on version 2 of the TypeScript SDK, which speaks 2026-07-28: `typescript_v2().run(url)`."""
    return _script("ts_client_v2.mjs", _installed(TYPESCRIPT_CLIENT))


@functools.cache
def claude_code() -> NodeProgram:
    """Claude Code's command line, which asks nobody but the servers that it is given."""
    alone = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "MCP_TIMEOUT": "120000"}
    return NodeProgram((str(_installed(CLAUDE_CODE) / "bin" / "claude.exe"),), alone)


@functools.cache
def codex() -> NodeProgram:
    """Codex's command line."""
    return NodeProgram((str(node()), str(_installed(CODEX) / "bin" / "codex.js")))


@functools.cache
def jsonc_parse() -> NodeProgram:
    """VS Code's parser of JSON with comments: texts as JSON on standard input, their values and faults out."""
    return _script("jsonc_parse.mjs", _installed(JSONC_PARSER))


def _script(name: str, package: Path) -> NodeProgram:
    # Modules are looked for from where the script lies, so it is put beside the package.
    prefix = next(parent for parent in package.parents if parent.name == "node_modules").parent
    script = prefix / name
    script.write_bytes((SCRIPTS / name).read_bytes())
    return NodeProgram((str(node()), str(script)))
