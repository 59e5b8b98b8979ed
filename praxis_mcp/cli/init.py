"""``praxis-mcp init``: a directory of tools to begin with."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from praxis_mcp.cli.common import JsonOption, friendly_errors
from praxis_mcp.cli.new import can_take_network, say_what_to_do_next, shown, write_files
from praxis_mcp.cli.terminal import say
from praxis_mcp.errors import ArgumentError

if TYPE_CHECKING:
    from praxis_mcp.settings.model import Settings

FIRST_TOOL = "count_text"

_SETTINGS = """\
# Settings of praxis-mcp for the tools of this directory. Everything has a default: `praxis-mcp schema --settings`
# prints all of them. `praxis-mcp init` has approved this file as it is, for this user; after a change, and on another
# machine, it is left aside until `praxis-mcp trust` approves it.

# Directories of contracts. Relative paths start at this file, and so do those in contracts.
tools: [tools]

# Serve a contract only once `praxis-mcp contracts approve` has approved it: approved. Default: as soon as it is saved.
# reload: approved

server:
  # What clients tell their models about all of the tools.
  instructions: Small exact tools of this project.
"""

_IGNORED = """\
__pycache__/
.venv/
.env
"""

_WORKFLOW = """\
# Checks the contracts, and runs their examples as tests.
name: tools
on: [push, pull_request]
permissions:
  contents: read
env:
  # What `pip install` takes: the address of a wheel, git+https://…, or the name on an index of yours. Set it among the
  # repository's variables (Settings, Secrets and variables, Actions, Variables).
  PRAXIS_MCP: ${{ vars.PRAXIS_MCP }}
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with: {python-version: "3.13"}
      - run: pip install "${PRAXIS_MCP:?is not among the variables of this repository}" 'docker>=7.1,<7.3'
      # Ubuntu 24.04 keeps programs from making sandboxes, which tools of the machine's own programs run in.
      - run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 || true
      # Named, because nobody has approved it on that machine.
      - run: praxis-mcp validate --strict --config praxis.yaml
      - run: praxis-mcp lint --github --config praxis.yaml
      - run: praxis-mcp test --config praxis.yaml
"""


def init(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to (default: here).", show_default=False)
    ] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make a directory of tools: one tool that works on this machine, with examples that pass as tests, settings, a
    .gitignore, and a workflow for CI.

    Nothing is overwritten: what is there already stays as it is, and is named. The settings file is approved, as
    praxis-mcp trust does it, if it was written by this command.

    Example: praxis-mcp init my-tools
    """
    with friendly_errors():
        root = Path(os.path.normpath(Path.cwd() / directory))
        if root.exists() and not root.is_dir():
            raise ArgumentError(f"{root} is not a directory.", remedy="Name another: praxis-mcp init DIR")
        from praxis_mcp.cli.starters import files_of
        from praxis_mcp.settings.files import SETTINGS_FILES, TOOLS, is_shared
        from praxis_mcp.settings.model import Settings
        from praxis_mcp.support.files import leads_out_of

        if is_shared(root):
            raise ArgumentError(
                f"{root} holds many projects, and settings are not looked for there.",
                remedy="Name a directory for the tools: praxis-mcp init my-tools",
            )
        files = {SETTINGS_FILES[0]: _SETTINGS, ".gitignore": _IGNORED, ".github/workflows/tools.yaml": _WORKFLOW}
        kept = [name for name in (SETTINGS_FILES[1], *files) if os.path.lexists(root / name)]
        if SETTINGS_FILES[1] in kept:  # it counts as the other one does
            del files[SETTINGS_FILES[0]]
        tools = root / TOOLS
        if os.path.lexists(tools) and not (tools.is_dir() and not any(tools.iterdir())):
            kept.append(TOOLS)
        else:
            language, image, host_network = _first_tool(Settings(root=root))
            tool = files_of(FIRST_TOOL, language, image=image, host_network=host_network)
            files |= {f"{TOOLS}/{FIRST_TOOL}/{name}": content for name, content in tool.items()}
        written = {name: content for name, content in files.items() if name not in kept}
        for name in written:
            if leads_out_of(root, root / name):
                raise ArgumentError(
                    f"{root / name} leads out of {root}; nothing was written.",
                    remedy="Replace the link by a directory.",
                )
        write_files(root, written)
        if SETTINGS_FILES[0] in written:
            _approve(root / SETTINGS_FILES[0], _SETTINGS)
        here = root == Path.cwd()
        say_what_to_do_next(
            root.name,
            [root / name for name in written],
            [
                "praxis-mcp test" if here else f"cd {shlex.quote(shown(root))} && praxis-mcp test",
                "praxis-mcp install claude-code",
            ],
            [root / name for name in kept],
            as_json=as_json,
        )


def _first_tool(settings: Settings) -> tuple[str, str | None, bool]:
    """The language of a tool that works on this machine, the image that it runs in, if any, and whether it must keep
    the network."""
    from praxis_mcp.cli.starters import STARTERS

    language = "python" if shutil.which(STARTERS["python"].command[0]) else "shell"
    if not shutil.which(STARTERS[language].command[0]):  # Windows without either
        return "python", STARTERS["python"].image, False
    return language, None, not can_take_network(settings)


def _approve(file: Path, content: str) -> None:
    """Approve what was written, whatever is there by now."""
    from praxis_mcp.errors import SettingsError
    from praxis_mcp.settings.trust import TrustStore, digest

    try:
        TrustStore("settings").approve(file, digest(content.encode()))
    except SettingsError as exc:
        say(f"warning: {file.name} could not be approved: {exc}", fg="yellow", err=True)
