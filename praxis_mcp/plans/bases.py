"""The images that a Dockerfile starts from or copies from, and the same Dockerfile with these by their digests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_FROM = re.compile(r"\s*FROM\s+(?:--\S+\s+)*(?P<image>\S+)(?:\s+AS\s+(?P<stage>\S+))?", re.IGNORECASE)
_OTHERS = {
    "COPY": re.compile(r"(?<!\S)--from=(?P<image>\S+)", re.IGNORECASE),
    "RUN": re.compile(r"--mount=\S*?\bfrom=(?P<image>[^\s,]+)", re.IGNORECASE),
}
"""Of ``COPY --from=IMAGE`` and ``RUN --mount=type=bind,from=IMAGE``."""
_COPIES = re.compile(r"\s*(?:ONBUILD\s+)?(COPY|ADD|RUN)\s", re.IGNORECASE)
_ARGUMENT = re.compile(r"\s*ARG\s+(\w+)=(\S+)", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})")
_ESCAPE = re.compile(r"\ufeff?(?:[ \t]*#[ \t]*\w+[ \t]*=.*\n)*?[ \t]*#[ \t]*escape[ \t]*=[ \t]*(`)", re.IGNORECASE)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+""", re.DOTALL)
_HERE_DOCUMENT = re.compile(r"""(?:\\\n)?\d*<<-?(["']?)([^<"'\s]+)\1""")
# What is taken for a text, or for the next line of an instruction, is not looked at: wrongly so, and an image would not
# be pinned. So these are BuildKit's own rules, and in doubt a line is an instruction.


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
        elif (copies := _COPIES.match(line)) is not None and copies[1].upper() in _OTHERS:
            for other in _OTHERS[copies[1].upper()].finditer(line):
                if other["image"].lower() not in stages and not other["image"].isdecimal():
                    yield at + other.start("image"), at + other.end("image"), other["image"]


def _value(found: re.Match[str], values: Mapping[str, str]) -> str:
    value = values.get(found[1] or found[2]) or found[3]
    return found[0] if value is None else value


def _instructions(dockerfile: str) -> Iterator[tuple[int, str]]:
    """Each instruction with the lines that go on with it, and where it begins; what they hand over as text (``<<EOF``)
    is left out."""
    escape = "`" if _ESCAPE.match(dockerfile) is not None else r"\\"
    goes_on = re.compile(rf"(?:^|[^{escape}]){escape}[ \t]*\r?\n?\Z")
    at = begin = len(dockerfile) - len(dockerfile.removeprefix("\ufeff"))
    waiting: list[str] = []
    for line in _LINE.findall(dockerfile[begin:]):
        at += len(line)
        if waiting:
            if line.strip() == waiting[0]:
                waiting.pop(0)
            begin = at
            continue
        is_comment = line.lstrip().startswith("#")
        if (goes_on.search(line) is not None and not is_comment) or (is_comment and at - len(line) > begin):
            continue
        instruction = dockerfile[begin:at]
        if not is_comment:
            yield begin, instruction
            waiting = _here_documents(instruction) if _COPIES.match(instruction) else []
        begin = at
    if begin < at:
        yield begin, dockerfile[begin:at]


def _here_documents(instruction: str) -> list[str]:
    """The words that end the texts which an instruction hands over; none where its quotes have no end."""
    if _WORD.sub("", instruction).strip():
        return []
    return [found[2] for word in _WORD.findall(instruction) if (found := _HERE_DOCUMENT.fullmatch(word)) is not None]
