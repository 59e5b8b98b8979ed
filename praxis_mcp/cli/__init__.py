"""The command line. Each command's module imports what it needs only when it runs."""

from __future__ import annotations

import gc
import signal
import sys


def main() -> None:
    """Entry point of ``praxis-mcp``."""
    # Until a command begins (`common.friendly_errors`), Ctrl-C ends the process as it ends other programs: an exception
    # in the midst of an import would be shown with all of its traceback, or be made into another by what is imported.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Start-up is imports: hundreds of thousands of objects that all stay. Collecting among them costs 40 ms of 750.
    # Commands that go on to work collect again (`common.collect_garbage`).
    gc.disable()
    from praxis_mcp.cli.terminal import have_standard_streams, write_in_any_encoding

    have_standard_streams()
    write_in_any_encoding()
    from praxis_mcp.cli.app import make_app

    try:
        make_app(sys.argv[1] if len(sys.argv) > 1 else None)()
    except OSError as exc:
        # Typer writes to the shell's start-up files, which may be anything but writable.
        if "--install-completion" not in sys.argv:
            raise
        from praxis_mcp.cli.common import print_error

        print_error(
            f"Completion could not be installed: {exc.filename or 'a file of the shell'}: {exc.strerror}.",
            "Print it instead, praxis-mcp --show-completion, and put it where your shell reads it.",
        )
        raise SystemExit(1) from exc
