"""Containers and images on a Docker Engine, through docker-py."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.files import read_problem
from gpurig.provisioning import image_uses
from gpurig.provisioning.container_spec import LABEL_INSTANCE, LABEL_ROLE, LABEL_SPEC, ContainerSpec
from gpurig.provisioning.containers import FoundContainer, OnOutput, RunningJob, RunResult
from gpurig.provisioning.engine import connect, engine_facts, translated
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS, EngineFacts

if TYPE_CHECKING:
    import docker

# gitlab-runner's own labels on job containers (executors/docker/internal/labels/labels.go).
_JOB_LABEL = "com.gitlab.gitlab-runner"
_CONFLICT = 409
_OWN_ROLES = ("runner", "watcher", "exporter", "selfcheck")


class DockerEngine:
    """The engine behind a client of docker-py's; `containers.Engine` says what its methods do."""

    def __init__(self, client: docker.DockerClient, address: str) -> None:
        """Use a client that has answered."""
        self.client = client
        self._address = address

    @classmethod
    def connect(cls, address: str | None = None) -> DockerEngine:
        """The engine at `address`; see engine.connect for what it raises."""
        return cls(connect(address), address or DEFAULT_ADDRESS)

    def facts(self) -> EngineFacts:
        """What the engine can do."""
        return engine_facts(self.client, self._address)

    def image_id(self, name: str) -> str | None:
        """The id of an image that the engine has."""
        import docker.errors  # noqa: PLC0415 - heavy

        with translated(f"looking for the image {name}"):
            try:
                return str(self.client.images.get(name).id)
            except docker.errors.ImageNotFound:
                return None

    def pull(self, name: str) -> str:
        """Get an image from its registry; its id."""
        with translated(f"pulling the image {name}"):
            # Without a tag docker-py would pull every tag there is.
            last = name.rsplit("/", 1)[-1]
            image = self.client.images.pull(name, tag=None if ":" in last or "@" in last else "latest")
            return str(image.id)

    def load(self, archive: Path) -> tuple[str, ...]:
        """Take the images of a file that `docker save` wrote; their names. InputError where it is none."""
        import docker.errors  # noqa: PLC0415

        try:
            stream = archive.open("rb")
        except OSError as error:
            raise read_problem(archive, error) from error
        with stream, translated(f"loading {archive}"):
            try:
                loaded = self.client.images.load(stream)
            except (docker.errors.ImageLoadError, docker.errors.APIError) as error:
                raise InputError(
                    f"the engine cannot load {archive}: it is no archive of images",
                    hint=f"docker save IMAGE... -o {archive.name} makes one",
                ) from error
        return tuple(str(tag) for image in loaded for tag in image.tags)

    def remove_image(self, name: str) -> bool:
        """Forget an image's name, and the image where it has no other; False where it is not there or in use."""
        import docker.errors  # noqa: PLC0415

        with translated(f"removing the image {name}"):
            try:
                image_id = str(self.client.images.get(name).id)
                # Of an image with another name the engine would forget this one, whoever uses it.
                users = self.client.containers.list(all=True, filters={"ancestor": image_id}, ignore_removed=True)
                if any(one.attrs.get("Image") == image_id for one in users):
                    return False
                self.client.images.remove(name)
            except docker.errors.ImageNotFound:
                return False
            except docker.errors.APIError as error:
                if error.status_code == _CONFLICT:
                    return False
                raise
        return True

    def image_users(self, name: str) -> frozenset[str]:
        """Which instances of gpurig said that they need the image of that name."""
        return image_uses.users_of(self.client, name)

    def use_image(self, name: str, user: str) -> None:
        """Say that the instance `user` (its box id) needs it; nothing where that is known."""
        image_uses.use(self.client, name, user)

    def release_image(self, name: str, user: str) -> None:
        """Say that it does not any more; nothing where it never did, or the image is gone."""
        image_uses.release(self.client, name, user)

    def find(self, instance: str) -> tuple[FoundContainer, ...]:
        """The containers of an instance, but for those of jobs."""
        with translated("listing containers"):
            found = self.client.containers.list(
                all=True, filters={"label": f"{LABEL_INSTANCE}={instance}"}, ignore_removed=True
            )
        return tuple(
            FoundContainer(
                id=str(one.id),
                name=str(one.name),
                role=one.labels.get(LABEL_ROLE, ""),
                spec=one.labels.get(LABEL_SPEC, ""),
                status=str(one.status),
                ports=_ports(one.attrs),
            )
            for one in found
            if one.labels.get(LABEL_ROLE) in _OWN_ROLES
        )

    def owner_of(self, name: str) -> str | None:
        """Which instance the container of that name belongs to: "" for a stranger's, None where there is none."""
        container = self._get(name)
        return None if container is None else str(container.labels.get(LABEL_INSTANCE, ""))

    def create(self, spec: ContainerSpec, image_id: str) -> str:
        """Make a container; its id. It is not started."""
        with translated(f"creating the container {spec.name}"):
            return str(self.client.containers.create(spec.image, **spec.sdk_arguments(image_id)).id)

    def start(self, container_id: str) -> None:
        """Start it; nothing where it runs."""
        with translated("starting a container"):
            self.client.api.start(container_id)

    def rename(self, container_id: str, name: str) -> None:
        """Give it another name."""
        with translated("renaming a container"):
            self.client.api.rename(container_id, name)

    def stop(self, container_id: str, *, wait_s: int) -> None:
        """Ask it to end, wait, then kill it; nothing where it is gone."""
        container = self._get(container_id)
        if container is not None:
            with translated(f"stopping the container {container.name}"):
                container.stop(timeout=wait_s)

    def remove(self, container_id: str) -> None:
        """Kill and remove it; nothing where it is gone."""
        import docker.errors  # noqa: PLC0415

        with translated("removing a container"), contextlib.suppress(docker.errors.NotFound):
            self.client.api.remove_container(container_id, force=True, v=True)

    def status(self, container_id: str) -> str:
        """Its state; "gone" where there is no such container."""
        container = self._get(container_id)
        return "gone" if container is None else str(container.status)

    def logs(self, container_id: str) -> str:
        """The last lines it wrote."""
        container = self._get(container_id)
        if container is None:
            return ""
        with translated("reading a container's log"):
            return bytes(container.logs(tail=20)).decode(errors="replace")

    def run(self, spec: ContainerSpec, image_id: str, *, timeout_s: int) -> RunResult:
        """Run a container to its end and remove it, whatever happens."""
        import requests  # noqa: PLC0415

        stale = self._get(spec.name)
        if stale is not None:
            self.remove(str(stale.id))
        container_id = self.create(spec, image_id)
        try:
            self.start(container_id)
            with translated(f"waiting for the container {spec.name}"):
                try:
                    ended = self.client.api.wait(container_id, timeout=timeout_s)
                except (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError) as error:
                    raise PrerequisiteError(
                        f"{spec.name} did not finish within {timeout_s} s",
                        hint=f"run it by hand: docker run --rm {spec.image} {' '.join(spec.command)}",
                    ) from error
                output = bytes(self.client.api.logs(container_id, stdout=True, stderr=True))
        finally:
            self.remove(container_id)
        return RunResult(code=int(ended.get("StatusCode", -1)), output=output.decode(errors="replace"))

    def follow(self, spec: ContainerSpec, image_id: str, *, on_output: OnOutput) -> int:
        """The same without a limit of time, its output handed over as it comes; its exit code."""
        from docker.utils.socket import STDERR, frames_iter  # noqa: PLC0415 - heavy

        container_id = self.create(spec, image_id)
        try:
            with translated(f"following the container {spec.name}"):
                # Attached before it starts, so that nothing it says is missed.
                wanted = {"stdout": 1, "stderr": 1, "stream": 1}
                stream = self.client.api.attach_socket(container_id, params=wanted)
                try:
                    self.client.api.start(container_id)
                    for source, piece in frames_iter(stream, tty=False):  # type: ignore[no-untyped-call]  # docker's
                        on_output(piece, error=source == STDERR)
                finally:
                    # The socket is the answer's, and docker-py leaves it open.
                    stream._response.close()  # noqa: SLF001
                return int(self.client.api.wait(container_id).get("StatusCode", -1))
        finally:
            self.remove(container_id)

    def jobs(self, instance: str) -> tuple[RunningJob, ...]:
        """The jobs of an instance that run now."""
        with translated("listing jobs"):
            found = self.client.containers.list(
                filters={"label": [f"{_JOB_LABEL}.type=build", f"{LABEL_INSTANCE}={instance}"]}, ignore_removed=True
            )
        return tuple(
            RunningJob(
                job_id=one.labels.get(f"{_JOB_LABEL}.job.id", ""),
                url=one.labels.get(f"{_JOB_LABEL}.job.url", ""),
                project_id=one.labels.get(f"{_JOB_LABEL}.project.id", ""),
                runner=one.labels.get(f"{_JOB_LABEL}.runner.id", ""),
                entry=one.labels.get("gpurig.entry", ""),
                container=str(one.name),
            )
            for one in found
        )

    def remove_jobs(self, instance: str) -> int:
        """Remove the containers of an instance's jobs, which nobody serves any more; how many."""
        labels = [f"{LABEL_INSTANCE}={instance}", f"{LABEL_ROLE}=job"]
        with translated("listing jobs"):
            found = self.client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
        for one in found:
            self.remove(str(one.id))
        return len(found)

    def remove_volumes(self, tokens: Collection[str]) -> int:
        """Remove the caches that gitlab-runner keeps in volumes for runners with these tokens; how many."""
        import docker.errors  # noqa: PLC0415

        removed = 0
        with translated("removing cache volumes"):
            for volume in self.client.volumes.list(filters={"label": f"{_JOB_LABEL}.managed=true"}):
                # The label has the short form of the token.
                short = (volume.attrs.get("Labels") or {}).get(f"{_JOB_LABEL}.runner.id", "")
                if short and any(short in token for token in tokens):
                    with contextlib.suppress(docker.errors.NotFound):
                        volume.remove(force=True)
                        removed += 1
        return removed

    def _get(self, container_id: str) -> Any:
        import docker.errors  # noqa: PLC0415

        with translated("looking at a container"):
            try:
                return self.client.containers.get(container_id)
            except docker.errors.NotFound:
                return None


def _ports(attributes: dict[str, Any]) -> tuple[str, ...]:
    """The addresses that `docker inspect` says are published."""
    bindings = (attributes.get("HostConfig") or {}).get("PortBindings") or {}
    return tuple(
        f"{one.get('HostIp', '')}:{one.get('HostPort', '')}" for many in bindings.values() for one in many or []
    )
