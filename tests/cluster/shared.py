"""The cluster that all tests of a run share, whichever worker of pytest-xdist they run in.

It is started by the first that asks. Tests that break a cluster (kill its API server or a node) start one of their own:
`tests.cluster.cluster.running_cluster`.
"""

from __future__ import annotations

import functools
import os
from contextlib import suppress
from pathlib import Path

from tests.cluster import cluster as clusters
from tests.cluster import guard
from tests.cluster.cluster import Cluster
from tests.kit.cache import exclusive
from tests.kit.ending import at_end

VARIABLE = "PRAXIS_TEST_CLUSTER"
"""Names the directory of a cluster that runs already (`make cluster`), and that tests are to use."""
NODES = 2


@functools.cache
def shared_cluster() -> Cluster:
    """The cluster, which ends with the last process that has asked for it.

    Raises:
        MachineFailed: it does not start; with the last lines of its logs.
    """
    if named := os.environ.get(VARIABLE):
        cluster = Cluster(Path(named))
    elif run := os.environ.get("PYTEST_XDIST_TESTRUNUID"):
        cluster = _of_run(run)
    else:
        cluster = clusters.start(NODES)
    at_end.callback(cluster.leave)
    return cluster


def _of_run(run: str) -> Cluster:
    name = f"{run[:12]}-"
    with exclusive("shared-cluster"):
        for place in guard.PLACES.glob(f"{guard.PREFIX}{name}*"):
            with suppress(BlockingIOError, FileNotFoundError):  # nobody used it any more
                return Cluster(place)
        return clusters.start(NODES, name)
