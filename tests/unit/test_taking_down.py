"""What `down` promises, on a box in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpurig.common.errors import RemoteError
from gpurig.provisioning.containers import RunningJob
from gpurig.provisioning.facts import HostFacts
from standins.box_commands import down, state_of, up
from standins.convergence import no_machine
from standins.memory_box import MemoryBox


@pytest.fixture(autouse=True)
def _no_machine() -> Iterator[None]:
    with no_machine():
        yield


def test_down_stops_after_the_jobs_and_up_starts_again_without_a_new_runner() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    box.engine.running_jobs = (RunningJob("7", "", "1", "x", "cpu", "build"),)
    said = down(box, drain_s=7)
    assert ("gpurig-runner", 7) in box.engine.stopped
    assert any("waiting for 1 running job" in line for line in said)
    assert not box.engine.containers
    assert len(box.gitlab.runners) == 1
    run = up(box)
    assert run.changes == ["start"]
    assert len(box.gitlab.runners) == 1


def test_down_removes_the_jobs_that_did_not_end_before_the_runner_was_killed() -> None:
    box = MemoryBox()
    up(box)
    box.engine.running_jobs = (RunningJob("7", "", "1", "x", "cpu", "build"),)
    said = down(box, unregister=True)
    assert "stop removed 1 container(s) of jobs that did not end in time" in said
    assert box.engine.running_jobs == ()
    assert not any("of jobs" in line for line in down(box, unregister=True))


def test_down_unregister_leaves_no_runner_no_container_and_no_file_but_the_models() -> None:
    box = MemoryBox()
    up(box, metrics_listen="127.0.0.1:9476")
    model = box.paths.models / "a.gguf"
    box.disk.write(model, "weights", mode=0o644)
    down(box, unregister=True)
    assert not box.gitlab.runners
    assert not box.engine.containers
    assert list(box.disk.files) == [model]
    assert box.paths.config_dir not in box.disk.folders
    assert any("no container was there" in line for line in down(box, unregister=True))


def test_down_keeps_the_tokens_while_gitlab_cannot_delete_the_runners() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    delete = box.gitlab.delete

    def fail(_: str) -> None:
        raise RemoteError("GitLab is away")

    box.gitlab.delete = fail  # type: ignore[method-assign]
    with pytest.raises(RemoteError):
        down(box, unregister=True)
    assert state_of(box).registrations
    box.gitlab.delete = delete  # type: ignore[method-assign]
    down(box, unregister=True)
    assert not box.gitlab.runners
    assert not box.disk.files
