"""An exporter that the kernel kills in the middle of a writing: no counter that was shown ever falls."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from gpurig.common import files
from gpurig.runner.exporter.jobs.state_file import StateFile
from standins.accounting import Box, gpu, key

JOB = key(7)


def counters(box: Box) -> dict[str, float]:
    """What a scrape shows."""
    snapshot = box.accounting.snapshot
    shown = {f"energy {uuid}": joules for uuid, joules in snapshot.energy_joules.items()}
    for job in snapshot.jobs:
        for use in job.uses:
            shown[f"seconds {use.uuid}"] = use.gpu_seconds or 0.0
            shown[f"joules {use.uuid}"] = use.energy_joules or 0.0
            shown[f"peak {use.uuid}"] = use.memory_peak_bytes or 0
    for project in snapshot.projects:
        shown[f"project {project.project_id}"] = project.energy_joules or 0.0
    return shown


def run_until_killed(folder: Path, shown: Path, write_number: int, part: float) -> None:
    """A child accounts for a job, and is killed in its write of that number, after that part of the bytes."""
    child = os.fork()
    if child == 0:
        try:
            count, write = 0, os.write

            def fatal(descriptor: int, data: bytes) -> int:
                nonlocal count
                count += 1
                if count < write_number:
                    return write(descriptor, data)
                write(descriptor, data[: round(len(data) * part)])
                os.kill(os.getpid(), signal.SIGKILL)
                raise AssertionError

            files.os.write = fatal  # type: ignore[assignment] - this process ends here
            box = Box(state=StateFile(folder), longest_gap_s=3.0)
            box.pids[100] = box.start(1, JOB)
            for second in range(1, 200):
                box.run(1, {"gpu-a": gpu((100, second / 10), busy=0.37), "gpu-b": gpu(joules=second * 311.7)})
                with shown.open("w") as stream:
                    json.dump(counters(box), stream)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("write_number", [1, 2, 28, 29, 30, 31, 59, 100])
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_killed_in_any_write_it_goes_on_from_what_was_shown(tmp_path, write_number, part):
    folder, shown = tmp_path / "state", tmp_path / "shown.json"
    run_until_killed(folder, shown, write_number, part)
    before = json.loads(shown.read_text())
    said: list[str] = []
    box = Box(passed=1_000, state=StateFile(folder), say=said.append)
    box.accounting.publish()
    after = counters(box)
    assert said == [], "a line that was being written is no damage"
    assert before
    assert {name: value for name, value in before.items() if after[name] < value} == {}
    # At most the one second that was in the write is more.
    assert after["seconds gpu-a"] <= before["seconds gpu-a"] + 0.38
    box.accounting.close()
