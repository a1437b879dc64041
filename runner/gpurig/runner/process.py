"""gitlab-runner's process, whatever runs it: a container of the engine, or a service of systemd."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from gpurig.provisioning.plan import runner_name
from gpurig.runner.up_run import UpRun


@dataclass(frozen=True)
class RunnerProcess:
    """How one asks for it.

    Attributes:
        kind: "container" or "service".
        up: what `status` answers where it runs.
        log_command: what shows its whole log.
    """

    kind: str
    up: str
    status: Callable[[], str]
    logs: Callable[[], str]
    log_command: str


def runner_process(run: UpRun) -> RunnerProcess:
    """That of a run's plan, after it was started."""
    name = runner_name(run.settings.name)
    if run.plan.service is not None:
        services = run.world.services
        return RunnerProcess(
            kind="service",
            up="active",
            status=lambda: services.find(name).status,
            logs=functools.partial(services.logs, name),
            log_command=f"journalctl -u {name}",
        )
    found = next(one for one in run.engine.find(run.settings.name) if one.name == name)
    return RunnerProcess(
        kind="container",
        up="running",
        status=functools.partial(run.engine.status, found.id),
        logs=functools.partial(run.engine.logs, found.id),
        log_command=f"docker logs {name}",
    )
