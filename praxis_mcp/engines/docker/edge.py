"""The edge of the Docker engine: whatever fails within it leaves as one of our errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from praxis_mcp.engines.docker import errors as docker_errors
from praxis_mcp.engines.docker.stream import ConnectionLost, Refusal
from praxis_mcp.errors import EngineUnavailable, ExecutionError, ExecutionTimeout, PraxisError
from praxis_mcp.plans.model import Plan
from praxis_mcp.support.tasks import leaves

_SEE_THE_LOG = "See the daemon's log (`journalctl -u docker`)."


@contextmanager
def translating(address: Callable[[], str], plan: Plan | None = None) -> Iterator[None]:
    """Around all that the engine does for a caller.

    Args:
        address: where the daemon is; asked when there is something to tell.
        plan: what is being run.

    Raises:
        ExecutionError: the daemon refused, the connection to it broke, or a file could not be read or written, alone or
            in a group of exceptions. A defect leaves as what it is.
    """
    try:
        yield
    except (Refusal, ConnectionLost, OSError, BaseExceptionGroup) as exc:
        found = leaves(exc)
        if not all(isinstance(leaf, (Refusal, ConnectionLost, OSError, PraxisError)) for leaf in found):
            raise
        ours = next((leaf for leaf in found if isinstance(leaf, PraxisError)), None)
        if ours is not None:
            raise ours from ours.__cause__
        raise _meaning(found[0], address(), plan) from exc


def _meaning(error: BaseException, address: str, plan: Plan | None) -> ExecutionError:
    tool = f"{plan.blueprint.tool}: " if plan is not None else ""
    match error:
        case Refusal(status=503):
            return EngineUnavailable(
                f"The Docker daemon at {address} does no work now: {error.explanation.strip()}.", remedy=_SEE_THE_LOG
            )
        case Refusal() if plan is not None:
            return docker_errors.refused(error.explanation, plan)
        case Refusal():
            return EngineUnavailable(
                f"The Docker daemon at {address} refused a request: {error.explanation.strip()}.", remedy=_SEE_THE_LOG
            )
        case ConnectionLost():
            return docker_errors.lost(address)
        case TimeoutError():
            return ExecutionTimeout(
                f"{tool}the Docker daemon at {address} did not answer in time.",
                remedy="It may be overloaded or hung: see its log, and restart it.",
            )
        case OSError():
            place = f" ({error.filename})" if error.filename else ""
            return ExecutionError(
                f"{tool}the server's own files failed it: {error.strerror or error}{place}.",
                remedy="See whether the disk is full, and who may write to the records and the temporary directory.",
            )
    raise AssertionError(f"no meaning for {error!r}")
