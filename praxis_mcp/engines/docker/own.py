"""The containers that a server uses now. All others that carry its labels are nobody's, and may go at once."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.engines.docker.call import remove_container
from praxis_mcp.engines.docker.labels import CONTAINER
from praxis_mcp.engines.docker.stream import Refusal
from praxis_mcp.errors import ImageError


class OwnContainers:
    """The containers in use, by the name that each carries in a label: before it exists, its id is not known.

    Attributes:
        may_have_left: whether one may be left that is not in use any more: the daemon could not be asked to remove it,
            or never told whether it made one.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self.may_have_left = False

    @property
    def names(self) -> frozenset[str]:
        """The names of those in use."""
        return frozenset(self._names)

    def begin(self) -> OwnContainer:
        """One to be created, in use until it is removed."""
        container = OwnContainer(self)
        self._names.add(container.name)
        return container

    def end(self, container: OwnContainer, *, gone: bool) -> None:
        """It is not in use any more; `gone`: nor there."""
        self._names.discard(container.name)
        self.may_have_left = self.may_have_left or not gone


class OwnContainer:
    """One container in use.

    Attributes:
        name: its name among this server's.
        id: the daemon's id; empty until it is created.
    """

    def __init__(self, own: OwnContainers) -> None:
        self.name = uuid.uuid4().hex
        self.id = ""
        self._own = own
        self._is_uncertain = False

    async def create(self, daemon: DockerDaemon, config: Mapping[str, Any]) -> str:
        """Create it; its id. May be called again after a refusal.

        Args:
            daemon: the daemon.
            config: the body of the request; its labels get one more.

        Raises:
            Refusal, ImageError, ExecutionError: as `DockerDaemon.create`.
        """
        self._is_uncertain = True
        try:
            self.id = await daemon.create({**config, "Labels": {**config["Labels"], CONTAINER: self.name}})
        except (Refusal, ImageError):
            self._is_uncertain = False
            raise
        return self.id

    async def remove(self, daemon: DockerDaemon) -> None:
        """Remove it, if it was created, whatever happened, cancelled or not."""
        gone = await remove_container(daemon, self.id) if self.id else not self._is_uncertain
        self._own.end(self, gone=gone)
