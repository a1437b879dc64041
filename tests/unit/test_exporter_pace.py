"""How often GPUs are read: fast while there may be work, slowly when there is none, and fast again at once."""

from __future__ import annotations

import pytest
from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.runner.exporter import assembly
from gpurig.runner.exporter.devices.figures import Figures, GpuProcess
from gpurig.runner.exporter.devices.inventory import Inventory
from gpurig.runner.exporter.jobs.model import BoxFacts, JobContainer, JobKey
from gpurig.runner.exporter.pace import IDLE_AFTER_S, Pace, WorkWatch
from gpurig.runner.exporter.readings import Readings
from gpurig.runner.exporter.sampler import Sampler
from standins.clocks import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def pace(clock):
    return Pace(1.0, 5.0, monotonic=clock.monotonic)


def test_it_begins_fast_and_slows_down_after_a_minute_without_work(pace, clock):
    assert pace.period_s == 1.0
    clock.now = IDLE_AFTER_S - 1
    pace.note(working=False)
    assert pace.period_s == 1.0
    clock.now = IDLE_AFTER_S
    assert pace.period_s == 5.0


def test_work_keeps_it_fast(pace, clock):
    for second in range(300):
        clock.now = second
        pace.note(working=second % 50 == 0)
        assert pace.period_s == 1.0


def test_work_after_a_rest_wakes_everybody_once_and_is_fast(pace, clock):
    woken: list[str] = []
    pace.on_work(lambda: woken.append("a"))
    pace.on_work(lambda: woken.append("b"))
    pace.note(working=True)
    assert woken == []
    clock.now = 1000
    pace.note(working=False)
    assert (pace.period_s, woken) == (5.0, [])
    pace.note(working=True)
    pace.note(working=True)
    assert (pace.period_s, woken) == (1.0, ["a", "b"])


def test_an_idle_period_below_the_busy_one_slows_nothing(clock):
    pace = Pace(10.0, 5.0, monotonic=clock.monotonic)
    clock.now = 1000
    assert pace.period_s == 10.0


def _with(*pids: int, busy: float | None = 0.0) -> dict[str, Figures]:
    return {"a": Figures(utilization_ratio=busy, processes=tuple(GpuProcess(pid) for pid in pids))}


@pytest.mark.parametrize(
    ("readings", "working"),
    [
        ([_with()], False),
        ([_with(busy=0.01)], True),
        ([_with(1), _with(1)], False),
        ([_with(1), _with(1, 2)], True),
        ([_with(1, 2), _with(1)], True),
        ([_with(1), _with(2)], True),
        ([{"a": Figures()}], True),
        ([{"a": Figures(utilization_ratio=0.0)}], False),
        ([_with(1), {"a": Figures(lost="gone")}], False),
        ([_with(1), {"a": Figures(lost="gone")}, _with(1)], False),
        ([{}], False),
    ],
)
def test_work_is_a_busy_gpu_or_processes_that_change_or_a_gpu_that_tells_nothing(readings, working):
    watch = WorkWatch()
    for one in readings[:-1]:
        watch.shows_work(one)
    assert watch.shows_work(readings[-1]) is working


def _periods(readings: Readings) -> dict[str, float | None]:
    return {one.name: one.period_s for one in readings.view().collectors}


def test_work_on_one_vendors_card_or_a_job_that_starts_wakes_the_readers_of_all(clock, pace):
    figures = {"nvidia": {"a": Figures(utilization_ratio=0.0)}, "amd": {"b": Figures(utilization_ratio=0.0)}}
    facts = BoxFacts(written_at=0)
    gpus = tuple(Gpu(kind, uuid, "", "", None) for kind, uuid in (("cuda", "a"), ("rocm", "b")))
    inventory = Sampler("detect", Inventory(lambda: HostFacts(gpus=gpus)).read, period_s=30, monotonic=clock.monotonic)
    readers = assembly._figures(
        inventory, {name: lambda _known, name=name: figures[name] for name in figures}, pace, lambda _line: None
    )
    box = Sampler("box", assembly._noting_jobs(lambda: facts, pace), period_s=1, monotonic=clock.monotonic)
    readings = Readings(inventory=inventory, figures=readers, box=box, monotonic=clock.monotonic)

    def sample(after_s: float) -> tuple[list[float | None], list[bool]]:
        clock.now += after_s
        for reader in readers:
            reader._wake.clear()
        for sampler in readings.samplers:
            sampler.sample()
        periods = _periods(readings)
        return [periods["nvidia"], periods["amd"]], [reader._wake.is_set() for reader in readers]

    assert sample(1) == ([1.0, 1.0], [False, False])
    assert sample(IDLE_AFTER_S) == ([5.0, 5.0], [False, False])
    figures["amd"] = {"b": Figures(utilization_ratio=0.5)}
    assert sample(5) == ([1.0, 1.0], [True, True])
    figures["amd"] = {"b": Figures(utilization_ratio=0.0)}
    assert sample(IDLE_AFTER_S) == ([5.0, 5.0], [False, False])
    facts = BoxFacts(
        written_at=0, containers=(JobContainer("c", JobKey("1", "1", "1", "r"), "build", started_at=clock.now),)
    )
    assert sample(1) == ([1.0, 1.0], [True, True])
    # While it runs nothing slows down, busy or not.
    assert sample(10 * IDLE_AFTER_S) == ([1.0, 1.0], [True, True])
    assert sample(1) == ([1.0, 1.0], [False, False])
