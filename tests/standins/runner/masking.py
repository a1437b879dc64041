"""Secrets out of a stream of bytes, also where one is split over two writes."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MASK = b"[MASKED]"


class Masker:
    """Replaces phrases by [MASKED], and what follows a token prefix such as glpat- likewise."""

    def __init__(self, phrases: Sequence[str], prefixes: Sequence[str] = ()) -> None:
        """Empty phrases are no phrases."""
        self._phrases = sorted({phrase.encode() for phrase in phrases if phrase}, key=len, reverse=True)
        words = [prefix.encode() for prefix in prefixes]
        self._tokens = re.compile(rb"(" + b"|".join(map(re.escape, words)) + rb")[A-Za-z0-9_.-]+") if words else None
        self._token_tail = (
            re.compile(rb"(?:" + b"|".join(map(re.escape, words)) + rb")[A-Za-z0-9_.-]*\Z") if words else None
        )
        self._starts = [*self._phrases, *words]
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What of `data`, and of what was held back, is safe to show."""
        text = self._held + data
        for phrase in self._phrases:
            text = text.replace(phrase, _MASK)
        hold = self._unfinished(text)
        self._held, text = text[len(text) - hold :], text[: len(text) - hold]
        return self._tokens.sub(rb"\1" + _MASK, text) if self._tokens else text

    def flush(self) -> bytes:
        """What was held back, at the end."""
        text, self._held = self._held, b""
        return self._tokens.sub(rb"\1" + _MASK, text) if self._tokens else text

    def _unfinished(self, text: bytes) -> int:
        """How many bytes at the end may be the start of a secret."""
        longest = 0
        for start in self._starts:
            for size in range(min(len(start) - 1, len(text)), longest, -1):
                if text.endswith(start[:size]):
                    longest = size
                    break
        if self._token_tail:
            found = self._token_tail.search(text)
            if found:
                longest = max(longest, len(text) - found.start())
        return longest
