"""YAML as people write it, and additions to a file of it that keep everything that it says, comments too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from praxis_mcp.errors import ArgumentError

_WIDTH = 120


def as_yaml(value: Any) -> str:
    """A value as YAML; what fits in a line stands in one."""
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=None)


def with_members(text: str, section: str, members: Mapping[str, Any], place: str) -> str:
    """A document with more members in one of its sections.

    Args:
        text: a mapping; one that is empty, or has only comments, too.
        section: name of a member of it that is a mapping; added where it is missing.
        members: none of which the section has.
        place: what messages call the document.

    Raises:
        ArgumentError: it is not such a document, or written in a way that this cannot add to.
    """
    import yaml

    unusual = ArgumentError(
        f"{place} is written in a way that nothing can be added to safely; it was left as it is.",
        remedy="Leave --into out, and paste what is printed.",
    )
    try:
        before = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        raise ArgumentError(f"{place}{where}: it is not valid YAML; it was left as it is.", remedy="Fix it.") from exc
    except RecursionError:
        raise unusual from None
    if before is not None and not isinstance(before, dict):
        raise ArgumentError(f"{place} is not a mapping; it was left as it is.", remedy="Name a settings file.")
    values = before or {}
    held = values.get(section)
    if held is not None and not isinstance(held, dict):
        raise ArgumentError(f"{place}: {section} is not a mapping; it was left as it is.", remedy="Fix it.")
    written = _added(text, root, section, members)
    try:
        after = yaml.safe_load(written) if written is not None else None
    except (yaml.YAMLError, RecursionError):
        after = None
    if written is None or after != {**values, section: {**(held or {}), **members}}:
        raise unusual
    return written


def _added(text: str, root: Any, section: str, members: Mapping[str, Any]) -> str | None:
    import yaml

    if root is not None and root.flow_style:
        return None
    pairs = root.value if root is not None else []
    found = next(((key, value) for key, value in pairs if key.value == section), None)
    if found is None:
        return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{as_yaml({section: dict(members)})}"
    _, value = found
    if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
        first = value.value[0][0].start_mark
        at = first.index - first.column
        return text[:at] + _indented(members, first.column) + text[at:]
    if value.value and not isinstance(value, yaml.ScalarNode):
        return None
    start, end = value.start_mark.index, value.end_mark.index
    line = text.find("\n", end)
    rest = text[end:] if line < 0 else text[end:line]
    return f"{text[:start].rstrip(' ')}{rest}\n{_indented(members, 2)}{'' if line < 0 else text[line + 1 :]}"


def _indented(members: Mapping[str, Any], columns: int) -> str:
    return "".join(f"{' ' * columns}{line}" for line in as_yaml(dict(members)).splitlines(keepends=True))
