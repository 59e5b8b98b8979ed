"""What goes wrong with registries, as errors that say how to fix it."""

from __future__ import annotations

import re

import httpx2

from praxis_mcp.errors import ImageError
from praxis_mcp.images.downloads import TryAgain
from praxis_mcp.images.references import Reference

LONGEST_PAUSE = 30.0
"""Seconds between two tries, at most."""
_WORTH_ANOTHER_TRY = frozenset({408, 429, 500, 502, 503, 504})


def check_status(response: httpx2.Response, reference: Reference) -> None:
    status = response.status_code
    if status in (200, 206):
        return
    if status in (401, 403):
        raise ImageError(
            f"The registry {reference.registry} does not let {reference} be pulled ({status}).",
            remedy=f"Check the name, or log in: docker login {reference.registry}.",
        )
    if status == 404:
        raise ImageError(
            f"The registry {reference.registry} has no {reference}.",
            remedy="Check the name and tag, or import the image: praxis-mcp image import FILE.",
        )
    error = ImageError(
        f"The registry {reference.registry} answered {status} for {reference}.", remedy="Try again later."
    )
    if status in _WORTH_ANOTHER_TRY:
        after = response.headers.get("Retry-After", "")
        raise TryAgain(error, min(float(after), LONGEST_PAUSE) if after.isdecimal() else 0.0)
    raise error


def amiss(registry: str, what: str) -> ImageError:
    return ImageError(f"The registry {registry} {what}.", remedy="Whoever runs it must fix that; or use another one.")


def unreachable(reference: Reference, exc: Exception) -> ImageError:
    why = re.sub(r"^\[Errno -?\d+\] ", "", str(exc)) or type(exc).__name__
    return ImageError(
        f"{reference} cannot be pulled, because {reference.registry} cannot be reached: {why}.",
        remedy="Check the network; or save the image where there is one, and import the file here: "
        f"docker save {reference} -o FILE; praxis-mcp image import FILE.",
    )
