"""Whose a GPU's work is: the rules of docs/metrics.md, and what holds whatever a driver tells."""

from __future__ import annotations

import math
import random

import pytest
from gpurig.runner.exporter.devices.energy import EnergyStep
from gpurig.runner.exporter.devices.figures import Figures, GpuProcess
from gpurig.runner.exporter.jobs.attribution import Share, shares
from hypothesis import given
from hypothesis import strategies as st
from standins.accounting import GIB, gpu

ONE_SECOND = EnergyStep(joules=300.0, seconds=1.0)
IDLE = 20.0


def attribute(figures: Figures, owners: dict[int, str | None], *, seconds=1.0, energy=ONE_SECOND, idle_watts=IDLE):
    return shares(figures, owners, seconds=seconds, energy=energy, idle_watts=idle_watts)


def test_alone_on_the_gpu_it_gets_the_gpus_own_utilization_and_all_but_the_idle_rest():
    found = attribute(gpu((1, 5), busy=0.75), {1: "a"})
    assert found == {"a": Share(5 * GIB, 0.75, pytest.approx(300 - 0.25 * IDLE))}


def test_several_share_by_the_use_that_the_driver_tells_of_each():
    found = attribute(gpu((1, 20, 0.2), (2, 1, 0.6), busy=0.9), {1: "a", 2: "b"})
    assert (found["a"].busy_s, found["b"].busy_s) == (0.2, 0.6)
    active = 300 - 0.1 * IDLE
    assert found["a"].joules == pytest.approx(active / 4)
    assert found["b"].joules == pytest.approx(active * 3 / 4)


def test_several_share_by_memory_where_the_driver_tells_of_none():
    found = attribute(gpu((1, 1), (2, 3), busy=0.8), {1: "a", 2: "b"})
    assert (found["a"].busy_s, found["b"].busy_s) == (pytest.approx(0.2), pytest.approx(0.6))


def test_a_process_of_which_the_driver_tells_no_use_beside_others_did_nothing():
    found = attribute(gpu((1, 20), (2, 1, 0.6), busy=0.6), {1: "a", 2: "b"})
    assert (found["a"].busy_s, found["b"].busy_s) == (0, 0.6)


def test_processes_together_are_not_busier_than_the_gpu():
    found = attribute(gpu((1, 1, 0.9), (2, 1, 0.9), busy=0.6), {1: "a", 2: "b"})
    assert found["a"].busy_s == found["b"].busy_s == pytest.approx(0.3)


def test_what_is_in_no_container_keeps_its_share():
    found = attribute(gpu((1, 3), (2, 1), busy=1.0), {1: "a", 2: None})
    assert list(found) == ["a"]
    assert found["a"].busy_s == pytest.approx(0.75)
    assert found["a"].joules == pytest.approx(225)


def test_the_processes_of_a_container_are_added():
    found = attribute(gpu((1, 3), (2, 1), busy=1.0), {1: "a", 2: "a"})
    assert found == {"a": Share(4 * GIB, pytest.approx(1.0), pytest.approx(300))}


def test_a_process_that_holds_memory_and_does_nothing_takes_no_energy():
    found = attribute(gpu((1, 3), busy=0.0), {1: "a"}, energy=EnergyStep(60.0, 1.0))
    assert found["a"] == Share(3 * GIB, 0, 0)


def test_without_any_utilization_as_under_mig_time_is_unknown_and_what_exceeds_idling_goes_by_memory():
    found = attribute(gpu((1, 1), (2, 3), busy=None), {1: "a", 2: "b"})
    assert found["a"] == Share(GIB, None, pytest.approx((300 - IDLE) / 4))
    assert found["b"] == Share(3 * GIB, None, pytest.approx((300 - IDLE) * 3 / 4))


def test_processes_that_tell_of_no_memory_share_alike():
    processes = (GpuProcess(1), GpuProcess(2))
    found = attribute(Figures(processes=processes, utilization_ratio=0.8), {1: "a", 2: "b"})
    assert found["a"].busy_s == found["b"].busy_s == pytest.approx(0.4)
    assert found["a"].memory_bytes is None


def test_what_nobody_saw_is_nobodys():
    found = attribute(gpu((1, 5)), {1: "a"}, seconds=None, energy=EnergyStep(900_000, None))
    assert found == {"a": Share(5 * GIB, None, None)}


def test_less_energy_than_idling_would_take_is_nobodys():
    found = attribute(gpu((1, 5), busy=0.1), {1: "a"}, energy=EnergyStep(10.0, 1.0))
    assert found["a"].joules == 0


ratios = st.one_of(st.none(), st.floats(0, 1), st.floats())
processes = st.lists(
    st.builds(GpuProcess, st.integers(1, 12), st.one_of(st.none(), st.integers(-1, 2**40)), ratios), max_size=12
)
owners = st.dictionaries(st.integers(1, 12), st.one_of(st.none(), st.sampled_from("abcd")))
energies = st.builds(
    EnergyStep, st.one_of(st.none(), st.floats(0, 1e6)), st.one_of(st.none(), st.floats(0, 30, allow_nan=False))
)
cases = st.tuples(processes, owners, ratios, st.one_of(st.none(), st.floats(0, 30)), energies, st.floats(0, 100))


@given(cases)
def test_no_energy_or_busy_time_appears_from_nothing(case):
    listed, owned, busy, seconds, energy, idle_watts = case
    found = attribute(
        Figures(processes=tuple(listed), utilization_ratio=busy),
        owned,
        seconds=seconds,
        energy=energy,
        idle_watts=idle_watts,
    )
    assert sum(one.joules or 0 for one in found.values()) <= (energy.joules or 0) * (1 + 1e-9)
    used = 1.0 if busy is None or math.isnan(busy) else min(1.0, max(0.0, busy))
    assert sum(one.busy_s or 0 for one in found.values()) <= used * (seconds or 0) * (1 + 1e-9)
    for one in found.values():
        assert all(value is None or value >= 0 for value in (one.memory_bytes, one.busy_s, one.joules))


@given(cases)
def test_where_every_process_is_a_containers_nothing_gets_lost(case):
    listed, _, busy, seconds, energy, _ = case
    listed = [GpuProcess(one.pid, one.memory_bytes) for one in listed]
    if not listed or busy is None or not 0 < busy <= 1 or seconds is None:
        return
    found = attribute(
        Figures(processes=tuple(listed), utilization_ratio=busy),
        {one.pid: "abc"[one.pid % 3] for one in listed},
        seconds=seconds,
        energy=energy,
        idle_watts=0.0,
    )
    assert sum(one.busy_s or 0 for one in found.values()) == pytest.approx(busy * seconds)
    if energy.joules is not None and energy.seconds is not None:
        assert sum(one.joules or 0 for one in found.values()) == pytest.approx(energy.joules)


@given(cases, st.randoms())
def test_the_order_in_which_a_driver_lists_processes_does_not_matter(case, rng: random.Random):
    listed, owned, busy, seconds, energy, idle_watts = case

    def share(order):
        return attribute(
            Figures(processes=tuple(order), utilization_ratio=busy),
            owned,
            seconds=seconds,
            energy=energy,
            idle_watts=idle_watts,
        )

    other = list(listed)
    rng.shuffle(other)
    one, two = share(listed), share(other)
    assert one.keys() == two.keys()
    for name, mine in one.items():
        assert mine.memory_bytes == two[name].memory_bytes
        assert mine.busy_s == pytest.approx(two[name].busy_s)
        assert mine.joules == pytest.approx(two[name].joules)
