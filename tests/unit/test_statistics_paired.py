"""Paired statistics: against published examples, SciPy, and what must hold for any data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gpurig.evaljobs.statistics.paired import (
    detectable_loss,
    difference,
    holm,
    mcnemar,
    newcombe_interval,
    samples_for,
    sign_flips,
)
from hypothesis import given
from hypothesis import strategies as st

scipy = pytest.importorskip("scipy.stats", reason="SciPy is not installed")

bits = st.integers(0, 1).map(float)
binary = st.lists(st.tuples(bits, bits), min_size=1, max_size=60)
scores = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40)


def table(both: int, gained: int, lost: int, neither: int) -> list[tuple[float, float]]:
    return [*[(1.0, 1.0)] * both, *[(0.0, 1.0)] * gained, *[(1.0, 0.0)] * lost, *[(0.0, 0.0)] * neither]


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test_of_those_that_changed(gained: int, lost: int) -> None:
    p, p_worse = mcnemar(gained, lost)
    if gained + lost == 0:
        assert (p, p_worse) == (1.0, 1.0)
        return
    assert p == pytest.approx(scipy.binomtest(gained, gained + lost).pvalue)
    assert p_worse == pytest.approx(scipy.binomtest(gained, gained + lost, alternative="less").pvalue)


@given(st.lists(st.floats(-1, 1).filter(lambda step: abs(step) > 1e-6), min_size=1, max_size=9))
def test_few_differences_have_the_exact_probability_of_all_sign_patterns(steps: list[float]) -> None:
    expected = (
        [
            scipy.permutation_test(
                (steps,), np.sum, permutation_type="samples", vectorized=False, n_resamples=np.inf, alternative=kind
            ).pvalue
            for kind in ("two-sided", "less")
        ]
        if len(steps) > 1
        else None
    )
    p, p_worse = sign_flips(steps)
    if expected is not None:
        assert p_worse == pytest.approx(expected[1])
        # SciPy doubles the smaller tail, which is the same for a symmetric distribution.
        assert p == pytest.approx(expected[0], abs=1e-9)


def test_many_differences_have_nearly_the_exact_probability() -> None:
    random = np.random.default_rng(1)
    steps = random.normal(-0.05, 0.2, 60).tolist()
    p, p_worse = sign_flips(steps)
    exact = scipy.wilcoxon(steps).pvalue
    assert p == pytest.approx(2 * p_worse, abs=0.02)
    assert 0.2 < p / exact < 5
    assert sign_flips(steps) == (p, p_worse), "the same in every run"


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [
        # Newcombe 1998, table II, method 10: both, gained, lost, neither.
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((36, 14, 0, 0), 0.1528, 0.4167),
    ],
)
def test_newcombes_interval_has_the_published_ends(cells: tuple[int, int, int, int], low: float, high: float) -> None:
    both, gained, lost, neither = cells
    assert newcombe_interval(table(both, gained, lost, neither)) == pytest.approx((low, high), abs=2e-4)


@given(binary)
def test_an_interval_holds_the_difference_and_stays_within_bounds(pairs: list[tuple[float, float]]) -> None:
    found = difference(pairs)
    assert -1 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1
    assert found.low < found.high
    assert 0 < found.p <= 1
    turned = difference([(after, before) for before, after in pairs])
    assert turned.value == pytest.approx(-found.value)
    assert turned.p == pytest.approx(found.p)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


@given(scores)
def test_scores_are_compared_alike_in_both_directions(pairs: list[tuple[float, float]]) -> None:
    found, turned = difference(pairs), difference([(after, before) for before, after in pairs])
    assert turned.value == pytest.approx(-found.value, abs=1e-12)
    assert turned.p == pytest.approx(found.p, abs=0.02)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    assert 0 < found.p_worse <= 1


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_never_below_the_raw_probability_and_keeps_the_order(raw: list[float]) -> None:
    adjusted = holm(raw)
    assert all(one >= other for one, other in zip(adjusted, raw, strict=True))
    assert [one for _, one in sorted(zip(raw, adjusted, strict=True))] == sorted(adjusted)
    assert all(one <= min(1.0, len(raw) * other) + 1e-12 for one, other in zip(adjusted, raw, strict=True))


def test_holms_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


@pytest.mark.parametrize("discordant", [0.1, 0.3])
def test_a_loss_of_the_detectable_size_is_found_with_the_power_that_is_claimed(discordant: float) -> None:
    """Drawn, not computed."""
    random, n, found = np.random.default_rng(5), 200, []
    for _ in range(40):
        changed = random.random(n) < discordant
        pairs = [(float(one), float(not one)) if one else (0.0, 1.0) for one in random.random(n) < 0.5]
        pairs = [pair if moved else (1.0, 1.0) for pair, moved in zip(pairs, changed, strict=True)]
        found.append(detectable_loss(pairs))
    loss = float(np.median(found))
    lost, gained = (discordant + loss) / 2, (discordant - loss) / 2
    if gained < 0:
        pytest.skip("no such loss with so few changes")
    seen = 0
    for _ in range(2000):
        kinds = random.random(n)
        losses, gains = int((kinds < lost).sum()), int(((kinds >= lost) & (kinds < lost + gained)).sum())
        seen += mcnemar(gains, losses)[1] < 0.05
    # The loss is known to a tenth of a point, and is a median of what 400 runs say.
    assert 0.77 < seen / 2000 < 0.84


def test_four_times_the_samples_show_half_the_loss() -> None:
    scores = [(0.5, 0.25), (0.25, 0.75), (1.0, 1.0), (0.0, 0.25)] * 10
    assert detectable_loss(scores * 4) == pytest.approx(detectable_loss(scores) / 2, rel=0.03)
    assert samples_for(detectable_loss(scores), scores) == len(scores)
    # Yes and no: an exact test gains a little more than that from being larger.
    pairs = table(30, 5, 5, 10)
    assert 0.40 < detectable_loss(pairs * 4) / detectable_loss(pairs) < 0.51
    assert samples_for(detectable_loss(pairs), pairs) == pytest.approx(len(pairs), rel=0.1)


def test_nothing_changed_does_not_mean_that_nothing_can() -> None:
    assert 0.2 < detectable_loss(table(10, 0, 0, 0)) < 1
    assert difference(table(10, 0, 0, 0)).p == 1.0


@pytest.mark.parametrize("pairs", [[], [(math.nan, 0.0)], [(0.0, math.inf)]])
def test_what_is_no_data_is_refused(pairs: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="pairs"):
        difference(pairs)
