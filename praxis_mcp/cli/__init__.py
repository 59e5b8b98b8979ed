"""The command line. Each command's module imports what it needs only when it runs."""

from __future__ import annotations

import gc


def main() -> None:
    """Entry point of ``praxis-mcp``."""
    # Start-up is imports: hundreds of thousands of objects that all stay. Collecting among them costs 40 ms of 750.
    # Commands that go on to work collect again (`common.collect_garbage`).
    gc.disable()
    from praxis_mcp.cli.app import app

    app()
