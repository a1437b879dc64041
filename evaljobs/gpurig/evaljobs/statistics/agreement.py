"""How far several judges agree beyond what chance would give them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from gpurig.evaljobs.statistics.intervals import wilson_interval


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa and its interval: 1 is full agreement, 0 is what chance gives.

    Attributes:
        observed: the share of pairs that agree.
        n: pairs.
    """

    value: float
    low: float
    high: float
    observed: float
    n: int


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]], *, confidence: float = 0.95) -> Kappa | None:
    """Cohen's kappa of two judges over the same things, unweighted: (p_o - p_e) / (1 - p_e).

    p_o is the share of equal pairs and p_e what two judges with these habits would share by chance. The interval is
    kappa ± z·se with the large-sample error of Fleiss, Cohen and Everitt. Where all pairs agree that error is 0, which
    few pairs do not warrant: then the lower end is Wilson's bound of p_o, put into the formula.

    Sources: J. Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20
    (1960), 37-46. J. L. Fleiss, J. Cohen, B. S. Everitt, "Large sample standard errors of kappa and weighted kappa",
    Psychological Bulletin 72 (1969), 323-327, formula 13.

    Args:
        pairs: the verdict of the one judge and of the other.
        confidence: of the two-sided interval, between 0 and 1.

    Returns:
        None where it is not defined: no pairs, or both judges gave one and the same verdict to everything.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}")
    n = len(pairs)
    if n == 0:
        return None
    cells = Counter(pairs)
    rows, columns = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    agreeing = sum(count for (one, other), count in cells.items() if one == other)
    observed = agreeing / n
    expected = sum(rows[verdict] * columns[verdict] for verdict in rows) / n**2
    if expected == 1:
        return None
    value = (observed - expected) / (1 - expected)
    if agreeing == n:
        low = (wilson_interval(n, n, confidence=confidence)[0] - expected) / (1 - expected)
        return Kappa(value, max(-1.0, low), 1.0, observed, n)
    on = math.fsum(
        count / n * ((1 - expected) - (rows[one] + columns[one]) / n * (1 - observed)) ** 2
        for (one, other), count in cells.items()
        if one == other
    )
    off = math.fsum(
        count / n * ((columns[one] + rows[other]) / n) ** 2 for (one, other), count in cells.items() if one != other
    )
    spread = on + (1 - observed) ** 2 * off - (observed * expected - 2 * expected + observed) ** 2
    error = math.sqrt(max(0.0, spread) / n) / (1 - expected) ** 2
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return Kappa(value, max(-1.0, value - reach), min(1.0, value + reach), observed, n)


def krippendorff_alpha(
    units: Sequence[Sequence[Hashable | None]], *, level: Literal["nominal", "interval"] = "nominal"
) -> float | None:
    """Krippendorff's alpha of any number of judges: 1 - (observed disagreement) / (disagreement by chance).

    Judges may have left things out; what only one of them judged does not count. At the level "nominal" two values
    disagree or not; at the level "interval", for numbers, by the square of their difference.

    Source: K. Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), University of Pennsylvania,
    repository.upenn.edu/asc_papers/43.

    Args:
        units: for each thing, the value from every judge; None where there is none.
        level: of measurement.

    Returns:
        None where it is not defined: nothing was judged twice, or all values are equal.
    """
    judged = [[value for value in unit if value is not None] for unit in units]
    pairable = [values for values in judged if len(values) > 1]
    everything = [value for values in pairable for value in values]
    if len(set(everything)) < 2:
        return None
    disagreement = _DISAGREEMENT[level]
    by_chance = disagreement(everything) / (len(everything) - 1)
    return 1 - math.fsum(disagreement(values) / (len(values) - 1) for values in pairable) / by_chance


def _nominal(values: Sequence[Hashable]) -> float:
    """Ordered pairs of the values that differ."""
    return len(values) ** 2 - sum(count**2 for count in Counter(values).values())


def _interval(values: Sequence[Hashable]) -> float:
    """The squared differences of the values, over their ordered pairs."""
    numbers = [float(value) for value in values]  # type: ignore[arg-type]  # the level says that they are numbers
    middle = math.fsum(numbers) / len(numbers)
    return 2 * len(numbers) * math.fsum((number - middle) ** 2 for number in numbers)


_DISAGREEMENT = {"nominal": _nominal, "interval": _interval}
