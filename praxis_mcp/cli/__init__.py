"""The command line. Each command's module imports what it needs only when it runs."""

from __future__ import annotations

import gc


def main() -> None:
    """Entry point of ``praxis-mcp``."""
    # Start-up is imports: hundreds of thousands of objects that all stay. Collecting among them costs 40 ms of 750.
    # Commands that go on to work collect again (`common.collect_garbage`).
    gc.disable()
    _build_models_when_used()
    from praxis_mcp.cli.app import app

    app()


def _build_models_when_used() -> None:
    """Have pydantic make a model's validator at its first use instead of with its class.

    The SDK defines the messages of every protocol revision, of which a session uses one: a tenth of a server's start.
    It is set here, for programs of our own, and not where the package is imported: a program that uses it as a library
    decides that itself.
    """
    from pydantic import BaseModel

    BaseModel.model_config["defer_build"] = True
