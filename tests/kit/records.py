"""The store of records as tests open it: in a directory, with the database of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from praxis_mcp.execution.records.database import Dialect
from praxis_mcp.execution.records.sql import SqlDatabase
from praxis_mcp.execution.records.store import open_database
from praxis_mcp.settings.sections import RecordSettings
from tests.kit.postgres import shared_server

DATABASES = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))
"""What tests of records are run over."""
URLS: dict[Path, str] = {}
"""The PostgreSQL database of a directory of records, where it has one; else it is SQLite in that directory."""


@contextmanager
def records_place(tmp_path: Path, dialect: Dialect) -> Iterator[Path]:
    """A place for records, with a fresh database of its own where that is PostgreSQL."""
    place = tmp_path / "records"
    if dialect == "postgres":
        URLS[place] = shared_server().database()
    try:
        yield place
    finally:
        URLS.pop(place, None)


def settings_of(place: Path, **more: Any) -> RecordSettings:
    """The settings of records in that directory."""
    return RecordSettings.model_validate({"directory": place, "url": URLS.get(place), **more})


def database_in(place: Path, *, create: bool = True) -> SqlDatabase:
    """The database of the records in that directory."""
    return open_database(settings_of(place), create=create)


def variables_of(place: Path) -> dict[str, str]:
    """The same for a process."""
    url = {"PRAXIS_RECORDS__URL": URLS[place]} if place in URLS else {}
    return {"PRAXIS_RECORDS__DIRECTORY": str(place), **url}
