"""The difference of two texts as lines, in a time that is bounded whatever they hold: texts that tools wrote.

`difflib` alone may take minutes for 64 KiB of lines that occur often. So the texts are first cut into parts at lines
that occur once on both sides, as Bram Cohen's patience diff does; only between those, where little is left, `difflib`
looks closer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from difflib import Match, SequenceMatcher
from typing import Any, Literal, NamedTuple

CONTEXT = 3
"""Lines that are the same, around what differs."""
_DEPTH = 12
"""Parts inside of parts that are looked into."""
_CLOSE = 60
"""Lines of a part that `difflib` may look at."""
_CLOSER_LOOKS = 40
"""How many parts it looks at: each takes a few milliseconds at the very most."""
_NO_END = "\n"
"""Is put at the end of a last line without an end, which makes it another line; no line holds it."""


class DiffLine(NamedTuple):
    """One line of a difference: ``@`` begins a part, ``-`` is removed, ``+`` is added, a blank is the same, and ``\\``
    says that the line before has no end."""

    sign: Literal["@", "-", "+", " ", "\\"]
    text: str


def unified(before: str, after: str) -> list[DiffLine]:
    """What differs, as ``diff -u`` has it, without the names of files; empty where nothing does.

    Args:
        before, after: texts; lines end with a line feed, and nothing else ends one.
    """
    old, new = before.split("\n"), after.split("\n")
    ends = (old.pop() if not old[-1] else None, new.pop() if not new[-1] else None)
    for lines, end in ((old, ends[0]), (new, ends[1])):
        if end is None and lines:
            lines[-1] += _NO_END
    found: list[DiffLine] = []
    for group in _Matcher(old, new).get_grouped_opcodes(CONTEXT):
        first, last = group[0], group[-1]
        found.append(DiffLine("@", f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@"))
        for tag, begin, end, other_begin, other_end in group:
            if tag == "equal":
                found += _signed(" ", old[begin:end])
                continue
            found += _signed("-", old[begin:end])
            found += _signed("+", new[other_begin:other_end])
    return found


def _range(begin: int, end: int) -> str:
    count = end - begin
    return f"{begin + 1}" if count == 1 else f"{begin + 1 if count else begin},{count}"


def _signed(sign: Literal["-", "+", " "], lines: Sequence[str]) -> list[DiffLine]:
    found: list[DiffLine] = []
    for line in lines:
        found.append(DiffLine(sign, line.removesuffix(_NO_END)))
        if line.endswith(_NO_END):
            found.append(DiffLine("\\", " No newline at end of file"))
    return found


class _Matcher(SequenceMatcher[str]):
    """As its base, with blocks that are found in bounded time."""

    def __init__(self, old: Sequence[str], new: Sequence[str]) -> None:
        super().__init__(None, (), ())  # which would index all of the second one
        self.a, self.b = old, new
        self.opcodes = None
        self._closer_looks = _CLOSER_LOOKS

    def get_matching_blocks(self) -> list[Any]:
        """See the base."""
        pairs: list[tuple[int, int]] = []
        self._match(0, len(self.a), 0, len(self.b), _DEPTH, pairs)
        blocks: list[list[int]] = []
        for one, other in sorted(pairs):
            if blocks and blocks[-1][0] + blocks[-1][2] == one and blocks[-1][1] + blocks[-1][2] == other:
                blocks[-1][2] += 1
            else:
                blocks.append([one, other, 1])
        return [Match(*block) for block in blocks] + [Match(len(self.a), len(self.b), 0)]

    def _match(
        self, begin: int, end: int, other: int, other_end: int, depth: int, pairs: list[tuple[int, int]]
    ) -> None:
        old, new = self.a, self.b
        while begin < end and other < other_end and old[begin] == new[other]:
            pairs.append((begin, other))
            begin, other = begin + 1, other + 1
        while begin < end and other < other_end and old[end - 1] == new[other_end - 1]:
            end, other_end = end - 1, other_end - 1
            pairs.append((end, other_end))
        if begin == end or other == other_end or not depth:
            return
        anchors = _anchors(old, new, begin, end, other, other_end)
        if anchors:
            for one, two in anchors:
                self._match(begin, one, other, two, depth - 1, pairs)
                pairs.append((one, two))
                begin, other = one + 1, two + 1
            self._match(begin, end, other, other_end, depth - 1, pairs)
        elif end - begin <= _CLOSE and other_end - other <= _CLOSE and self._closer_looks:
            self._closer_looks -= 1
            close = SequenceMatcher(None, old[begin:end], new[other:other_end], autojunk=False)
            for block in close.get_matching_blocks():
                pairs += [(begin + block.a + step, other + block.b + step) for step in range(block.size)]


def _anchors(
    old: Sequence[str], new: Sequence[str], begin: int, end: int, other: int, other_end: int
) -> list[tuple[int, int]]:
    """The longest row of lines that occur once on both sides, in the same order."""
    count, other_count = Counter(old[begin:end]), Counter(new[other:other_end])
    places = {new[at]: at for at in range(other, other_end) if other_count[new[at]] == 1}
    common = [(at, places[old[at]]) for at in range(begin, end) if count[old[at]] == 1 and old[at] in places]
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for index, (_, at) in enumerate(common):
        place = bisect_left(tails, at)
        before.append(ends[place - 1] if place else -1)
        tails[place : place + 1] = [at]
        ends[place : place + 1] = [index]
    found: list[tuple[int, int]] = []
    index = ends[-1] if ends else -1
    while index >= 0:
        found.append(common[index])
        index = before[index]
    return found[::-1]
