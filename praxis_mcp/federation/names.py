"""Whose a tool's name is, where several upstreams could take it.

Names here are a prefix and the name there, which the upstream chooses. Where one prefix begins another, as ``git_``
begins ``git_hub_``, the upstream with the shorter one could offer ``hub_push`` and so take the place of another's
``git_hub_push``, whose callers would notice nothing. So that upstream is refused. Equal prefixes are somebody's choice
to have one space of names for several upstreams: there a name goes to the upstream that comes first, and then stays
with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from praxis_mcp.settings.sections import UpstreamSettings

MOST_OWNED = 4096
"""Names of one upstream that stay with it after it has ceased to list them; the oldest are forgotten."""
_WILDCARDS = frozenset("*?[")


def prefix_of(name: str, settings: UpstreamSettings) -> str:
    """What comes before each name of an upstream's tools."""
    return settings.prefix if settings.prefix is not None else f"{name}_"


def refusals(upstreams: Mapping[str, UpstreamSettings]) -> dict[str, str]:
    """The upstreams that could take names of others, and for each why it is not served and how to fix that."""
    prefixes = {name: prefix_of(name, settings) for name, settings in upstreams.items()}
    found: dict[str, str] = {}
    for name, prefix in sorted(prefixes.items()):
        for other, longer in sorted(prefixes.items()):
            if longer == prefix or not longer.startswith(prefix):
                continue
            if any(_may_begin_with(longer, names) for names in _names_here(prefix, upstreams[name])):
                found[name] = _sentence(name, prefix, other, longer)
                break
    return found


class Owners:
    """Which upstream has which name, where prefixes are equal.

    Args:
        prefixes: prefix of each upstream that is served.
    """

    def __init__(self, prefixes: Mapping[str, str]) -> None:
        self._prefixes = prefixes
        self._owners: dict[str, str] = {}

    def claim(self, name: str, upstream: str) -> str:
        """The owner of a name that an upstream would like to have: itself, unless another has it already."""
        if not any(self.rivals(upstream)):
            return upstream
        return self._owners.setdefault(name, upstream)

    def rivals(self, upstream: str) -> Iterator[str]:
        """The other upstreams with its prefix, in the order of their names."""
        prefix = self._prefixes[upstream]
        return (name for name in sorted(self._prefixes) if name != upstream and self._prefixes[name] == prefix)

    def candidates(self, name: str) -> list[str]:
        """The upstreams that may have a tool of that name."""
        return [upstream for upstream, prefix in self._prefixes.items() if name.startswith(prefix)]

    def forget(self, listed: Collection[tuple[str, str]]) -> None:
        """Give up what is too much: of each upstream its oldest names that it does not list any more.

        Args:
            listed: name and upstream of every tool that is listed now.
        """
        unlisted: dict[str, list[str]] = {}
        for name, upstream in self._owners.items():
            if (name, upstream) not in listed:
                unlisted.setdefault(upstream, []).append(name)
        for names in unlisted.values():
            for name in names[: max(0, len(names) - MOST_OWNED)]:
                del self._owners[name]


def _names_here(prefix: str, settings: UpstreamSettings) -> Sequence[str]:
    """The names that an upstream can have here: each as it is, or up to its first wildcard and then a ``*``."""
    names = [prefix + new for new in settings.rename.values()]
    for glob in settings.include:
        fixed = next((glob[:place] + "*" for place, letter in enumerate(glob) if letter in _WILDCARDS), glob)
        if fixed.endswith("*") or fixed not in settings.rename:
            names.append(prefix + fixed)
    return names


def _may_begin_with(prefix: str, name: str) -> bool:
    if not name.endswith("*"):
        return name.startswith(prefix)
    fixed = name[:-1]
    return fixed.startswith(prefix) or prefix.startswith(fixed)


def _sentence(name: str, prefix: str, other: str, longer: str) -> str:
    begins = f"its prefix {prefix!r} begins {longer!r}," if prefix else f"it has no prefix, and {longer!r} is"
    return (
        f"It is not served: {begins} that of the upstream {other}, so it could take the names of that one's tools. "
        f"Give one of them another prefix (upstreams.{name}.prefix or upstreams.{other}.prefix), such as "
        f"{_other_prefix(name, longer)!r}, or list the tools that you need of it (upstreams.{name}.include: [NAME])."
    )


def _other_prefix(name: str, longer: str) -> str:
    letters = name.replace("_", "-")
    return next(word for word in (f"{letters}-", f"{letters}.", f"x-{letters}-") if not longer.startswith(word))
