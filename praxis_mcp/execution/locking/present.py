"""What there is to lock: contracts, their files, tools of upstreams, and the digests of images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import anyio
import anyio.to_thread

from praxis_mcp.contracts.catalog.catalog import CatalogEntry
from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.errors import ExecutionError, ImageError
from praxis_mcp.execution.locking.lock_file import Lock, LockedTool, Present, contract_digest
from praxis_mcp.execution.locking.tool_files import ToolFiles
from praxis_mcp.federation.upstreams import UpstreamReport
from praxis_mcp.images.model import Reference
from praxis_mcp.images.registry import RegistryClient
from praxis_mcp.plans.build import draft_blueprint
from praxis_mcp.plans.planning import plan_image
from praxis_mcp.settings.model import Settings

LOOK_TIMEOUT = 60.0
"""Seconds in which an engine or a registry must say which image has a name."""


async def find_present(
    entries: Sequence[CatalogEntry], upstreams: Sequence[UpstreamReport], settings: Settings
) -> Present:
    """What is there now.

    Raises:
        ContractError: files of a tool cannot be read.
        ExecutionError, LimitUnsupported: nor can those that its image is built from, or they may not be.
    """
    present = Present()
    files = ToolFiles(settings.root)
    for entry in entries:
        contract = entry.contract
        digest = await anyio.to_thread.run_sync(files.digest, contract)
        image = (await plan_image(contract, settings)).image if entry.traits.is_built else entry.traits.image
        present.tools[entry.name] = LockedTool(contract=contract_digest(contract), files=digest, image=image)
    for report in upstreams:
        if report.trouble:
            present.silent[report.name] = report.trouble
        else:
            present.upstreams[report.name] = {
                tool.remote_name: tool.fingerprint for tool in (*report.tools, *report.held)
            }
    return present


async def locked_anew(
    present: Present,
    before: Lock,
    upgraded: Collection[str],
    engines: EngineRegistry,
    running: Mapping[str, Collection[str]],
) -> Lock:
    """What is there now, to be written. Digests of images stay as they were locked.

    Args:
        present: see `find_present`.
        before: what was locked.
        upgraded: images whose digests are found out again.
        engines: are asked which images they have.
        running: the engines that would run each image, see `engines_of_images`.

    Raises:
        ImageError: nobody knows an image.
    """
    images = {
        image: before.images[image]
        if image in before.images and image not in upgraded
        else await _pinned(engines, running.get(image, ()), image, from_registry=image in upgraded)
        for image in sorted(present.images)
    }
    return Lock(tools=present.tools, images=images, upstreams=present.upstreams)


def engines_of_images(entries: Sequence[CatalogEntry], settings: Settings) -> Mapping[str, tuple[str, ...]]:
    """The engines that would run each image."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        if entry.traits.image is not None:
            blueprint = draft_blueprint(entry.contract, settings)
            found[entry.traits.image] = tuple(dict.fromkeys((*found.get(entry.traits.image, ()), *blueprint.engines)))
    return found


async def _pinned(registry: EngineRegistry, engines: Collection[str], image: str, *, from_registry: bool) -> str:
    """An image's name by digest: as an engine has it here, else as its registry has it now; or the other way about."""
    if "@" in image:
        return str(Reference.parse(image))
    here = None
    if not from_registry:
        here = await _on_an_engine(registry, engines, image)
    if here is not None:
        return here
    try:
        with anyio.fail_after(LOOK_TIMEOUT):
            reference = Reference.parse(image)
            async with RegistryClient(reference.registry) as client:
                return str(reference.at((await client.look_up(reference)).digest))
    except (ImageError, TimeoutError) as exc:
        here = await _on_an_engine(registry, engines, image) if from_registry else None
        if here is not None:
            return here
        why = exc.message if isinstance(exc, ImageError) else f"Its registry did not answer within {LOOK_TIMEOUT:g} s."
        raise ImageError(
            f"The image {image} cannot be locked: no engine here has it, and {why[:1].lower()}{why[1:]}",
            remedy="Pull it, or fix its name in the contract.",
        ) from exc


async def _on_an_engine(registry: EngineRegistry, engines: Collection[str], image: str) -> str | None:
    for name in engines:
        with anyio.move_on_after(LOOK_TIMEOUT), suppress(ExecutionError):
            found = await registry.get(name).name_by_digest(image)
            if found is not None:
                return found
    return None
