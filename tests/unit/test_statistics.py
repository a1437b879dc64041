from __future__ import annotations

import pytest
from gpurig.evaljobs.statistics.intervals import wilson_interval
from hypothesis import given
from hypothesis import strategies as st

counts = st.integers(0, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals_are_reproduced(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(counts)
def test_interval_lies_in_0_to_1_and_holds_the_proportion(count):
    successes, n = count
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= successes / n <= high


@given(counts)
def test_successes_and_failures_mirror_each_other(count):
    successes, n = count
    low, high = wilson_interval(successes, n)
    mirrored_low, mirrored_high = wilson_interval(n - successes, n)
    assert (low, high) == pytest.approx((1 - mirrored_high, 1 - mirrored_low), abs=1e-12)


@given(counts, st.integers(2, 10))
def test_more_samples_of_the_same_proportion_narrow_it(count, times):
    successes, n = count
    low, high = wilson_interval(successes, n)
    narrow_low, narrow_high = wilson_interval(successes * times, n * times)
    assert narrow_high - narrow_low <= high - low + 1e-12


@given(counts)
def test_more_confidence_widens_it(count):
    low, high = wilson_interval(*count, confidence=0.8)
    wide_low, wide_high = wilson_interval(*count, confidence=0.99)
    assert wide_low <= low + 1e-12
    assert wide_high >= high - 1e-12


def test_no_trial_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (0, -1)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match="successes of"):
        wilson_interval(successes, n)


@pytest.mark.parametrize("confidence", [0, 1, -1, 2])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        wilson_interval(1, 3, confidence=confidence)
