"""Defects of ours: logged under a number, which is all that a client is told of them."""

from __future__ import annotations

from praxis_mcp.plans.build import new_run_id
from praxis_mcp.support.defects import places
from praxis_mcp.support.logs import logger


def report_defect(doing: str, exc: Exception) -> str:
    """Log an exception that nobody expected; returns what to tell the client.

    Args:
        doing: what was being done, such as ``a tool was called``; holds no values.
        exc: the exception.
    """
    incident = new_run_id()[:12]
    logger.error("internal error {} while {}: {}", incident, doing, places(exc))
    return (
        f"Internal error {incident} in praxis-mcp while {doing}. It is not the fault of your arguments; the server's "
        "log says more under that number."
    )
