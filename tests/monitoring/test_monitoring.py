"""The dashboard and alerts of configs/monitoring are about what the server exposes, and Prometheus takes them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from praxis_mcp.engines.phases import Phase
from praxis_mcp.execution.tally import Counted
from praxis_mcp.serving.http.metrics import render
from tests.serving.clients import open_server, settings_for

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "configs" / "monitoring" / "alerts.yaml"
DASHBOARD = ROOT / "configs" / "monitoring" / "grafana-dashboard.json"
OPERATIONS = ROOT / "docs" / "operations.md"
OUTCOMES = {
    "ok", "failed", "timed_out", "out_of_memory", "cached", "bad_arguments", "refused", "error", "cancelled",
}  # fmt: skip
"""Those that `CallTally` documents."""

pytestmark = pytest.mark.anyio


def of_alerts() -> Iterator[str]:
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def panels() -> list[dict[str, Any]]:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]


def of_dashboard() -> Iterator[str]:
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]
    for variable in json.loads(DASHBOARD.read_text(encoding="utf-8"))["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def documented() -> set[str]:
    rows = [line for line in OPERATIONS.read_text(encoding="utf-8").splitlines() if line.startswith("| `praxis_")]
    return {name for line in rows for name in re.findall(r"`(praxis_\w+)`", line.split(" | ")[0])}


async def exposed(directory: Path) -> str:
    async with open_server(settings_for(directory)) as (toolbox, _):
        for phase in Phase:
            with toolbox.runner.tally.call("tool") as counted:
                counted.engine = "docker"
                counted.phases.enter(phase)
        toolbox.runner.tally.spilled["tool", "sandbox", "docker"] += 1
        return render(toolbox, {"stream": 1}, "1.2.3")


async def test_every_metric_that_is_used_is_one_that_the_server_exposes(tmp_path: Path) -> None:
    text = await exposed(tmp_path)
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    known = {name for name, kind in kinds.items() if kind != "histogram"}
    known |= {
        f"{name}_{part}" for name, kind in kinds.items() if kind == "histogram" for part in ("bucket", "sum", "count")
    }
    used = {name for expression in (*of_alerts(), *of_dashboard()) for name in re.findall(r"praxis_\w+", expression)}
    assert used - known == set()
    of_the_dashboard = {name for expression in of_dashboard() for name in re.findall(r"praxis_\w+", expression)}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in of_the_dashboard}
    assert set(kinds) - shown == set(), "the dashboard shows everything that there is"
    assert set(kinds) - documented() == set(), "and docs/operations.md lists it"


def test_every_outcome_and_phase_that_is_selected_exists() -> None:
    assert Counted().outcome in OUTCOMES
    for expression in (*of_alerts(), *of_dashboard()):
        for _, value in re.findall(r'outcome(=~?|!=|!~)"([^"]*)"', expression):
            if "warm_started" not in expression:
                assert set(value.split("|")) <= OUTCOMES, expression
        for value in re.findall(r'phase="([^"]*)"', expression):
            assert value in set(Phase), expression


def test_panels_have_ids_and_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def promtool(*words: str, given: str = "") -> str:
    done = subprocess.run(["promtool", *words], input=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.promtool
def test_prometheus_takes_the_alerts_and_they_fire_when_they_should() -> None:
    promtool("check", "rules", str(ALERTS))
    promtool("test", "rules", str(Path(__file__).with_name("alerts.yaml")))


@pytest.mark.promtool
def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [expression for expression in of_dashboard() if not expression.startswith("label_values(")]
    rules = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$__(rate_interval|range)", "5m", expression)}
        for number, expression in enumerate(queries)
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))


@pytest.mark.promtool
async def test_prometheus_takes_what_the_server_exposes(tmp_path: Path) -> None:
    assert promtool("check", "metrics", given=await exposed(tmp_path)) == ""
