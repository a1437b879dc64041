"""What a check looks at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

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
    """

    output: str
    input: str = ""
    reference: str = ""


def extract(output: str, how: Extract) -> str:
    """The part of an answer that is meant.

    Args:
        output: the whole answer.
        how: "whole", or "code-block": the first fenced Markdown block, and the whole where there is none.
    """
    if how == "whole":
        return output
    opening = _FENCE.search(output)
    if opening is None:
        return output
    fence = opening["fence"]
    # The text after the first fence is scanned line by line: a pattern with a back-reference could be made slow.
    kept = []
    for line in output[opening.end() :].split("\n"):
        bare = line.strip()
        if len(bare) >= len(fence) and not bare.strip(fence[0]):
            break
        kept.append(line)
    return "\n".join(kept)
