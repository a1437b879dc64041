"""What outlives the exporter: counters go on after every end of it, and no damaged file stops it or is lost."""

from __future__ import annotations

import json

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.runner.exporter.jobs.ledger import Limits
from gpurig.runner.exporter.jobs.model import JobKey
from gpurig.runner.exporter.jobs.state_file import DAMAGED_NAME, FILE_NAME, Kept, StateFile, encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standins.accounting import EPOCH, GIB, Box, container_id, gpu, key

JOB = key(7)


@pytest.fixture
def said():
    return []


class Boxes:
    """One box, whose exporter ends and begins again; the folder stays."""

    def __init__(self, folder, said):
        self.folder, self.said = folder, said
        self.box = None

    def begin(self, **more) -> Box:
        before = self.box
        passed = before.passed if before is not None else 0.0
        self.box = Box(passed=passed, state=StateFile(self.folder), say=self.said.append, **more)
        if before is not None:
            self.box.containers, self.box.facts = before.containers, before.facts
            self.box.pids.update(before.pids)
        return self.box

    def kill(self) -> None:
        """SIGKILL: nothing is written any more, and the kernel lets go of the lock."""
        self.box.accounting._state.close()


@pytest.fixture
def boxes(tmp_path, said):
    every = Boxes(tmp_path / "state", said)
    yield every
    every.kill()


def shown(box: Box):
    """Every counter of the snapshot."""
    snapshot = box.accounting.snapshot
    counters = {("energy", uuid): joules for uuid, joules in snapshot.energy_joules.items()}
    for job in snapshot.jobs:
        for use in job.uses:
            counters["job", job.key, use.uuid] = use.gpu_seconds
            counters["joules", job.key, use.uuid] = use.energy_joules
            counters["peak", job.key, use.uuid] = use.memory_peak_bytes
        for kind, count in job.oom.items():
            counters["oom", job.key, kind] = count
    for project in snapshot.projects:
        counters["project", project.project_id] = project.gpu_seconds
        counters["project joules", project.project_id] = project.energy_joules
        counters["project jobs", project.project_id] = project.jobs
    return counters


def test_a_live_jobs_counters_and_peak_go_on_after_an_orderly_restart(boxes):
    box = boxes.begin()
    box.pids[100] = box.start(1, JOB)
    box.run(61, {"gpu-a": gpu((100, 9))})
    box.run(40, {"gpu-a": gpu((100, 2))})
    before = shown(box)
    box.accounting.close()
    box = boxes.begin()
    assert shown(box) == {}
    box.run(11, {"gpu-a": gpu((100, 2))})
    (use,) = box.job(JOB).uses
    assert use.memory_bytes == 2 * GIB
    assert use.memory_peak_bytes == 9 * GIB
    assert use.gpu_seconds == pytest.approx(before["job", JOB, "gpu-a"] + 10)
    assert box.job(JOB).started_at == EPOCH
    assert box.accounting.snapshot.projects[0].jobs == 1


def test_killed_at_any_second_no_counter_falls(boxes):
    box = boxes.begin()
    box.pids[100] = box.start(1, JOB)
    for second in range(1, 100):
        box.run(1, {"gpu-a": gpu((100, 1 + second / 100)), "gpu-b": gpu(joules=second * 300.0)})
        if second % 7 == 0:
            before = shown(box)
            boxes.kill()
            box = boxes.begin()
            box.accounting.publish()
            after = shown(box)
            assert before.keys() <= after.keys()
            assert all(after[name] >= before[name] for name in before)
    assert boxes.said == []


def test_what_was_shown_when_it_was_killed_is_kept_to_the_last_digit(boxes):
    box = boxes.begin()
    box.pids[100] = box.start(1, JOB)
    box.run(50, {"gpu-a": gpu((100, 3), busy=0.7, watts=123.456)})
    box.end(1, exit_code=137, oom="host")
    box.run(20, {"gpu-a": gpu()})
    before = shown(box)
    boxes.kill()
    box = boxes.begin()
    box.accounting.publish()
    assert shown(box) == before
    assert (box.job(JOB).exit_code, box.job(JOB).ended_at) == (137, EPOCH + 50)


def test_a_job_that_expired_does_not_come_back(boxes):
    box = boxes.begin()
    box.pids[100] = box.start(1, JOB)
    box.run(50, {"gpu-a": gpu((100, 3))})
    box.end(1)
    box.forget(1)
    box.run(301, {"gpu-a": gpu()})
    assert box.accounting.snapshot.jobs == ()
    boxes.kill()
    box = boxes.begin()
    box.accounting.publish()
    assert box.accounting.snapshot.jobs == ()
    assert box.accounting.snapshot.projects[0].jobs == 1


def test_a_job_that_ended_is_shown_for_the_rest_of_its_time(boxes):
    box = boxes.begin()
    box.pids[100] = box.start(1, JOB)
    box.run(5, {"gpu-a": gpu((100, 3))})
    box.end(1)
    box.run(200, {"gpu-a": gpu()})
    box.accounting.close()
    box.passed += 50
    box = boxes.begin()
    box.run(45, {"gpu-a": gpu()})
    assert len(box.accounting.snapshot.jobs) == 1
    box.run(10, {"gpu-a": gpu()})
    assert box.accounting.snapshot.jobs == ()


def test_a_job_that_ended_while_no_exporter_ran_has_ended(boxes):
    box = boxes.begin()
    box.pids[100] = box.start(1, JOB)
    box.run(5, {"gpu-a": gpu((100, 3))})
    boxes.kill()
    box.passed += 30
    box.end(1, exit_code=1, oom="gpu")
    box = boxes.begin()
    box.run(15, {"gpu-a": gpu()})
    assert (box.job(JOB).ended_at, box.job(JOB).oom) == (EPOCH + 35, {"gpu": 1})


def test_a_death_told_of_before_and_after_a_restart_is_one(boxes):
    box = boxes.begin()
    box.start(1, JOB)
    box.end(1, oom="gpu")
    box.run(20)
    boxes.kill()
    box = boxes.begin()
    box.run(5)
    assert box.job(JOB).oom == {"gpu": 1}
    assert box.accounting.snapshot.projects[0].oom == {"gpu": 1}


def test_the_idle_power_is_learnt_once(boxes):
    box = boxes.begin()
    box.run(70, {"gpu-a": gpu(busy=0.0, watts=18)})
    box.accounting.close()
    box = boxes.begin()
    assert box.accounting._energy["gpu-a"].idle_watts == pytest.approx(18)


def test_the_file_stays_small_and_is_written_anew_every_30_seconds(boxes):
    box = boxes.begin()
    box.pids[100] = box.start(1, JOB)
    lines = []
    for _ in range(120):
        box.run(1, {"gpu-a": gpu((100, 3))})
        lines.append((boxes.folder / FILE_NAME).read_text().count("\n"))
    assert max(lines) <= 31
    assert lines.count(1) == 4


def test_a_box_on_which_nothing_happens_writes_nothing(boxes):
    box = boxes.begin()
    box.run(100)
    assert not (boxes.folder / FILE_NAME).exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"schema":"gpurig.accounting/1","gpus":{"gpu-a":{"joules":-1}}}\n', "-1 is no amount"),
        (b'{"schema":"gpurig.accounting/2"}\n', "gpurig.accounting/2"),
        (b'{"jobs":[]}\n', "not 'gpurig.accounting/1'"),
        (b"[" * 100_000 + b"\n", "line 1"),
        (b"\xff\xfe\x00\n", "not UTF-8"),
        (b"null\n", "no object"),
        (b'{"schema":"gpurig.accounting/1","jobs":[{"key":["1"]}]}\n', "four parts"),
        (b'{"schema":"gpurig.accounting/1","gpus":{"a":{"joules":NaN}}}\n', "no amount"),
        (b'{"schema":"gpurig.accounting/1","gpus":{"a":{"joules":1' + b"0" * 400 + b"}}}\n", "no amount"),
        (
            b'{"schema":"gpurig.accounting/1","jobs":[{"key":["1","1","1",""],"started_at":1,"ooms":[["c",{},1]]}]}\n',
            "no text",
        ),
    ],
)
def test_a_damaged_or_foreign_file_is_put_aside_and_said(boxes, content, why):
    boxes.folder.mkdir()
    (boxes.folder / FILE_NAME).write_bytes(content)
    box = boxes.begin()
    (line,) = boxes.said
    assert why in line
    assert "\n" not in line
    assert (boxes.folder / DAMAGED_NAME).read_bytes() == content
    box.pids[100] = box.start(1, JOB)
    box.run(5, {"gpu-a": gpu((100, 3))})
    boxes.kill()
    assert boxes.begin().accounting._ledger.jobs.keys() == {JOB}


def test_a_change_that_is_damaged_takes_only_what_follows(boxes):
    box = boxes.begin()
    box.pids[100] = box.start(1, JOB)
    box.run(10, {"gpu-a": gpu((100, 3))})
    before = shown(box)
    boxes.kill()
    with (boxes.folder / FILE_NAME).open("ab") as stream:
        stream.write(b"garbage\n")
    box = boxes.begin()
    box.accounting.publish()
    assert shown(box) == before
    assert "garbage" in (boxes.folder / DAMAGED_NAME).read_text()


def test_a_last_line_that_was_being_written_is_passed_over_in_silence(boxes):
    box = boxes.begin()
    box.pids[100] = box.start(1, JOB)
    box.run(10, {"gpu-a": gpu((100, 3))})
    before = shown(box)
    boxes.kill()
    with (boxes.folder / FILE_NAME).open("ab") as stream:
        stream.write(b'{"gpus":{"gpu-a":{"jou')
    box = boxes.begin()
    box.accounting.publish()
    assert shown(box) == before
    assert boxes.said == []


def test_a_second_exporter_keeps_its_hands_off(boxes, tmp_path):
    boxes.begin()
    with pytest.raises(PrerequisiteError, match="another exporter"):
        StateFile(boxes.folder)


def test_a_disk_that_is_full_costs_no_reading_and_is_caught_up_with(boxes, monkeypatch):
    box = boxes.begin()
    box.pids[100] = box.start(1, JOB)
    box.run(5, {"gpu-a": gpu((100, 3))})
    with monkeypatch.context() as patched:

        def full(*_args, **_more):
            raise OSError(28, "No space left on device")

        patched.setattr("gpurig.common.files.os.write", full)
        patched.setattr("gpurig.common.files.tempfile.mkstemp", full)
        for _ in range(3):
            with pytest.raises(PrerequisiteError, match="No space left"):
                box.run(1, {"gpu-a": gpu((100, 3))})
        assert box.job(JOB).uses[0].gpu_seconds == pytest.approx(7), "shown all the same"
    box.run(1, {"gpu-a": gpu((100, 3))})
    before = shown(box)
    boxes.kill()
    box = boxes.begin()
    box.accounting.publish()
    assert shown(box) == before


def test_fields_of_a_later_version_are_passed_over(boxes):
    boxes.folder.mkdir()
    project = {"id": "1", "jobs": 3, "busy_s": 1.5, "joules": 2.5, "oom": {"gpu": 1, "disk": 9}, "carbon": 7}
    line = {"schema": "gpurig.accounting/1", "projects": [project], "weather": "fine"}
    (boxes.folder / FILE_NAME).write_text(json.dumps(line) + "\n")
    box = boxes.begin()
    box.accounting.publish()
    (one,) = box.accounting.snapshot.projects
    assert (one.jobs, one.gpu_seconds, one.energy_joules, one.oom) == (3, 1.5, 2.5, {"gpu": 1})


def test_fewer_projects_than_before_may_be_wanted(boxes):
    box = boxes.begin()
    for number in range(5):
        box.pids[number + 1] = box.start(number, key(number, project=number))
        box.run(2, {"gpu-a": gpu((number + 1, 1))})
    boxes.kill()
    box = boxes.begin(limits=Limits(projects=2))
    box.start(9, JobKey("99", "99", "1", "x"))
    box.pids[900] = container_id(9)
    box.run(2, {"gpu-a": gpu((900, 1))})
    assert {one.project_id for one in box.accounting.snapshot.projects} == {"0", "1", "2", "3", "4", "other"}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_no_file_whatever_stops_the_exporter(tmp_path, content):
    (tmp_path / FILE_NAME).write_bytes(content + b"\n")
    state = StateFile(tmp_path)
    state.load(lambda _line: None)
    state.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["gpus", "jobs", "projects"]), json_values, st.sampled_from(["", "uses", "ooms", "oom"]))
def test_no_json_whatever_stops_the_exporter(tmp_path, field, value, inner):
    content = {"schema": "gpurig.accounting/1", field: value}
    if inner:
        content[field] = [{"key": list("abcd"), "started_at": 1, "id": "1", "jobs": 1, inner: value}]
    (tmp_path / FILE_NAME).write_text(json.dumps(content) + "\n")
    state = StateFile(tmp_path)
    kept = state.load(lambda _line: None)
    assert isinstance(kept, Kept)
    encode(kept, written_at=1.0)
    state.close()
