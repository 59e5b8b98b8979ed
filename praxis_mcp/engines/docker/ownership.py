"""What is whose on a daemon: the labels of containers, those that a server uses now, and which belong to nobody; and
cache directories, which are volumes that outlive calls, writable by any user that a tool runs as.

A daemon makes a volume that belongs to root, or to the owner of what the image has in its place; a tool of another
user, or root without capabilities, could not write to it. So each is made here, in a container that never starts:
what an archive brings into a container may have any mode (Docker Engine API, PutContainerArchive), and no program of
the image is needed for it.
"""

from __future__ import annotations

import io
import os
import tarfile
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import anyio

from praxis_mcp.engines.docker.api import DockerDaemon
from praxis_mcp.engines.docker.connections import Refusal
from praxis_mcp.errors import ExecutionError, ImageError
from praxis_mcp.plans.model import Blueprint
from praxis_mcp.support.logs import logger
from praxis_mcp.support.processes import is_alive, start_of, this_machine

SERVER = "praxis-mcp.server"
RUN = "praxis-mcp.run"
TOOL = "praxis-mcp.tool"
DEADLINE = "praxis-mcp.deadline"
PID = "praxis-mcp.pid"
STARTED = "praxis-mcp.started"
HOST = "praxis-mcp.host"
CACHE = "praxis-mcp.cache"
CONTAINER = "praxis-mcp.container"
"""The container's name among its server's, which knows by it whether it uses it: see `OwnContainers`."""
WARM = "praxis-mcp.warm"
"""On a container that was started before its call; it has no run of its own."""

CONTAINER_REMOVE_TIMEOUT = 20.0
"""Seconds for the removal of a container; beyond, the reaper takes over."""
REMOVE_AGAIN = (0.05, 0.5, 2.0)
"""Seconds until a removal that the daemon has refused is asked for again."""
ORPHAN_GRACE = 300.0
"""Seconds past its deadline after which a container of a server that cannot be looked up (another machine's, another
pid namespace's) is nobody's: long enough for clocks that differ."""


@dataclass(frozen=True)
class ServerIdentity:
    """One server process, so that another can tell whether it still runs.

    Attributes:
        id: unique; survives nothing.
        pid: process id, in the pid namespace that `host` names.
        started: the process's start, in clock ticks since boot (proc(5), stat field 22); empty where unknown. Process
            ids are used again, this pair is not.
        host: boot id and pid namespace; empty where the system has no /proc, and then only deadlines count.
    """

    id: str
    pid: int
    started: str
    host: str

    @classmethod
    def current(cls) -> ServerIdentity:
        """This process."""
        pid = os.getpid()
        return cls(uuid.uuid4().hex, pid, start_of(pid), this_machine())

    @cached_property
    def labels(self) -> dict[str, str]:
        """The labels that say whose a container is."""
        return {SERVER: self.id, PID: str(self.pid), STARTED: self.started, HOST: self.host}


def call_labels(server: ServerIdentity, blueprint: Blueprint, run_id: str, deadline: float) -> dict[str, str]:
    """Labels of one call's container.

    Args:
        server: whose it is.
        blueprint: what runs in it.
        run_id: id of the run.
        deadline: Unix time at which it must have ended.
    """
    return {**server.labels, RUN: run_id, TOOL: blueprint.tool, DEADLINE: str(int(deadline))}


def waiting_labels(server: ServerIdentity, blueprint: Blueprint, deadline: float) -> dict[str, str]:
    """Labels of a container that waits for a call; `deadline` as in `call_labels`, of the latest call it can have."""
    return {**server.labels, WARM: "1", TOOL: blueprint.tool, DEADLINE: str(int(deadline))}


def is_orphan(
    labels: Mapping[str, str], server: ServerIdentity, used: Collection[str] = (), now: float | None = None
) -> bool:
    """Whether nobody owns the container with these labels any more.

    One of the server's own is an orphan as soon as nothing in it uses the container: one can be left when the
    connection to the daemon was cut. Where the owner was another process that this one can look up, it is one as soon
    as that process has surely ended; everywhere else, when its deadline is long past. What carries none of our labels
    never is.

    Args:
        labels: the container's.
        server: who asks.
        used: the names (`CONTAINER`) of those that the server uses.
        now: Unix time; None is the present.
    """
    if SERVER not in labels:
        return False
    if labels[SERVER] == server.id:
        return labels.get(CONTAINER) not in used
    if labels.get(HOST) and labels[HOST] == server.host and labels.get(PID, "").isdecimal():
        alive = is_alive(int(labels[PID]), labels.get(STARTED, ""))
        if alive is not None:
            return not alive
    deadline = labels.get(DEADLINE, "")
    return deadline.isdecimal() and int(deadline) + ORPHAN_GRACE < (time.time() if now is None else now)


class OwnContainers:
    """A server's containers in use, by the name that each carries in a label: before it exists, its id is not known.

    Attributes:
        server: whose they are.
        may_have_leftovers: whether there may be one that is no longer in use: the daemon could not be reached to remove
            it, or never answered whether it made one.
    """

    def __init__(self) -> None:
        self.server = ServerIdentity.current()
        self.may_have_leftovers = False
        self._names: set[str] = set()

    def begin(self) -> OwnContainer:
        """One to be created, in use until it is removed."""
        container = OwnContainer(self)
        self._names.add(container.name)
        return container

    def end(self, container: OwnContainer, *, gone: bool) -> None:
        """It is no longer in use; `gone`: nor there."""
        self._names.discard(container.name)
        self.may_have_leftovers = self.may_have_leftovers or not gone

    async def remove_orphans(self, daemon: DockerDaemon, label: str = SERVER) -> tuple[str, ...]:
        """Remove those of the containers with that label that are nobody's (see `is_orphan`); their ids."""
        self.may_have_leftovers = False
        found = await daemon.containers(label)
        # Looked at after the answer: what was created meanwhile is in use, or was not listed.
        orphans = [str(item["Id"]) for item in found if is_orphan(item.get("Labels") or {}, self.server, self._names)]

        async def remove(container: str) -> None:
            if not await remove_container(daemon, container):
                self.may_have_leftovers = True

        async with anyio.create_task_group() as tasks:
            for container in orphans:
                tasks.start_soon(remove, container)
        if orphans:
            logger.info("removed {} containers that nobody uses", len(orphans))
        return tuple(orphans)


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


async def remove_container(daemon: DockerDaemon, container: str) -> bool:
    """Remove a container whatever happened, cancelled or not; whether it is gone. A failure is logged, and left to the
    reaper."""
    with anyio.move_on_after(CONTAINER_REMOVE_TIMEOUT, shield=True) as scope:
        for pause in (*REMOVE_AGAIN, None):
            try:
                await daemon.remove(container)
                return True
            except Refusal as exc:
                # A daemon that finds the container ended while it kills it answers 500, "cannot remove - Container … is
                # not running", and leaves it there (20.10).
                if pause is None:
                    logger.warning("the container {} could not be removed: {}", container[:12], exc)
                    break
            except ExecutionError as exc:
                logger.warning("the container {} could not be removed: {}", container[:12], exc)
                break
            await anyio.sleep(pause)
    if scope.cancelled_caught:
        logger.warning("the container {} was not removed within {} s", container[:12], CONTAINER_REMOVE_TIMEOUT)
    return False


MAKE_TIMEOUT = 60.0
"""Seconds for making one."""
MAX_CACHE_VOLUMES = 256
"""Volumes kept; of more, those go that were made first and that no container uses. The daemon does not say when a
volume was used last."""
YOUNG = 24 * 3600.0
"""Seconds for which a new one is not removed: a call may be about to use it."""


class DockerCaches:
    """The cache volumes of one server's tools."""

    def __init__(self, own: OwnContainers) -> None:
        self._own = own
        self._making = anyio.Lock()

    async def ensure(self, daemon: DockerDaemon, blueprint: Blueprint, image: str) -> None:
        """Make those that the blueprint names and the daemon lacks.

        Raises:
            ImageMissing: the daemon lacks the image, whose files a volume begins with.
            Refusal, ExecutionError: as the daemon's own.
        """
        for directory in blueprint.cache_dirs:
            async with self._making:
                if not await daemon.has_volume(cache_volume(blueprint, directory)):
                    await _make_room(daemon)
                    await self._make(daemon, blueprint, directory, image)

    async def _make(self, daemon: DockerDaemon, blueprint: Blueprint, directory: str, image: str) -> None:
        config = {
            "Image": image,
            "Entrypoint": ["never-started"],
            "Labels": waiting_labels(self._own.server, blueprint, time.time() + MAKE_TIMEOUT),
            "HostConfig": {"NetworkMode": "none", "Mounts": [cache_mount(blueprint, directory, copy=True)]},
        }
        container, done = self._own.begin(), False
        try:
            await container.create(daemon, config)
            place = PurePosixPath(directory)
            await daemon.put(container.id, str(place.parent), _open_directory(place.name))
            done = True
        finally:
            await container.remove(daemon)
            if container.id and not done:  # or the next call would take it for finished
                with anyio.CancelScope(shield=True):
                    await daemon.remove_volume(cache_volume(blueprint, directory))


def cache_mount(blueprint: Blueprint, directory: str, *, copy: bool = False) -> dict[str, Any]:
    """A cache directory's volume.

    Args:
        blueprint: whose it is.
        directory: where it is in the container.
        copy: whether it begins with what the image has there; that brings the image's owner and mode along, so only
            for the container that it is made in.
    """
    return {
        "Type": "volume",
        "Source": cache_volume(blueprint, directory),
        "Target": directory,
        "VolumeOptions": {"Labels": {CACHE: directory, TOOL: blueprint.tool}, "NoCopy": not copy},
    }


def cache_volume(blueprint: Blueprint, directory: str) -> str:
    """Name of the volume behind a cache directory."""
    return f"praxis-mcp-cache-{blueprint.cache_key(directory)[:32]}"


async def _make_room(daemon: DockerDaemon) -> None:
    known = await daemon.volumes(CACHE)
    for name, made in known[: max(0, len(known) - MAX_CACHE_VOLUMES + 1)]:
        if _age(made) > YOUNG:
            await daemon.remove_volume(name)


def _age(made: str) -> float:
    try:
        return time.time() - datetime.fromisoformat(made).timestamp()
    except ValueError:  # no date, or a form that this Python does not know
        return 0.0


def _open_directory(name: str) -> bytes:
    """An archive with a directory that anyone may write to; the volume around it is the daemon's, and one user's."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o777, int(time.time())
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(entry)
    return content.getvalue()
