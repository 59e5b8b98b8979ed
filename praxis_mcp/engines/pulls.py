"""How an engine gets an image: one pull for all who want the same one, who wait for it together, follow its progress
and share its failure; or from this machine, where that has it already."""

from __future__ import annotations

import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import BinaryIO

import anyio

from praxis_mcp.engines.base import StatusListener
from praxis_mcp.errors import ExecutionError, ImageError
from praxis_mcp.plans.builds import pack_build
from praxis_mcp.plans.model import ImageBuild
from praxis_mcp.settings.model import Settings
from praxis_mcp.support.installation import install_command_for_extra
from praxis_mcp.support.text import printable

PULL_TIMEOUT = 600.0
"""Seconds to get one image; apart from the tool's own timeout, which counts from its start."""

BUILD_TIMEOUT = 600.0
"""Seconds to build one image."""

_LACKS_PIP = re.compile(r"No module named pip\b|\bpython3\b.{0,3}: (?:executable file )?not found")
_LOG_KEPT = 8 * 1024
"""Characters of a build's log that an error has, its end."""

LocalImages = Callable[[Settings, str, BinaryIO, StatusListener], Awaitable[bool]]
"""Writes the image of a name that this machine has already as an archive (as ``docker save`` does), saying so; False
where it has none. Raises `OSError` where it cannot be written."""


LOCAL_IMAGES = "praxis_mcp.engines.docker.images:save_image"
"""What gives engines without a daemon of their own the images that this machine has already, by name: engines do not
import one another."""


async def save_local_image(settings: Settings, reference: str, into: BinaryIO, tell: StatusListener) -> bool:
    """See `LocalImages`."""
    save: LocalImages = resolve_name(LOCAL_IMAGES)
    return await save(settings, reference, into, tell)


def packed_build(build: ImageBuild, tool: str, into: BinaryIO) -> None:
    """Pack all that an image is made of, from the beginning of `into`, which is to be read from there. May block.

    Raises:
        ImageError: it has changed since it was hashed.
        ExecutionError: see `pack_build`.
    """
    if pack_build(build, tool, into).digest != build.digest:
        raise ImageError(f"What the image of {tool} is made of was changed in this moment.", remedy="Call again.")
    into.seek(0)


def build_failed(tool: str, why: str, log: str) -> ImageError:
    """The image of that tool could not be built."""
    lacks_pip = _LACKS_PIP.search(f"{why}\n{log[-_LOG_KEPT:]}")
    fix = "Start from an image that has Python and pip, such as python:3.13-slim" if lacks_pip else "Fix its build"
    return ImageError(
        f"The image of {tool} could not be built: {printable(why.strip()).rstrip('.')}.",
        output=log[-_LOG_KEPT:] or None,
        remedy=f"{fix}; praxis-mcp build {tool} tries it.",
    )


def hint_at_local_images() -> str:
    """What would let engines have Docker's images, where Docker is here and nothing speaks to it; else empty."""
    if shutil.which("docker") is None or find_spec("docker") is not None:
        return ""
    return f"If Docker has the image, install what takes it from there: {install_command_for_extra('docker')}"


@dataclass(slots=True)
class _Pull:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    listeners: list[StatusListener] = field(default_factory=list)
    waiting: int = 0
    done: bool = False
    failure: ExecutionError | None = None

    def tell(self, text: str) -> None:
        for listener in list(self.listeners):
            listener(text)


class SharedPulls:
    """The pulls under way."""

    def __init__(self) -> None:
        self._pulls: dict[str, _Pull] = {}

    async def run(
        self, key: str, work: Callable[[StatusListener], Awaitable[None]], on_status: StatusListener | None
    ) -> None:
        """Do the work, or wait for it where it is being done already; when the one that does it is cancelled, the next
        takes over.

        Args:
            key: callers that name the same want the same.
            work: gets what tells everybody who waits.
            on_status: is called with that.

        Raises:
            ExecutionError: the work's own, to everybody who waits.
        """
        pull = self._pulls.setdefault(key, _Pull())
        pull.waiting += 1
        if on_status is not None:
            pull.listeners.append(on_status)
        try:
            async with pull.lock:
                if pull.failure is not None:
                    failure = pull.failure
                    raise type(failure)(failure.message, output=failure.output, remedy=failure.remedy) from failure
                if not pull.done:
                    try:
                        await work(pull.tell)
                    except ExecutionError as exc:
                        pull.failure = exc
                        raise
                    pull.done = True
        finally:
            pull.waiting -= 1
            if on_status is not None:
                pull.listeners.remove(on_status)
            if not pull.waiting:
                del self._pulls[key]
