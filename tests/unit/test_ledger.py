"""The ledger of jobs and projects: what counts to whom, what ends when, and that nothing grows without a bound."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from gpurig.runner.exporter.jobs.ledger import OTHER, Limits
from gpurig.runner.exporter.jobs.model import BoxFacts, JobKey
from hypothesis import given, settings
from hypothesis import strategies as st
from standins.accounting import BOOT, EPOCH, GIB, Box, container_id, gpu, key

JOB, SECOND = key(7), key(8, project=2)


@pytest.fixture
def box():
    return Box()


def use(box: Box, job: JobKey, uuid: str = "gpu-a"):
    return {one.uuid: one for one in box.job(job).uses}[uuid]


def test_a_job_gets_the_time_the_energy_and_the_peak_of_its_processes(box):
    box.pids[100] = box.start(1, JOB)
    box.run(1, {"gpu-a": gpu()})
    box.run(10, {"gpu-a": gpu((100, 8), busy=0.5)})
    box.run(10, {"gpu-a": gpu((100, 5), busy=1.0)})
    mine = use(box, JOB)
    assert (mine.memory_bytes, mine.memory_peak_bytes) == (5 * GIB, 8 * GIB)
    assert mine.gpu_seconds == pytest.approx(15)
    # Half of the time idle: a tenth of the limit of 400 W, half of it.
    assert mine.energy_joules == pytest.approx(10 * (300 - 20) + 10 * 300)
    assert box.job(JOB).started_at == EPOCH


def test_what_no_card_tells_is_unknown_and_not_0(box):
    """Under MIG a part tells who holds how much memory, and nothing else."""
    box.pids[100] = box.start(1, JOB)
    box.run(5, {"gpu-a": gpu((100, 8), busy=None, watts=None)})
    mine = use(box, JOB)
    assert (mine.memory_bytes, mine.gpu_seconds, mine.energy_joules) == (8 * GIB, None, None)
    (project,) = box.accounting.snapshot.projects
    assert (project.jobs, project.gpu_seconds, project.energy_joules) == (1, None, None)
    assert box.accounting.snapshot.energy_joules == {}


def test_the_services_of_a_job_count_to_the_job(box):
    box.pids[100], box.pids[200] = box.start(1, JOB), box.start(2, JOB, kind="service")
    box.run(1, {"gpu-a": gpu()})
    box.run(10, {"gpu-a": gpu((100, 2), (200, 6))})
    assert use(box, JOB).gpu_seconds == pytest.approx(10)
    assert use(box, JOB).memory_peak_bytes == 8 * GIB


def test_two_jobs_share_a_gpu_and_a_third_process_is_nobodys(box):
    box.pids[100], box.pids[200] = box.start(1, JOB), box.start(2, SECOND)
    box.run(1, {"gpu-a": gpu()})
    box.run(10, {"gpu-a": gpu((100, 1), (200, 2), (3422, 1))})
    assert use(box, JOB).gpu_seconds == pytest.approx(2.5)
    assert use(box, SECOND).gpu_seconds == pytest.approx(5)
    assert {one.project_id: one.gpu_seconds for one in box.accounting.snapshot.projects} == pytest.approx(
        {"1": 2.5, "2": 5}
    )


def test_one_process_on_two_gpus_counts_on_each_as_recorded_of_an_rtx_5080_and_a_4090(box):
    """rtx-5080-and-4090-r580: Xorg (pid 3422) holds 4 MiB of both; python 1318 MiB of one, 686 of the other."""
    mib = 1 / 1024
    box.pids[3674006] = box.pids[1159424] = box.start(1, JOB)
    box.run(1, {"gpu-a": gpu(), "gpu-b": gpu()})
    box.run(
        10,
        {
            "gpu-a": gpu((3422, 4 * mib), (3674006, 1318 * mib), busy=0.13, watts=55),
            "gpu-b": gpu((3422, 4 * mib), (1159424, 686 * mib), (3674006, 10 * mib), busy=0.18, watts=76),
        },
    )
    assert use(box, JOB, "gpu-a").memory_bytes == 1318 * 1024**2
    assert use(box, JOB, "gpu-b").memory_bytes == 696 * 1024**2
    assert use(box, JOB, "gpu-a").gpu_seconds == pytest.approx(1.3 * 1318 / 1322)
    assert use(box, JOB, "gpu-b").gpu_seconds == pytest.approx(1.8 * 696 / 700)


def test_a_job_over_several_gpus_has_its_use_of_each(box):
    box.pids[100] = box.start(1, JOB)
    box.run(1, {"gpu-a": gpu(), "gpu-b": gpu()})
    box.run(4, {"gpu-a": gpu((100, 8), busy=1.0), "gpu-b": gpu((100, 4), busy=0.5)})
    assert [one.gpu_seconds for one in box.job(JOB).uses] == pytest.approx([4, 2])


def test_what_a_container_used_before_it_was_told_of_is_its_jobs(box):
    box.pids[100] = box.start(1, JOB, tell=False)
    box.run(1, {"gpu-a": gpu()})
    box.run(5, {"gpu-a": gpu((100, 9))})
    box.run(5, {"gpu-a": gpu((100, 3))})
    assert box.accounting.snapshot.jobs == ()
    box.tell()
    box.run(1, {"gpu-a": gpu((100, 3))})
    mine = use(box, JOB)
    assert mine.gpu_seconds == pytest.approx(11)
    assert (mine.memory_bytes, mine.memory_peak_bytes) == (3 * GIB, 9 * GIB)
    assert box.accounting.snapshot.projects[0].jobs == 1


def test_containers_that_nobody_tells_of_wait_in_a_bounded_room(box):
    for number in range(500):
        box.pids[number + 1] = container_id(number)
        box.run(1, {"gpu-a": gpu((number + 1, 1))})
    assert len(box.accounting._ledger._unknown) == Limits().unknown
    box.run(700, {"gpu-a": gpu()}, period_s=10)
    assert box.accounting._ledger._unknown == {}


def test_a_job_that_ends_between_two_readings_keeps_what_it_used(box):
    box.pids[100] = box.start(1, JOB)
    box.run(1, {"gpu-a": gpu()})
    box.run(3, {"gpu-a": gpu((100, 5))})
    box.passed += 0.5
    box.end(1, exit_code=1)
    # NVML still lists the process whose end the kernel has not told it of.
    box.run(1, {"gpu-a": gpu((100, 5))})
    box.run(20, {"gpu-a": gpu()})
    mine = box.job(JOB)
    assert (mine.ended_at, mine.exit_code) == (EPOCH + 4.5, 1)
    assert mine.uses[0].memory_bytes == 0
    assert mine.uses[0].gpu_seconds == pytest.approx(3 + 1.5)


def test_a_pid_that_another_container_got_counts_to_the_other(box):
    first, second = box.start(1, JOB), box.start(2, SECOND)
    box.pids[100] = first
    box.run(1, {"gpu-a": gpu()})
    box.run(5, {"gpu-a": gpu((100, 5))})
    box.pids[100] = second
    box.run(5, {"gpu-a": gpu((100, 5))})
    assert (use(box, JOB).gpu_seconds, use(box, SECOND).gpu_seconds) == (5, 5)
    assert use(box, JOB).memory_bytes == 0


def test_a_job_between_two_of_its_containers_has_not_ended(box):
    box.start(1, JOB, kind="predefined")
    box.run(5)
    box.end(1)
    box.run(3)
    assert box.job(JOB).ended_at is None
    box.start(2, JOB)
    box.run(60)
    assert box.job(JOB).ended_at is None
    box.end(2, exit_code=0)
    box.run(15)
    assert (box.job(JOB).ended_at, box.job(JOB).exit_code) == (EPOCH + 68, 0)


def test_a_container_that_starts_again_takes_its_job_back_from_its_end(box):
    box.start(1, JOB)
    box.end(1)
    box.run(20)
    assert box.job(JOB).ended_at is not None
    box.start(1, JOB)
    box.run(1)
    assert box.job(JOB).ended_at is None
    assert box.job(JOB).started_at == EPOCH


def test_a_job_that_the_watcher_forgot_has_ended(box):
    box.start(1, JOB)
    box.run(5)
    box.forget(1)
    box.run(1)
    assert box.job(JOB).ended_at == EPOCH + 5


def test_no_word_from_the_engine_ends_no_job(box):
    box.start(1, JOB)
    box.run(5)
    box.facts = BoxFacts(written_at=EPOCH + box.passed, problems={"engine": "connection refused"})
    box.run(60)
    assert box.job(JOB).ended_at is None


def test_a_finished_jobs_series_stay_for_a_time_and_its_projects_sum_stays(box):
    box.pids[100] = box.start(1, JOB)
    box.run(11, {"gpu-a": gpu((100, 5))})
    box.end(1)
    box.run(299, {"gpu-a": gpu()})
    assert [one.key for one in box.accounting.snapshot.jobs] == [JOB]
    box.run(2, {"gpu-a": gpu()})
    assert box.accounting.snapshot.jobs == ()
    # The watcher tells of it for some minutes more.
    box.tell()
    box.run(2, {"gpu-a": gpu()})
    assert box.accounting.snapshot.jobs == ()
    (project,) = box.accounting.snapshot.projects
    assert (project.project_id, project.jobs, project.gpu_seconds) == ("1", 1, pytest.approx(10))


def test_a_job_that_died_before_anybody_saw_it_counts_even_where_none_is_shown_after_its_end():
    box = Box(limits=Limits(keep_finished_s=0))
    box.start(1, JOB, tell=False)
    box.passed += 0.4
    box.end(1, exit_code=1, oom="gpu")
    box.passed += 1
    box.tell()
    box.run(20)
    assert box.accounting.snapshot.jobs == ()
    assert box.accounting.snapshot.projects[0].oom == {"gpu": 1}


def test_a_job_that_ended_long_before_the_exporter_began_is_not_shown(box):
    box.start(1, JOB)
    box.end(1, oom="host")
    box.passed += 400
    box.tell()
    box.run(5)
    assert box.accounting.snapshot.jobs == ()
    assert box.accounting.snapshot.projects == ()


def test_of_too_many_jobs_the_one_that_ended_first_goes_and_none_that_runs():
    box = Box(limits=Limits(jobs=10))
    for number in range(9):
        box.start(number, key(number))
    for number in range(20, 40):
        box.start(number, key(number))
        box.run(1)
        box.end(number)
        box.run(12)
    shown = {int(one.key.job_id) for one in box.accounting.snapshot.jobs}
    assert shown == {*range(9), 39}
    box.start(50, key(50))
    box.start(51, key(51))
    box.run(1)
    shown = {int(one.key.job_id) for one in box.accounting.snapshot.jobs}
    assert shown == {*range(9), 50}, "one that does not fit shows once there is room"


def test_projects_beyond_the_limit_are_summed():
    box = Box(limits=Limits(projects=3))
    for number in range(10):
        box.pids[100 + number] = box.start(number, key(number, project=number))
        box.run(1, {"gpu-a": gpu()})
        box.run(2, {"gpu-a": gpu((100 + number, 1))})
        box.end(number)
    sums = {one.project_id: one for one in box.accounting.snapshot.projects}
    assert sums.keys() == {"0", "1", "2", OTHER}
    assert (sums[OTHER].jobs, sums[OTHER].gpu_seconds) == (7, pytest.approx(14))


def test_a_death_for_want_of_memory_counts_once_however_often_it_is_told(box):
    box.pids[100] = box.start(1, JOB)
    box.run(5, {"gpu-a": gpu((100, 5))})
    box.end(1, exit_code=137, oom="host")
    for _ in range(5):
        box.tell()
        box.run(4, {"gpu-a": gpu()})
    assert box.job(JOB).oom == {"host": 1}
    assert box.accounting.snapshot.projects[0].oom == {"host": 1}


def test_a_job_that_never_used_a_gpu_is_shown_and_is_none_of_the_projects_gpu_jobs(box):
    box.start(1, JOB)
    box.run(5, {"gpu-a": gpu()})
    assert box.job(JOB).uses == ()
    assert box.accounting.snapshot.projects == ()


def test_memory_on_a_gpu_that_does_not_answer_is_unknown(box):
    box.pids[100] = box.start(1, JOB)
    box.run(5, {"gpu-a": gpu((100, 5))})
    lost = dataclasses.replace(gpu(), processes=None, utilization_ratio=None, power_watts=None, lost="off the bus")
    box.run(5, {"gpu-a": lost})
    assert (use(box, JOB).memory_bytes, use(box, JOB).memory_peak_bytes) == (None, 5 * GIB)
    box.run(5, {"gpu-a": gpu((100, 4))})
    assert use(box, JOB).memory_bytes == 4 * GIB


def test_memory_is_unknown_too_where_no_reading_comes_at_all(box):
    box.pids[100] = box.start(1, JOB)
    box.run(5, {"gpu-a": gpu((100, 5))})
    box.run(40)
    assert use(box, JOB).memory_bytes is None


def test_a_gap_without_readings_is_nobodys(box):
    box.pids[100] = box.start(1, JOB)
    box.run(6, {"gpu-a": gpu((100, 5))})
    box.passed += 3_600
    box.run(5, {"gpu-a": gpu((100, 5))})
    assert use(box, JOB).gpu_seconds == pytest.approx(5 + 4)


def test_a_wall_clock_that_is_set_back_or_forward_changes_no_use_and_no_order_of_start_and_end(box):
    box.pids[100] = box.start(1, JOB)
    box.run(5, {"gpu-a": gpu((100, 5))})
    name = container_id(1)
    box.containers[name] = dataclasses.replace(box.containers[name], ended_at=EPOCH - 86_400, exit_code=0)
    box.tell()
    box.run(15, {"gpu-a": gpu()})
    assert box.job(JOB).ended_at == box.job(JOB).started_at
    assert use(box, JOB).gpu_seconds == pytest.approx(4)


def test_labels_of_any_length_are_cut(box):
    long = JobKey("1" * 5_000, "2" * 5_000, "3" * 5_000, "r" * 5_000)
    box.start(1, long)
    box.run(1)
    (job,) = box.accounting.snapshot.jobs
    assert max(map(len, (job.key.job_id, job.key.project_id, job.key.pipeline_id, job.key.runner))) == 64


# A random story: containers of few jobs start, end, work on two GPUs, and are told of late or never.
actions = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("end"), st.integers(0, 5), st.booleans()),
        st.tuples(
            st.just("run"),
            st.integers(1, 40),
            st.tuples(
                st.lists(st.tuples(st.integers(0, 7), st.integers(0, 24)), max_size=5, unique_by=lambda one: one[0]),
                st.one_of(st.none(), st.floats(0, 1)),
                st.floats(0, 500),
            ),
        ),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(actions)
def test_in_any_story_sums_stay_within_what_the_gpus_did_and_no_counter_falls(story):
    box = Box(limits=Limits(keep_finished_s=30, jobs=4, projects=2, unknown=3))
    busy = dict.fromkeys(("gpu-a", "gpu-b"), 0.0)
    seen: dict[tuple[JobKey, str], tuple[float, float, int]] = {}
    totals: dict[str, tuple[int, float, float]] = {}
    for what, number, more in story:
        if what == "start":
            box.pids[number] = box.start(number, key(number % 4, project=number % 3), tell=more)
        elif what == "end":
            if container_id(number) in box.containers:
                box.end(number, oom="gpu" if more else None)
        else:
            processes, ratio, watts = more
            figures = gpu(*processes, busy=ratio, watts=watts)
            box.run(number, {"gpu-a": figures, "gpu-b": figures})
            for uuid in busy:
                busy[uuid] += number * (1.0 if ratio is None else ratio)
        box.accounting.publish()
        snapshot = box.accounting.snapshot
        assert len(snapshot.jobs) <= 4
        assert len(snapshot.projects) <= 3
        for job in snapshot.jobs:
            for one in job.uses:
                now = one.gpu_seconds or 0.0, one.energy_joules or 0.0, one.memory_peak_bytes or 0
                assert (one.memory_bytes or 0) <= (one.memory_peak_bytes or 0)
                assert all(new >= old for new, old in zip(now, seen.get((job.key, one.uuid), (0, 0, 0)), strict=True))
                seen[job.key, one.uuid] = now
        for project in snapshot.projects:
            sums = project.jobs, project.gpu_seconds or 0.0, project.energy_joules or 0.0
            assert all(new >= old for new, old in zip(sums, totals.get(project.project_id, sums), strict=True))
            totals[project.project_id] = sums
        slack = 1e-6
        assert sum(one.gpu_seconds or 0 for one in snapshot.projects) <= sum(busy.values()) + slack
        energy = sum(snapshot.energy_joules.values())
        assert sum(one.energy_joules or 0 for one in snapshot.projects) <= energy + slack
        for uuid in busy:
            mine = [one for job in snapshot.jobs for one in job.uses if one.uuid == uuid]
            assert sum(one.gpu_seconds or 0 for one in mine) <= busy[uuid] + slack
            assert sum(one.energy_joules or 0 for one in mine) <= snapshot.energy_joules.get(uuid, 0.0) + slack


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.permutations(("gpu-a", "gpu-b", "gpu-c")))
def test_the_order_of_containers_processes_and_gpus_does_not_matter(order, uuids):
    def story(numbers, names):
        box = Box()
        for number in numbers:
            box.pids[number + 1] = box.start(number, key(number // 2), tell=False)
        box.run(3, {name: gpu(*[(one + 1, one + 1) for one in numbers]) for name in names})
        box.tell()
        box.run(3, {name: gpu(*[(one + 1, one + 1) for one in numbers]) for name in names})
        jobs = sorted(box.accounting.snapshot.jobs, key=lambda one: one.key)
        return [
            (
                job.key,
                use.uuid,
                use.memory_bytes,
                use.memory_peak_bytes,
                round(use.gpu_seconds, 9),
                round(use.energy_joules),
            )
            for job in jobs
            for use in job.uses
        ]

    assert story(range(4), ("gpu-a", "gpu-b", "gpu-c")) == story(order, uuids)


def test_gpus_that_come_under_ever_new_uuids_are_forgotten(box):
    for number in range(600):
        box.run(1, {f"MIG-{number}": gpu(joules=1.0), "gpu-a": gpu(joules=float(number))})
    box.accounting.publish()
    energy = box.accounting.snapshot.energy_joules
    assert len(energy) == 256
    assert energy["gpu-a"] == 599


def test_readings_of_two_sources_at_once_lose_nothing(box):
    """The samplers of two vendors' cards add from threads of their own."""
    from concurrent.futures import ThreadPoolExecutor

    box.pids[100] = box.start(1, JOB)
    box.run(1, {"gpu-a": gpu(joules=0.0), "gpu-b": gpu(joules=0.0)})
    counts = {"gpu-a": itertools.count(1), "gpu-b": itertools.count(1)}

    def read(uuid: str) -> None:
        for _ in range(500):
            box.accounting.observe({uuid: gpu((100, 1), joules=float(next(counts[uuid])))})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(read, counts))
    box.accounting.publish()
    assert [one.energy_joules for one in box.job(JOB).uses] == [pytest.approx(500), pytest.approx(500)]
    assert box.accounting._monotonic() == BOOT + 1
