from __future__ import annotations

import numpy as np
import pytest
from gpurig.evaljobs.statistics.power import detectable, mcnemar_power, needed
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

shares = st.floats(0.0, 0.5)


def by_scipy(n: int, lost: float, gained: float, alpha: float) -> float:
    """The same sum, with SciPy's binomial distribution and no count left out."""
    changed, total = lost + gained, 0.0
    for count in range(n + 1):
        below = [k for k in range(count + 1) if binom.cdf(k, count, 0.5) < alpha]
        if below:
            total += binom.pmf(count, n, changed) * binom.cdf(below[-1], count, gained / changed)
    return float(total)


@pytest.mark.parametrize(
    ("n", "lost", "gained", "alpha"),
    [(20, 0.3, 0.0, 0.05), (60, 0.15, 0.05, 0.05), (100, 0.15, 0.05, 0.05), (100, 0.5, 0.4, 0.01), (5, 0.9, 0.1, 0.05)],
)
def test_the_power_is_scipys_sum(n, lost, gained, alpha):
    assert mcnemar_power(n, lost=lost, gained=gained, alpha=alpha) == pytest.approx(
        by_scipy(n, lost, gained, alpha), abs=1e-9
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), shares, shares)
def test_without_a_loss_it_stays_below_alpha_and_a_gain_does_not_raise_it(n, one, other):
    lower, higher = sorted((one, other))
    assert mcnemar_power(n, lost=lower, gained=lower) <= 0.05
    assert mcnemar_power(n, lost=lower, gained=higher) <= 0.05


@pytest.mark.parametrize(("n", "lost", "gained"), [(2000, 0.11, 0.09), (4000, 0.055, 0.045), (500, 0.42, 0.37)])
def test_formula_and_sum_meet_where_one_takes_over_from_the_other(n, lost, gained):
    exact, formula = (mcnemar_power(size, lost=lost, gained=gained) for size in (n, n + 8))
    assert formula == pytest.approx(exact, abs=0.006)


def test_what_is_detectable_is_found_as_often_as_wanted_by_drawing():
    loss = detectable(150, 0.2, power=0.9)
    draw = np.random.default_rng(3)
    counts = draw.multinomial(150, [(0.2 + loss) / 2, (0.2 - loss) / 2, 0.8], 4000)
    seen = (binom.cdf(counts[:, 1], counts[:, 0] + counts[:, 1], 0.5) < 0.05).mean()
    assert seen == pytest.approx(0.9, abs=3 * (0.9 * 0.1 / 4000) ** 0.5 + 0.005)


@settings(max_examples=20, deadline=None)
@given(st.integers(10, 3000), st.floats(0.02, 0.6))
def test_twice_the_samples_never_show_less(n, changed):
    assert detectable(2 * n, changed) <= detectable(n, changed) + 0.002


@pytest.mark.parametrize(("loss", "changed"), [(0.1, 0.2), (0.05, 0.2), (0.01, 0.05), (0.3, 0.1)])
def test_as_many_as_are_needed_show_it(loss, changed):
    assert detectable(needed(loss, changed), changed) == pytest.approx(loss, abs=0.004)


def test_four_samples_cannot_show_anything():
    # Even if all are lost, chance does that once in 16 times.
    assert mcnemar_power(4, lost=1.0, gained=0.0) == 0.0
    assert detectable(4, 0.2) == 1.0
    assert mcnemar_power(5, lost=1.0, gained=0.0) == 1.0


@pytest.mark.parametrize(("n", "lost", "gained"), [(0, 0.1, 0.1), (10, -0.1, 0.1), (10, 0.8, 0.4)])
def test_what_is_no_probability_is_refused(n, lost, gained):
    with pytest.raises(ValueError, match="samples"):
        mcnemar_power(n, lost=lost, gained=gained)
