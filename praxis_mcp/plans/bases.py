"""The images that a Dockerfile starts from or copies from, and the same Dockerfile with these by their digests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_FROM = re.compile(r"\s*FROM\s+(?:--\S+\s+)*(?P<image>\S+)(?:\s+AS\s+(?P<stage>\S+))?", re.IGNORECASE)
_OTHERS = re.compile(r"(?:\bCOPY\s+(?:--\S+\s+)*?--from=|--mount=\S*?\bfrom=)(?P<image>[^\s,]+)", re.IGNORECASE)
"""Of ``COPY --from=IMAGE`` and ``RUN --mount=type=bind,from=IMAGE``."""
_COPIES = re.compile(r"\s*(?:COPY|ADD|RUN)\s", re.IGNORECASE)
_ARGUMENT = re.compile(r"\s*ARG\s+(\w+)=(\S+)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})")
_HERE_DOCUMENT = re.compile(r"<<-?\s*[\"']?(\w+)")


def find_bases(dockerfile: str) -> tuple[str, ...]:
    """The images that are not stages of the Dockerfile itself, each once. Variables are replaced by what the Dockerfile
    says of them; a name that has others keeps its ``$``."""
    return tuple(dict.fromkeys(image for _, _, image in _named(dockerfile)))


def pin_bases(dockerfile: str, pins: Mapping[str, str]) -> str:
    """The Dockerfile with other names for images.

    Args:
        dockerfile: its text.
        pins: image, as `find_bases` gives it → what to write instead.
    """
    parts: list[str] = []
    done = 0
    for start, end, image in _named(dockerfile):
        parts += dockerfile[done:start], pins.get(image, dockerfile[start:end])
        done = end
    return "".join((*parts, dockerfile[done:]))


def _named(dockerfile: str) -> Iterator[tuple[int, int, str]]:
    """Where each image is named, and what it is called once variables are replaced."""
    stages = {"scratch"}
    values: dict[str, str] = {}
    has_begun = False
    for at, line in _instructions(dockerfile):
        if (start := _FROM.match(line)) is not None:
            has_begun = True
            image = _VARIABLE.sub(lambda found: _value(found, values), start["image"])
            if image.lower() not in stages:
                yield at + start.start("image"), at + start.end("image"), image
            stages.add((start["stage"] or "").lower())
        elif (argument := _ARGUMENT.match(line)) is not None and not has_begun:
            values[argument[1]] = argument[2].strip("\"'")
        elif _COPIES.match(line) is not None:
            for other in _OTHERS.finditer(line):
                if other["image"].lower() not in stages and not other["image"].isdecimal():
                    yield at + other.start("image"), at + other.end("image"), other["image"]


def _value(found: re.Match[str], values: Mapping[str, str]) -> str:
    value = values.get(found[1] or found[2]) or found[3]
    return found[0] if value is None else value


def _instructions(dockerfile: str) -> Iterator[tuple[int, str]]:
    """Each instruction with the lines that go on with it, and where it begins; what they hand over as text (``<<EOF``)
    is left out."""
    at = begin = 0
    waiting: list[str] = []
    for line in dockerfile.splitlines(keepends=True):
        at += len(line)
        if waiting:
            if line.strip() == waiting[0]:
                waiting.pop(0)
            begin = at
            continue
        is_comment = line.lstrip().startswith("#")
        if (line.rstrip().endswith("\\") and not is_comment) or (is_comment and at - len(line) > begin):
            continue
        instruction = dockerfile[begin:at]
        if not is_comment:
            yield begin, instruction
            waiting = _HERE_DOCUMENT.findall(instruction) if _COPIES.match(instruction) else []
        begin = at
    if begin < at:
        yield begin, dockerfile[begin:at]
