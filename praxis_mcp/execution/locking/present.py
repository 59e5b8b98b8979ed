"""What there is to lock: contracts, their files, tools of upstreams, and the digests of images."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
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
from praxis_mcp.plans.model import Blueprint
from praxis_mcp.plans.planning import plan_image
from praxis_mcp.settings.model import Settings

Resolve = Callable[[Blueprint, Mapping[str, str]], Awaitable[tuple[str, ...]]]
"""What pip would install for a build from these images (name → by digest): see `find_packages`."""

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
        image, parts = entry.traits.image, None
        if entry.traits.is_built:
            blueprint = present.builds[entry.name] = await plan_image(contract, settings)
            image, parts = blueprint.image, dict(blueprint.build.parts) if blueprint.build is not None else None
        present.tools[entry.name] = LockedTool(
            contract=contract_digest(contract), files=digest, image=image, parts=parts or None
        )
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
    resolve: Resolve,
) -> Lock:
    """What is there now, to be written. Digests of images, and versions of packages, stay as they were locked.

    Args:
        present: see `find_present`.
        before: what was locked.
        upgraded: tools whose images and packages are found out again.
        engines: are asked which images they have.
        running: the engines that would run each image, see `engines_of_images`.
        resolve: finds out what pip would install.

    Raises:
        ImageError: nobody knows an image.
        ExecutionError: what pip would install cannot be found out.
    """
    again = set(present.images_of(*upgraded))
    images = {
        image: before.images[image]
        if image in before.images and image not in again
        else await _pinned(engines, running.get(image, ()), image, from_registry=image in again)
        for image in sorted(present.images)
    }
    tools = dict(present.tools)
    for name, blueprint in present.builds.items():
        if blueprint.build is None or not blueprint.build.needs_versions:
            continue
        locked, now = before.tools.get(name), present.tools[name]
        packages = locked.packages if locked is not None and locked.image == now.image else None
        if (
            packages is None
            or name in upgraded
            or any(images[base] != before.images.get(base) for base in blueprint.build.bases)
        ):
            packages = await resolve(blueprint, images)
        tools[name] = now.model_copy(update={"packages": packages})
    return Lock(tools=tools, images=images, upstreams=present.upstreams)


def engines_of_images(
    entries: Sequence[CatalogEntry], present: Present, settings: Settings
) -> Mapping[str, tuple[str, ...]]:
    """The engines that would run each image, or build from it."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        if images := present.images_of(entry.name):
            engines = draft_blueprint(entry.contract, settings).engines
            found |= {image: tuple(dict.fromkeys((*found.get(image, ()), *engines))) for image in images}
    return found


async def _pinned(registry: EngineRegistry, engines: Collection[str], image: str, *, from_registry: bool) -> str:
    """An image's name by digest: as an engine has it here, else as its registry has it now; or the other way about."""
    if "@" in image:
        return str(Reference.parse(image))
    if "$" in image:
        raise ImageError(
            f"The image {image} cannot be locked: the Dockerfile that names it does not say the variable's value.",
            remedy="Write the name, or a value: ARG VERSION=3.13 before FROM.",
        )
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
