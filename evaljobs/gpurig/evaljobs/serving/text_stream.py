"""The part of an unfinished answer that can be shown already: never taken back, never half a character."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns an answer's growing bytes into pieces of text, whose sum is the text of the whole.

    Attributes:
        shown: how many bytes were shown.
    """

    def __init__(self, stops: Sequence[str], opening: str | None = None) -> None:
        """Begin.

        Args:
            stops: texts that end the answer, and are not part of it.
            opening: text from which on nothing is shown before the end; an empty one: nothing at all; None: no such.
        """
        self._stops = [stop.encode() for stop in stops]
        self._opening = None if opening is None else opening.encode()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.shown = 0

    def more(self, output: bytes) -> str:
        """What can be shown now.

        Args:
            output: all that is written so far.
        """
        safe = len(output) - max((_overlap(output, stop) for stop in self._stops), default=0)
        if self._opening is not None:
            found = output.find(self._opening)
            safe = min(safe, found if found >= 0 else len(output) - _overlap(output, self._opening))
        return self._show(output, safe)

    def rest(self, output: bytes) -> str:
        """What is left at the end."""
        return self._show(output, len(output)) + self._decoder.decode(b"", final=True)

    def _show(self, output: bytes, end: int) -> str:
        begin, self.shown = self.shown, max(self.shown, end)
        return self._decoder.decode(output[begin : self.shown])


def _overlap(output: bytes, stop: bytes) -> int:
    """How many last bytes of the output could be the beginning of the stop."""
    for length in range(min(len(stop) - 1, len(output)), 0, -1):
        if output.endswith(stop[:length]):
            return length
    return 0
