"""What the stand-in keeps in memory, guarded by State.lock. A thing is equal to itself only."""

from __future__ import annotations

import datetime as dt
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from standins.gitlab.ci_config import JobSpec

# GitLab's access levels [lib/gitlab/access.rb].
REPORTER = 20
DEVELOPER = 30
MAINTAINER = 40
OWNER = 50

FINISHED = frozenset({"success", "failed", "skipped", "canceled"})


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def stamp(moment: dt.datetime | None) -> str | None:
    """The moment as GitLab writes it: 2026-01-31T12:00:00.000Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z" if moment else None


@dataclass(eq=False)
class User:
    id: int
    username: str
    admin: bool = False

    @property
    def name(self) -> str:
        return self.username.replace("-", " ").title()


@dataclass(eq=False)
class AccessToken:
    """A personal, project or group access token; `value` is the secret."""

    id: int
    value: str = field(repr=False)
    name: str
    user: User
    scopes: tuple[str, ...]
    created_at: dt.datetime
    expires_at: dt.date | None = None
    revoked: bool = False


@dataclass(eq=False)
class Group:
    id: int
    path: str
    members: dict[int, int] = field(default_factory=dict)

    def level(self, user: User) -> int:
        return OWNER if user.admin else self.members.get(user.id, 0)


@dataclass(frozen=True)
class Variable:
    """One CI variable as the job request carries it."""

    key: str
    value: str = field(repr=False)
    public: bool = True
    masked: bool = False
    file: bool = False
    raw: bool = False


@dataclass(eq=False)
class Note:
    id: int
    body: str
    author: User
    created_at: dt.datetime
    updated_at: dt.datetime
    internal: bool = False


@dataclass(eq=False)
class MergeRequest:
    id: int
    iid: int
    title: str
    source_branch: str
    target_branch: str
    notes: list[Note] = field(default_factory=list)


@dataclass(eq=False)
class PackageFile:
    """A file of a generic package."""

    id: int
    name: str
    content: bytes
    created_at: dt.datetime


@dataclass(eq=False)
class Package:
    """A generic package; files of one name may be several, of which the newest is served."""

    id: int
    name: str
    version: str
    created_at: dt.datetime
    files: list[PackageFile] = field(default_factory=list)


@dataclass(eq=False)
class Project:
    """A project; `repository` is its bare Git repository."""

    id: int
    group: Group
    name: str
    repository: Path
    created_at: dt.datetime
    default_branch: str = "main"
    members: dict[int, int] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    merge_requests: dict[int, MergeRequest] = field(default_factory=dict)
    packages: list[Package] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"{self.group.path}/{self.name}"

    def level(self, user: User) -> int:
        return max(self.group.level(user), self.members.get(user.id, 0))


@dataclass(eq=False)
class Manager:
    """One gitlab-runner process that uses a runner's token, known by its system id."""

    id: int
    system_id: str
    created_at: dt.datetime
    contacted_at: dt.datetime | None = None
    version: str = ""
    revision: str = ""
    platform: str = ""
    architecture: str = ""
    features: dict[str, object] = field(default_factory=dict)


@dataclass(eq=False)
class Runner:
    id: int
    token: str = field(repr=False)
    runner_type: str
    creator: User
    created_at: dt.datetime
    group: Group | None = None
    projects: list[Project] = field(default_factory=list)
    description: str = ""
    maintenance_note: str = ""
    tag_list: list[str] = field(default_factory=list)
    run_untagged: bool = True
    locked: bool = False
    paused: bool = False
    access_level: str = "not_protected"
    maximum_timeout: int | None = None
    token_expires_at: dt.datetime | None = None
    managers: dict[str, Manager] = field(default_factory=dict)

    @property
    def contacted_at(self) -> dt.datetime | None:
        moments = [manager.contacted_at for manager in self.managers.values() if manager.contacted_at]
        return max(moments, default=None)

    @property
    def status(self) -> str:
        """online, offline or never_contacted; a runner is online for two hours after its last contact."""
        return contact_status(self.contacted_at)

    def serves(self, project: Project) -> bool:
        if self.runner_type == "group_type":
            return self.group is project.group
        return self.runner_type == "instance_type" or project in self.projects

    def takes(self, job: Job) -> bool:
        """GitLab's rule: the runner has ALL the job's tags, and an untagged job needs `run_untagged`."""
        tags = set(job.spec.tags)
        return self.serves(job.pipeline.project) and (bool(tags) or self.run_untagged) and tags <= set(self.tag_list)


def contact_status(contacted_at: dt.datetime | None) -> str:
    if contacted_at is None:
        return "never_contacted"
    return "online" if now() - contacted_at < dt.timedelta(hours=2) else "offline"


@dataclass(frozen=True)
class Artifact:
    """An uploaded file: `file_type` is archive, junit, metrics …, `file_format` zip, gzip or raw."""

    file_type: str
    file_format: str
    filename: str
    content: bytes = field(repr=False)
    expire_in: str = ""


@dataclass(eq=False)
class Job:
    """A job; `trace` is its log as received, `reported` the (checksum, size) of the runner's last update."""

    id: int
    pipeline: Pipeline = field(repr=False)
    spec: JobSpec
    created_at: dt.datetime
    token: str = field(default_factory=lambda: "glcbt-64_" + secrets.token_urlsafe(15), repr=False)
    status: str = "created"
    queued_at: dt.datetime | None = None
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    runner: Runner | None = None
    system_id: str = ""
    trace: bytearray = field(default_factory=bytearray, repr=False)
    trace_ranges: list[tuple[int, int]] = field(default_factory=list)
    reported: tuple[str, int] | None = None
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    failure_reason: str = ""
    exit_code: int | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def log(self) -> str:
        """The trace as text."""
        return self.trace.decode(errors="replace")

    @property
    def running(self) -> bool:
        return self.status in {"running", "canceling"}


@dataclass(eq=False)
class Pipeline:
    id: int
    iid: int
    project: Project
    ref: str
    sha: str
    source: str
    created_at: dt.datetime
    user: User
    stages: tuple[str, ...]
    jobs: list[Job] = field(default_factory=list)
    variables: tuple[Variable, ...] = ()
    merge_request: MergeRequest | None = None

    def job(self, name: str) -> Job:
        """The job of that name.

        Raises:
            LookupError: no such job.
        """
        for job in self.jobs:
            if job.name == name:
                return job
        raise LookupError(f"no job {name!r} in pipeline {self.id}")

    @property
    def status(self) -> str:
        states = {job.status for job in self.jobs}
        if states & {"running", "canceling"}:
            return "running"
        if states & {"created", "pending"}:
            return "running" if states & {"success", "failed"} else "pending"
        return next((state for state in ("failed", "canceled") if state in states), "success")
