"""How a box is doing: what its state, its engine and GitLab say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from gpurig.common.errors import ApplianceError, PrerequisiteError, RemoteError
from gpurig.provisioning.containers import FoundContainer, RunningJob
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.instances import Instance, instances, shared_gpus
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.plan import runner_name
from gpurig.provisioning.services import FoundService
from gpurig.provisioning.settings import check_name
from gpurig.provisioning.state import Registration, State, load_state
from gpurig.runner.renewing import due
from gpurig.runner.serving import has_unit
from gpurig.runner.up_run import with_rotated
from gpurig.runner.world import World


@dataclass(frozen=True)
class RunnerSeen:
    """A runner of this box.

    Attributes:
        in_gitlab: "yes", "no", or why it is not known.
        gpus: those it owns, by uuid.
        expires_at: of its token; None where it never does.
    """

    id: int
    key: str
    description: str
    tags: tuple[str, ...]
    url: str
    in_gitlab: str
    gpus: tuple[str, ...] = ()
    expires_at: datetime | None = None

    def token(self, now: datetime) -> str:
        """How long its token lasts, in a few words."""
        if self.expires_at is None:
            return "for ever"
        left = self.expires_at - now
        return "expired" if left <= timedelta(0) else f"{left.days} days" if left.days else "hours"


@dataclass(frozen=True)
class Overview:
    """Everything `status` shows.

    Attributes:
        service: the runner's, where systemd runs it; None where the engine does.
        notes: what somebody should see to before it becomes a fault.
        engine_problem: why the engine could not be asked; None where it could.
        service_problem: likewise for systemd.
        gitlab_problem: likewise for GitLab.
    """

    runners: tuple[RunnerSeen, ...]
    containers: tuple[FoundContainer, ...]
    jobs: tuple[RunningJob, ...]
    host: HostFacts
    now: datetime
    service: FoundService | None = None
    notes: tuple[str, ...] = ()
    engine_problem: ApplianceError | None = None
    service_problem: ApplianceError | None = None
    gitlab_problem: ApplianceError | None = None


def look_around(world: World, *, name: str, root: Path, docker_host: str | None) -> Overview:
    """Ask everybody once; what cannot be asked is noted.

    Raises:
        PrerequisiteError: the box is not set up. InputError: the state is damaged.
    """
    check_name(name)
    paths = Paths(root=root, name=name)
    state = with_rotated(load_state(world.disk, paths), world.disk.read(paths.config))
    if not state.registrations:
        raise PrerequisiteError(
            f"this box is not set up: {paths.state} names no runner",
            hint="gpurig up --url https://gitlab.example.com --project 42 --token-file FILE",
        )
    containers: tuple[FoundContainer, ...] = ()
    jobs: tuple[RunningJob, ...] = ()
    engine_problem = None
    try:
        engine = world.engine(docker_host or str(state.settings.get("docker_host") or ""))
        containers, jobs = engine.find(name), engine.jobs(name)
    except ApplianceError as error:
        engine_problem = error
    service, service_problem = None, None
    # A unit that is there counts, too: a switch that was killed leaves one.
    if state.settings.get("service") == "systemd" or has_unit(world, name, str(root)):
        try:
            service = world.services.find(runner_name(name))
        except ApplianceError as error:
            service_problem = error
    ca_file = None if world.disk.missing(paths.ca_file) else paths.ca_file
    runners = []
    gitlab_problem: ApplianceError | None = None
    for one in state.registrations:
        try:
            known = world.gitlab(one.url, ca_file).accepts(one.token)
            runners.append(_seen(one, "yes" if known else "no"))
        except ApplianceError as error:
            gitlab_problem = error
            runners.append(_seen(one, "not known"))
    return Overview(
        runners=tuple(runners),
        containers=tuple(sorted(containers, key=lambda one: one.name)),
        jobs=jobs,
        host=world.detect(),
        now=world.now(),
        service=service,
        service_problem=service_problem,
        notes=_notes(state, instances(world.disk, root), name, world.now()),
        engine_problem=engine_problem,
        gitlab_problem=gitlab_problem,
    )


def _seen(one: Registration, in_gitlab: str) -> RunnerSeen:
    return RunnerSeen(
        id=one.id,
        key=one.key,
        description=one.description,
        tags=one.tags,
        url=one.url,
        in_gitlab=in_gitlab,
        gpus=one.gpus,
        expires_at=one.expires_at,
    )


def _notes(state: State, everybody: tuple[Instance, ...], name: str, now: datetime) -> tuple[str, ...]:
    late = [
        f"the token of runner #{one.id} runs out on {one.expires_at:%Y-%m-%d} and was not renewed: gpurig up does it"
        for one in state.registrations
        if one.expires_at is not None and due(one, now)
    ]
    gpus = [gpu for one in state.registrations for gpu in one.gpus]
    shared = [
        f"the GPU {gpu} also serves {', '.join(names)}: jobs of both can meet in its memory"
        for gpu, names in shared_gpus(gpus, name, everybody).items()
    ]
    return tuple(late + shared + [one.told() for one in state.lost])


def judge(seen: Overview) -> None:
    """Nothing where all is well.

    Raises:
        PrerequisiteError: the engine, systemd, a service or a container. RemoteError: GitLab, or a runner that it does
        not know.
    """
    for problem in (seen.engine_problem, seen.service_problem):
        if problem is not None:
            raise problem
    _judge_process(seen)
    stopped = next((one for one in seen.containers if one.role != "selfcheck" and one.status != "running"), None)
    if stopped is not None:
        raise PrerequisiteError(
            f"the container {stopped.name} is {stopped.status}", hint=f"gpurig up; its log: docker logs {stopped.name}"
        )
    if seen.gitlab_problem is not None:
        raise seen.gitlab_problem
    unknown = next((one for one in seen.runners if one.in_gitlab != "yes"), None)
    if unknown is not None:
        raise RemoteError(
            f"GitLab does not know the runner #{unknown.id} any more",
            hint="somebody deleted it there: gpurig up --token-file FILE makes a new one",
        )


def _judge_process(seen: Overview) -> None:
    in_container = any(one.role == "runner" and one.status == "running" for one in seen.containers)
    if seen.service is None and not in_container:
        raise PrerequisiteError("the runner's container does not run", hint="start it: gpurig up")
    if seen.service is not None and not (in_container or seen.service.running):
        name, status = seen.service.name, seen.service.status
        raise PrerequisiteError(
            f"the runner's service {name} is {status}", hint=f"gpurig up; its log: journalctl -u {name}"
        )


def overview_document(seen: Overview) -> dict[str, Any]:
    """The same as JSON; no tokens."""
    problems = (seen.engine_problem, seen.service_problem, seen.gitlab_problem)
    return {
        "version": 1,
        "runners": [
            {
                "id": one.id,
                "key": one.key,
                "description": one.description,
                "tags": list(one.tags),
                "url": one.url,
                "in_gitlab": {"yes": True, "no": False}.get(one.in_gitlab),
                "gpus": list(one.gpus),
                "token_expires_at": one.expires_at.isoformat() if one.expires_at else None,
            }
            for one in seen.runners
        ],
        "containers": [{"name": one.name, "role": one.role, "status": one.status} for one in seen.containers],
        "service": seen.service
        and {"name": seen.service.name, "status": seen.service.status, "enabled": seen.service.enabled},
        "jobs": [
            {"job_id": one.job_id, "project_id": one.project_id, "url": one.url, "container": one.container}
            for one in seen.jobs
        ],
        "gpus": [{"uuid": gpu.uuid, "name": gpu.name, "backend": gpu.backend} for gpu in seen.host.gpus],
        "notes": list(seen.notes),
        "problems": [one.message for one in problems if one is not None],
    }
