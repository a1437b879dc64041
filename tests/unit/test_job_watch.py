"""Following an engine: what is told of a job's end, and that no fault of the engine loses a container."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.waiting import wait_for
from gpurig.runner.exporter.jobs.engine_api import EngineApi, EngineError, GoneError
from gpurig.runner.exporter.jobs.model import JobContainer
from gpurig.runner.exporter.jobs.watch import JobWatch
from standins.faults import Faults

NAME = "com.gitlab.gitlab-runner"
BOOT = 1_700_000_000.0
OOM = b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has\n"


def cid(number: int) -> str:
    return f"{number:064x}"


def iso(at: float) -> str:
    return "0001-01-01T00:00:00Z" if not at else time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + ".123456789Z"


class Container:
    def __init__(self, labels: dict[str, str], started: float) -> None:
        self.labels, self.started, self.ended, self.code, self.oom = labels, started, 0.0, 0, False
        self.log: bytes | None = b""


class Stream:
    """What `EngineApi.events` gives."""

    def __init__(self, engine: MemoryEngine, since: float) -> None:
        self.engine, self.open = engine, True
        self.waiting = [one for one in engine.history if one["timeNano"] >= since * 1e9]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            with self.engine.news:
                self.engine.news.wait_for(lambda: self.waiting or not self.open, timeout=10)
                if not self.waiting:
                    raise EngineError("the engine breaks off its events: gone")
                one = self.waiting.pop(0)
            yield one

    def wake(self) -> None:
        with self.engine.news:
            self.open = False
            self.engine.news.notify_all()

    def close(self) -> None:
        self.wake()


class MemoryEngine:
    """An engine whose events, lists and logs agree with one another."""

    def __init__(self) -> None:
        self.at = BOOT
        self.containers_: dict[str, Container] = {}
        self.history: list[dict[str, Any]] = []
        self.streams: list[Stream] = []
        self.news = threading.Condition()
        self.asked: list[str] = []

    def _tell(self, action: str, number: int, **more: str) -> None:
        labels = self.containers_[cid(number)].labels
        event = {
            "Action": action,
            "timeNano": int(self.at * 1e9),
            "Actor": {"ID": cid(number), "Attributes": {**labels, **more}},
        }
        with self.news:
            self.history.append(event)
            for stream in self.streams:
                stream.waiting.append(event)
            self.news.notify_all()

    def run(self, number: int, **changes: str) -> None:
        self.at += 1
        every = {"job.id": "17", "project.id": "42", "pipeline.id": "9", "runner.id": "abc", "type": "build"}
        labels = {f"{NAME}.{name}": value for name, value in {**every, **changes}.items()}
        known = self.containers_.setdefault(cid(number), Container(labels, self.at))
        known.started, known.ended = self.at, 0.0
        self._tell("start", number)

    def die(self, number: int, code: int, *, log: bytes | None = b"", oom: bool = False) -> None:
        self.at += 1
        container = self.containers_[cid(number)]
        container.ended, container.code, container.oom, container.log = self.at, code, oom, log
        if oom:
            self._tell("oom", number)
        self._tell("die", number, exitCode=str(code))

    def remove(self, number: int) -> None:
        self._tell("destroy", number)
        del self.containers_[cid(number)]

    def cut(self, *, forget: bool = False) -> None:
        """Break every stream; an engine that starts anew forgets its events."""
        if forget:
            self.history.clear()
        for stream in self.streams:
            stream.wake()
        self.streams.clear()

    def greet(self) -> str:
        return "1.45"

    def containers(self, label: str) -> list[dict[str, Any]]:
        assert label == f"{NAME}.job.id"
        return [
            {"Id": name, "Labels": one.labels, "State": "exited" if one.ended else "running"}
            for name, one in self.containers_.items()
        ]

    def inspect(self, container_id: str) -> dict[str, Any]:
        if container_id not in self.containers_:
            raise GoneError("the engine answers 404: No such container")
        one = self.containers_[container_id]
        state = {"StartedAt": iso(one.started), "FinishedAt": iso(one.ended), "Running": not one.ended}
        return {"State": {**state, "ExitCode": one.code, "OOMKilled": one.oom}, "Config": {"Tty": False}}

    def log_tail(self, container_id: str, **_bounds: Any) -> bytes:
        self.asked.append(container_id)
        if container_id not in self.containers_:
            raise GoneError("the engine answers 404: No such container")
        log = self.containers_[container_id].log
        if log is None:
            raise EngineError("the engine answers 501: configured logging driver does not support reading")
        return log

    def events(self, *, since_ns: int, label: str, actions: tuple[str, ...]) -> Stream:
        assert {"start", "die", "oom"} <= set(actions)
        with self.news:
            stream = Stream(self, since_ns / 1e9)
            self.streams.append(stream)
        return stream


class Followed:
    """A watch of an engine in memory."""

    def __init__(self, engine: MemoryEngine, api: Any) -> None:
        self.engine = engine
        self.said: list[str] = []
        self.watch = JobWatch(api, say=self.said.append, now=lambda: engine.at + 2, first_wait_s=0.01)

    def until(self, condition: Callable[[dict[int, JobContainer]], bool]) -> dict[int, JobContainer]:
        found: dict[int, JobContainer] = {}

        def look() -> bool:
            nonlocal found
            found = {int(one.id, 16): one for one in self.watch.containers()}
            return condition(found)

        assert wait_for(look, timeout_s=10, interval_s=0.005), (found, self.said)
        return found

    def ended(self, number: int) -> JobContainer:
        return self.until(lambda found: number in found and found[number].ended_at is not None)[number]


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine()


@pytest.fixture
def followed(engine: MemoryEngine) -> Iterator[Followed]:
    one = Followed(engine, engine)
    one.watch.start()
    assert wait_for(lambda: not one.watch.problems, timeout_s=10)
    yield one
    one.watch.stop()


def test_a_job_that_ran_before_the_watcher_began_is_known(engine) -> None:
    engine.run(1)
    engine.run(2)
    engine.die(2, 1, log=OOM)
    one = Followed(engine, engine)
    one.watch.start()
    found = one.until(lambda found: len(found) == 2)
    one.watch.stop()
    assert found[1].ended_at is None
    assert abs(found[1].started_at - (BOOT + 1)) < 1
    assert (found[2].exit_code, found[2].oom) == (1, "gpu")


def test_a_program_that_ran_out_of_the_gpus_memory_is_named_with_its_words(engine, followed) -> None:
    engine.run(1)
    engine.die(1, 1, log=b"epoch 1\n\x1b[31m" + OOM)
    one = followed.ended(1)
    assert one.oom == "gpu"
    assert one.oom_detail == "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"


@pytest.mark.parametrize("kind", ["build", "service"])
def test_a_job_that_passes_has_not_died_whatever_it_prints_and_is_not_asked(engine, followed, kind) -> None:
    engine.run(1, type=kind)
    engine.die(1, 0, log=OOM)
    assert followed.ended(1).oom is None
    assert not engine.asked


def test_a_helper_of_gitlab_runner_is_not_searched_for_the_gpus_memory(engine, followed) -> None:
    engine.run(1, type="predefined")
    engine.die(1, 1, log=OOM)
    assert followed.ended(1).oom is None
    assert not engine.asked


def test_a_job_that_the_kernel_killed_is_the_hosts_memorys_also_when_it_says_other_things(engine, followed) -> None:
    engine.run(1)
    engine.die(1, 137, log=OOM, oom=True)
    assert (followed.ended(1).oom, followed.ended(1).oom_detail) == ("host", "")


def test_of_a_container_that_is_gone_at_once_stays_what_the_events_told(engine, followed, monkeypatch) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise GoneError("the engine answers 404: No such container")

    monkeypatch.setattr(engine, "inspect", gone)
    monkeypatch.setattr(engine, "log_tail", gone)
    engine.run(1)
    engine.die(1, 137, oom=True)
    engine.remove(1)
    engine.run(2)
    engine.die(2, 1, log=OOM)
    engine.remove(2)
    assert (followed.ended(1).exit_code, followed.ended(1).oom) == (137, "host")
    assert (followed.ended(2).exit_code, followed.ended(2).oom) == (1, None)
    assert not followed.watch.problems


def test_an_engine_that_keeps_no_logs_is_a_problem_of_logs_alone(engine, followed) -> None:
    engine.run(1)
    engine.die(1, 1, log=None)
    assert followed.ended(1).exit_code == 1
    assert list(followed.watch.problems) == ["logs"]
    engine.run(2)
    engine.die(2, 1, log=OOM)
    assert followed.ended(2).oom == "gpu"
    assert not followed.watch.problems


@pytest.mark.parametrize("forget", [False, True], ids=["connection", "restart"])
def test_nothing_is_lost_while_the_engine_is_away(engine, followed, forget, monkeypatch) -> None:
    for number in (1, 2, 3):
        engine.run(number)
    followed.until(lambda found: len(found) == 3)
    away = threading.Event()
    real = engine.greet

    def greet() -> str:
        if away.is_set():
            raise EngineError("there is no socket /run/x")
        return real()

    monkeypatch.setattr(engine, "greet", greet)
    away.set()
    engine.cut()
    assert wait_for(lambda: followed.watch.problems, timeout_s=10)
    engine.die(1, 1, log=OOM)
    engine.run(4)
    engine.die(2, 5)
    engine.remove(2)
    engine.cut(forget=forget)
    away.clear()
    found = followed.until(lambda found: 4 in found)
    found = followed.until(lambda found: found[1].ended_at is not None and found[2].ended_at is not None)
    assert (found[1].exit_code, found[1].oom) == (1, "gpu")
    assert found[2].exit_code == (None if forget else 5)
    assert found[3].ended_at is None
    assert found[4].ended_at is None
    assert not followed.watch.problems
    assert followed.said[-1].startswith("the engine is followed")


def test_an_engine_that_hangs_is_asked_anew_by_the_check(engine, followed, monkeypatch) -> None:
    engine.run(1)
    followed.until(lambda found: len(found) == 1)
    stream = engine.streams[-1]
    # A stream that tells nothing any more, without ending.
    engine.streams.clear()
    engine.die(1, 2)
    engine.run(2)
    followed.watch.check()
    assert followed.ended(1).exit_code == 2
    real = engine.containers
    monkeypatch.setattr(engine, "containers", lambda _label: (_ for _ in ()).throw(EngineError("timed out")))
    followed.watch.check()
    assert not stream.open
    monkeypatch.setattr(engine, "containers", real)
    engine.run(3)
    followed.until(lambda found: 3 in found)


def test_an_answer_that_nobody_foresaw_is_a_problem_and_not_the_end(engine, monkeypatch) -> None:
    engine.run(1)
    real, calls = engine.containers, []

    def strange(label: str) -> list[dict[str, Any]]:
        calls.append(label)
        if len(calls) == 1:
            raise KeyError("Id")
        return real(label)

    monkeypatch.setattr(engine, "containers", strange)
    one = Followed(engine, engine)
    one.watch.start()
    one.until(lambda found: 1 in found)
    one.watch.stop()
    assert one.said[0] == "the engine cannot be followed: KeyError: 'Id'"


def test_a_container_that_ended_long_ago_and_stays_is_asked_about_once(engine, monkeypatch) -> None:
    engine.run(1)
    engine.die(1, 1, log=OOM)
    engine.at += 3600
    inspected: list[str] = []
    real = engine.inspect
    monkeypatch.setattr(engine, "inspect", lambda name: inspected.append(name) or real(name))
    one = Followed(engine, engine)
    one.watch.start()
    assert wait_for(lambda: not one.watch.problems, timeout_s=10)
    for _ in range(3):
        one.watch.check()
    assert inspected == [cid(1)]
    assert not engine.asked
    assert one.watch.containers() == ()
    engine.run(1)
    one.until(lambda found: 1 in found and found[1].ended_at is None)
    one.watch.stop()


def test_a_container_that_starts_while_a_list_is_made_does_not_end_by_it(engine, followed, monkeypatch) -> None:
    real = engine.containers

    def slow(label: str) -> list[dict[str, Any]]:
        listed = real(label)
        engine.run(1)
        followed.until(lambda found: 1 in found)
        return listed

    monkeypatch.setattr(engine, "containers", slow)
    followed.watch.check()
    assert followed.until(lambda found: 1 in found)[1].ended_at is None


def _story(engine: MemoryEngine) -> None:
    engine.run(1)
    engine.die(1, 1, log=OOM)
    engine.run(2)
    engine.die(2, 137, oom=True)
    engine.run(3)
    engine.die(3, 0)
    engine.run(4)


@pytest.mark.parametrize("at", range(14))
def test_one_failed_call_of_the_engine_loses_no_container(at: int) -> None:
    """Whichever call fails: every end and every cause is known."""
    engine, faults = MemoryEngine(), Faults(at=at)
    engine.run(9)
    one = Followed(engine, faults.wrap(engine, "engine", EngineError))
    one.watch.start()
    try:
        one.until(lambda found: 9 in found)
        _story(engine)
        found = one.until(
            lambda found: 4 in found and all(number in found and found[number].ended_at for number in (1, 2, 3))
        )
        assert [found[number].exit_code for number in (1, 2, 3)] == [1, 137, 0]
        assert found[1].oom == "gpu"
        assert found[2].oom == "host"
        assert found[3].oom is None
        assert found[4].ended_at is None
        assert found[9].ended_at is None
    finally:
        one.watch.stop()


def test_without_an_engine_the_watcher_says_why_and_goes_on_asking(tmp_path: Path) -> None:
    said: list[str] = []
    watch = JobWatch(EngineApi(tmp_path / "none.sock"), say=said.append, first_wait_s=0.01)
    watch.start()
    assert wait_for(lambda: said, timeout_s=10)
    time.sleep(0.1)
    assert said == [f"the engine cannot be followed: there is no socket {tmp_path}/none.sock"]
    assert watch.problems == {"engine": f"there is no socket {tmp_path}/none.sock"}
    watch.stop()
