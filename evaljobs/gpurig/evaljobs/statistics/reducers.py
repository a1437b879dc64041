"""What several answers to one sample come to: one value a sample, so that repeats never count as samples."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["mean", "pass@", "pass^", "at-least-"]

_KINDS_WITH_K: tuple[Kind, ...] = ("pass@", "pass^", "at-least-")
_K = re.compile(r"[1-9][0-9]{0,5}")


@dataclass(frozen=True)
class Reducer:
    """How the outcomes of a sample's epochs, each good or not, become one value 0 ... 1.

    With c good ones of n:

    - "mean": c/n.
    - "pass@k": 1 - C(n-c, k)/C(n, k), the probability that of k answers at least one is good, without bias. Source:
      M. Chen et al., "Evaluating large language models trained on code", arXiv:2107.03374 (2021), equation 1.
    - "pass^k": C(c, k)/C(n, k), the probability that all of k answers are good, without bias. Source: S. Yao et al.,
      "tau-bench", arXiv:2406.12045 (2024), section 3.
    - "at-least-k": 1 where c is at least k, else 0.

    Attributes:
        k: of how many answers it speaks; 1 for the mean.
    """

    kind: Kind = "mean"
    k: int = 1

    def __str__(self) -> str:
        """As suites write it."""
        return self.kind if self.kind == "mean" else f"{self.kind}{self.k}"

    def reduce(self, outcomes: Sequence[bool]) -> float:
        """The value of one sample.

        Raises:
            ValueError: fewer outcomes than `k`, or none.
        """
        n, good = len(outcomes), sum(outcomes)
        if n < self.k:
            raise ValueError(f"{self} of {n} outcomes")
        match self.kind:
            case "mean":
                return good / n
            case "pass@":
                return 1.0 - math.comb(n - good, self.k) / math.comb(n, self.k)
            case "pass^":
                return math.comb(good, self.k) / math.comb(n, self.k)
            case "at-least-":
                return float(good >= self.k)


def parse_reducer(text: str) -> Reducer:
    """Read "mean", "pass@3", "pass^3" or "at-least-3".

    Raises:
        ValueError: it is none of these.
    """
    if text == "mean":
        return Reducer()
    for kind in _KINDS_WITH_K:
        k = text.removeprefix(kind)
        if k != text and _K.fullmatch(k):
            return Reducer(kind, int(k))
    raise ValueError(
        f'"{text}" is no reducer (known: mean, pass@K, pass^K, at-least-K, with a number for K, as in pass@3)'
    )
