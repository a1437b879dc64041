"""What a check looks at, and what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from gpurig.common.terminal import harmless, shorten
from gpurig.evaljobs.checks.resources import Resources

Extract = Literal["code-block", "whole"]

# A fenced block of CommonMark: at least three backticks or tildes, closed by at least as many, or by the text's end.
_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})[^\n]*\n", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """An answer and what it answers.

    Attributes:
        output: what the generator wrote.
        input: the sample's question.
        reference: the sample's reference answer; may be empty.
        tags, vars: the sample's.
        prompt_tokens, completion_tokens, seconds: as the record has them; None where nobody counted.
        folder: the suite's; paths in a suite are relative to it.
        resources: what checks may use beside the answer.
    """

    output: str
    input: str = ""
    reference: str = ""
    tags: tuple[str, ...] = ()
    vars: Mapping[str, str | float | bool] = field(default_factory=lambda: MappingProxyType({}))
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float | None = None
    folder: Path = Path()
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True)
class Finding:
    """How an answer did.

    Attributes:
        message: why it fails, in one line: what was expected and what was found; "" is a pass.
        score: how good, 0 … 1; None where the check knows nothing beside passed or not.
        figures: what was measured, by name.
        skipped: it could not be looked at, and the suite says that this is no failure; `message` says why.
    """

    message: str = ""
    score: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    skipped: bool = False


def extract(output: str, how: Extract) -> str:
    """The part of an answer that is meant.

    Args:
        output: the whole answer.
        how: "whole", or "code-block": the first fenced Markdown block, and the whole where there is none.
    """
    if how == "whole":
        return output
    blocks = fenced_blocks(output, most=1)
    return blocks[0] if blocks else output


def fenced_blocks(text: str, *, most: int) -> list[str]:
    """The contents of the first `most` fenced Markdown blocks."""
    return [part for fenced, part in _parts(text, most) if fenced]


def without_blocks(text: str) -> str:
    """A Markdown text's prose: without its fenced blocks."""
    return "\n".join(part for fenced, part in _parts(text, None) if not fenced)


def _parts(text: str, most: int | None) -> list[tuple[bool, str]]:
    """A text's pieces in order, each with whether it is the content of a fenced block; to the `most`-th block."""
    parts: list[tuple[bool, str]] = []
    position, blocks = 0, 0
    while (most is None or blocks < most) and (opening := _FENCE.search(text, position)):
        fence = opening["fence"]
        parts.append((False, text[position : opening.start()]))
        # Line by line: a pattern with a back-reference could be made slow.
        start = end = opening.end()
        while end < len(text):
            stop = text.find("\n", end)
            line_end = len(text) if stop < 0 else stop
            bare = text[end:line_end].strip()
            if len(bare) >= len(fence) and not bare.strip(fence[0]):
                break
            end = line_end + 1
        parts.append((True, text[start : max(start, min(end, len(text) + 1) - 1)]))
        position, blocks = min(end, len(text)), blocks + 1
        if position < len(text):
            after = text.find("\n", position)
            position = len(text) if after < 0 else after + 1
    return [*parts, (False, text[position:])]


def shown(text: str, width: int = 80) -> str:
    """A hostile text for a message: one line, at most about `width` characters, no control characters, in quotes."""
    kept = shorten(text, 4 * width)
    return f'"{harmless(shorten(" ".join(kept.split()), width))}"'
