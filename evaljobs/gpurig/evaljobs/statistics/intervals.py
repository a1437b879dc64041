"""How far a figure can be trusted."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a proportion: (low, high), each 0 … 1.

    With p = successes/n and z the normal quantile of `confidence`, its ends are
    (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).
    Unlike the textbook's p ± z·sqrt(p(1-p)/n) it stays inside 0 … 1 and has a width at p = 0 and p = 1, which is
    where small suites live.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22 (1927), 209-212.

    Args:
        successes: how many of `n`.
        n: trials; 0 gives (0, 1): nothing is known.
        confidence: of a two-sided interval, between 0 and 1.

    Raises:
        ValueError: successes is not in 0 … n, or confidence not strictly between 0 and 1.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    middle = p + z * z / (2 * n)
    reach = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends one bound is exact by algebra; rounding must not move it past the proportion itself.
    low = 0.0 if successes == 0 else max(0.0, (middle - reach) / scale)
    high = 1.0 if successes == n else min(1.0, (middle + reach) / scale)
    return min(low, p), max(high, p)
