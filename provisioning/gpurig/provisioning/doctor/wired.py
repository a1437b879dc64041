"""Whether the engine can hand the GPUs to containers, and whether they stay there."""

from __future__ import annotations

from collections.abc import Sequence

from gpurig.common.errors import PrerequisiteError
from gpurig.provisioning.distribution import Command, Distribution
from gpurig.provisioning.doctor.cdi import DEFAULT_SPEC, generate
from gpurig.provisioning.doctor.finding import Finding
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.wiring import reload_takes_gpus, wire


def judge(gpus: Sequence[Gpu], engine: EngineFacts, where: Distribution) -> tuple[Finding, ...]:
    """The finding on the wiring of at least one GPU: what `up` itself would decide."""
    ways: list[str] = []
    for gpu in gpus:
        try:
            ways.append(_way(gpu, gpus, engine))
        except PrerequisiteError as error:
            commands: tuple[Command, ...] = ()
            hint = error.hint
            if gpu.backend == "cuda":
                commands = generate(DEFAULT_SPEC) if engine.cdi else _runtime(where)
                hint = "" if engine.cdi else "the restart stops running containers"
            return (Finding("gpu wiring", "failed", error.message, commands=commands, hint=hint),)
    found = ", ".join(dict.fromkeys(ways))
    return (Finding("gpu wiring", "ok", "the engine can hand every GPU to a container", found=f"by {found}"),)


def _runtime(where: Distribution) -> tuple[Command, ...]:
    return (Command(("nvidia-ctk", "runtime", "configure", "--runtime=docker")), *where.restart("docker"))


def _way(gpu: Gpu, gpus: Sequence[Gpu], engine: EngineFacts) -> str:
    wiring = wire([gpu], engine, beside=gpus)
    if wiring.driver == "cdi":
        return "CDI"
    return "NVIDIA's runtime" if gpu.backend == "cuda" else "device files"


def judge_hazard(gpus: Sequence[Gpu], engine: EngineFacts) -> tuple[Finding, ...]:
    """Whether running jobs lose their NVIDIA GPU at a `systemctl daemon-reload`; see wiring.reload_takes_gpus.

    Args:
        gpus: those that jobs are meant to get, one of NVIDIA's at least.
        engine: what it can do.
    """
    cards = [gpu for gpu in gpus if gpu.backend == "cuda"]
    try:
        wirings = [wire([gpu], engine, beside=gpus) for gpu in cards]
    except PrerequisiteError:
        return (Finding("cgroup driver", "skipped", "the GPUs are not wired yet", found=engine.cgroup_driver),)
    if not reload_takes_gpus(wirings, engine):
        by_cdi = all(one.driver == "cdi" for one in wirings)
        message = "CDI keeps GPUs in running jobs" if by_cdi else "GPUs stay in running jobs"
        return (Finding("cgroup driver", "ok", message, found=engine.cgroup_driver),)
    message = "running jobs lose their GPU at every systemctl daemon-reload, which package updates run"
    settings = 'put "exec-opts": ["native.cgroupdriver=cgroupfs"] into /etc/docker/daemon.json and restart docker'
    hint = f"the spec is enough; or {settings}" if engine.cdi else f"{settings}; or use an engine with CDI"
    return (
        Finding(
            "cgroup driver",
            "warning",
            message,
            found="systemd, NVIDIA's runtime",
            needed="CDI, or cgroupfs",
            commands=generate(DEFAULT_SPEC) if engine.cdi else (),
            hint=hint,
        ),
    )
