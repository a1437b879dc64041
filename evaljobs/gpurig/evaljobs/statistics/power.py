"""What a comparison of so many samples can show: the power of the gate's own test, exactly."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Up to so many changed samples the exact sum is taken; beyond, the formula is within half a point of it.
_EXACT_CHANGED = 400
# Counts of changed samples so many standard deviations away from their mean are left out.
_REACH = 8.0


def mcnemar_power(n: int, *, lost: float, gained: float, alpha: float = 0.05) -> float:
    """The probability that McNemar's exact one-sided test calls a true loss significant (p below alpha).

    The number of changed samples is binomial with probability lost + gained; of those each is a loss with probability
    lost / (lost + gained). The sum goes over every number of changed samples, with the test's own critical value for
    each, so that the carefulness of an exact test with few changed samples is in it. Where more than 400 changed
    samples are expected the normal formula takes its place, with a correction for continuity.

    Sources: S. W. Duffy, "Asymptotic and exact power for the McNemar test and its analogue with R controls per case",
    Biometrics 40 (1984), 1005-1015. R. J. Connor, "Sample size for testing differences in proportions for the
    paired-sample design", Biometrics 43 (1987), 207-211, for the limit.

    Args:
        n: samples that are compared.
        lost: the probability that a sample passes before and not after.
        gained: the other way round.
        alpha: of the one-sided test.

    Raises:
        ValueError: no such probabilities.
    """
    changed = lost + gained
    if min(lost, gained) < 0 or changed > 1 + 1e-12 or n < 1:
        raise ValueError(f"{n} samples, {lost} lost, {gained} gained")
    if changed == 0:
        return 0.0
    normal = NormalDist()
    if n * changed > _EXACT_CHANGED:
        spread = changed - (lost - gained) ** 2
        # Losses less gains goes in steps of 2, and the exact test waits for the next one: half a step on the average.
        shift = (lost - gained) * math.sqrt(n) - 1 / math.sqrt(n) - normal.inv_cdf(1 - alpha) * math.sqrt(changed)
        return normal.cdf(shift / math.sqrt(spread)) if spread > 0 else float(shift > 0)
    middle, reach = n * changed, _REACH * math.sqrt(n * changed) + _REACH
    counts = range(max(0, math.floor(middle - reach)), min(n, math.ceil(middle + reach)) + 1)
    weights = _binomial(n, min(changed, 1.0))
    return float(sum(weights[count] * _rejected(count, gained / changed, alpha) for count in counts))


def _rejected(changed: int, share_gained: float, alpha: float) -> float:
    """The probability that so many changed samples come out significant."""
    by_chance = _binomial(changed, 0.5).cumsum()
    significant = int((by_chance < alpha).sum())
    return float(_binomial(changed, share_gained)[:significant].sum())


def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """The probabilities of 0 ... n successes."""
    import numpy as np  # noqa: PLC0415 - heavy

    if p in {0.0, 1.0}:
        certain: NDArray[np.float64] = np.eye(1, n + 1, round(n * p))[0]
        return certain
    counts = np.arange(n + 1)
    # Logarithms of factorials as one running sum: log n! - log k! - log (n-k)!.
    factorials = np.concatenate([[0.0], np.log(np.arange(1, n + 1)).cumsum()])
    logs = factorials[n] - factorials - factorials[::-1] + counts * math.log(p) + (n - counts) * math.log1p(-p)
    found: NDArray[np.float64] = np.exp(logs)
    return found


def _split(loss: float, changed: float) -> tuple[float, float]:
    """The probabilities of losing and gaining, where a share changes and the balance is `loss`."""
    both = max(changed, loss)
    return (both + loss) / 2, (both - loss) / 2


def detectable(n: int, changed: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The least true loss that McNemar's test of n samples shows with probability `power`: 0 ... 1.

    Args:
        n: samples that are compared.
        changed: the share that comes out differently, in either direction; a loss larger than that changes more.
        alpha: of the one-sided test.
        power: wanted.

    Returns:
        1 where not even the loss of every sample would be shown.
    """

    def reached(loss: float) -> bool:
        lost, gained = _split(loss, changed)
        return mcnemar_power(n, lost=lost, gained=gained, alpha=alpha) >= power

    low, high = 0.0, 1.0
    if not reached(high):
        return 1.0
    # To a tenth of a point: the estimate of `changed` is never as good.
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def needed(loss: float, changed: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """How many samples it takes for McNemar's test to show `loss` with probability `power`; at most a hundred million.

    Args:
        loss: the true one, above 0.
        changed: as in `detectable`.
        alpha: of the one-sided test.
        power: wanted.
    """
    lost, gained = _split(loss, changed)
    low, high = 0, 1
    while high < 10**8 and mcnemar_power(high, lost=lost, gained=gained, alpha=alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        reached = mcnemar_power(middle, lost=lost, gained=gained, alpha=alpha) >= power
        low, high = (low, middle) if reached else (middle, high)
    return high
