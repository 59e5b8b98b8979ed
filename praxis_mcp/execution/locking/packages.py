"""What pip would install into an image that is built: each package with its version and hash, as lines of requirements.

pip is asked by a build of its own, in the very image that packages are added to, since what fits depends on its Python
and its machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from praxis_mcp.contracts.values import Network
from praxis_mcp.engines.base import ExecutionContext, StatusListener
from praxis_mcp.engines.registry import EngineRegistry
from praxis_mcp.errors import ImageError
from praxis_mcp.execution.selection import EngineSelector
from praxis_mcp.plans.builds import REPORT, pin_build
from praxis_mcp.plans.model import Blueprint, Call, Limits, Plan, Where

_READ_TIMEOUT = 60.0
_MOST_REPORTED = 4 * 1024 * 1024
# What pip says of each package is long: its description is in it.
_READ = f"""\
import json
for item in json.load(open({REPORT!r}))["install"]:
    about, place = item["metadata"], item["download_info"]
    url = place["url"] if item["is_direct"] else None
    print(json.dumps([about["name"], about["version"], url, place.get("archive_info")]))
"""


async def find_packages(
    selector: EngineSelector,
    engines: EngineRegistry,
    blueprint: Blueprint,
    pins: Mapping[str, str],
    on_status: StatusListener,
) -> tuple[str, ...]:
    """What pip would install now, sorted by name.

    Args:
        selector, engines: build and run the image that says it.
        blueprint: of the tool, with its build.
        pins: images that it is built from → what they are by digest.
        on_status: is called with what is being done.

    Raises:
        ExecutionError: no engine here builds images, the packages cannot be found, or not all of them have hashes.
    """
    asking = pin_build(blueprint, pins, None, only_resolves=True)
    fixed = Blueprint(
        tool=blueprint.tool,
        where=Where.CONTAINER,
        engines=blueprint.engines,
        limits=Limits(timeout=_READ_TIMEOUT, max_output=_MOST_REPORTED),
        image=asking.image,
        build=asking.build,
        network=Network.NONE,
        warm=False,
    )
    plan = Plan(fixed, Call(run_id="", argv=("python3", "-c", _READ)))
    decision = await selector.choose(plan)
    engine = engines.get(decision.engine or "")
    await engine.prepare(fixed, on_status)
    result = await engine.run(plan, ExecutionContext(on_status=on_status))
    if not result.success:
        raise ImageError(
            f"The packages of {blueprint.tool} cannot be locked: what pip would install cannot be read.",
            output=result.output[-_MOST_REPORTED:],
            remedy="Its image needs pip 22.2 or newer; or write versions with hashes in the requirements.",
        )
    return tuple(sorted(_lines(blueprint.tool, result.output)))


def _lines(tool: str, output: str) -> Iterator[str]:
    for line in output.splitlines():
        name, version, url, archive = json.loads(line)
        hashes = sorted(_hashes(archive))
        if not hashes:
            raise ImageError(
                f"The package {name} of {tool} cannot be locked: it comes from {url}, which has no hash.",
                remedy="Name it by version, or by the address of an archive.",
            )
        wanted = f"{name}=={version}" if url is None else f"{name} @ {url}"
        yield " ".join((wanted, *(f"--hash={algorithm}:{value}" for algorithm, value in hashes)))


def _hashes(archive: Any) -> Iterator[tuple[str, str]]:
    """Those of pip's report (PyPA's direct_url.json, whose older form has one)."""
    if not isinstance(archive, dict):
        return
    found = archive.get("hashes") or dict([str(archive.get("hash") or "").split("=", 1)] if archive.get("hash") else [])
    yield from ((name, value) for name, value in found.items() if name in ("sha256", "sha384", "sha512"))
