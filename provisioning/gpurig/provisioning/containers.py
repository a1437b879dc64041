"""What provisioning asks of the engine: an interface small enough that tests can make every call fail."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpurig.provisioning.container_spec import ContainerSpec
from gpurig.provisioning.engine_facts import EngineFacts


@dataclass(frozen=True)
class FoundContainer:
    """A container that gpurig made earlier.

    Attributes:
        spec: the digest of what it was made from.
        status: "running", "exited", "restarting", "created" …
        ports: where it listens on the host, "127.0.0.1:9476".
    """

    id: str
    name: str
    role: str
    spec: str
    status: str
    ports: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        """It is up, or the engine is bringing it up again."""
        return self.status in {"running", "restarting"}


@dataclass(frozen=True)
class RunningJob:
    """A CI job's container, as gitlab-runner labels it.

    Attributes:
        runner: the short form of the runner's token, a part of the token.
    """

    job_id: str
    url: str
    project_id: str
    runner: str
    entry: str
    container: str


@dataclass(frozen=True)
class RunResult:
    """A container that ran to its end."""

    code: int
    output: str


class OnOutput(Protocol):
    """Takes a piece of what a container writes."""

    def __call__(self, data: bytes, *, error: bool) -> None:
        """`error`: it went to standard error."""


class Engine(Protocol):
    """What provisioning asks of the engine; every method raises PrerequisiteError where it fails."""

    def facts(self) -> EngineFacts:
        """What the engine can do."""

    def image_id(self, name: str) -> str | None:
        """The id of an image that the engine has."""

    def pull(self, name: str) -> str:
        """Get an image from its registry; its id."""

    def load(self, archive: Path) -> tuple[str, ...]:
        """Take the images of a file that `docker save` wrote; their names. InputError where it is none."""

    def remove_image(self, name: str) -> bool:
        """Forget an image's name, and the image where it has no other; False where it is not there or in use."""

    def image_users(self, name: str) -> frozenset[str]:
        """Which instances of gpurig said that they need the image of that name, whatever `--root` is theirs."""

    def use_image(self, name: str, user: str) -> None:
        """Say that the instance `user` (its box id) needs it; nothing where that is known."""

    def release_image(self, name: str, user: str) -> None:
        """Say that it does not any more; nothing where it never did, or the image is gone."""

    def find(self, instance: str) -> tuple[FoundContainer, ...]:
        """The containers of an instance, but for those of jobs."""

    def owner_of(self, name: str) -> str | None:
        """Which instance the container of that name belongs to: "" for a stranger's, None where there is none."""

    def create(self, spec: ContainerSpec, image_id: str) -> str:
        """Make a container; its id. It is not started."""

    def start(self, container_id: str) -> None:
        """Start it; nothing where it runs."""

    def rename(self, container_id: str, name: str) -> None:
        """Give it another name."""

    def stop(self, container_id: str, *, wait_s: int) -> None:
        """Ask it to end, wait, then kill it; nothing where it is gone."""

    def remove(self, container_id: str) -> None:
        """Kill and remove it; nothing where it is gone."""

    def status(self, container_id: str) -> str:
        """Its state; "gone" where there is no such container."""

    def logs(self, container_id: str) -> str:
        """The last lines it wrote."""

    def run(self, spec: ContainerSpec, image_id: str, *, timeout_s: int) -> RunResult:
        """Run a container to its end and remove it, whatever happens."""

    def follow(self, spec: ContainerSpec, image_id: str, *, on_output: OnOutput) -> int:
        """The same without a limit of time, its output handed over as it comes; its exit code."""

    def jobs(self, instance: str) -> tuple[RunningJob, ...]:
        """The jobs of an instance that run now."""

    def remove_jobs(self, instance: str) -> int:
        """Remove the containers of an instance's jobs, which nobody serves any more; how many."""

    def remove_volumes(self, tokens: Collection[str]) -> int:
        """Remove the caches that gitlab-runner keeps in volumes for runners with these tokens; how many."""
