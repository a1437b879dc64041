"""What a box shall become: pure, from facts and settings to a frozen Plan that can be printed and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.terminal import harmless
from gpurig.provisioning.container_spec import NO_NEW_PRIVILEGES, ContainerSpec, Mount
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS, EngineFacts
from gpurig.provisioning.facts import Backend, Gpu, HostFacts
from gpurig.provisioning.metrics_containers import USAGE_DIR, exporter_spec, watcher_spec
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.runner_binary import RunnerBinary
from gpurig.provisioning.runner_spec import TEXT_LIMIT, RunnerSpec, maintenance_note
from gpurig.provisioning.service_spec import ServiceSpec
from gpurig.provisioning.settings import RUNNER_IMAGE, PullPolicy, Settings
from gpurig.provisioning.tags import tags_for
from gpurig.provisioning.wiring import Wiring, reload_takes_gpus, wire

# Where the containers see the host's files.
RUNNER_CONFIG_DIR = "/etc/gitlab-runner"
RUNNER_CA_FILE = f"{RUNNER_CONFIG_DIR}/certs/gitlab-ca.crt"
MODELS_DIR = "/models"

# What a job of an LLM project has no use for. Jobs install packages as root, so CHOWN, DAC_OVERRIDE, FOWNER, SETUID
# and SETGID stay.
JOB_CAP_DROP = ("AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SETPCAP", "SYS_CHROOT")

# PyTorch's data loaders pass batches through /dev/shm, and the engine's default of 64 MiB kills them.
JOB_SHM_BYTES = 1024**3


@dataclass(frozen=True)
class Box:
    """The machine, as its runners are named after it.

    Attributes:
        hostname: as the machine calls itself.
        box_id: see paths.box_id.
    """

    hostname: str
    box_id: str


@dataclass(frozen=True)
class ImageTags:
    """The images to use; building them is somebody else's.

    Attributes:
        job: the job image of each backend on this box.
        exporter: the exporter's image.
    """

    job: Mapping[Backend, str]
    exporter: str


@dataclass(frozen=True)
class Entry:
    """One `[[runners]]` entry.

    Attributes:
        key: what it stands for on this box, stable from run to run: "gpu:<uuid>", "box:cuda" or "cpu".
        limit: jobs at a time.
        image: the job image, for jobs that name none.
    """

    key: str
    backend: Backend
    gpus: tuple[str, ...]
    runner: RunnerSpec
    wiring: Wiring
    limit: int
    image: str


@dataclass(frozen=True)
class Plan:
    """What `up` makes true.

    Attributes:
        entries: in the GPUs' PCI order.
        environment: variables of the runner's process and of jobs.
        containers: in the order in which they are started.
        runner_image: gitlab-runner's; "" where it runs as a service.
        engine_address: the engine that jobs run on.
        service: the runner's; None where its container is among the containers.
        reload_takes_gpus: see wiring.reload_takes_gpus.
        usage: the folder in which jobs find what they used; None where nobody accounts for it.
    """

    entries: tuple[Entry, ...]
    containers: tuple[ContainerSpec, ...]
    paths: Paths
    runner_image: str
    helper_image: str
    exporter_image: str
    job_images: tuple[str, ...]
    allowed_images: tuple[str, ...]
    allowed_pull_policies: tuple[PullPolicy, ...]
    custom_ca: bool
    environment: tuple[tuple[str, str], ...] = ()
    engine_address: str = DEFAULT_ADDRESS
    service: ServiceSpec | None = None
    reload_takes_gpus: bool = False
    usage: Path | None = None

    @property
    def concurrent(self) -> int:
        """Jobs at a time on the whole box."""
        return sum(entry.limit for entry in self.entries)


def plan_box(
    host: HostFacts,
    engine: EngineFacts,
    settings: Settings,
    *,
    paths: Paths,
    box: Box,
    images: ImageTags,
    binary: RunnerBinary | None = None,
) -> Plan:
    """The plan for a box; touches nothing.

    Args:
        host: what it has.
        engine: what its engine can do.
        settings: what the user decided.
        paths: where files go.
        box: as its runners are named after it.
        images: those to use.
        binary: gitlab-runner's program, where the settings want it as a service.

    Raises:
        PrerequisiteError: the engine cannot hand a GPU to a container.
    """
    everything = _in_order(host)
    entries = tuple(
        _entry(key, gpus, wire(gpus, engine, beside=everything), settings=settings, box=box, images=images)
        for key, gpus in _groups(host, settings)
    )
    metrics = (
        ()
        if settings.metrics_listen == "off"
        else (
            watcher_spec(engine, settings, paths, images.exporter),
            exporter_spec([entry.wiring for entry in entries], settings, paths, images.exporter, hostname=box.hostname),
        )
    )
    service = None if binary is None else _service(binary, engine, settings, paths)
    runner = [] if service is not None else [_runner(engine, settings, paths)]
    return Plan(
        entries=entries,
        containers=(*runner, *metrics),
        service=service,
        paths=paths,
        engine_address=engine.address,
        reload_takes_gpus=reload_takes_gpus([entry.wiring for entry in entries], engine),
        runner_image=_runner_image(settings) if service is None else "",
        helper_image=settings.helper_image,
        exporter_image=images.exporter if metrics else "",
        job_images=tuple(dict.fromkeys(entry.image for entry in entries)),
        allowed_images=settings.allowed_images,
        allowed_pull_policies=settings.allowed_pull_policies,
        custom_ca=settings.tls_ca_file is not None,
        environment=settings.proxies(),
        usage=paths.usage if metrics else None,
    )


def _runner_image(settings: Settings) -> str:
    default = settings.runner_image == RUNNER_IMAGE
    return settings.from_mirror(RUNNER_IMAGE) if default else settings.runner_image


def _in_order(host: HostFacts) -> tuple[Gpu, ...]:
    both = [*host.gpus, *(gpu for gpu, _ in host.ignored)]
    return tuple(sorted(both, key=lambda gpu: gpu.pci_address))


def backends_of(host: HostFacts, settings: Settings) -> tuple[Backend, ...]:
    """The backends that job images are needed for, in the order of the GPUs."""
    if settings.cpu or not host.gpus:
        return ("cpu",)
    return tuple(dict.fromkeys(gpu.backend for gpu in host.gpus))


def _groups(host: HostFacts, settings: Settings) -> list[tuple[str, tuple[Gpu, ...]]]:
    if settings.cpu or not host.gpus:
        return [("cpu", ())]
    if settings.layout == "box":
        backends = backends_of(host, settings)
        return [(f"box:{one}", tuple(gpu for gpu in host.gpus if gpu.backend == one)) for one in backends]
    return [(f"gpu:{gpu.uuid}", (gpu,)) for gpu in host.gpus]


def _entry(
    key: str, gpus: tuple[Gpu, ...], wiring: Wiring, *, settings: Settings, box: Box, images: ImageTags
) -> Entry:
    backend: Backend = gpus[0].backend if gpus else "cpu"
    return Entry(
        key=key,
        backend=backend,
        gpus=tuple(gpu.uuid for gpu in gpus),
        runner=RunnerSpec(
            url=settings.url,
            runner_type=settings.runner_type,
            target=settings.target,
            description=_description(gpus, settings, box),
            tags=tuple(dict.fromkeys((*tags_for(gpus), *settings.extra_tags))),
            run_untagged=settings.run_untagged,
            locked=settings.locked and settings.runner_type == "project",
            protected=settings.protected,
            paused=settings.paused,
            maximum_timeout=settings.maximum_timeout,
            maintenance_note=maintenance_note(gpus, hostname=box.hostname, said=settings.maintenance_note),
        ),
        wiring=wiring,
        limit=settings.concurrent,
        image=images.job[backend],
    )


def _description(gpus: Sequence[Gpu], settings: Settings, box: Box) -> str:
    """It ends with what no other box's has: by it a runner is found whose creation was not answered."""
    end = f": {_hardware(gpus)} [{box.box_id}]"
    return (settings.description or f"{settings.name} on {box.hostname}")[: TEXT_LIMIT - len(end)] + end


def _hardware(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return "CPU"
    names = dict.fromkeys(harmless(gpu.name) or gpu.backend for gpu in gpus)
    what = " + ".join(names) if len(gpus) == 1 else f"{len(gpus)} x {' + '.join(names)}"
    return f"{what} {gpus[0].pci_address}".rstrip() if len(gpus) == 1 else what


def _runner(engine: EngineFacts, settings: Settings, paths: Paths) -> ContainerSpec:
    return ContainerSpec(
        name=runner_name(settings.name),
        role="runner",
        instance=settings.name,
        image=_runner_image(settings),
        environment=settings.proxies(),
        mounts=(
            Mount(str(paths.config_dir), RUNNER_CONFIG_DIR),
            Mount(engine.socket, "/var/run/docker.sock"),
        ),
        # GitLab is reached as `up` reached it: by the same DNS, VPN and localhost.
        network="host",
        restart=True,
        stop_signal="SIGQUIT",
        security_opt=NO_NEW_PRIVILEGES,
    )


def runner_name(instance: str) -> str:
    """What an instance's runner is called: the container, or the service."""
    return f"{instance}-runner"


def _service(binary: RunnerBinary, engine: EngineFacts, settings: Settings, paths: Paths) -> ServiceSpec:
    return ServiceSpec(
        name=runner_name(settings.name),
        instance=settings.name,
        root=paths.root,
        binary=binary.path,
        version=binary.version,
        config=paths.config,
        folders=(paths.config_dir, paths.data_dir),
        working_dir=paths.data_dir,
        environment=settings.proxies(),
        stop_s=settings.wait,
        socket=engine.socket,
    )


def selfcheck_spec(plan: Plan, entry: Entry) -> ContainerSpec:
    """The container that proves `entry`: wired, mounted and confined as config.toml does it for a job."""
    return job_container(
        ("gpurig-job", "selfcheck", "--backend", entry.backend, "--json"),
        instance=plan.paths.name,
        key=entry.key,
        image=entry.image,
        wiring=entry.wiring,
        models=plan.paths.models,
        usage=plan.usage,
    )


def job_container(
    command: tuple[str, ...],
    *,
    instance: str,
    key: str,
    image: str,
    wiring: Wiring,
    models: Path | None,
    usage: Path | None = None,
) -> ContainerSpec:
    """A container that is to a self-check what a job's is to the job.

    Args:
        command: what runs in it.
        instance: whose it is.
        key: tells it from others of the instance.
        image: the job image.
        wiring: its GPUs.
        models: the box's folder of models; None where there is none.
        usage: the box's folder of what jobs used; None where there is none.
    """
    folders = ((models, MODELS_DIR), (usage, USAGE_DIR))
    return ContainerSpec(
        name=f"{instance}-selfcheck-{hashlib.sha256(key.encode()).hexdigest()[:8]}",
        role="selfcheck",
        instance=instance,
        image=image,
        command=command,
        mounts=tuple(Mount(str(folder), target, read_only=True) for folder, target in folders if folder),
        cap_drop=JOB_CAP_DROP,
        security_opt=NO_NEW_PRIVILEGES,
        shm_size=JOB_SHM_BYTES,
        wiring=wiring,
    )
