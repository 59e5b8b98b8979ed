"""A pod of the double: a process of this machine, and the status that a kubelet would report of it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.kit.ports import held_port, is_listened_at
from tests.kit.until import until
from tests.kubernetes_double.store import Refused, Store

START_TIME = "2026-01-01T00:00:00Z"
PATIENCE = 3600.0
"""Seconds within which a process has ended: of praxis-init's own, and of a test's."""
EVERY = 0.005
"""Seconds between two looks at a process."""
GRACE = 10.0
"""Seconds from SIGTERM to SIGKILL, for a process under a busy machine's load."""


class DoublePod:
    """One pod.

    Args:
        store: has its object.
        name: its name.
        binary: praxis-init on this machine.
        delete: has it removed, as the API does.

    Attributes:
        port: where its process listens on the loopback.
    """

    def __init__(self, store: Store, name: str, binary: Path, delete: Callable[[], object]) -> None:
        self._store = store
        self._delete = delete
        self._binary = binary
        self._held = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()
        self.name = name
        self.port = self._held.enter_context(held_port())

    @property
    def spec(self) -> Mapping[str, Any]:
        """Its specification."""
        return self._store.get("pods", self.name)["spec"]

    async def live(self) -> None:
        """What a pod does: it is scheduled, its container runs until its process ends."""
        self.wait_for("ContainerCreating")
        await self.start()
        self.report(phase="Running", state={"running": {"startedAt": START_TIME}})
        code = await self.end_of_process()
        self.terminate(code)

    def report(self, *, phase: str, state: Mapping[str, Any] | None = None, no_node: str = "", **more: Any) -> None:
        """Have a status, as long as it is there.

        Args:
            state: of its container; None: there is none yet.
            no_node: why no node takes it.
        """
        condition = {"type": "PodScheduled", "status": "True"}
        if no_node:
            condition |= {"status": "False", "reason": "Unschedulable", "message": no_node}
        container = {"name": "tool", "image": "busybox:1.36", "imageID": "busybox@sha256:0", "state": state}
        status = {
            "phase": phase,
            "conditions": [condition],
            "containerStatuses": [container] if state is not None else None,
            **more,
        }
        with suppress(Refused):
            self._store.merge("pods", self.name, {"status": status})

    def wait_for(self, reason: str, message: str = "") -> None:
        """Its container waits."""
        self.report(phase="Pending", state={"waiting": {"reason": reason, "message": message}})

    def terminate(self, code: int, reason: str = "", **more: Any) -> None:
        """Its container has ended."""
        reason = reason or ("Completed" if code == 0 else "Error")
        phase = "Succeeded" if code == 0 and reason == "Completed" else "Failed"
        self.report(phase=phase, state={"terminated": {"exitCode": code, "reason": reason}}, **more)

    async def start(self) -> None:
        """Start its process."""
        words = list(self.spec["containers"][0]["command"])
        words[0] = str(self._binary)
        words[words.index("--listen") + 1] = f"127.0.0.1:{self.port}"
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    async def end_of_process(self) -> int:
        """How its process has ended, once it has."""
        process = self._process
        assert process is not None
        await until(lambda: process.poll() is not None, within=PATIENCE, every=EVERY)
        return process.returncode

    def delete(self) -> None:
        """Have it removed, as anybody may who has the rights."""
        self._delete()

    async def stop(self) -> None:
        """End its process as a kubelet does: politely first."""
        if self._process is not None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self.end_of_process(), GRACE)
            except TimeoutError:
                self._process.kill()
                await self.end_of_process()
        self._held.close()

    def listens(self) -> bool:
        """Whether its process listens."""
        return is_listened_at(self.port)

    @property
    def runs(self) -> bool:
        """Whether its process does."""
        return self._process is not None and self._process.poll() is None
