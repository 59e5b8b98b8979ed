"""Every test's ground: asyncio as the event loop, and what the markers (docker, bubblewrap, node, …) need."""

import importlib
import importlib.util
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from praxis_mcp.support.logs import NAME, logger
from tests.kit import images, node, requirements
from tests.kit.ending import at_end
from tests.kit.timeouts import pytest_pyfunc_call, pytest_timeout_set_timer

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster

__all__ = ["pytest_pyfunc_call", "pytest_timeout_set_timer"]  # hooks, found here by pytest


# Its bounds on time, 200 ms for an example, fail on a busy machine; each test as a whole has one (pyproject.toml).
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


MOST_WORKERS = 8
"""Each worker pulls images into a store of its own and keeps servers running; all of them share one Docker daemon."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` runs the tests in: as many as there are cores that this process may use."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MOST_WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    # Where servers and commands that tests start keep records; not where those of this user are.
    state = at_end.enter_context(tempfile.TemporaryDirectory(prefix="praxis-mcp-tests-state-"))
    os.environ["XDG_STATE_HOME"] = state
    logger.enable(NAME)  # tests hear what is logged, as the command line does
    requirements.demanded()  # a misspelt PRAXIS_TEST_REQUIRE is told at once, not by tests that quietly skip
    requirements.check_absence()
    _import_sdks()


def _import_sdks() -> None:
    """Import the engines' SDKs before any test does.

    Engines import them in threads, which a test that ends early leaves running. Whatever the next test then takes from
    the process (descriptors, system calls) broke the import half-way, and all later tests with it.
    """
    for sdk in ("docker", "dagger"):
        if importlib.util.find_spec(sdk):
            importlib.import_module(sdk)
    if importlib.util.find_spec("docker"):
        importlib.import_module("docker.transport.unixconn").UnixHTTPConnection.connect = _connect_or_close


def _connect_or_close(connection: Any) -> None:
    """As docker 7.2 does it, which leaves the socket open where nobody listens. No filter of warnings could tell that
    one from a socket pair that we forgot to close."""
    with ExitStack() as on_failure:
        sock = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        sock.settimeout(connection.timeout)
        sock.connect(connection.unix_socket)
        connection.sock = sock
        on_failure.pop_all()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    at_end.close()  # after the fixtures' clean-up


def pytest_report_header() -> list[str]:
    reasons = {name: requirements.missing(name) for name in requirements.CHECKS}
    return [f"{name}: {'yes' if reason is None else reason}" for name, reason in reasons.items()]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped for want of what: a run without engines is green, and must not look like one with all."""
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
    lines = requirements.skipped_for(where[2] for where in skipped if isinstance(where, tuple))
    if lines:
        terminalreporter.section("skipped for want of")
        for line in lines:
            terminalreporter.line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of the test, whatever its scope: is there what the test's markers need?"""
    for name in requirements.CHECKS:
        if item.get_closest_marker(name):
            requirements.require(name)
            if name == "docker":
                _images()


def _images() -> dict[str, str]:
    try:
        return images.ensure_all()
    except images.ImageUnavailable as exc:
        requirements.give_up("docker", f"an image is missing: {exc}")
        raise


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def stand_in_images() -> dict[str, str]:
    """The image references that tests may use, each with its id; tests marked docker have them without asking."""
    requirements.require("docker")
    return _images()


@pytest.fixture(scope="session")
def kubernetes_cluster() -> "Cluster":
    """The cluster of two nodes that the tests of a run share; for tests marked kubernetes, which leave it whole."""
    from tests.cluster.machines import MachineFailed
    from tests.cluster.shared import shared_cluster

    requirements.require("kubernetes")
    try:
        return shared_cluster()
    except MachineFailed as exc:
        requirements.give_up("kubernetes", f"no cluster starts: {exc}")
        raise


@pytest.fixture(scope="session")
def mcp_inspector() -> node.NodeProgram:
    """The MCP Inspector's command line, an independent client; for tests marked node."""
    return _program(node.inspector)


@pytest.fixture(scope="session")
def mcp_conformance() -> node.NodeProgram:
    """The MCP conformance suite; for tests marked node."""
    return _program(node.conformance)


@pytest.fixture(scope="session")
def node_programs() -> Callable[[Callable[[], node.NodeProgram]], node.NodeProgram]:
    """Installs a program of `tests.kit.node`; for tests marked node."""
    return _program


def _program(install: Callable[[], node.NodeProgram]) -> node.NodeProgram:
    requirements.require("node")
    try:
        return install()
    except node.NodeUnavailable as exc:
        requirements.give_up("node", str(exc))
        raise
