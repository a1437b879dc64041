"""Bookkeeping of jobs' containers: news in any order and twice over, bounds, what counts as dying of memory."""

from __future__ import annotations

from typing import Any

import pytest
from gpurig.runner.exporter.jobs.containers import (
    MOST_ENDED,
    MOST_RUNNING,
    JobContainers,
    job_of,
    may_be_gpu_oom,
)
from gpurig.runner.exporter.jobs.model import JobContainer, JobKey
from hypothesis import given
from hypothesis import strategies as st

NAME = "com.gitlab.gitlab-runner"
KEY = JobKey("17", "42", "9", "abcdefghi")


def cid(number: int) -> str:
    return f"{number:064x}"


def labels(**changes: Any) -> dict[str, object]:
    every = {"job.id": "17", "project.id": "42", "pipeline.id": "9", "runner.id": "abcdefghi", "type": "build"}
    return {f"{NAME}.{name}": value for name, value in {**every, **changes}.items()}


@pytest.fixture
def containers() -> JobContainers:
    return JobContainers()


def only(containers: JobContainers, now: float = 100.0) -> JobContainer:
    (one,) = containers.told(now)
    return one


def test_gitlab_runners_labels_name_the_job() -> None:
    assert job_of(labels()) == (KEY, "build")
    assert job_of(labels(**{"pipeline.id": ""})) == (JobKey("17", "42", "", "abcdefghi"), "build")


@pytest.mark.parametrize(
    "changes",
    [
        {"job.id": ""},
        {"job.id": "17\n"},
        {"job.id": "-1"},
        {"job.id": "1" * 21},
        {"project.id": "../etc"},
        {"pipeline.id": "x"},
        {"runner.id": 'a"b'},
        {"type": "build\x1b[2J"},
        {"runner.id": "x" * 65},
    ],
)
def test_labels_that_gitlab_runner_never_writes_are_no_jobs(changes: dict[str, str], containers) -> None:
    assert job_of(labels(**changes)) is None
    containers.started(cid(1), labels(**changes), 1.0)
    assert containers.told(2.0) == ()


def test_a_container_of_somebody_else_is_no_jobs(containers) -> None:
    containers.started(cid(1), {"com.example": "1"}, 1.0)
    containers.ended(cid(1), 2.0, 1)
    containers.starved(cid(1))
    assert containers.told(2.0) == ()


def test_the_scripts_exit_code_stays_when_after_script_runs(containers) -> None:
    containers.started(cid(1), labels(), 1.0)
    containers.ended(cid(1), 5.0, 3)
    containers.started(cid(1), labels(), 6.0)
    assert only(containers) == JobContainer(cid(1), KEY, "build", 1.0, ended_at=None, exit_code=3)
    containers.ended(cid(1), 7.0, 0)
    assert only(containers) == JobContainer(cid(1), KEY, "build", 1.0, ended_at=7.0, exit_code=3)


def test_an_after_script_that_runs_out_of_memory_is_no_death_of_the_job(containers) -> None:
    containers.started(cid(1), labels(), 1.0)
    containers.ended(cid(1), 5.0, 0)
    containers.started(cid(1), labels(), 6.0)
    containers.starved(cid(1))
    containers.ended(cid(1), 7.0, 137, oom="host")
    assert (only(containers).oom, only(containers).exit_code) == (None, 0)


@pytest.mark.parametrize("late", [False, True])
def test_a_job_that_the_kernel_killed_for_memory_died_of_it_whichever_news_comes_first(late, containers) -> None:
    containers.started(cid(1), labels(), 1.0)
    if late:
        containers.ended(cid(1), 5.0, 137)
        containers.starved(cid(1))
    else:
        containers.starved(cid(1))
        containers.ended(cid(1), 5.0, 137)
    assert only(containers).oom == "host"


def test_a_job_that_lost_a_process_to_the_kernel_and_passed_did_not_die(containers) -> None:
    containers.started(cid(1), labels(), 1.0)
    containers.starved(cid(1))
    containers.ended(cid(1), 5.0, 0)
    assert only(containers).oom is None


def test_what_the_engine_has_no_longer_ended_unseen(containers) -> None:
    containers.started(cid(1), labels(), 1.0)
    containers.started(cid(2), labels(), 49.5)
    containers.only([], 50.0)
    first, second = containers.told(60.0)
    assert (first.ended_at, first.exit_code) == (50.0, None)
    assert second.ended_at is None, "it started about when the list was made"


def test_containers_are_forgotten_after_a_while_and_are_never_too_many(containers) -> None:
    for number in range(MOST_ENDED + 10):
        containers.started(cid(number), labels(), number)
        containers.ended(cid(number), number + 1.0, 0)
    for number in range(MOST_RUNNING + 10):
        containers.started(cid(10_000 + number), labels(), number)
    told = containers.told(300.0)
    assert sum(one.ended_at is None for one in told) == MOST_RUNNING
    assert sum(one.ended_at is not None for one in told) == MOST_ENDED
    assert cid(0) not in {one.id for one in told}
    assert all(one.ended_at is None for one in containers.told(10_000.0))


@pytest.mark.parametrize(
    ("kind", "code", "worth"),
    [
        ("build", 1, True),
        ("service", 1, True),
        ("build", 134, True),
        ("build", 139, True),
        ("build", 0, False),
        ("build", 137, False),
        ("build", 143, False),
        ("predefined", 1, False),
    ],
)
def test_only_a_program_that_failed_by_itself_may_have_run_out_of_the_gpus_memory(kind, code, worth) -> None:
    assert may_be_gpu_oom(JobContainer(cid(1), KEY, kind, 1.0), code) is worth


RUNS = st.lists(st.tuples(st.booleans(), st.sampled_from([0, 1, 137])), min_size=1, max_size=3)
News = tuple[str, float, int]


def news_of(runs: list[tuple[bool, int]]) -> list[News]:
    news: list[News] = []
    for number, (starved, code) in enumerate(runs):
        news.append(("start", 10.0 * number + 1, 0))
        news += [("oom", 10.0 * number + 2, 0)] if starved else []
        news.append(("die", 10.0 * number + 3, code))
    return news


def tell(containers: JobContainers, one: News) -> None:
    what, at, code = one
    if what == "start":
        containers.started(cid(1), labels(), at)
    elif what == "oom":
        containers.starved(cid(1))
    else:
        containers.ended(cid(1), at, code)


@given(runs=RUNS, data=st.data())
def test_news_that_come_again_change_nothing(runs, data) -> None:
    """After a break the engine tells its last events again, and a list tells the same once more."""
    once, twice = JobContainers(), JobContainers()
    news = news_of(runs)
    for number, one in enumerate(news):
        tell(once, one)
        tell(twice, one)
        for old in news[data.draw(st.integers(0, number + 1)) : number + 1]:
            tell(twice, old)
    assert twice.told(100.0) == once.told(100.0)
