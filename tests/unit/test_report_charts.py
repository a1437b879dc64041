from __future__ import annotations

import pytest
from gpurig.evaljobs.report import charts
from gpurig.evaljobs.results import SampleGrade
from hypothesis import given
from hypothesis import strategies as st
from standins.evalrun import failed_sample, results, sample


def graded(scores):
    return results(
        tuple(sample(f"s{n}", grade=SampleGrade(verdict="good", score=score)) for n, score in enumerate(scores))
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_every_grade_is_counted_once_and_the_highest_column_is_full(scores):
    chart = charts.grade_histogram(graded(scores))
    assert sum(column.count for column in chart.bins) == len(scores)
    assert max(column.height for column in chart.bins) == 1.0
    assert chart.highest == max(column.count for column in chart.bins)


def test_a_perfect_grade_falls_into_the_last_column_and_zero_into_the_first():
    chart = charts.grade_histogram(graded([0.0, 1.0]))
    assert [column.count for column in chart.bins] == [1, *[0] * 8, 1]
    assert chart.mark == 0.5


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60))
def test_every_time_lies_on_the_axis(times):
    chart = charts.seconds_histogram(results(tuple(sample(f"s{n}", seconds=t) for n, t in enumerate(times))))
    assert sum(column.count for column in chart.bins) == len(times)
    assert max(times) <= float(chart.ticks[-1]) * (1 + 1e-9)


def test_nothing_to_show_gives_no_chart():
    nothing = results((failed_sample("s", finish="error", grade=None, seconds=0.0),))
    assert charts.grade_histogram(nothing) is None
    assert charts.seconds_histogram(nothing) is None
    assert charts.tag_bars(nothing) == ()


def test_shares_stand_at_their_values_with_their_intervals():
    (first, *_), tags = charts.rate_bars(results()), charts.tag_bars(results())
    assert (first.value, first.low, first.high, first.text) == (0.6, 0.2307, 0.8824, "60.0 %")
    assert [(bar.label, bar.value) for bar in tags] == [("generate", 1.0), ("python", 1.0), ("translate", 0.0)]
    assert all(0 <= bar.low <= bar.value <= bar.high <= 1 for bar in tags)


@pytest.mark.parametrize(("longest", "axis"), [(0.7, "0.8"), (0.8, "0.8"), (0.81, "1"), (19.9, "20"), (100.0, "100")])
def test_the_axis_ends_at_a_round_number(longest, axis):
    assert charts.seconds_histogram(results((sample("s", seconds=longest),))).ticks[-1] == axis
