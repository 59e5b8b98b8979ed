"""Puts the double where a dagger CLI is looked for."""

import subprocess
import sys
from pathlib import Path

from tests.dagger_double.execs import LABEL
from tests.dagger_double.schema import definitions
from tests.kit.until import until_blocking

_ROOT = Path(__file__).resolve().parents[2]


def install(state: Path) -> Path:
    """A program that does as `dagger` does, its engine's state being in an existing directory."""
    (state / "schema.graphql").write_text(definitions())  # to derive it takes longer than a session to begin
    program = state / "dagger"
    program.write_text(
        f"#!/bin/sh\n# A double, not the dagger CLI.\nPYTHONPATH={_ROOT} exec {sys.executable} -m tests.dagger_double "
        f'--state {state} "$@"\n'
    )
    program.chmod(0o755)
    return program


def remove_containers(state: Path) -> None:
    """Remove what execs and builds of the double's engine have left on the Docker daemon."""
    listing = ["docker", "ps", "--all", "--quiet", "--filter", f"label={LABEL}={state.name}"]

    def none_left() -> bool:
        found = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
        if found:
            # Refused for one that a session, which is just ending, removes at the same moment; hence the next look.
            subprocess.run(["docker", "rm", "--force", "--volumes", *found], capture_output=True, check=False)
        return not found

    until_blocking(none_left)
    built = ["docker", "images", "--quiet", "--filter", f"label={LABEL}={state.name}"]
    if images := subprocess.run(built, capture_output=True, text=True, check=True).stdout.split():
        subprocess.run(["docker", "rmi", "--force", *images], capture_output=True, check=False)


def running_containers(state: Path) -> list[str]:
    """Commands of the double's engine that still run."""
    filters = ["--filter", f"label={LABEL}={state.name}", "--format", "{{.ID}} {{.Command}}"]
    return subprocess.run(["docker", "ps", *filters], capture_output=True, text=True, check=True).stdout.splitlines()
