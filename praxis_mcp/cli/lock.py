"""``praxis-mcp lock``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from praxis_mcp.cli.common import (
    JsonOption,
    SettingsOptions,
    friendly_errors,
    print_findings,
    run_with_toolbox,
    takes_settings,
)
from praxis_mcp.cli.terminal import echo_json, say, status_printer
from praxis_mcp.cli.tool_call import connected_upstreams, find_tool
from praxis_mcp.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from praxis_mcp.execution.locking.signing import SigningKey
    from praxis_mcp.execution.toolbox import Toolbox
    from praxis_mcp.plans.model import Blueprint
    from praxis_mcp.settings.model import Settings

_KEPT = (
    "It was not signed with this key before: the digests of images that it had are signed as they stood there. "
    "praxis-mcp lock --upgrade --sign KEY finds them out again."
)
_STALE = "Its signature is of what it was: praxis-mcp lock --sign KEY"


@takes_settings()
def lock(
    options: SettingsOptions,
    names: Annotated[list[str] | None, typer.Argument(help="With --upgrade: tools (default: all).")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; say what differs.")] = False,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Lock what the images' names mean now, as their registries have it.")
    ] = False,
    sign: Annotated[
        Path | None, typer.Option("--sign", help="Sign the file with this private key (PEM, ECDSA on P-256).")
    ] = None,
    passphrase: Annotated[
        str | None,
        typer.Option("--passphrase", help="With --sign: the secret or variable that has the key's passphrase."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="With --check: the file must be signed with this public key (default: lock_key)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write praxis.lock: hashes of contracts and of the files that they name, digests of images, fingerprints of
    upstreams' tools. serve --locked runs nothing else.

    Digests of images stay as they were locked, unless --upgrade finds them out again. A new image is locked as an
    engine has it here, else as its registry has it. Upstreams are connected to. The signature is a file next to
    praxis.lock, a sigstore bundle, which cosign reads and writes too.

    Exit code 1 where a contract is broken, or where --check finds a difference.

    Example: praxis-mcp lock --check
    """
    if names and not upgrade:
        raise ArgumentError("Tools go with --upgrade.", remedy="praxis-mcp lock --upgrade NAME")
    if check and upgrade:
        raise ArgumentError("--check writes nothing, and --upgrade does.", remedy="Choose one of them.")
    if check and sign:
        raise ArgumentError("--check writes nothing, and --sign does.", remedy="Choose one of them.")
    if key and not check:
        raise ArgumentError("--key goes with --check.", remedy="praxis-mcp lock --check --key PUBLIC_KEY")
    if passphrase and not sign:
        raise ArgumentError("--passphrase goes with --sign.", remedy="praxis-mcp lock --sign KEY --passphrase NAME")
    settings = options.read()
    file = settings.lock_file
    public = (key or settings.lock_key) if check else None
    signing = _signing_key(sign, passphrase, settings) if sign else None
    # What is approved, or locked, is another question than what is there.
    settings = settings.model_copy(update={"reload": True, "locked": False})
    notes: list[str] = []
    is_written = False

    async def work(toolbox: Toolbox) -> tuple[list[str], bool]:
        nonlocal is_written
        from praxis_mcp.execution.locking.lock_file import (
            Lock,
            differences,
            parse_lock,
            read_content,
            write_lock,
        )
        from praxis_mcp.execution.locking.packages import find_packages
        from praxis_mcp.execution.locking.present import engines_of_images, find_present, locked_anew
        from praxis_mcp.settings.model import signature_of

        broken = print_findings([item for item in toolbox.catalog.diagnostics if item.is_error])
        content = read_content(file, public) if check or file.exists() else None
        before = Lock() if content is None else parse_lock(content, file)
        entries = toolbox.catalog.entries()
        async with connected_upstreams(toolbox.upstreams):
            present = await find_present(entries, toolbox.upstreams.reports(), settings)
            found = list(differences(before, present))
            if check or broken:
                return found, broken
            if present.silent:
                name, why = next(iter(present.silent.items()))
                raise ArgumentError(f"The upstream {name} cannot be locked: it has no list of tools: {why}")
            chosen = [(await find_tool(toolbox, name)).name for name in names or ()]
            upgraded = chosen or (present.tools if upgrade else ())
            running = engines_of_images(entries, present, settings)

            async def resolve(blueprint: Blueprint, pins: Mapping[str, str]) -> tuple[str, ...]:
                selector = toolbox.runner.selector
                return await find_packages(selector, toolbox.engines, blueprint, pins, status_printer())

            after = await locked_anew(present, before, upgraded, toolbox.engines, running, resolve)
        for image, pinned in after.images.items():
            if image in before.images and before.images[image] != pinned:
                found.append(f"the image {image} is {pinned} now")
        for name, tool in after.tools.items():
            packages = before.tools[name].packages if name in before.tools else None
            found += [f"{name} gets {item.partition(' --hash')[0]} now" for item in _new(packages, tool.packages)]
        kept = before.images.keys() & after.images.keys() - set(present.images_of(*upgraded))
        if signing is not None and content is not None and kept and not signing.has_signed(content, file):
            notes.append(_KEPT)
        if after != before or content is None:
            content = write_lock(file, after)
            is_written = True
            if signing is None and signature_of(file).exists():
                notes.append(_STALE)
        if signing is not None and not signing.has_signed(content, file):
            notes.append(f"Signed: {signing.sign(content, file)}")
        return found, broken

    try:
        with friendly_errors():
            found, broken = run_with_toolbox(settings, work)
    except typer.Exit:
        if not check and not is_written:
            say(f"Nothing was written{f': {file} is as it was' if file.exists() else ''}.", err=True)
        raise
    if as_json:
        echo_json({"file": str(file), "differences": found})
    else:
        for line in found:
            say(f"{line}.")
        if broken and not check:
            end = "Nothing was locked."
        elif check:
            end = "Look at it, then lock it: praxis-mcp lock" if found else f"Everything is as {file} has it."
        else:
            end = f"All of it is locked now, in {file}." if found else f"{file} is as it was."
        say(end, err=True)
    for note in notes:
        say(note, err=True)
    raise typer.Exit(1 if broken or (check and found) else 0)


def _signing_key(file: Path, passphrase: str | None, settings: Settings) -> SigningKey:
    from praxis_mcp.execution.locking.signing import SigningKey
    from praxis_mcp.plans.secrets import resolve_secret

    return SigningKey.read(file, resolve_secret(passphrase, settings, "lock --sign") if passphrase else None)


def _new(before: tuple[str, ...] | None, after: tuple[str, ...] | None) -> list[str]:
    """What was not there; nothing where nothing was known."""
    return [item for item in after or () if item not in before] if before is not None else []
