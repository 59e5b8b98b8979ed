"""A cluster for people: `make cluster`, or `python -m tests.cluster --help`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.cluster import programs
from tests.cluster.cluster import Cluster, running_cluster
from tests.cluster.machines import MachineFailed
from tests.cluster.shared import VARIABLE
from tests.kit.images import IMAGES, ImageUnavailable


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description="A Kubernetes cluster on this machine."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a cluster, which ends when this command is interrupted")
    up.add_argument("--nodes", type=int, default=1, help="how many (default: 1)")
    load = commands.add_parser("load", help="have an image on every node of a cluster that runs")
    load.add_argument("cluster", type=Path, help="its directory")
    load.add_argument("image", help=f"an archive of `docker save`, or one of {', '.join(IMAGES)}")
    options = parser.parse_args(arguments)
    try:
        if options.command == "up":
            return _up(options.nodes)
        return _load(options.cluster, options.image)
    except (programs.ProgramUnavailable, MachineFailed, ImageUnavailable) as exc:
        print(exc, file=sys.stderr)
        return 1


def _up(nodes: int) -> int:
    programs.KUBERNETES.build()
    if (reason := programs.missing()) is not None:
        raise MachineFailed(reason)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    with suppress(KeyboardInterrupt), running_cluster(nodes) as cluster:
        print(f"{nodes} of {nodes} nodes are ready after {time.monotonic() - start:.1f} s")
        print(f"export KUBECONFIG={cluster.kubeconfig}")
        print(f"export {VARIABLE}={cluster.place} # tests then use it, instead of one of their own")
        print("Interrupt this command to end it.", flush=True)
        while True:
            signal.pause()
    return 0


def _load(place: Path, image: str) -> int:
    try:
        cluster = Cluster(place)
    except OSError as exc:
        raise MachineFailed(f"no cluster runs in {place}: {exc}") from exc
    try:
        if image in IMAGES:
            print(cluster.load_stand_in(image))
        else:
            cluster.load(Path(image).absolute())
    finally:
        cluster.leave()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
