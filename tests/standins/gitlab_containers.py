"""Containers as gitlab-runner labels those of a job, on a real engine, without a runner."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

LABEL = "com.gitlab.gitlab-runner"
_MINE = "gpurig.test-jobs"


@dataclass
class JobContainers:
    """Starts containers of jobs; job numbers are this test's own.

    Attributes:
        first_job: the number of its first job: tests that run beside this one have others.
    """

    engine: docker.DockerClient
    image: str
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def __post_init__(self) -> None:
        self.first_job = int(self.mark, 16)
        self._numbers = itertools.count(self.first_job)

    def run(self, command: list[str], *, job: int | None = None, kind: str = "build", **options: Any) -> Container:
        """Start one; its job's number is the label's, and it has no network."""
        number = next(self._numbers) if job is None else job
        labels = {
            f"{LABEL}.job.id": str(number),
            f"{LABEL}.project.id": "42",
            f"{LABEL}.pipeline.id": "9",
            f"{LABEL}.runner.id": "abcdefghi",
            f"{LABEL}.type": kind,
            f"{LABEL}.managed": "true",
            _MINE: self.mark,
        }
        # As gitlab-runner starts them: they stay when they end, until it removes them.
        return self.engine.containers.run(
            self.image, command, detach=True, labels=labels, network_mode="none", stop_signal="SIGKILL", **options
        )

    def job_of(self, container: Container) -> str:
        """The job's number, as the label has it."""
        return str(container.labels[f"{LABEL}.job.id"])


@contextlib.contextmanager
def job_containers(engine: docker.DockerClient, image: str) -> Iterator[JobContainers]:
    """Afterwards they are gone."""
    import docker.errors

    made = JobContainers(engine, image)
    try:
        yield made
    finally:
        for one in engine.containers.list(all=True, filters={"label": f"{_MINE}={made.mark}"}, ignore_removed=True):
            with contextlib.suppress(docker.errors.APIError):
                one.remove(force=True, v=True)
