"""The demo: possible, the same for the same time, and with every metric there is."""

from __future__ import annotations

import itertools

from gpurig.runner.exporter.assembly import ExporterOptions, make_readings
from gpurig.runner.exporter.demo_schedule import CYCLE_S, IDLE_WATTS, ORIGIN, DemoJob, job_at
from gpurig.runner.exporter.devices.demo import DEMO_FACTS, DemoSource
from gpurig.runner.exporter.exposition.catalogue import METRICS
from gpurig.runner.exporter.exposition.dcgm_metrics import DCGM_METRICS
from gpurig.runner.exporter.jobs.demo import demo_accounts, demo_box, demo_xids
from hypothesis import given
from hypothesis import strategies as st

GPUS = DEMO_FACTS.gpus
START = ORIGIN + 86400 * 40 + 17
KEEP_S = 300.0
DAY = range(int(START), int(START) + 86400, 47)


def _figures(at: float):
    return DemoSource(lambda: at).read(GPUS)


def _accounts(at: float):
    return demo_accounts(at, GPUS, KEEP_S)


def test_the_same_time_shows_the_same_and_another_something_else():
    def everything(at):
        return _figures(at), _accounts(at), demo_box(at, GPUS, KEEP_S), demo_xids(at, GPUS)

    assert everything(START) == everything(START)
    assert everything(START) != everything(START + 60)


@given(st.floats(min_value=0, max_value=4e9))
def test_its_figures_are_possible_at_any_time(at):
    for gpu in GPUS:
        one = _figures(at)[gpu.uuid]
        assert 0 <= one.utilization_ratio <= 1
        assert 0 < one.memory_used_bytes + (one.memory_reserved_bytes or 0) <= gpu.memory_bytes * 1.02
        assert 20 <= one.temperature_celsius <= 90
        assert 10 <= one.power_watts <= one.power_limit_watts
        assert sum(one.throttle_reasons.values()) <= 1


def test_counters_never_fall_and_jobs_never_have_more_than_their_gpus():
    for at, later in itertools.pairwise(DAY):
        before, after = _accounts(at), _accounts(later)
        for old, new in zip(before.projects, after.projects, strict=True):
            assert new.project_id == old.project_id
            assert new.jobs >= old.jobs
            assert new.gpu_seconds >= old.gpu_seconds
            assert new.energy_joules >= old.energy_joules
            assert all(new.oom[kind] >= old.oom[kind] for kind in old.oom)
        grown = {uuid: joules - before.energy_joules[uuid] for uuid, joules in after.energy_joules.items()}
        assert all(joules >= IDLE_WATTS * (later - at) * 0.999 for joules in grown.values())
        of_projects = sum(one.energy_joules for one in after.projects) - sum(
            one.energy_joules for one in before.projects
        )
        assert of_projects <= sum(grown.values())
        jobs_before = {one.key: one for one in before.jobs}
        for job in after.jobs:
            old_job = jobs_before.get(job.key)
            if old_job is not None:
                assert job.uses[0].gpu_seconds >= old_job.uses[0].gpu_seconds
                assert job.uses[0].memory_peak_bytes >= old_job.uses[0].memory_peak_bytes


def test_project_sums_are_those_of_the_jobs_one_by_one():
    at = ORIGIN + 100 * CYCLE_S + 50
    by_hand: dict[str, int] = {}
    for gpu in range(len(GPUS)):
        for cycle in range(job_at(gpu, ORIGIN).cycle, job_at(gpu, at).cycle + 1):
            job = DemoJob(gpu, cycle, at)
            by_hand[job.key.project_id] = by_hand.get(job.key.project_id, 0) + job.gpu_milliseconds
    assert {one.project_id: one.gpu_seconds * 1000 for one in _accounts(at).projects} == by_hand


def test_within_two_hours_jobs_die_of_both_memories_and_others_do_not_die():
    seen = set()
    for at in range(int(START), int(START) + 7200, 60):
        for job in _accounts(at).jobs:
            if job.ended_at is not None:
                seen.add((job.exit_code, *job.oom))
        for container in demo_box(at, GPUS, KEEP_S).containers:
            assert (container.oom_detail != "") == (container.oom == "gpu")
    assert seen == {(0,), (1, "gpu"), (137, "host")}


def test_an_ended_job_is_kept_as_long_as_asked():
    for at in DAY:
        for keep_s in (0.0, 300.0, 3600.0):
            ended = [one.ended_at for one in demo_accounts(at, GPUS, keep_s).jobs if one.ended_at is not None]
            assert all(at - end < keep_s for end in ended)
        assert len(_accounts(at).jobs) <= 2 * 3


# What the demo lacks, and why.
NOT_IN_THE_DEMO = {
    "gpurig_gpu_down_info": "both of its GPUs are up",
    "gpurig_detection_problems": "its detection meets none",
}


def test_every_metric_of_the_catalogue_has_series_in_the_demo():
    readings = make_readings(ExporterOptions(backend="demo"), say=lambda _line: None)
    for sampler in readings.samplers:
        sampler.sample()
    view = readings.view()
    empty = {one.name for one in METRICS if not [value for _, value in one.rows(view) if value is not None]}
    assert empty == set(NOT_IN_THE_DEMO)
    assert [one.name for one in DCGM_METRICS if not [v for _, v in one.rows(view) if v is not None]] == [
        "DCGM_FI_DEV_RETIRED_SBE",
        "DCGM_FI_DEV_RETIRED_DBE",
    ]


def test_every_series_has_its_metrics_labels_and_no_two_are_the_same():
    readings = make_readings(ExporterOptions(backend="demo"), say=lambda _line: None)
    for sampler in readings.samplers:
        sampler.sample()
    view = readings.view()
    for one in (*METRICS, *DCGM_METRICS):
        labels = [values for values, _ in one.rows(view)]
        assert all(len(values) == len(one.labels) for values in labels), one.name
        assert len(set(labels)) == len(labels), one.name
