"""Texts longer than a model's context, in windows: which tokens are scored where, after how much before them; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A part of a text.

    Attributes:
        begin: the first token that is fed; -1 stands for the one before the text (BOS).
        scored: the first token that is scored.
        end: the token after the last that is scored.
    """

    begin: int
    scored: int
    end: int


def rolling_windows(tokens: int, *, size: int, overlap: int) -> Iterator[Window]:
    """The windows over a text: every token is scored once, with as much before it as the overlap says.

    The first token is scored after BOS alone, the others after all that is before them in their window; from the second
    window on that are at least `overlap` tokens. The last token of a window is scored and not fed.

    Args:
        tokens: of the text.
        size: tokens that a window feeds, at most.
        overlap: 0 to size - 1. 0 makes the fewest windows; size - 1 scores every token with nearly all the context that
            there is room for, and costs a window for every two tokens.

    Raises:
        ValueError: no such overlap.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"an overlap of {overlap} tokens in windows of {size}")
    end = min(tokens, size)
    if end:
        yield Window(-1, 0, end)
    while end < tokens:
        # At least one token before the first that is scored.
        begin = max(0, end - max(overlap, 1))
        scored, end = end, min(tokens, begin + size + 1)
        yield Window(begin, scored, end)
