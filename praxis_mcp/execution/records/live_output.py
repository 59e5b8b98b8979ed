"""What runs that go on have put out, held until it is written."""

from __future__ import annotations

from collections.abc import Collection, Iterator

_LIVE_PER_RUN = 8 * 1024 * 1024
"""Bytes of output of one run that are written while it goes on; all of it is there once it has ended."""
_LIVE_PIECE = 512 * 1024
"""Bytes from which on what comes is another piece: what one holds is in memory more than once while it is written."""
_OVERHEAD = 128
"""Bytes that a piece takes up besides what it holds: a tool may write a byte at a time."""
_TOO_MUCH = _LIVE_PER_RUN + 1


class LiveOutput:
    """Pieces by run. One thread at a time uses it.

    Args:
        most_held: bytes that may wait.
    """

    def __init__(self, most_held: int) -> None:
        self._most_held = most_held
        self._pieces: dict[str, list[tuple[str, bytearray]]] = {}
        self._written: dict[str, int] = {}
        self._held = 0

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._pieces)

    def add(self, run_id: str, stream: str, data: bytes) -> None:
        """Hold a piece; dropped, with all that follows of that run, where there is too much."""
        written = self._written.get(run_id, 0)
        if written > _LIVE_PER_RUN or self._held > self._most_held:
            self._written[run_id] = _TOO_MUCH  # a gap would put all that follows in the wrong place
            return
        pieces = self._pieces.setdefault(run_id, [])
        added = len(data)
        if pieces and pieces[-1][0] == stream and len(pieces[-1][1]) < _LIVE_PIECE:
            pieces[-1][1].extend(data)
        else:
            pieces.append((stream, bytearray(data)))
            added += _OVERHEAD
        self._written[run_id] = written + added
        self._held += added

    def forget(self, run_id: str) -> None:
        """A run has ended."""
        self._written.pop(run_id, None)
        self._held -= sum(_OVERHEAD + len(data) for _, data in self._pieces.pop(run_id, []))

    def give_up(self, runs: Collection[str]) -> None:
        """What these runs, where they still go on, put out from now on is not held: a part of theirs is not written."""
        for run_id in runs:
            if run_id in self._written:
                self._written[run_id] = _TOO_MUCH

    def give_all_up(self) -> None:
        """As `give_up`, of all that go on."""
        self.give_up(list(self._written))

    def take(self) -> dict[str, list[tuple[str, bytearray]]]:
        """All that waits, by run; see `pieces_in`."""
        taken, self._pieces, self._held = self._pieces, {}, 0
        return taken


def pieces_in(taken: dict[str, list[tuple[str, bytearray]]]) -> Iterator[tuple[str, str, bytes]]:
    """Run, stream and bytes of each piece, of which none is held any longer than it is gone through."""
    for run_id in list(taken):
        pieces = taken.pop(run_id)
        pieces.reverse()
        while pieces:
            stream, data = pieces.pop()
            yield run_id, stream, bytes(data)
