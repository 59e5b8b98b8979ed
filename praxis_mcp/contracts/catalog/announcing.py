"""The log says which contracts appeared or changed while they are served, and what those may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from praxis_mcp.contracts.catalog.entries import CatalogEntry
from praxis_mcp.contracts.catalog.powers import Powers, gained, notable, powers_of
from praxis_mcp.errors import ContractError
from praxis_mcp.support.logs import logger
from praxis_mcp.support.wording import counted

_MAX_ANNOUNCED = 50
"""Lines of one look at the directories."""

_Entries = Mapping[str, CatalogEntry]


def announce(before: _Entries, now: _Entries, added: Sequence[str], changed: Sequence[str]) -> None:
    """Log them: as warnings those that can do more than before, or more than a container without network.

    Args:
        before, now: the tools before and after the look.
        added: names that were not there before.
        changed: names whose contracts are others than before.
    """
    names = [*added, *changed]
    for name in names[:_MAX_ANNOUNCED]:
        entry, old = now[name], before.get(name)
        powers = _powers(entry)
        if powers is None:
            continue
        if old is None:
            found = notable(powers)
            text = f"; it has {', '.join(found)}" if found else ""
            logger.log("WARNING" if found else "INFO", "the tool {} appeared ({}){}", name, entry.source, text)
            continue
        more = gained(_powers(old) or {}, powers)
        text = f"and can do more than before: {', '.join(more)}" if more else "and can do no more than before"
        logger.log("WARNING" if more else "INFO", "the tool {} changed ({}) {}", name, entry.source, text)
    if len(names) > _MAX_ANNOUNCED:
        logger.warning("{} more appeared or changed", counted(len(names) - _MAX_ANNOUNCED, "tool"))


def _powers(entry: CatalogEntry) -> Powers | None:
    try:
        return powers_of(entry.contract)
    except ContractError:
        return None  # its face came from a damaged cache; whoever calls it is told
