"""`python -m standins.killed_up STEP MOMENT WORDS...`: gpurig with WORDS, whose `up` dies by SIGKILL in that step.

MOMENT is "before", "after", or "in": right after the step's first call that changes something on the disk, the engine
or GitLab has come back; a step that changes nothing dies at its end.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from gpurig.provisioning.disk import LocalDisk
from gpurig.provisioning.docker_engine import DockerEngine
from gpurig.provisioning.runners import HttpGitLab
from gpurig.runner import workflow
from gpurig.runner.__main__ import cli
from gpurig.runner.up_run import UpRun

_CHANGING: tuple[tuple[type, tuple[str, ...]], ...] = (
    (LocalDisk, ("write", "remove", "make_directory", "remove_empty")),
    (HttpGitLab, ("create", "change", "reset_token", "delete", "delete_by_id")),
    (DockerEngine, ("pull", "load", "create", "start", "rename", "stop", "remove", "run", "remove_image")),
)


class Executioner:
    """Knows whether the process is in the step in which it shall die."""

    def __init__(self, step: str, moment: str) -> None:
        self.step, self.moment = step, moment
        self.inside = False

    def die(self) -> None:
        """As by `kill -9`: nothing is tidied up."""
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, step: workflow.Step) -> workflow.Step:
        """The step, with death where it is due."""
        if step.name != self.step:
            return step

        def action(run: UpRun) -> str:
            if self.moment == "before":
                self.die()
            self.inside = True
            step.action(run)
            self.die()
            raise AssertionError("it lives")

        return workflow.Step(step.name, action)

    def after(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, after which the process dies if it is in the step."""

        @functools.wraps(method)
        def watched(*given: Any, **named: Any) -> Any:
            answer = method(*given, **named)
            if self.inside and self.moment == "in":
                self.die()
            return answer

        return watched


def main() -> None:
    """Run, and die."""
    executioner = Executioner(sys.argv[1], sys.argv[2])
    workflow.STEPS = tuple(executioner.watch(step) for step in workflow.STEPS)
    for owner, names in _CHANGING:
        for name in names:
            setattr(owner, name, executioner.after(getattr(owner, name)))
    cli.main(args=sys.argv[3:], prog_name="gpurig")


if __name__ == "__main__":
    main()
