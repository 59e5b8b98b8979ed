"""Directories for tests, of which it matters where they lie."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from praxis_mcp.support.files import home_directories

_ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.path.realpath(sys.executable) if sys.executable.startswith("/tmp/") else sys.executable
"""The Python that runs this, or the one below its virtual environment, where a sandbox's own /tmp would hide that."""
_HIDDEN = ("/tmp", "/var/tmp", "/run")


@contextmanager
def directory_in_sight() -> Iterator[Path]:
    """A directory below nothing that a local tool's sandbox hides; skips where this user may make none."""
    hidden = [Path(place) for place in (*_HIDDEN, *home_directories(), tempfile.gettempdir())]
    in_sight = () if any(_ROOT.is_relative_to(place) for place in hidden) else (_ROOT,)
    with _directory_in("/opt", *in_sight) as place:
        yield place


@contextmanager
def directory_among_sockets() -> Iterator[Path]:
    """A directory where programs have their sockets; skips where this user may make none."""
    with _directory_in("/run", f"/run/user/{os.getuid()}") as place:
        yield place


@contextmanager
def _directory_in(*places: str | Path) -> Iterator[Path]:
    wanted = next((place for place in places if os.access(place, os.W_OK | os.X_OK)), None)
    if wanted is None:
        pytest.skip(f"this user may write to none of {', '.join(map(str, places))}")
    with tempfile.TemporaryDirectory(dir=wanted, prefix="praxis-test-") as made:
        yield Path(made)
