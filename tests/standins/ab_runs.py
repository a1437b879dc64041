"""Pairs of runs drawn at random, through the gate's own code: how often it is wrong, and how often right."""

from __future__ import annotations

import numpy as np
from gpurig.evaljobs.comparing.demands import with_relative
from gpurig.evaljobs.results import Gate, Metric
from gpurig.evaljobs.statistics.paired import Pair, detectable_loss
from gpurig.evaljobs.suites.suite import GateRuleSpec

NO_REGRESSION = GateRuleSpec(metric="pass_rate", no_regression=True)


def failing_rate(draws: int, samples: int, *, lost: float, gained: float, seed: int) -> float:
    """The share of runs that the rule no_regression fails.

    Args:
        draws: pairs of runs.
        samples: of each; 70 % of those that do not change pass.
        lost, gained: probability that a sample that passed does not any more, and the other way round.
        seed: of the draws.
    """
    draw, failed = np.random.default_rng(seed), 0
    metric = [Metric(name="pass_rate", value=0.5, n=samples)]
    for _ in range(draws):
        kinds = draw.random(samples)
        changed = np.where(kinds < lost, -1, np.where(kinds < lost + gained, 1, 0))
        before = np.where(changed < 0, 1.0, np.where(changed > 0, 0.0, (draw.random(samples) < 0.7).astype(float)))
        pairs = {("", "pass_rate"): list(zip(before.tolist(), (before + changed).tolist(), strict=True))}
        failed += not with_relative(Gate(passed=True), [NO_REGRESSION], metric, pairs).passed
    return failed / draws


def claimed_power(samples: int, *, lost: float, gained: float) -> float:
    """The probability with which a report says that such a loss is seen."""
    down, up = round(lost * samples), round(gained * samples)
    pairs: list[Pair] = [(1.0, 0.0)] * down + [(0.0, 1.0)] * up + [(1.0, 1.0)] * (samples - down - up)
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if detectable_loss(pairs, power=middle) <= lost - gained else (low, middle)
    return low
