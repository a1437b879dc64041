"""`up`, from beginning to end, on one screen.

Every step compares with the world and changes only what differs. Until `tidy`, everything can be taken back: when a
step fails, what this run made is unmade, and what was there before stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpurig.runner import up_steps
from gpurig.runner.registering import register, tidy
from gpurig.runner.starting import start
from gpurig.runner.up_run import UpRun


@dataclass(frozen=True)
class Step:
    """One step: it fills in the run, and says what it did."""

    name: str
    action: Callable[[UpRun], str]


LOOK = (
    Step("detect", up_steps.detect),
    Step("check", up_steps.check),
    Step("plan", up_steps.plan),
)

STEPS: tuple[Step, ...] = (
    *LOOK,
    Step("register", register),
    Step("image", up_steps.image),
    Step("configure", up_steps.configure),
    Step("start", start),
    Step("verify", up_steps.verify),
    Step("tidy", tidy),
    Step("report", up_steps.report),
)


def look(run: UpRun) -> None:
    """The steps that touch nothing, for `--dry-run`."""
    for step in LOOK:
        step.action(run)


def up(run: UpRun) -> None:
    """All steps; takes back what was made when one fails.

    Raises:
        ApplianceError: what the step that failed says; `run.notes` tells what could not be taken back.
    """
    with run.locks:
        try:
            for step in STEPS:
                run.say(step.name, step.action(run))
        except BaseException:
            # Also for Ctrl-C: a runner that nobody serves must not stay in GitLab.
            _roll_back(run)
            raise


def _roll_back(run: UpRun) -> None:
    if not run.undo:
        return
    failures = run.undo.roll_back()
    run.notes += [f"{failure} (the next `gpurig up` or `down` sees to it)" for failure in failures]
    if not failures:
        run.say("undo", "what this run had made was taken back")
