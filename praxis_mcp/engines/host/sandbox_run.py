"""How one call runs in an image's file system: the sandbox around it, and what its end means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import anyio
import anyio.to_thread

from praxis_mcp.engines.artifacts import OUTPUT_DIR_VARIABLE
from praxis_mcp.engines.base import ExecutionContext
from praxis_mcp.engines.host.cgroups import Cgroups
from praxis_mcp.engines.host.sandbox_view import Places, SandboxUser, SandboxView, find_user
from praxis_mcp.engines.host.sandboxed import Launcher, Prepare, Sandboxed, laying_out
from praxis_mcp.engines.mounts.layout import Step
from praxis_mcp.engines.outcomes import ProgramSource
from praxis_mcp.engines.running import Finished
from praxis_mcp.errors import ImageError
from praxis_mcp.images.model import IMAGE_PATH, StoredImage
from praxis_mcp.plans.model import Blueprint, Plan
from praxis_mcp.support.tasks import BackgroundTasks

LAYER_SIZE = 1024**3
"""Bytes that a call may write to its root; they lie in memory, and count against the memory limit."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What sandboxes are made with here; `no_layer` says why no root can be written, where none can."""

    launcher: Launcher
    no_layer: str | None
    cgroups: Cgroups


@dataclass(frozen=True, slots=True)
class Layout:
    """A file system, and where and as whom a command begins in it; `state`: see `Sandboxed.state`."""

    steps: tuple[Step, ...]
    working_dir: str
    user: SandboxUser
    state: tuple[object, ...]


Layouts = dict[tuple[Blueprint, str], Layout]
"""Layouts of plans that have nothing of their own in them, by image; images never change."""
_MAX_LAYOUTS = 512
_UMASK = 0o022
"""As container engines have it, whatever the server's is."""


@dataclass(frozen=True, slots=True)
class SandboxRun:
    """One call in a sandbox.

    Attributes:
        plan: what to run.
        context: what surrounds it.
        image: whose file system it sees.
        tools: make its sandbox.
        places: what it has on the host.
        layouts: those of earlier calls.
        later: may remove its control group.
    """

    plan: Plan
    context: ExecutionContext
    image: StoredImage
    tools: Tools
    places: Places
    layouts: Layouts
    later: BackgroundTasks

    async def run(self, prepare: Prepare | None = None) -> Finished:
        """Run it to its end, or to its deadline; see `Launcher.run` for what is raised.

        Args:
            prepare: gives its sandbox; None is `prepare`.
        """
        prepare = prepare or self.prepare
        return await self.tools.launcher.run(self.plan, self.context, prepare, self.tools.cgroups, self.later)

    @property
    def _command(self) -> tuple[str, ...]:
        return (*(self.image.entrypoint if self.plan.blueprint.use_entrypoint else ()), *self.plan.call.argv)

    async def prepare(self) -> Sandboxed:
        """Lay its sandbox out.

        Raises:
            ExecutionError: something has no place in it, or the image is not usable.
        """
        fixed = self.plan.blueprint
        has_layer = fixed.read_only is False and self.tools.no_layer is None
        view = SandboxView(self.image, LAYER_SIZE if has_layer else None)
        with laying_out(view, self.plan):
            layout = await self._layout(view)
            command, env = self._command, self._environment(layout.user.home)
            if any("\0" in word for word in (*command, *env, *env.values())):  # whichever check of images missed it
                raise ImageError(
                    f"The image {self.image.id} cannot be used: its own description holds a NUL character.",
                    remedy="Do not trust this image: remove it (praxis-mcp image rm), and choose another.",
                )
        return Sandboxed(
            command,
            env,
            layout.steps,
            view,
            layout.working_dir,
            ProgramSource.image(fixed.image),
            layout.user.uid,
            layout.user.gid,
            self._host_name,
            umask=_UMASK,
            memberships=self._memberships(layout.user),
            state=layout.state,
        )

    def _memberships(self, user: SandboxUser) -> tuple[int, ...] | None:
        """See `Sandboxed.memberships`: the same as on the engine that the sandbox stands in for."""
        is_root = (user.uid, user.gid) == (0, 0)
        if self.context.image is None or not is_root or not self.tools.launcher.has_host_users:
            return None
        return (user.gid, *user.groups)

    @property
    def _host_name(self) -> str:
        return self.plan.call.run_id[:12] or "sandbox"

    async def _layout(self, view: SandboxView) -> Layout:
        fixed = self.plan.blueprint
        key = (fixed, self.image.id)
        is_plain = not (fixed.mounts or self.plan.call.files or self.places.artifacts or self.places.caches)
        if is_plain and key in self.layouts:
            return self.layouts[key]
        layout = await anyio.to_thread.run_sync(self._lay_out, view)
        # A descriptor is this call's (those of the host's files for looking names up are held, where it has a network):
        # by the next call its number may be another file's.
        if is_plain and not view.descriptors:
            if len(self.layouts) >= _MAX_LAYOUTS:
                self.layouts.clear()
            self.layouts[key] = layout
        return layout

    def _lay_out(self, view: SandboxView) -> Layout:
        fixed = self.plan.blueprint
        user = find_user(self.image.root, fixed.user or self.image.user, fixed.image)
        start = view.build(self.plan, self.places, fixed.working_dir or self.image.working_dir)
        artifacts = None if self.places.artifacts is None else str(self.places.artifacts)
        return Layout(view.steps, start, user, (start, *view.state(artifacts)))

    def _environment(self, home: str) -> Mapping[str, str]:
        env = {"PATH": IMAGE_PATH, "HOME": home}
        env |= self.image.env
        env |= self.plan.call.env
        if self.plan.blueprint.artifact_dir is not None:
            env[OUTPUT_DIR_VARIABLE] = self.plan.blueprint.artifact_dir
        return env
