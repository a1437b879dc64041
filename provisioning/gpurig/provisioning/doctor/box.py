"""What the checks look at: this machine, its engine and GitLab, each behind one small method."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpurig.common.errors import ApplianceError, PrerequisiteError
from gpurig.provisioning.checks import check_certificates, check_folders, check_listen
from gpurig.provisioning.distribution import Distribution, distribution
from gpurig.provisioning.doctor import cdi, engine, exchange, nodes, runner_program, space, toolkit, user_token
from gpurig.provisioning.doctor.port import PortSeen
from gpurig.provisioning.doctor.runner_image import ImageSeen
from gpurig.provisioning.doctor.user import user_name
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.runner_binary import PROGRAM, find_runner_binary
from gpurig.provisioning.services import BOOTED

if TYPE_CHECKING:
    import docker


class Box(Protocol):
    """What can be asked; every method may raise OSError or an ApplianceError, and the check then says so."""

    def distribution(self) -> Distribution:
        """The distribution."""

    def user(self) -> str:
        """Who runs gpurig."""

    def now(self) -> datetime:
        """This machine's clock."""

    def folders(self, paths: Paths) -> None:
        """Nothing where the folders can be made or written to."""

    def certificates(self, ca_file: Path) -> None:
        """Nothing where the file holds certificates."""

    def host(self) -> HostFacts:
        """The GPUs."""

    def engine(self) -> engine.EngineSeen:
        """The engine."""

    def toolkit(self) -> toolkit.ToolkitSeen:
        """NVIDIA's container toolkit."""

    def cdi(self, folders: Sequence[Path]) -> tuple[cdi.SpecSeen, ...]:
        """The CDI specs."""

    def nodes(self, paths: Sequence[str]) -> tuple[nodes.NodeSeen, ...]:
        """AMD's device files."""

    def space(self, path: Path) -> space.SpaceSeen:
        """The file system of a folder."""

    def port(self, listen: str) -> PortSeen:
        """Whether a server could listen there."""

    def exporters(self, name: str) -> tuple[str, ...]:
        """Where an instance's exporter listens."""

    def image(self, name: str) -> ImageSeen:
        """An image on the engine, or in its registry."""

    def runner_program(self, wanted: Path | None) -> runner_program.ProgramSeen:
        """gitlab-runner's program: the one that is wanted, or the one on PATH."""

    def server(self) -> exchange.Answer:
        """GitLab's answer to GET /version."""

    def token(self) -> exchange.Answer:
        """GitLab's answer to GET /personal_access_tokens/self."""

    def ask(self, path: str) -> exchange.Answer:
        """GitLab's answer to GET `path`, with the user's token."""


class ThisBox:
    """The machine that gpurig runs on."""

    def __init__(
        self,
        *,
        docker_host: str = "",
        url: str = "",
        token: str | None = None,
        ca_file: Path | None = None,
        detect: Callable[[], HostFacts] | None = None,
    ) -> None:
        """Ask nothing yet.

        Args:
            docker_host: the engine's address, the default one where "".
            url: GitLab's.
            token: the user's, None where there is none.
            ca_file: who signed GitLab's certificate.
            detect: finds the GPUs; detection itself where None.
        """
        self._docker_host = docker_host
        self._url = url
        self._token = token
        self._ca_file = ca_file
        self._detect = detect
        self._client: docker.DockerClient | None = None

    def distribution(self) -> Distribution:
        """The distribution."""
        return distribution()

    def user(self) -> str:
        """Who runs gpurig."""
        return user_name()

    def now(self) -> datetime:
        """This machine's clock."""
        return datetime.now(UTC)

    def folders(self, paths: Paths) -> None:
        """Nothing where the folders can be made or written to."""
        check_folders(paths)

    def certificates(self, ca_file: Path) -> None:
        """Nothing where the file holds certificates."""
        check_certificates(ca_file)

    def host(self) -> HostFacts:
        """The GPUs."""
        from gpurig.provisioning.detect import detect  # noqa: PLC0415 - heavy

        return (self._detect or detect)()

    def engine(self) -> engine.EngineSeen:
        """The engine."""
        self.close()
        seen, self._client = engine.look(self._docker_host)
        return seen

    def toolkit(self) -> toolkit.ToolkitSeen:
        """NVIDIA's container toolkit."""
        return toolkit.look()

    def cdi(self, folders: Sequence[Path]) -> tuple[cdi.SpecSeen, ...]:
        """The CDI specs."""
        return cdi.look(folders)

    def nodes(self, paths: Sequence[str]) -> tuple[nodes.NodeSeen, ...]:
        """AMD's device files."""
        return nodes.look(paths)

    def space(self, path: Path) -> space.SpaceSeen:
        """The file system of a folder."""
        return space.look(path)

    def port(self, listen: str) -> PortSeen:
        """Whether a server could listen there."""
        try:
            check_listen(listen)
        except ApplianceError as error:
            return PortSeen(listen, error.message, error.hint)
        return PortSeen(listen)

    def exporters(self, name: str) -> tuple[str, ...]:
        """Where an instance's exporter listens."""
        from gpurig.provisioning.docker_engine import DockerEngine  # noqa: PLC0415 - heavy

        found = DockerEngine(self._answering(), self._docker_host).find(name)
        return tuple(port for one in found if one.role == "exporter" and one.running for port in one.ports)

    def image(self, name: str) -> ImageSeen:
        """An image on the engine, or in its registry."""
        from gpurig.provisioning.docker_engine import DockerEngine  # noqa: PLC0415 - heavy
        from gpurig.provisioning.engine import translated  # noqa: PLC0415

        client = self._answering()
        if DockerEngine(client, self._docker_host).image_id(name) is not None:
            return ImageSeen(name, present=True)
        try:
            with translated(f"looking for {name} in its registry"):
                client.images.get_registry_data(name)
        except ApplianceError as error:
            return ImageSeen(name, present=False, problem=error.message, hint=error.hint)
        return ImageSeen(name, present=False)

    def runner_program(self, wanted: Path | None) -> runner_program.ProgramSeen:
        """gitlab-runner's program: the one that is wanted, or the one on PATH."""
        absent = wanted is None and shutil.which(PROGRAM) is None
        return runner_program.ProgramSeen(
            binary=None if absent else find_runner_binary(wanted), systemd=BOOTED.is_dir()
        )

    def server(self) -> exchange.Answer:
        """GitLab's answer to GET /version."""
        return exchange.ask(self._url, "/version", token=self._token, ca_file=self._ca_file)

    def token(self) -> exchange.Answer:
        """GitLab's answer to GET /personal_access_tokens/self."""
        return self.ask(user_token.PATH)

    def ask(self, path: str) -> exchange.Answer:
        """GitLab's answer to GET `path`, with the user's token."""
        return exchange.ask(self._url, path, token=self._token, ca_file=self._ca_file)

    def close(self) -> None:
        """Leave the engine."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _answering(self) -> docker.DockerClient:
        if self._client is None:
            self.engine()
        if self._client is None:
            raise PrerequisiteError("the Docker Engine does not answer")
        return self._client
