"""Images that contracts describe, built by the daemon: once for all who wait, and again only for something else."""

from __future__ import annotations

import re
import tempfile
from collections import deque
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread

from praxis_mcp.engines.base import StatusListener
from praxis_mcp.engines.docker.api import DockerDaemon, ImageMissing
from praxis_mcp.engines.docker.connections import Refusal
from praxis_mcp.engines.pulls import BUILD_TIMEOUT, SharedPulls, build_failed, packed_build
from praxis_mcp.errors import ImageError
from praxis_mcp.plans.builds import DOCKERFILE
from praxis_mcp.plans.model import Blueprint, ImageBuild
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.text import printable

LABEL = "praxis-mcp.build"
"""Names the tool whose image it is."""
KEPT_IMAGES = 3
"""Of one tool: the last ones are there at once where a file becomes again what it was."""
_LOG_LINES = 40
_COLOURS = re.compile(r"\x1b\[[\d;]*m")
"""In which the daemon shows what comes by standard error."""
_STEP = re.compile(r"Step \d+/\d+ : .*")


class DockerBuilds:
    """The builds of one engine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._builds = SharedPulls()

    async def ensure(self, daemon: DockerDaemon, blueprint: Blueprint, on_status: StatusListener | None = None) -> None:
        """See to it that the image is there; build it where it is not.

        Raises:
            ImageError: it cannot be built, with the end of the log; or not within `BUILD_TIMEOUT`.
        """
        reference, build = blueprint.image or "", blueprint.build
        assert build is not None
        if build.is_fresh or not await daemon.has_image(reference):
            await self._builds.run(
                reference, lambda tell: self._build(daemon, blueprint.tool, reference, build, tell), on_status
            )

    async def _build(
        self, daemon: DockerDaemon, tool: str, reference: str, build: ImageBuild, tell: StatusListener
    ) -> None:
        tell(f"building the image of {tool}")
        log: deque[str] = deque(maxlen=_LOG_LINES)
        failure = ""
        abandoned = False

        def on_event(event: Mapping[str, Any]) -> bool:
            nonlocal failure
            text = _COLOURS.sub("", str(event.get("stream") or event.get("error") or "")).strip()
            log.extend(printable(line) for line in text.splitlines())
            failure = failure or str(event.get("error") or "")
            if _STEP.match(text) and not abandoned:
                anyio.from_thread.run_sync(tell, f"building the image of {tool}: {printable(text)}")
            return not abandoned

        try:
            with anyio.fail_after(BUILD_TIMEOUT), tempfile.TemporaryFile() as context:
                await anyio.to_thread.run_sync(packed_build, build, tool, context)
                await self._refuse_to_pull(daemon, tool, build)
                await daemon.build(
                    context,
                    on_event,
                    dockerfile=DOCKERFILE,
                    tag=reference,
                    labels={LABEL: build.owner},
                    network_mode="none" if build.network == "none" else None,
                    nocache=build.is_fresh,
                    timeout=BUILD_TIMEOUT,
                )
        except TimeoutError as exc:
            raise build_failed(tool, f"it took longer than {BUILD_TIMEOUT:g} s", "\n".join(log)) from exc
        except (Refusal, ImageMissing) as exc:
            why = exc.explanation if isinstance(exc, Refusal) else exc.message
            raise build_failed(tool, why, "\n".join(log)) from exc
        finally:
            abandoned = True
        if failure:
            raise build_failed(tool, failure, "\n".join(log))
        made = await daemon.images(f"{LABEL}={build.owner}")
        named = [name for _, name in made if name]
        for name in (*named[KEPT_IMAGES:], *(ident for ident, name in made if not name)):
            await daemon.remove_image(name)

    async def _refuse_to_pull(self, daemon: DockerDaemon, tool: str, build: ImageBuild) -> None:
        """Refuse a build for which the daemon would have to pull an image, where it may not, or which no registry
        knows."""
        for name in build.sources:
            is_wanted = self._settings.pull == "missing" and not name.startswith("sha256:")
            if not is_wanted and not await daemon.has_image(name):
                raise ImageError(
                    f"The image of {tool} is built from {name}, which the Docker daemon does not have.",
                    remedy="Bring that image to this machine, or lock the one that is here: praxis-mcp lock --upgrade."
                    if name.startswith("sha256:")
                    else f"Pull it (docker pull {name}), or set pull: missing in the settings.",
                )
