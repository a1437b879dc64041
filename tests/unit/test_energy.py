"""A GPU's energy: the total only grows, whatever its counter and its power do."""

from __future__ import annotations

import dataclasses
import math

import pytest
from gpurig.runner.exporter.devices.energy import Energy, EnergyStep, advance
from gpurig.runner.exporter.devices.figures import Figures
from hypothesis import given
from hypothesis import strategies as st


def run(*readings: tuple[float, Figures], energy: Energy | None = None, longest_gap_s: float = 30.0):
    """The state after readings at their times, and the steps."""
    state, steps = energy or Energy(), []
    for now, figures in readings:
        state, step = advance(state, figures, now, longest_gap_s=longest_gap_s)
        steps.append(step)
    return state, steps


def counter(joules: float | None, watts: float | None = None) -> Figures:
    return Figures(energy_joules=joules, power_watts=watts)


def power(watts: float | None, **more) -> Figures:
    return Figures(power_watts=watts, **more)


def test_with_a_counter_the_total_is_what_it_grew_by():
    state, steps = run((10, counter(1_000)), (11, counter(1_250)), (12, counter(1_600)))
    assert state.joules == 600
    assert steps == [EnergyStep(), EnergyStep(250, 1), EnergyStep(350, 1)]


def test_a_counter_that_fell_began_anew_with_the_driver():
    state, _ = run((10, counter(1_000)), (11, counter(1_250)), (21, counter(40)), (22, counter(50)))
    assert state.joules == 250 + 40 + 10


def test_without_a_counter_power_is_integrated_by_trapezoids():
    state, _ = run((0, power(100)), (1, power(200)), (3, power(200)))
    assert state.joules == pytest.approx(150 + 400)


def test_power_is_not_integrated_over_a_gap():
    state, steps = run((0, power(100)), (31, power(100)), (32, power(100)))
    assert state.joules == 100
    assert steps[1] == EnergyStep()


def test_a_counter_counts_over_a_gap_but_for_no_job():
    state, steps = run((0, counter(0)), (3_600, counter(900_000)))
    assert state.joules == 900_000
    assert steps[1] == EnergyStep(900_000, None)


def test_a_counter_that_is_silent_once_counts_nothing_twice():
    state, steps = run((0, counter(0, 100)), (1, counter(None, 100)), (2, counter(200, 100)))
    assert state.joules == 200
    assert steps[2] == EnergyStep(200, 2)


def test_a_counter_that_stays_silent_gives_way_to_the_power():
    readings = [(float(second), counter(None, 100)) for second in range(1, 61)]
    state, _ = run((0.0, counter(0, 100)), *readings)
    assert state.joules == pytest.approx(30 * 100)
    again, _ = run((61.0, counter(6_100, 100)), (62.0, counter(6_200, 100)), energy=state)
    assert again.joules == pytest.approx(30 * 100 + 100)


def test_a_card_that_slept_and_told_nothing_has_counted_meanwhile():
    asleep = [(float(second), Figures(utilization_ratio=0.0)) for second in range(1, 300)]
    state, steps = run((0.0, counter(1_000, 90)), *asleep, (300.0, counter(1_450, 90)), (301.0, counter(1_540, 90)))
    assert state.joules == 540
    assert steps[-2:] == [EnergyStep(450, None), EnergyStep(90, 1)]


def test_after_a_restart_of_the_exporter_the_counter_goes_on():
    before, _ = run((100, counter(5_000)), (101, counter(5_300)))
    restored = Energy(joules=before.joules, told=True, counter_joules=before.counter_joules)
    after, steps = run((7, counter(6_000)), (8, counter(6_100)), energy=restored)
    assert after.joules == 300 + 700 + 100
    assert steps[0] == EnergyStep(700, None), "nobody saw who took it"


def test_an_impossible_jump_of_the_counter_is_no_energy():
    state, _ = run((0, counter(1_000)), (1, counter(2.0**63)), (2, counter(1_200)), (3, counter(1_300)))
    assert state.joules <= 1_300


def test_nothing_told_is_no_total():
    state, _ = run((0, Figures()), (1, Figures(lost="fell off the bus")))
    assert not state.told


def test_idle_power_is_the_lowest_minute_of_idling():
    idle = [(float(second), power(22 if second < 200 else 30, utilization_ratio=0.0)) for second in range(400)]
    state, _ = run(*idle)
    assert state.idle_power_watts(450) == pytest.approx(22)


def test_a_moment_of_no_power_is_not_the_idle_power():
    readings = [(float(second), power(0 if second == 50 else 60, utilization_ratio=0.0)) for second in range(200)]
    state, _ = run(*readings)
    assert state.idle_power_watts(450) == pytest.approx(60, abs=1.1)


def test_a_busy_card_teaches_nothing_of_its_idle_power():
    state, _ = run(*[(float(second), power(300, utilization_ratio=0.4)) for second in range(200)])
    assert state.idle_watts is None
    assert state.idle_power_watts(450) == 45
    assert state.idle_power_watts(None) == 0


def test_a_card_that_tells_no_utilization_idles_while_no_process_uses_it():
    state, _ = run(*[(float(second), power(50, processes=())) for second in range(100)])
    assert state.idle_power_watts(400) == pytest.approx(50)


maybe = st.one_of(st.none(), st.floats(), st.floats(-10, 1e9))
readings = st.lists(st.tuples(st.floats(0, 100), maybe, maybe, st.one_of(st.none(), st.floats(0, 1))), max_size=30)


@given(readings)
def test_whatever_a_driver_tells_the_total_never_falls_and_stays_a_number(steps):
    state, now = Energy(), 0.0
    for wait, joules, watts, busy in steps:
        now += wait
        figures = Figures(energy_joules=joules, power_watts=watts, utilization_ratio=busy)
        after, step = advance(state, figures, now, longest_gap_s=30.0)
        assert after.joules >= state.joules
        assert math.isfinite(after.joules)
        assert step.joules is None or step.joules >= 0
        assert step.seconds is None or 0 <= step.seconds <= 30
        assert after.idle_power_watts(None) >= 0
        state = after


@given(st.lists(st.floats(0, 500), min_size=2, max_size=20), st.integers(1, 18))
def test_a_restart_in_between_loses_nothing_of_a_counter(grown, cut):
    values = [sum(grown[: index + 1]) for index in range(len(grown))]
    whole, _ = run(*[(float(at), counter(value)) for at, value in enumerate(values)])
    cut = min(cut, len(values) - 1)
    first, _ = run(*[(float(at), counter(value)) for at, value in enumerate(values[:cut])])
    second, _ = run(
        *[(float(at), counter(value)) for at, value in enumerate(values[cut:])],
        energy=dataclasses.replace(first, counter_at=None, watts=None, watts_at=None),
    )
    assert second.joules == pytest.approx(whole.joules)
