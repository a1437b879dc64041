"""How far a judge's verdicts are right, and its probabilities mean what they say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpurig.evaljobs.statistics.intervals import wilson_interval


@dataclass(frozen=True)
class Rate:
    """A share with its Wilson interval.

    Attributes:
        value: None where there was nothing to count (n is 0).
        n: of how many.
    """

    value: float | None
    low: float
    high: float
    n: int


def rate(successes: int, n: int, *, confidence: float = 0.95) -> Rate:
    """`successes` of `n` as a share with its interval."""
    low, high = wilson_interval(successes, n, confidence=confidence)
    return Rate(successes / n if n else None, low, high, n)


@dataclass(frozen=True)
class TruthRates:
    """How often yes/no verdicts are right.

    Attributes:
        true_positive: of what is good, the share that was called good (sensitivity).
        true_negative: of what is bad, the share that was called bad (specificity).
    """

    true_positive: Rate
    true_negative: Rate


def truth_rates(pairs: Sequence[tuple[bool, bool]], *, confidence: float = 0.95) -> TruthRates:
    """The rates at which verdicts hit the truth.

    Args:
        pairs: what is true, and what was said.
        confidence: of the intervals.
    """
    good = [said for true, said in pairs if true]
    bad = [said for true, said in pairs if not true]
    return TruthRates(
        true_positive=rate(sum(good), len(good), confidence=confidence),
        true_negative=rate(len(bad) - sum(bad), len(bad), confidence=confidence),
    )


def expected_calibration_error(pairs: Sequence[tuple[float, bool]], *, bins: int = 10) -> float | None:
    """The expected calibration error, 0 ... 1: by how much stated probabilities miss the shares that come true.

    Probabilities fall into `bins` of equal width; each bin's |share that came true - mean probability| counts by its
    part of the pairs. With few pairs in a bin chance alone makes it larger than 0.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017, formula 3.

    Args:
        pairs: a probability 0 ... 1, and whether it came true.
        bins: how many, at least 1.

    Returns:
        None without pairs.

    Raises:
        ValueError: a probability is not in 0 ... 1.
    """
    wrong = [probability for probability, _ in pairs if not 0 <= probability <= 1]
    if wrong:
        raise ValueError(f"probability {wrong[0]}")
    if not pairs:
        return None
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for probability, came_true in pairs:
        # A bin holds its upper edge, as in the paper; the first one holds 0 as well.
        members[max(0, math.ceil(probability * bins) - 1)].append((probability, came_true))
    return math.fsum(abs(sum(hit for _, hit in each) - math.fsum(p for p, _ in each)) for each in members) / len(pairs)
