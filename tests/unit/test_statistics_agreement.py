from __future__ import annotations

import pytest
from gpurig.evaljobs.statistics.agreement import cohen_kappa, krippendorff_alpha
from gpurig.evaljobs.statistics.calibration import expected_calibration_error, rate, truth_rates
from hypothesis import given
from hypothesis import strategies as st

verdicts = st.sampled_from(["good", "fair", "bad"])
pairs = st.lists(st.tuples(verdicts, verdicts), max_size=60)
ratings = st.lists(st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=2, max_size=4), max_size=30)


def _pairs(table):
    return [(row, column) for row, line in enumerate(table) for column, count in enumerate(line) for _ in range(count)]


@pytest.mark.parametrize(
    ("table", "value", "low", "high"),
    [
        # statsmodels 0.15, inter_rater.cohens_kappa; the first is Wikipedia's example, the last Fleiss's.
        ([[20, 5], [10, 15]], 0.4, 0.151092290476661, 0.6489077095233389),
        ([[25, 10, 2], [4, 30, 6], [1, 3, 19]], 0.6029928233318063, 0.4711752510407199, 0.7348103956228926),
        ([[88, 10, 2], [14, 40, 6], [18, 10, 12]], 0.49152542372881347, 0.3915637020535469, 0.59148714540408),
    ],
)
def test_kappa_is_statsmodels_kappa_with_its_interval(table, value, low, high):
    kappa = cohen_kappa(_pairs(table))
    assert (kappa.value, kappa.low, kappa.high) == pytest.approx((value, low, high), abs=1e-12)


def test_few_pairs_that_all_agree_prove_little():
    few, many = cohen_kappa([(1, 1), (0, 0)] * 3), cohen_kappa([(1, 1), (0, 0)] * 300)
    assert few.value == many.value == 1
    assert few.low < 0.3
    assert 0.98 < many.low < 1


@pytest.mark.parametrize("undefined", [[], [("good", "good")] * 9])
def test_kappa_of_one_verdict_alone_is_not_made_up(undefined):
    assert cohen_kappa(undefined) is None


@given(pairs)
def test_kappa_does_not_care_who_is_first_and_stays_in_its_range(drawn):
    kappa, turned = cohen_kappa(drawn), cohen_kappa([(other, one) for one, other in drawn])
    if kappa is None:
        assert turned is None
        return
    assert -1 <= kappa.low <= kappa.value <= kappa.high <= 1
    assert (turned.value, turned.low, turned.high) == pytest.approx((kappa.value, kappa.low, kappa.high), abs=1e-12)


# Three observers, 15 units, missing values: Wikipedia's worked example of alpha.
_OBSERVERS = (
    (None, None, None, None, None, 3, 4, 1, 2, 1, 1, 3, 3, None, 3),
    (1, None, 2, 1, 3, 3, 4, 3, None, None, None, None, None, None, None),
    (None, None, 2, 1, 3, 4, 4, None, 2, 1, 1, 3, 3, None, 4),
)


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.691358024691358), ("interval", 0.8108448928121059)])
def test_alpha_is_the_worked_examples(level, alpha):
    # The same values to 15 digits from the package krippendorff 0.9.
    assert krippendorff_alpha(list(zip(*_OBSERVERS, strict=True)), level=level) == pytest.approx(alpha, abs=1e-12)


@pytest.mark.parametrize("undefined", [[], [(1, None), (None, 2)], [(1, 1), (1, 1)], [(0.1, 0.1, 0.1)] * 3])
def test_alpha_without_anything_to_compare_is_not_made_up(undefined):
    assert krippendorff_alpha(undefined) is None


@given(ratings, st.sampled_from(["nominal", "interval"]))
def test_alpha_does_not_care_about_order_and_is_one_where_all_agree(units, level):
    alpha = krippendorff_alpha(units, level=level)
    turned = krippendorff_alpha([unit[::-1] for unit in reversed(units)], level=level)
    assert alpha is turned is None or turned == pytest.approx(alpha, abs=1e-9)
    if alpha is not None:
        agreed = [[unit[0], unit[0]] for unit in units if unit[0] is not None]
        assert krippendorff_alpha(agreed, level=level) in {None, 1.0}
        assert alpha <= 1


def test_rates_of_a_judge_that_calls_everything_good():
    told = truth_rates([(True, True)] * 30 + [(False, True)] * 10)
    assert told.true_positive == rate(30, 30)
    assert (told.true_negative.value, told.true_negative.low, told.true_negative.n) == (0.0, 0.0, 10)
    assert told.true_negative.high == pytest.approx(0.2775, abs=1e-4)


def test_a_rate_of_nothing_is_unknown():
    assert rate(0, 0).value is None
    assert (rate(0, 0).low, rate(0, 0).high) == (0.0, 1.0)


def test_calibration_error_by_hand():
    # Bins (0.1, 0.2], (0.6, 0.7], (0.9, 1.0]: off by 0.2 - 0.5, 0.65 - 1 and 1 - 1.
    drawn = [(0.2, True), (0.2, False), (0.6, True), (0.7, True), (1.0, True)]
    assert expected_calibration_error(drawn, bins=10) == pytest.approx((2 * 0.3 + 0.4 + 0.3 + 0) / 5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80), st.integers(1, 20))
def test_calibration_error_is_a_share_and_at_least_the_error_of_the_mean(drawn, bins):
    error = expected_calibration_error(drawn, bins=bins)
    overall = abs(sum(p for p, _ in drawn) - sum(hit for _, hit in drawn)) / len(drawn)
    assert overall - 1e-9 <= error <= 1 + 1e-9
    assert expected_calibration_error([(float(hit), hit) for _, hit in drawn], bins=bins) == 0


def test_calibration_error_knows_its_limits():
    assert expected_calibration_error([]) is None
    with pytest.raises(ValueError, match="probability"):
        expected_calibration_error([(1.5, True)])
    with pytest.raises(ValueError, match="probability"):
        expected_calibration_error([(float("nan"), True)])
