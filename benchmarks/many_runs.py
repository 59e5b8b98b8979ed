"""A store with very many runs, as a team has after months; made by the database itself: calls would take hours."""

from __future__ import annotations

import time

from praxis_mcp.execution.records.row import COLUMNS, StoredRun
from praxis_mcp.execution.records.sql import SqlDatabase

AT_ONCE = 2_000
"""Runs that one statement makes, well within what PostgreSQL is given for one."""
SECONDS_APART = 5.0
BUSY = "busy"
"""A tool that every second call is of."""
RARE = "rare_tool"
"""A tool that was called once in 100,000 times."""
QUIET = "quiet"
"""A caller who has called nothing but `RARE`."""
_PLAN = (
    '{"tool": "tool", "argv": ["/usr/bin/env", "python3", "-c", "…"], "network": "none", "timeout": 30.0, '
    '"image": "python:3.12", "mounts": [], "limits": {"memory": 536870912, "pids": 256}}'
)


def _left_over(number: int) -> str:
    """What is left of `i`: not by ``%``, which begins a placeholder of psycopg's."""
    return f"(i - i / {number} * {number})"


_VARIED = {
    "id": "'run' || CAST(1000000000 + i AS TEXT)",
    "tool": f"CASE WHEN {_left_over(100_000)} = 1 THEN '{RARE}' WHEN {_left_over(2)} = 0 THEN '{BUSY}' "
    f"ELSE 'tool' || CAST({_left_over(50)} AS TEXT) END",
    "engine": f"CASE {_left_over(10)} WHEN 0 THEN 'local' WHEN 1 THEN 'remote-mcp' WHEN 2 THEN 'sandbox' "
    "ELSE 'docker' END",
    "caller": f"CASE WHEN {_left_over(100_000)} = 1 THEN '{QUIET}' WHEN {_left_over(3)} = 0 THEN '' "
    f"ELSE 'team' || CAST({_left_over(8)} AS TEXT) END",
    "root": f"'/srv/project' || CAST({_left_over(4)} AS TEXT)",
    "outcome": f"CASE WHEN {_left_over(20)} = 3 THEN 'failed' WHEN {_left_over(5000)} = 7 THEN 'timed_out' "
    "ELSE 'ok' END",
}


def add_runs(database: SqlDatabase, count: int) -> float:
    """Add so many runs, the newest now, and one each `SECONDS_APART` seconds; when the first began."""
    began = time.time() - count * SECONDS_APART
    template = StoredRun(
        id="template", server="0" * 32, tool="", engine="", caller="", client="claude-code 2.1", root="",
        contract="/srv/tools/tool/contract.yaml", contract_sha256="0" * 64, started=began, ended=began, outcome="ok",
        exit_code=0, isolation="container", image="python:3.12@sha256:" + "0" * 64, plan=_PLAN,
        phases='{"queue": 0.0001, "choose": 0.0002, "start": 0.01, "run": 0.3, "collect": 0.001}',
        stdout_bytes=200, kept_bytes=900, choice="the first that can enforce all of it", kept_at="host:/records",
        stdout=b"x" * 200, stderr=b"",
    )  # fmt: skip
    database.write([template])
    values = {
        **_VARIED,
        "started": f"{began!r} + i * {SECONDS_APART}",
        "ended": f"{began + 0.3!r} + i * {SECONDS_APART}",
    }
    chosen = ", ".join(values.get(name, name) for name in COLUMNS)
    for first in range(0, count, AT_ONCE):
        with database.transaction() as run_sql:
            run_sql(
                f"INSERT INTO runs ({', '.join(COLUMNS)}) WITH RECURSIVE numbers (i) AS "
                f"(SELECT {first} UNION ALL SELECT i + 1 FROM numbers WHERE i < {min(first + AT_ONCE, count) - 1}) "
                f"SELECT {chosen} FROM runs, numbers WHERE id = 'template'",
                (),
            )
    database.remove(["template"])
    return began
