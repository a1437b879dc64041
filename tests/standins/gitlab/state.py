"""The stand-in's memory and the rules that change it; every method expects `lock` to be held or takes it itself."""

from __future__ import annotations

import datetime as dt
import itertools
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from standins.gitlab import ci_config
from standins.gitlab.model import (
    FINISHED,
    OWNER,
    AccessToken,
    Group,
    Job,
    Manager,
    MergeRequest,
    Pipeline,
    Project,
    Runner,
    User,
    Variable,
    now,
)

_TYPE_DIGITS = {"instance_type": 1, "group_type": 2, "project_type": 3}


class State:
    """Everything a GitLab remembers. `changed` is notified after each change; its lock is the one lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._ids = itertools.count(1)
        self._queue = 1
        self.users: list[User] = []
        self.tokens: list[AccessToken] = []
        self.groups: dict[int, Group] = {}
        self.projects: dict[int, Project] = {}
        self.runners: dict[int, Runner] = {}
        self.pipelines: dict[int, Pipeline] = {}
        self.jobs: dict[int, Job] = {}
        self.package_storage = ""
        self.owner = self.add_user("owner")

    def next_id(self) -> int:
        return next(self._ids)

    @property
    def queue_value(self) -> str:
        """What X-GitLab-Last-Update carries: it changes whenever a runner might find a job that it did not before."""
        return str(self._queue)

    def touch(self) -> None:
        """Say that something changed."""
        with self.changed:
            self._queue += 1
            self.changed.notify_all()

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, timeout_s)

    def add_user(self, username: str, *, admin: bool = False) -> User:
        user = User(self.next_id(), username, admin)
        self.users.append(user)
        return user

    def add_token(
        self, user: User, scopes: tuple[str, ...], *, expires_at: dt.date | None = None, revoked: bool = False
    ) -> AccessToken:
        token = AccessToken(
            id=self.next_id(),
            value="glpat-" + secrets.token_urlsafe(15),
            name=f"token of {user.username}",
            user=user,
            scopes=scopes,
            created_at=now(),
            expires_at=expires_at,
            revoked=revoked,
        )
        self.tokens.append(token)
        return token

    def add_group(self, path: str) -> Group:
        group = Group(self.next_id(), path, {self.owner.id: OWNER})
        self.groups[group.id] = group
        return group

    def group_at(self, reference: str) -> Group | None:
        """By id or path."""
        if reference.isdigit():
            return self.groups.get(int(reference))
        return next((group for group in self.groups.values() if group.path == reference), None)

    def add_project(self, path: str, repository: Path) -> Project:
        namespace, _, name = path.rpartition("/")
        group = self.group_at(namespace) or self.add_group(namespace)
        project = Project(self.next_id(), group, name, repository, now())
        self.projects[project.id] = project
        return project

    def project_at(self, reference: str) -> Project | None:
        """By id or path."""
        if reference.isdigit():
            return self.projects.get(int(reference))
        return next((project for project in self.projects.values() if project.path == reference), None)

    def add_merge_request(self, project: Project, source_branch: str, title: str) -> MergeRequest:
        iid = len(project.merge_requests) + 1
        project.merge_requests[iid] = MergeRequest(self.next_id(), iid, title, source_branch, project.default_branch)
        return project.merge_requests[iid]

    def add_runner(self, runner_type: str, creator: User) -> Runner:
        # Since 17.x the token names the runner's type: glrt-t1_ is an instance's, t2_ a group's, t3_ a project's.
        token = f"glrt-t{_TYPE_DIGITS[runner_type]}_{secrets.token_urlsafe(15)}"
        runner = Runner(self.next_id(), token, runner_type, creator, now())
        self.runners[runner.id] = runner
        self.touch()
        return runner

    def runner_by_token(self, token: str) -> Runner | None:
        return next((runner for runner in self.runners.values() if secrets.compare_digest(runner.token, token)), None)

    def delete_runner(self, runner: Runner) -> None:
        del self.runners[runner.id]
        self.touch()

    def contact(self, runner: Runner, system_id: str) -> Manager:
        """The runner's process with that system id was just heard of."""
        manager = runner.managers.get(system_id)
        if manager is None:
            manager = runner.managers[system_id] = Manager(self.next_id(), system_id, now())
        manager.contacted_at = now()
        self.changed.notify_all()
        return manager

    def add_pipeline(
        self,
        project: Project,
        config: ci_config.CiConfig,
        *,
        ref: str,
        sha: str,
        source: str,
        merge_request: MergeRequest | None,
        variables: dict[str, str],
    ) -> Pipeline:
        siblings = [pipeline for pipeline in self.pipelines.values() if pipeline.project is project]
        pipeline = Pipeline(
            id=self.next_id(),
            iid=len(siblings) + 1,
            project=project,
            ref=ref,
            sha=sha,
            source=source,
            created_at=now(),
            user=self.owner,
            stages=config.stages,
            variables=tuple(Variable(key, value) for key, value in {**config.variables, **variables}.items()),
            merge_request=merge_request,
        )
        for spec in config.jobs:
            job = Job(self.next_id(), pipeline, spec, now())
            pipeline.jobs.append(job)
            self.jobs[job.id] = job
        self.pipelines[pipeline.id] = pipeline
        self.advance(pipeline)
        return pipeline

    def advance(self, pipeline: Pipeline) -> None:
        """Queue what can run now, skip what never will."""
        progressed = True
        while progressed:
            progressed = False
            for job in pipeline.jobs:
                if job.status != "created":
                    continue
                before = list(predecessors(job))
                if any(earlier.status not in FINISHED for earlier in before):
                    continue
                failed = any(earlier.status != "success" for earlier in before)
                runs = {"on_success": not failed, "on_failure": failed, "always": True}[job.spec.when]
                job.status, progressed = ("pending" if runs else "skipped"), True
                job.queued_at = now()
        self.touch()

    def finish(self, job: Job, status: str, failure_reason: str = "", exit_code: int | None = None) -> None:
        job.status, job.finished_at = status, now()
        job.failure_reason, job.exit_code = failure_reason, exit_code
        self.advance(job.pipeline)


def predecessors(job: Job) -> Iterator[Job]:
    """The jobs that must be finished before `job` may start."""
    stages = job.pipeline.stages
    for other in job.pipeline.jobs:
        if job.spec.needs is not None:
            if other.name in job.spec.needs:
                yield other
        elif stages.index(other.spec.stage) < stages.index(job.spec.stage):
            yield other


def artifact_sources(job: Job) -> Iterator[Job]:
    """The jobs whose archives `job` gets."""
    for other in predecessors(job):
        if job.spec.dependencies is None or other.name in job.spec.dependencies:
            yield other
