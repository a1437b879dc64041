"""Two runs over the same samples: how large the difference is, and whether chance explains it.

Pairs are (before, after), one for each sample. Where all values are 0 or 1 the tests are exact; elsewhere they are
randomization tests, with a seed of their own, so that the same runs always have the same p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from gpurig.evaljobs.statistics.intervals import wilson_interval
from gpurig.evaljobs.statistics.power import detectable, needed

Pair = tuple[float, float]

_DRAWS, _SEED = 20_000, 20_251_125
# So many sign flips are tried all; of more, a random part.
_EXACT = 14


@dataclass(frozen=True)
class Difference:
    """What `after - before` comes to.

    Attributes:
        value: the mean difference.
        low, high: its interval.
        test: "mcnemar" or "permutation".
        p: probability of a difference at least so large in either direction, were the two alike.
        p_worse: the same of a loss at least so large.
        effect: in standard deviations of the paired differences; None where these do not differ.
    """

    value: float
    low: float
    high: float
    test: Literal["mcnemar", "permutation"]
    p: float
    p_worse: float
    effect: float | None


def difference(pairs: Sequence[Pair], *, confidence: float = 0.95) -> Difference:
    """Compare; pure, and the same in every run.

    Raises:
        ValueError: no pair, or one that is not finite.
    """
    if not pairs or not all(math.isfinite(value) for pair in pairs for value in pair):
        raise ValueError("pairs of finite values are needed")
    steps = [after - before for before, after in pairs]
    mean = math.fsum(steps) / len(steps)
    spread = _deviation(steps)
    effect = mean / spread if spread else None
    if _binary(pairs):
        gained, lost = sum(step > 0 for step in steps), sum(step < 0 for step in steps)
        low, high = newcombe_interval(pairs, confidence=confidence)
        p, p_worse = mcnemar(gained, lost)
        return Difference(mean, low, high, "mcnemar", p, p_worse, effect)
    p, p_worse = sign_flips(steps)
    low, high = bootstrap_interval(steps, confidence=confidence)
    if not spread:
        # Resamples of equal differences are equal; that few samples moved alike does not mean that all would.
        reach = _unseen_reach(steps, confidence)
        low, high = mean - reach, mean + reach
    return Difference(mean, low, high, "permutation", p, p_worse, effect)


def mcnemar(gained: int, lost: int) -> tuple[float, float]:
    """McNemar's exact test: how probable such a split of the changed samples is, in either direction, and as a loss.

    Of n changed samples each got better or worse with probability 1/2, were the two runs alike.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947); in its exact, binomial form.
    """
    n = gained + lost
    if n == 0:
        return 1.0, 1.0

    def at_most(k: int) -> float:
        return float(sum(math.comb(n, i) for i in range(k + 1)) / 2**n)

    return min(1.0, 2 * at_most(min(gained, lost))), at_most(gained)


def sign_flips(steps: Sequence[float]) -> tuple[float, float]:
    """The paired permutation test: were the runs alike, each difference could as well have the other sign.

    All 2^n sign patterns for up to 14 differences that are not 0, else 20,000 random ones; the observed one counts as
    one of them, so that p is never 0.

    Source: R. A. Fisher, "The design of experiments" (1935), section 21; B. Phipson, G. K. Smyth, "Permutation p-values
    should never be zero", Statistical Applications in Genetics and Molecular Biology 9 (2010).
    """
    import numpy as np  # noqa: PLC0415 - heavy

    changed = np.array([step for step in steps if step], dtype=np.float64)
    if not len(changed):
        return 1.0, 1.0
    observed = changed.sum()
    # Sums that differ by rounding alone are equal.
    slack = 1e-9 * np.abs(changed).sum()
    if len(changed) <= _EXACT:
        patterns = (np.arange(2 ** len(changed))[:, None] >> np.arange(len(changed))) & 1
        sums = (1 - 2 * patterns) @ changed
        return float((np.abs(sums) >= abs(observed) - slack).mean()), float((sums <= observed + slack).mean())
    random = np.random.default_rng(_SEED)
    worse = either = 0
    for _ in range(20):
        sums = (1 - 2 * random.integers(0, 2, (_DRAWS // 20, len(changed)), dtype=np.int8)) @ changed
        either += int((np.abs(sums) >= abs(observed) - slack).sum())
        worse += int((sums <= observed + slack).sum())
    return (1 + either) / (1 + _DRAWS), (1 + worse) / (1 + _DRAWS)


def bootstrap_interval(steps: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean difference, over 20,000 resamples.

    Source: B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979).
    """
    import numpy as np  # noqa: PLC0415 - heavy

    values = np.array(steps, dtype=np.float64)
    random = np.random.default_rng(_SEED)
    means = np.concatenate(
        [values[random.integers(0, len(values), (_DRAWS // 20, len(values)))].mean(axis=1) for _ in range(20)]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def newcombe_interval(pairs: Sequence[Pair], *, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a difference of paired proportions after Newcombe's method 10.

    Wilson's intervals of both proportions, put together with their correlation phi (with a continuity correction). It
    stays inside -1 ... 1 and has a width where nothing changed.

    Source: R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17 (1998), 2635-2650.

    Args:
        pairs: values 0 or 1.
        confidence: of the two-sided interval.
    """
    n = len(pairs)
    both = sum(1 for before, after in pairs if before and after)
    neither = sum(1 for before, after in pairs if not before and not after)
    gained = sum(1 for before, after in pairs if after and not before)
    lost = n - both - neither - gained
    first, second = both + gained, both + lost
    (low1, high1), (low2, high2) = (wilson_interval(count, n, confidence=confidence) for count in (first, second))
    p1, p2 = first / n, second / n
    product = math.sqrt(first) * math.sqrt(n - first) * math.sqrt(second) * math.sqrt(n - second)
    raw = both * neither - gained * lost
    corrected = max(raw - n / 2, 0.0) if raw > 0 else raw
    phi = corrected / product if product else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))

    value = p1 - p2
    return max(-1.0, value - reach(p1 - low1, high2 - p2)), min(1.0, value + reach(high1 - p1, p2 - low2))


def holm(probabilities: Sequence[float]) -> tuple[float, ...]:
    """Holm's correction: p adjusted for being one of several, in the order given.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979).
    """
    ordered = sorted(range(len(probabilities)), key=lambda number: probabilities[number])
    adjusted = [0.0] * len(probabilities)
    highest = 0.0
    for rank, number in enumerate(ordered):
        highest = max(highest, min(1.0, (len(probabilities) - rank) * probabilities[number]))
        adjusted[number] = highest
    return tuple(adjusted)


def detectable_loss(pairs: Sequence[Pair], *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The least true loss that so many samples, which change so often, show with probability `power`.

    Of values 0 or 1 it is exact for McNemar's test (`power.detectable`). Of others it is (z(1-alpha) + z(power)) * s /
    sqrt(n), with s the standard deviation of the paired differences. Both are for a one-sided test. Where no pair
    differs, it is as if one more had changed: that nothing changed in a few samples does not mean that nothing can.

    Source: E. Miller, "Adding error bars to evals", arXiv:2411.00640 (2024), section 5.
    """
    if _binary(pairs):
        return detectable(len(pairs), _changing(pairs), alpha=alpha, power=power)
    steps = [after - before for before, after in pairs]
    n = len(steps)
    scale = max((abs(step) for step in steps), default=0.0) or 1.0
    variance = max(_deviation(steps) ** 2, scale * scale / (n + 1))
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)) * math.sqrt(variance / n)


def samples_for(loss: float, pairs: Sequence[Pair], *, alpha: float = 0.05, power: float = 0.8) -> int:
    """How many samples such as these it takes to show a loss with probability `power`."""
    if _binary(pairs):
        return needed(loss, _changing(pairs), alpha=alpha, power=power)
    return math.ceil(len(pairs) * (detectable_loss(pairs, alpha=alpha, power=power) / loss) ** 2)


def _binary(pairs: Sequence[Pair]) -> bool:
    return all(value in (0.0, 1.0) for pair in pairs for value in pair)


def _changing(pairs: Sequence[Pair]) -> float:
    """The share of the pairs that differ; of none that does, as if one more had."""
    return max(sum(before != after for before, after in pairs) / len(pairs), 1 / (len(pairs) + 1))


def _deviation(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _unseen_reach(steps: Sequence[float], confidence: float) -> float:
    """Half an interval's width as if one more sample had moved by a whole step: scores go from 0 to 1."""
    n = len(steps)
    scale = max((abs(step) for step in steps), default=0.0) or 1.0
    return NormalDist().inv_cdf((1 + confidence) / 2) * scale / math.sqrt(n * (n + 1))
