"""Puts the praxis-init binaries into the package while hatchling builds a wheel or an editable install.

The wheel stays `py3-none-any`: the binaries are data for Linux containers of either architecture, whatever runs Python.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        # By path: the project's root is not importable during a build, and must not become so.
        native = runpy.run_path(str(root / "native" / "build.py"))
        try:
            native["build"](root)
        except native["NativeBuildError"] as error:
            if os.environ.get("PRAXIS_REQUIRE_NATIVE") == "1":
                raise
            self.app.display_warning(
                f"praxis-mcp is built WITHOUT praxis-init: {error}\n"
                "It works, but its engines cannot do what only praxis-init can (`network: none` on Dagger, say), and"
                " say so. PRAXIS_REQUIRE_NATIVE=1 makes this an error."
            )
