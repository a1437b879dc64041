"""How `up` and `upgrade` run the workflow and say what came of it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from gpurig.runner.commands.instance import say_step

if TYPE_CHECKING:
    from gpurig.runner.up_run import UpRun


def finish(run: UpRun) -> None:
    """All steps, then the notes, also where a step failed."""
    from gpurig.runner import workflow  # noqa: PLC0415 - heavy

    # A service manager that ends it gets the same tidy end as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        workflow.up(run)
    finally:
        for note in run.notes:
            say_step("note", note, to_stderr=True)


def outcome(run: UpRun) -> dict[str, Any]:
    """What was done, as JSON."""
    return {
        "version": 1,
        "changed": run.changes,
        "runners": [
            {"id": one.id, "key": one.key, "description": one.description, "tags": list(one.tags), "url": one.url}
            for one in run.state.registrations
        ],
        "containers": [spec.name for spec in run.plan.containers],
        "service": run.plan.service.name if run.plan.service else None,
        "metrics": run.settings.metrics_listen,
        "notes": run.notes,
    }
