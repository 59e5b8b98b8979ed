"""What a test may need of the machine, and what happens where it is missing.

A missing requirement skips the test with a reason. `PRAXIS_TEST_REQUIRE=docker,node` names the ones whose absence
fails it instead: CI sets it, so that an engine which quietly stopped working cannot pass for a skipped test.
`PRAXIS_TEST_ABSENT=docker` names the ones that must not be there: a run that is to show what a machine without engines
shows must not find one.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from praxis_mcp.engines.host.launcher import find_own_launcher
from praxis_mcp.engines.host.sandboxed import NoLauncher
from praxis_mcp.support.praxis_init import praxis_init_path
from praxis_mcp.support.text import counted
from tests.cluster import programs
from tests.dagger_double.schema import generated_client
from tests.kit import postgres

VARIABLE = "PRAXIS_TEST_REQUIRE"
VARIABLE_OF_ABSENCE = "PRAXIS_TEST_ABSENT"
PROBE_TIMEOUT = 20.0


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def _probe(*command: str) -> str | None:
    """Run a harmless command; say why it did not work, or None."""
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not on the PATH"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return f"`{' '.join(command)}` gave no answer in {PROBE_TIMEOUT:.0f} s"
    return None if done.returncode == 0 else f"`{' '.join(command)}` failed: {_last_line(done.stderr or done.stdout)}"


def _docker() -> str | None:
    return _probe("docker", "version", "--format", "{{.Server.Version}}")


def _bubblewrap() -> str | None:
    # Present is not enough: some kernels and containers refuse the namespaces.
    return _probe("bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "true")


def _sandbox() -> str | None:
    if sys.platform != "linux":
        return "sandboxes are for Linux"
    with ThreadPoolExecutor(1) as threads:  # a test that asks may run in an event loop
        found = threads.submit(anyio.run, find_own_launcher).result()
    return found.reason if isinstance(found, NoLauncher) else None


def _node() -> str | None:
    return _probe("node", "--version") or (None if shutil.which("npm") else "npm is not on the PATH")


def _dagger_real() -> str | None:
    if os.environ.get("DAGGER_SESSION_PORT") and os.environ.get("DAGGER_SESSION_TOKEN"):
        return None
    wanted = ("_EXPERIMENTAL_DAGGER_RUNNER_HOST", "_EXPERIMENTAL_DAGGER_CLI_BIN")
    if unset := [name for name in wanted if not os.environ.get(name)]:
        return f"no real Dagger engine is named: {' and '.join(unset)} not set"
    cli = os.environ["_EXPERIMENTAL_DAGGER_CLI_BIN"]
    return None if shutil.which(cli) else f"_EXPERIMENTAL_DAGGER_CLI_BIN names {cli!r}, which cannot be run"


def _dagger() -> str | None:
    if _dagger_real() is None:
        return None
    if generated_client() is None:
        return "no Dagger engine is named, and its double lacks the SDK that tells it the API (pip install dagger-io)"
    return _docker()


def _native() -> str | None:
    if sys.platform != "linux":
        return "praxis-init is for Linux"
    return None if praxis_init_path() is not None else "praxis-init is not built (`python native/build.py`)"


def _environments() -> str | None:
    # Installed by the first test that needs it, which then gives up with the reason if it cannot be.
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    return f"this Python lacks {' and '.join(missing)}" if missing else None


def _promtool() -> str | None:
    return _probe("promtool", "--version")


def _nginx() -> str | None:
    return _probe("nginx", "-v")


def _postgres() -> str | None:
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed (pip install 'psycopg[binary]')"
    return None if postgres.programs() is not None else "PostgreSQL is not installed (apt-get install postgresql)"


def _kubernetes() -> str | None:
    if importlib.util.find_spec("lightkube") is None:
        return "lightkube is not installed (pip install lightkube)"
    return programs.missing()


def _helm() -> str | None:
    return programs.helm_is_missing()


def _browser() -> str | None:
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed (pip install --group dev)"
    return _probe("chromium", "--version")


CHECKS: dict[str, Callable[[], str | None]] = {
    "docker": _docker,
    "bubblewrap": _bubblewrap,
    "sandbox": _sandbox,
    "node": _node,
    "native": _native,
    "mcp1": _environments,
    "fastmcp": _environments,
    "promtool": _promtool,
    "nginx": _nginx,
    "browser": _browser,
    "postgres": _postgres,
    "kubernetes": _kubernetes,
    "helm": _helm,
    "dagger": _dagger,
    "dagger_real": _dagger_real,
}


@functools.cache
def missing(name: str) -> str | None:
    """Why `name` cannot be used on this machine, or None. Asked once a session."""
    return CHECKS[name]()


def demanded() -> frozenset[str]:
    """The requirements whose absence is a failure."""
    return _named(VARIABLE)


def check_absence() -> None:
    """End the session where something is there that must not be."""
    if found := sorted(name for name in _named(VARIABLE_OF_ABSENCE) if missing(name) is None):
        raise pytest.UsageError(f"{VARIABLE_OF_ABSENCE} wants a machine without {', '.join(found)}, and there is one")


def _named(variable: str) -> frozenset[str]:
    names = frozenset(filter(None, (word.strip() for word in os.environ.get(variable, "").split(","))))
    if unknown := names - CHECKS.keys():
        raise pytest.UsageError(
            f"{variable} names {', '.join(sorted(unknown))}; it knows {', '.join(sorted(CHECKS))}",
        )
    return names


def skipped_for(reasons: Iterable[str]) -> list[str]:
    """Lines that say how many tests were skipped for want of what.

    Args:
        reasons: what each skipped test gave.
    """
    counts = Counter(reason.removeprefix("Skipped: ") for reason in reasons)
    lines: list[str] = []
    for name in CHECKS:
        found = {reason: count for reason, count in counts.items() if reason.startswith(f"{name}: ")}
        lines += [
            f"{name}: {counted(count, 'test')} ({reason.removeprefix(f'{name}: ')})" for reason, count in found.items()
        ]
        for reason in found:
            del counts[reason]
    if others := counts.total():
        lines.append(f"anything else: {counted(others, 'test')}")
    return lines


def give_up(name: str, reason: str) -> None:
    """Skip the running test, or fail it where `name` is demanded."""
    if name in demanded():
        pytest.fail(f"{VARIABLE} demands {name}: {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


def require(name: str) -> None:
    """Return where the machine has `name`; skip or fail the running test where it has not."""
    if (reason := missing(name)) is not None:
        give_up(name, reason)
