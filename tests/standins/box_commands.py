"""`gpurig up` and `gpurig down` on a box in memory, and what they have written of it."""

from __future__ import annotations

from typing import Any

from gpurig.provisioning.state import State
from gpurig.runner import workflow
from gpurig.runner.taking_down import take_down
from gpurig.runner.up_run import UpRun

from standins.memory_box import ROOT, MemoryBox


def up(box: MemoryBox, **given: Any) -> UpRun:
    """Set the box up; `given` are settings."""
    run = box.run(**given)
    workflow.up(run)
    return run


def down(box: MemoryBox, *, unregister: bool = False, drain_s: int | None = None) -> list[str]:
    """Take the box down; the lines that it says, each with its step before it."""
    said: list[str] = []
    take_down(
        box.world(),
        name="gpurig",
        root=ROOT,
        docker_host=None,
        unregister=unregister,
        drain_s=drain_s,
        say=lambda step, text: said.append(f"{step} {text}"),
    )
    return said


def state_of(box: MemoryBox) -> State:
    """What state.json says."""
    return State.model_validate_json(box.disk.read(box.paths.state) or "{}")
