"""Everything `up` touches, behind interfaces: the real ones here, first-class fakes in the tests."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from gpurig.common.waiting import Clock, SystemClock
from gpurig.provisioning.containers import Engine
from gpurig.provisioning.disk import Disk, LocalDisk
from gpurig.provisioning.docker_engine import DockerEngine
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.paths import Paths, box_id
from gpurig.provisioning.plan import Box, ImageTags, backends_of
from gpurig.provisioning.runner_binary import RunnerBinary, find_runner_binary
from gpurig.provisioning.runners import GitLab, HttpGitLab, TokenSource
from gpurig.provisioning.services import Services, Systemd
from gpurig.provisioning.settings import Settings


@dataclass(frozen=True)
class HadImage:
    """An image that the engine has now.

    Attributes:
        built: it was built just now.
    """

    id: str
    built: bool


class Images(Protocol):
    """The images of this version of gpurig."""

    def tags(self) -> ImageTags:
        """Their names; nothing is built."""

    def ensure(self, tag: str, *, on_line: Callable[[str], None]) -> HadImage:
        """Build the image of that name unless the engine has it."""


@dataclass(frozen=True)
class World:
    """What `up`, `status` and `down` reach out to.

    Attributes:
        engine: connects to the engine that the settings name.
        gitlab: talks to the GitLab at a URL, which a given certificate authority signed.
        images: the images for these settings and that host, on an engine.
        runner_binary: gitlab-runner's program on this machine, the one that was named or the one on PATH.
    """

    detect: Callable[[], HostFacts]
    engine: Callable[[str], Engine]
    gitlab: Callable[[str, Path | None], GitLab]
    images: Callable[[Settings, HostFacts, Engine], Images]
    box: Callable[[Paths], Box]
    disk: Disk = field(default_factory=LocalDisk)
    services: Services = field(default_factory=Systemd)
    runner_binary: Callable[[Path | None], RunnerBinary] = find_runner_binary
    clock: Clock = field(default_factory=SystemClock)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def real_world(token: TokenSource) -> World:
    """This machine, its engine, and the GitLab that the user named.

    Args:
        token: the user's, for what a runner's own token cannot do.
    """
    from gpurig.provisioning.detect import detect  # noqa: PLC0415 - heavy

    return World(
        detect=detect,
        engine=lambda address: DockerEngine.connect(address or None),
        gitlab=lambda url, ca_file: HttpGitLab(url, token=token, ca_file=ca_file),
        images=_images,
        box=_box,
    )


def _box(paths: Paths) -> Box:
    machine_id = ""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        try:
            machine_id = path.read_text(encoding="ascii")
            break
        except (OSError, UnicodeDecodeError):
            continue
    hostname = platform.node() or "box"
    return Box(hostname=hostname, box_id=box_id(machine_id or hostname, paths))


def _images(settings: Settings, host: HostFacts, engine: Engine) -> Images:
    if not isinstance(engine, DockerEngine):
        raise TypeError("images are built by a Docker Engine")
    return BuiltImages(settings, host, engine)


class BuiltImages:
    """The images that gpurig.images plans and builds."""

    def __init__(self, settings: Settings, host: HostFacts, engine: DockerEngine) -> None:
        """Plan the images.

        Raises:
            InputError, PrerequisiteError: see job_spec.choose_job_image and job_image.plan_job_image.
        """
        from gpurig.images.job_image import DEFAULT_BASE_IMAGE, plan_job_image  # noqa: PLC0415
        from gpurig.images.job_spec import choose_job_image  # noqa: PLC0415
        from gpurig.images.plan import ImagePlan, Transport  # noqa: PLC0415
        from gpurig.runner.exporter.image import plan_exporter_image  # noqa: PLC0415

        transport = Transport(
            pip_index_url=settings.pip_index_url,
            http_proxy=settings.http_proxy,
            https_proxy=settings.https_proxy,
            no_proxy=settings.no_proxy,
            ca_bundle=settings.build_ca_bundle,
        )
        self._engine = engine
        self._job = {
            one: plan_job_image(
                choose_job_image(one, host.gpus),
                base_image=settings.base_image,
                toolkit_image=settings.toolkit_image,
                from_mirror=settings.from_mirror,
                transport=transport,
            )
            for one in backends_of(host, settings)
        }
        self._exporter: ImagePlan | None = None
        if settings.metrics_listen != "off":
            from gpurig.runner.exporter.image import plan_exporter_image  # noqa: PLC0415

            base = settings.base_image or settings.from_mirror(DEFAULT_BASE_IMAGE)
            self._exporter = plan_exporter_image(base_image=base, transport=transport)

    def tags(self) -> ImageTags:
        """Their names; nothing is built."""
        return ImageTags(
            job={one: plan.tag for one, plan in self._job.items()},
            exporter=self._exporter.tag if self._exporter else "",
        )

    def ensure(self, tag: str, *, on_line: Callable[[str], None]) -> HadImage:
        """Build the image of that name unless the engine has it."""
        from gpurig.images.build import ensure_image  # noqa: PLC0415

        plan = next(one for one in (*self._job.values(), self._exporter) if one is not None and one.tag == tag)
        had = ensure_image(self._engine.client, plan, on_line=on_line)
        return HadImage(id=had.id, built=had.built)
