"""Puts the praxis-init binaries into the package while hatchling builds a wheel or an editable install.

The wheel stays `py3-none-any`: the binaries are data for Linux containers of either architecture, whatever runs Python.
"""

from __future__ import annotations

import os
import runpy
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PLACE = "praxis_mcp/_native"


class NativeBuildHook(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """zig, 100 MB, only where it is needed and has a wheel."""
        native = self._native()
        here = (
            "(sys_platform == 'linux' and platform_machine in 'x86_64 aarch64') or sys_platform == 'darwin' or "
            "(sys_platform == 'win32' and platform_machine in 'AMD64 ARM64')"
        )
        try:
            return [f"{native['ZIG']}; {here}"] if native["needs_zig"](Path(self.root)) else []
        except native["NativeBuildError"]:
            return []  # which `initialize` reports

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        native = self._native()
        folder = native["folder_of"](root)
        if not _is_writable(folder):  # somebody else's checkout, or one that is mounted read-only
            self._scratch = tempfile.mkdtemp(prefix="praxis-mcp-build-")
            folder = Path(self._scratch)
        try:
            self._build(native, root, folder)
        except native["NativeBuildError"] as error:
            if os.environ.get("PRAXIS_REQUIRE_NATIVE") == "1":
                raise
            self.app.display_warning(
                f"praxis-mcp is built WITHOUT praxis-init: {error}\n"
                "It works, but its engines cannot do what only praxis-init can (`network: none` on Dagger, say), and"
                " say so. PRAXIS_REQUIRE_NATIVE=1 makes this an error."
            )
        found = {
            str(file): f"{_PLACE}/{file.name}"
            for file in sorted(folder.iterdir() if folder.is_dir() else ())
            if file.name.startswith("praxis-init-") or file.name == native["FAILED"]
        }
        if version != "editable":
            build_data["force_include"].update(found)
        elif self._scratch is not None:  # an editable install of a checkout that must stay as it is
            build_data["force_include_editable"].update(found)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    _scratch: str | None = None

    def _native(self) -> dict[str, Any]:
        # By path: the project's root is not importable during a build, and must not become so.
        return runpy.run_path(str(Path(self.root) / "native" / "build.py"))

    def _build(self, native: dict[str, Any], root: Path, folder: Path) -> None:
        own = native["folder_of"](root)
        machines = native["wanted_machines"]()
        if folder != own and all(native["is_current"](root, own, machine) for machine in machines):
            for file in own.iterdir():  # what its owner has built is of use
                shutil.copy(file, folder)
            return
        native["build"](root, machines, folder=folder, say=self.app.display_info)


def _is_writable(folder: Path) -> bool:
    place = folder if folder.exists() else folder.parent
    return os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
