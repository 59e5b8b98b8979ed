"""Connections of a store by which is answered what is asked of it: how they end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from praxis_mcp.errors import RecordsUnavailable
from praxis_mcp.execution.records import store as store_module
from praxis_mcp.execution.records.access import RecordAccess
from praxis_mcp.execution.records.sql import SqlDatabase
from praxis_mcp.execution.records.store import RecordStore
from tests.kit.records import settings_of
from tests.kit.until import until_blocking

LONG = 600.0
"""Seconds, longer than any test may take."""


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    store = RecordStore(tmp_path, settings_of(tmp_path))
    store.prepare()
    return store


def is_closed(access: RecordAccess) -> bool:
    try:
        access.submit(lambda _: None)
    except RecordsUnavailable:
        return True
    return False


def test_a_store_that_is_closed_ends_all_of_its_connections_at_once(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that hangs would keep a server from ending for the sum of their times."""
    monkeypatch.setattr(store_module, "CLOSE_TIMEOUT", LONG)
    accesses = store.looks, store.callers, store.access

    def work(_: SqlDatabase) -> None:
        until_blocking(lambda: all(map(is_closed, accesses)))

    done = [access.submit(work) for access in accesses]
    store.close()
    assert all(future.done() and future.exception() is None for future in done)


def test_a_connection_that_hangs_keeps_a_store_from_being_closed_for_a_bounded_time(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CLOSE_TIMEOUT", 0.2)
    hangs = threading.Event()
    done = store.looks.submit(lambda _: hangs.wait(LONG))
    store.close()
    assert not done.done()
    hangs.set()
    assert done.result(LONG)
