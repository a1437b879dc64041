"""A whole box in memory: a disk, an engine and a GitLab that behave as the real ones do for `up` and `down`.

They are complete implementations of the interfaces that provisioning uses, so that a test may let any single call fail.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpurig.common.errors import PrerequisiteError, RemoteError
from gpurig.provisioning.container_spec import ContainerSpec
from gpurig.provisioning.containers import FoundContainer, OnOutput, RunningJob, RunResult
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import Backend, Gpu, HostFacts
from gpurig.provisioning.paths import Paths, box_id
from gpurig.provisioning.plan import Box, ImageTags, backends_of
from gpurig.provisioning.runner_binary import RunnerBinary
from gpurig.provisioning.service_spec import UNIT_DIR
from gpurig.provisioning.settings import Settings, make_settings
from gpurig.runner.up_run import UpRun
from gpurig.runner.world import HadImage, World

from standins.faults import Faults
from standins.memory_gitlab import MemoryGitLab
from standins.memory_systemd import MemorySystemd

URL = "https://gitlab.example.com"
ROOT = Path("/box")


class MemoryDisk:
    """Files and folders in two dictionaries."""

    def __init__(self) -> None:
        self.files: dict[Path, tuple[str, int]] = {}
        self.folders: set[Path] = {Path("/")}

    def read(self, path: Path) -> str | None:
        return self.files[path][0] if path in self.files else None

    def write(self, path: Path, text: str, *, mode: int) -> None:
        if path.parent not in self.folders:
            raise PrerequisiteError(f"cannot write {path}: no such folder")
        self.files[path] = (text, mode)

    def remove(self, path: Path) -> None:
        self.files = {one: value for one, value in self.files.items() if path not in (one, *one.parents)}
        self.folders = {one for one in self.folders if path not in (one, *one.parents)}

    def missing(self, path: Path) -> tuple[Path, ...]:
        return tuple(one for one in (path, *path.parents) if one not in self.folders and one not in self.files)

    def names(self, path: Path) -> tuple[str, ...]:
        return tuple(sorted({one.name for one in (*self.files, *self.folders) if one.parent == path and one != path}))

    def make_directory(self, path: Path, *, mode: int) -> None:
        self.folders.update((path, *path.parents))

    def lock(self, path: Path) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def remove_empty(self, path: Path) -> None:
        if not any(one.parent == path for one in (*self.files, *self.folders)):
            self.folders.discard(path)


@dataclass(frozen=True)
class MemoryContainer:
    """A container that the engine has."""

    id: str
    name: str
    spec: ContainerSpec
    digest: str
    status: str


class MemoryEngine:
    """Containers and images in dictionaries; names are unique, as on an engine."""

    def __init__(self, facts: EngineFacts) -> None:
        self.described = facts
        self.images: dict[str, str] = {}
        self.uses: set[tuple[str, str]] = set()
        self.containers: dict[str, MemoryContainer] = {}
        self.archives: dict[Path, tuple[str, ...]] = {}
        self.running_jobs: tuple[RunningJob, ...] = ()
        self.runs: list[ContainerSpec] = []
        self.run_result = RunResult(0, '{"ok": true}')
        self.stopped: list[tuple[str, int]] = []
        self.on_start: Callable[[ContainerSpec], None] = lambda _: None
        self._numbers = itertools.count(1)

    def facts(self) -> EngineFacts:
        return self.described

    def image_id(self, name: str) -> str | None:
        return self.images.get(name)

    def pull(self, name: str) -> str:
        return self.images.setdefault(name, f"sha256:{name}")

    def load(self, archive: Path) -> tuple[str, ...]:
        names = self.archives[archive]
        for name in names:
            self.pull(name)
        return names

    def remove_image(self, name: str) -> bool:
        if any(one.spec.image == name for one in self.containers.values()):
            return False
        return self.images.pop(name, None) is not None

    def image_users(self, name: str) -> frozenset[str]:
        return frozenset(user for tag, user in self.uses if tag == name)

    def use_image(self, name: str, user: str) -> None:
        if name not in self.images:
            raise PrerequisiteError(f"no such image: {name}")
        self.uses.add((name, user))

    def release_image(self, name: str, user: str) -> None:
        self.uses.discard((name, user))

    def find(self, instance: str) -> tuple[FoundContainer, ...]:
        return tuple(
            FoundContainer(
                one.id,
                one.name,
                one.spec.role,
                one.digest,
                one.status,
                tuple(f"{port.address}:{port.host}" for port in one.spec.ports),
            )
            for one in self.containers.values()
            if one.spec.instance == instance
        )

    def owner_of(self, name: str) -> str | None:
        return next((one.spec.instance for one in self.containers.values() if one.name == name), None)

    def create(self, spec: ContainerSpec, image_id: str) -> str:
        if self.owner_of(spec.name) is not None:
            raise PrerequisiteError(f"the name {spec.name} is in use")
        container_id = f"c{next(self._numbers)}"
        self.containers[container_id] = MemoryContainer(container_id, spec.name, spec, spec.digest(image_id), "created")
        return container_id

    def start(self, container_id: str) -> None:
        self._change(container_id, status="running")
        self.on_start(self.containers[container_id].spec)

    def rename(self, container_id: str, name: str) -> None:
        if self.owner_of(name) is not None:
            raise PrerequisiteError(f"the name {name} is in use")
        self._change(container_id, name=name)

    def stop(self, container_id: str, *, wait_s: int) -> None:
        if container_id in self.containers:
            self.stopped.append((self.containers[container_id].name, wait_s))
            self._change(container_id, status="exited")

    def remove(self, container_id: str) -> None:
        self.containers.pop(container_id, None)

    def status(self, container_id: str) -> str:
        return self.containers[container_id].status if container_id in self.containers else "gone"

    def logs(self, container_id: str) -> str:
        return "a line\n" if container_id in self.containers else ""

    def run(self, spec: ContainerSpec, image_id: str, *, timeout_s: int) -> RunResult:
        self.runs.append(spec)
        return self.run_result

    def follow(self, spec: ContainerSpec, image_id: str, *, on_output: OnOutput) -> int:
        self.runs.append(spec)
        on_output(self.run_result.output.encode(), error=False)
        return self.run_result.code

    def jobs(self, instance: str) -> tuple[RunningJob, ...]:
        return self.running_jobs

    def remove_jobs(self, instance: str) -> int:
        left, self.running_jobs = self.running_jobs, ()
        return len(left)

    def remove_volumes(self, tokens: Collection[str]) -> int:
        return 0

    def _change(self, container_id: str, **values: Any) -> None:
        if container_id not in self.containers:
            raise PrerequisiteError("no such container")
        self.containers[container_id] = replace(self.containers[container_id], **values)


class MemoryImages:
    """Images whose names are known, and that are built in no time."""

    def __init__(self, engine: MemoryEngine, backends: Sequence[Backend], version: str) -> None:
        self._engine = engine
        self._tags = ImageTags(
            job={one: f"gpurig-job-{one}:{version}" for one in backends}, exporter=f"gpurig-exporter:{version}"
        )

    def tags(self) -> ImageTags:
        return self._tags

    def ensure(self, tag: str, *, on_line: Callable[[str], None]) -> HadImage:
        built = tag not in self._engine.images
        return HadImage(id=self._engine.pull(tag), built=built)


@dataclass
class InstantClock:
    """A clock on which waiting takes no time."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def two_gpus() -> HostFacts:
    """A box with two cards."""
    return HostFacts(
        gpus=tuple(
            Gpu(
                "cuda",
                f"GPU-{n}",
                "NVIDIA GeForce RTX 4090",
                f"0000:0{n}:00.0",
                24564 * 2**20,
                arch="sm-89",
                index=str(n - 1),
            )
            for n in (1, 2)
        )
    )


class MemoryBox:
    """A box on which `up` and `down` run without touching anything."""

    def __init__(self, host: HostFacts | None = None, *, may_list: bool = True) -> None:
        self.host = host if host is not None else two_gpus()
        self.disk = MemoryDisk()
        self.engine = MemoryEngine(
            EngineFacts(
                address="unix:///var/run/docker.sock",
                version="26.1.5",
                cdi=True,
                cdi_devices=("nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=2", "nvidia.com/gpu=all"),
            )
        )
        self.paths = Paths(root=ROOT)
        self.today = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.gitlab = MemoryGitLab(self._online, may_list=may_list)
        self.version = "1"
        self.disk.make_directory(UNIT_DIR, mode=0o755)
        self.binary = RunnerBinary(Path("/usr/bin/gitlab-runner"), "19.4.0")
        self.systemd = MemorySystemd(self.disk, on_start=lambda name: self._runs(name.removesuffix("-runner")))
        self.twice: list[str] = []
        self.roots: dict[str, Path] = {}
        self.engine.on_start = self._started

    def _started(self, spec: ContainerSpec) -> None:
        if spec.role == "runner":
            self._runs(spec.instance)

    def _runs(self, instance: str) -> None:
        """gitlab-runner writes its system id when it has read its configuration."""
        if len(self.runners_of(instance)) > 1:
            self.twice.append(instance)
        self.disk.write(self.paths_of(instance).system_id, "r_1", mode=0o600)

    def paths_of(self, instance: str) -> Paths:
        """Where an instance's files are; names are unique on an engine, whatever the roots."""
        return Paths(root=self.roots.get(instance, ROOT), name=instance)

    def runners_of(self, instance: str) -> list[str]:
        """The runner's processes that an instance has."""
        containers = [
            one.name
            for one in self.engine.containers.values()
            if one.spec.role == "runner" and one.spec.instance == instance and one.status == "running"
        ]
        return containers + [name for name in self.systemd.processes if name == f"{instance}-runner"]

    def _online(self, runner_id: int) -> bool:
        config = "".join(self.disk.read(self.paths_of(name).config) or "" for name in self.roots)
        up = any(one.spec.role == "runner" and one.status == "running" for one in self.engine.containers.values())
        return (up or bool(self.systemd.processes)) and f"id = {runner_id}\n" in config

    def world(self, faults: Faults | None = None) -> World:
        """The box's world, one call of which may fail."""
        broken = faults or Faults()
        engine = broken.wrap(self.engine, "engine", PrerequisiteError)
        gitlab = broken.wrap(self.gitlab, "gitlab", RemoteError)
        images = broken.wrap(_Factory(self), "images", PrerequisiteError)

        def make_images(settings: Settings, host: HostFacts, _engine: Any) -> Any:
            return broken.wrap(images.make(backends_of(host, settings)), "images", PrerequisiteError)

        return World(
            detect=lambda: self.host,
            engine=lambda _: engine,
            gitlab=lambda _url, _ca: gitlab,
            images=make_images,
            box=lambda paths: Box("ada", "12345678" if paths == Paths(root=ROOT) else box_id("a machine", paths)),
            disk=broken.wrap(self.disk, "disk", PrerequisiteError),
            services=broken.wrap(self.systemd, "systemd", PrerequisiteError),
            runner_binary=lambda _: self.binary,
            clock=InstantClock(),
            now=lambda: self.today,
        )

    def settings(self, **given: Any) -> Settings:
        """Settings as a user would give them."""
        return make_settings({"url": URL, "runner_type": "project", "target": "42", "metrics_listen": "off", **given})

    def run(
        self,
        faults: Faults | None = None,
        *,
        archives: tuple[Path, ...] = (),
        prune: bool = False,
        name: str = "gpurig",
        root: Path = ROOT,
        **given: Any,
    ) -> UpRun:
        """A run of `up` on this box."""
        self.roots[name] = root
        return UpRun(
            self.world(faults),
            self.settings(name=name, **given),
            Paths(root=root, name=name),
            say=lambda *_: None,
            drain_s=5,
            archives=archives,
            prune=prune,
        )

    def snapshot(self) -> dict[str, Any]:
        """Everything that lasts, with what differs from run to run (numbers, tokens) replaced by names."""
        return {
            "gitlab": sorted(json.dumps(spec.document()) for _, spec in self.gitlab.runners.values()),
            "containers": sorted((one.name, one.digest, one.status) for one in self.engine.containers.values()),
            "files": {
                str(path): (self._without_numbers(text), mode) for path, (text, mode) in sorted(self.disk.files.items())
            },
            "systemd": self.systemd.snapshot(),
            "image users": sorted(self.engine.uses),
            "folders": sorted(str(folder) for folder in self.disk.folders),
        }

    def _without_numbers(self, text: str) -> str:
        for number, (token, spec) in self.gitlab.runners.items():
            text = text.replace(token, f"<token of {spec.description}>")
            text = re.sub(r'(_at"?(?: =|:)) [^,\n]+', r"\1 <time>", text)
            text = re.sub(rf'(\bid = |"id": ){number}\b', rf"\g<1><number of {spec.description}>", text)
        return text

    def orphans(self) -> list[int]:
        """Runners in GitLab whose token no file of the box has."""
        state = json.loads(self.disk.read(self.paths.state) or "{}")
        known = {one["id"] for kind in ("registrations", "retired") for one in state.get(kind, [])}
        return [number for number in self.gitlab.runners if number not in known]


class _Factory:
    def __init__(self, box: MemoryBox) -> None:
        self._box = box

    def make(self, backends: Sequence[Backend]) -> MemoryImages:
        return MemoryImages(self._box.engine, backends, self._box.version)
