"""A server that runs only what is locked (``serve --locked``): anything else is refused when it is called, and images
are run by their locked digests."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import anyio.to_thread

from praxis_mcp.contracts.model import Derived, ToolContract
from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.errors import ContractError, ImageError
from praxis_mcp.execution.locking.lock_file import (
    UNKNOWN_VERSIONS,
    LockedTool,
    contract_digest,
    lacks_versions,
    read_lock,
    why_different,
)
from praxis_mcp.execution.locking.tool_files import ToolFiles
from praxis_mcp.federation.remote_tools import RemoteTool
from praxis_mcp.plans.builds import pin_build
from praxis_mcp.plans.model import Blueprint, ImageBuild, Plan
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.logs import logger

_BY_ID = ("docker", "sandbox")
"""Engines that run an image of this machine by its id."""


class Enforcement:
    """What is locked. The file is read once: no tool that can write to it changes what this server runs.

    Raises:
        SettingsError: there is no lock file, or it is malformed, or not signed with the key of the settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._file = settings.lock_file
        self._lock = read_lock(settings.lock_file, settings.lock_key)
        signed = f", signed with {settings.lock_key}" if settings.lock_key is not None else ""
        logger.info("only what {} holds is run{}", settings.lock_file, signed)
        self._files = ToolFiles(settings.root)
        self._digests: Derived[ToolContract, str] = Derived()

    async def check_contract(self, contract: ToolContract) -> None:
        """Refuse a contract that is not the locked one, or whose files are not.

        Raises:
            ContractError: it is not.
        """
        locked = self._lock.tools.get(contract.name)
        contract_now = self._digests.get(contract, partial(contract_digest, contract))
        files = await anyio.to_thread.run_sync(self._files.digest, contract) if locked is not None else None
        why = why_different(locked, LockedTool(contract=contract_now, files=files))
        if why is not None:
            raise self._refusal(contract.name, why)

    def check_remote(self, tool: RemoteTool) -> None:
        """Refuse a tool of an upstream that is not the locked one.

        Raises:
            ContractError: it is not.
        """
        locked = self._lock.upstreams.get(tool.upstream, {}).get(tool.remote_name)
        if locked != tool.fingerprint:
            why = "is not locked" if locked is None else "is not what it was when it was locked"
            raise self._refusal(tool.name, why)

    def pin(self, plan: Plan) -> Plan:
        """The plan with its image by the locked digest.

        Raises:
            ContractError: the image is not locked.
        """
        return replace(plan, blueprint=self.pin_blueprint(plan.blueprint))

    def pin_blueprint(self, blueprint: Blueprint) -> Blueprint:
        """As `pin`. An image that is built starts from the locked images, and has the locked packages."""
        if blueprint.build is not None:
            return self._pin_build(blueprint, blueprint.build)
        if blueprint.image is None:
            return blueprint
        pinned = self._pinned(blueprint, blueprint.image)
        return replace(self._by_id(blueprint, blueprint.image) if "@" not in pinned else blueprint, image=pinned)

    def _pin_build(self, blueprint: Blueprint, build: ImageBuild) -> Blueprint:
        locked = self._lock.tools.get(blueprint.tool)
        if locked is None:
            raise self._refusal(blueprint.tool, "is not locked")
        now = locked.model_copy(update={"image": blueprint.image, "parts": dict(build.parts)})
        if (why := why_different(locked, now)) is not None:
            raise self._refusal(blueprint.tool, why)
        if lacks_versions(locked, blueprint):
            raise self._refusal(blueprint.tool, UNKNOWN_VERSIONS)
        pins = {base: self._pinned(blueprint, base) for base in build.bases}
        for base in build.bases:
            if "@" not in pins[base]:
                blueprint = self._by_id(blueprint, base)
        return pin_build(blueprint, pins, locked.packages if build.needs_versions else None)

    def _pinned(self, blueprint: Blueprint, image: str) -> str:
        pinned = self._lock.images.get(image)
        if pinned is None:
            raise self._refusal(blueprint.tool, f"needs the image {image}, which is not locked")
        return pinned

    def _by_id(self, blueprint: Blueprint, image: str) -> Blueprint:
        """The blueprint for engines only that know images by id."""
        engines = tuple(name for name in blueprint.engines if name in _BY_ID)
        if not engines:
            raise self._refusal(
                blueprint.tool,
                f"needs the image {image}, which is locked by an id of one machine, and of its engines "
                f"({', '.join(blueprint.engines)}) none knows images by id",
            )
        return replace(blueprint, engines=engines)

    async def check_image(self, engines: EngineRegistry, engine: str, blueprint: Blueprint) -> None:
        """Refuse to fetch an image by its id, which no registry knows: what has that name there is another one.

        Raises:
            ImageError: the engine lacks it.
        """
        image = blueprint.image or ""
        if image.startswith("sha256:") and await engines.get(engine).lacks_image(blueprint):
            raise ImageError(
                f"{blueprint.tool} is locked to the image {image}, which the {engine} engine does not have.",
                remedy="Bring that image to this machine, or lock the one that is here: praxis-mcp lock --upgrade.",
            )

    def _refusal(self, tool: str, why: str) -> ContractError:
        return ContractError(
            f"{tool} {why}, and this server runs only what is locked ({self._file.name}).",
            remedy="The server's operator can look at the change, run praxis-mcp lock, and start the server again.",
        )
