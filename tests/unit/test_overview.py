"""What `status` promises, on a box in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gpurig.common.errors import PrerequisiteError, RemoteError
from gpurig.runner.overview import judge, look_around
from standins.box_commands import down, up
from standins.convergence import no_machine
from standins.memory_box import ROOT, MemoryBox


@pytest.fixture(autouse=True)
def _no_machine() -> Iterator[None]:
    with no_machine():
        yield


def look(box: MemoryBox) -> Any:
    return look_around(box.world(), name="gpurig", root=ROOT, docker_host=None)


def test_status_of_a_box_that_is_not_set_up_says_so() -> None:
    with pytest.raises(PrerequisiteError, match="not set up"):
        look(MemoryBox())


def test_a_watcher_that_stopped_is_a_fault() -> None:
    box = MemoryBox()
    up(box, metrics_listen="127.0.0.1:9476")
    watcher = next(one.id for one in box.engine.containers.values() if one.spec.role == "watcher")
    box.engine.stop(watcher, wait_s=0)
    with pytest.raises(PrerequisiteError, match="gpurig-watcher is exited"):
        judge(look(box))
    run = up(box, metrics_listen="127.0.0.1:9476")
    assert run.changes == ["start"]
    judge(look(box))


def test_status_is_fine_only_while_everything_runs_and_gitlab_knows_it() -> None:
    box = MemoryBox()
    up(box, metrics_listen="127.0.0.1:9476")
    judge(look(box))
    first = next(iter(box.gitlab.runners))
    kept = box.gitlab.runners.pop(first)
    with pytest.raises(RemoteError, match=f"#{first}"):
        judge(look(box))
    box.gitlab.runners[first] = kept
    exporter = next(one.id for one in box.engine.containers.values() if one.spec.role == "exporter")
    box.engine.stop(exporter, wait_s=0)
    with pytest.raises(PrerequisiteError, match="gpurig-exporter is exited"):
        judge(look(box))
    down(box)
    with pytest.raises(PrerequisiteError, match="does not run"):
        judge(look(box))
