"""``praxis-mcp trust``: settings files that count although nobody names them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from praxis_mcp.cli.common import JsonOption, friendly_errors
from praxis_mcp.cli.terminal import echo_json, say

if TYPE_CHECKING:
    from praxis_mcp.settings.model import Settings


def trust(
    place: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="The praxis.yaml, or its directory (default: this project's)."),
    ] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take the approval back.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="List what is approved, and what has changed since.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Approve a praxis.yaml, as it is now, for servers and commands that find it because they start in its project.

    Until then, and after every change, such a file is left aside: it could start commands, and widen what tools may do.
    Look at it first. A file that --config or PRAXIS_CONFIG names needs no approval. Approvals are kept in
    ~/.config/praxis-mcp.

    Example: praxis-mcp trust praxis.yaml
    """
    with friendly_errors():
        if listed:
            _list(as_json)
            return
        from praxis_mcp.settings.files import parse, project_at, read_settings_file, settings_file_in
        from praxis_mcp.settings.model import check_file
        from praxis_mcp.settings.trust import TrustStore, digest

        store = TrustStore("settings")
        start = Path.cwd()
        if revoke and place is not None and not place.is_dir():
            file = start / place  # which may be gone
        else:
            file = settings_file_in(start / place if place is not None else project_at(start))
        if revoke:
            was = store.revoke(file)
            say(f"{file} is no longer approved." if was else f"{file} was not approved.")
            return
        content = read_settings_file(file)
        settings = check_file(file, content)
        lines = [*_powers(settings), *_names(parse(content.decode(), file))]
        approval = store.approve(file, digest(content))
        if as_json:
            echo_json({"file": approval.path, "sha256": approval.sha256, "allows": lines})
            return
        say(f"{approval.path} is approved as it is now (sha256 {approval.sha256[:16]}…).")
        for line in lines:
            say(f"  {line}")


def _list(as_json: bool) -> None:
    from praxis_mcp.errors import SettingsError
    from praxis_mcp.settings.files import read_settings_file
    from praxis_mcp.settings.trust import TrustStore, digest

    found: list[dict[str, str]] = []
    for item in TrustStore("settings").entries():
        try:
            same = digest(read_settings_file(Path(item.path))) == item.sha256
            state = "approved" if same else "changed since it was approved"
        except SettingsError:
            state = "gone, or cannot be read"
        found.append({"file": item.path, "sha256": item.sha256, "state": state})
    if as_json:
        echo_json(found)
        return
    for item in found:
        say(f"{item['file']}: {item['state']}")
    if not found:
        say("No settings file is approved.")


def _powers(settings: Settings) -> Iterator[str]:
    """What of the settings a reader should have seen before approving them. A secret's value is not among it."""
    yield f"root {settings.root}; contracts in {', '.join(map(str, settings.tool_directories)) or 'no directory'}"
    for name, upstream in settings.upstreams.items():
        if isinstance(upstream.address, tuple):
            yield f"starts the upstream {name}: {shlex.join(upstream.address)}"
        else:
            yield f"connects to the upstream {name}: {upstream.address}"
    policy = settings.policy
    for wanted, words in ((policy.privileged, "privileged containers"), (policy.host_network, "the host's network")):
        if wanted:
            yield f"lets contracts have {words}"
    if policy.sensitive_paths:
        yield f"lets contracts mount {', '.join(map(str, policy.sensitive_paths))}"
    engines = settings.engines
    if engines.local.sandbox == "off":
        yield "runs commands on the host without a sandbox"
    if engines.local.visible:
        yield f"lets commands on the host read {', '.join(map(str, engines.local.visible))}"
    for name, value in (
        ("docker.host", engines.docker.host),
        ("docker.runtime", engines.docker.runtime),
        ("dagger.runner_host", engines.dagger.runner_host),
        ("dagger.cli", engines.dagger.cli),
    ):
        if value is not None:
            yield f"uses engines.{name}: {value}"
    if engines.registries:
        yield f"logs in to {', '.join(engines.registries)}"
    if settings.secrets:
        yield f"reads the secrets {', '.join(settings.secrets)}"
    if not settings.http.auth.required and settings.http.proxy_authenticates:
        yield "serves HTTP without asking callers who they are"


def _names(values: Mapping[str, Any]) -> Iterator[str]:
    """Every setting of the file by name, so that nothing in it is approved unseen."""
    found = list(_flat(values))
    if found:
        yield f"sets {', '.join(found)}"


def _flat(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[str]:
    for name, value in values.items():
        keys = (*above, str(name))
        # Sections are at most two deep (engines.local); deeper are maps, such as the variables of an upstream.
        if isinstance(value, Mapping) and value and len(keys) < 3 and keys[0] != "secrets":
            yield from _flat(value, keys)
        else:
            yield ".".join(keys)
