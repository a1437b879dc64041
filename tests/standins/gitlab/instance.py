"""GitLab for a test: start it, fill it, make it fail, look at what came."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime as dt
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from standins.gitlab import certificates, ci_config, repository
from standins.gitlab.faults import Fault, Kind
from standins.gitlab.model import (
    DEVELOPER,
    FINISHED,
    Group,
    Job,
    MergeRequest,
    Pipeline,
    Project,
    Runner,
    User,
    Variable,
)
from standins.gitlab.routes import ROUTES
from standins.gitlab.server import Exchange, Server
from standins.gitlab.state import State
from standins.gitlab.wire import ApiError, Request, Response, answer, message

_GIT = re.compile(r"/(?P<path>.+)\.git/(info/refs|git-upload-pack)")


class GitLab:
    """A GitLab server in this process.

    Its user "owner" owns every group and project; `add_token` without a user makes a token of that user.
    """

    def __init__(
        self, host: str = "127.0.0.1", *, tls: bool = False, certificate_for: str = "", certificate_days: int = 2
    ) -> None:
        """Listen on `host`, an address of this machine.

        Args:
            host: the address.
            tls: speak https; `ca_file` is then the authority to trust.
            certificate_for: another name than `host` for the certificate.
            certificate_days: how long it is valid; it has expired where this is negative.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="gitlab-standin-")
        folder = Path(self._folder.name)
        self.state = State(folder / "repositories")
        self.ca_file: Path | None = None
        certificate = None
        if tls:
            self.ca_file, certificate = certificates.make(folder, certificate_for or host, days=certificate_days)
        self._server = Server(host, 0, self._respond, certificate)
        self.url = f"{'https' if tls else 'http'}://{host}:{self._server.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and leave no thread, socket or file. A second call does nothing.

        Raises:
            ExceptionGroup: a handler had a bug; no test may pass over it.
        """
        if not self._server.closing.is_set():
            self._server.close()
            self._folder.cleanup()
        if self._server.errors:
            errors, self._server.errors = self._server.errors, []
            raise BaseExceptionGroup("the stand-in GitLab failed inside", errors)

    @property
    def requests(self) -> list[Exchange]:
        """Every exchange so far, in the order of their ends."""
        return list(self._server.log.exchanges)

    def log_of(self, method: str, path: str) -> list[Exchange]:
        """The exchanges of one call."""
        return self._server.log.matching(method, path)

    @property
    def runners(self) -> list[Runner]:
        """The runners that exist now."""
        with self.state.lock:
            return list(self.state.runners.values())

    def add_user(self, username: str, *, admin: bool = False) -> User:
        """A user without any role."""
        with self.state.lock:
            return self.state.add_user(username, admin=admin)

    def add_token(
        self,
        *scopes: str,
        user: User | None = None,
        expires_at: dt.date | None = None,
        revoked: bool = False,
    ) -> str:
        """A token's secret, `create_runner` where no scope is named."""
        with self.state.lock:
            who = user or self.state.owner
            made = self.state.add_token(who, scopes or ("create_runner",), expires_at=expires_at, revoked=revoked)
            return made.value

    def add_group(self, path: str, members: Mapping[User, int] | None = None) -> Group:
        """A group; `members` gives roles as GitLab's access levels."""
        with self.state.lock:
            group = self.state.add_group(path)
            group.members |= {user.id: level for user, level in (members or {}).items()}
            return group

    def add_project(self, path: str, files: Mapping[str, str] | None = None) -> Project:
        """A project "group/name" whose default branch holds `files`; the group is made where it is missing."""
        folder = self.state.folder / f"{path}.git"
        repository.create(folder)
        repository.commit(folder, files or {"README.md": f"# {path}\n"}, branch="main", message="Start")
        with self.state.lock:
            return self.state.add_project(path, folder)

    def add_member(self, project: Project, user: User, level: int = DEVELOPER) -> None:
        """Give `user` a role in `project`."""
        with self.state.lock:
            project.members[user.id] = level

    def add_variable(self, project: Project, key: str, value: str, *, masked: bool = False, file: bool = False) -> None:
        """A CI/CD variable of the project; like GitLab's, it is not public."""
        with self.state.lock:
            project.variables.append(Variable(key, value, public=False, masked=masked, file=file, raw=True))

    def commit(
        self, project: Project, files: Mapping[str, str], *, branch: str = "main", message: str = "Change"
    ) -> str:
        """Add a commit; the sha."""
        return repository.commit(project.repository, files, branch=branch, message=message)

    def add_merge_request(
        self,
        project: Project,
        files: Mapping[str, str] | None = None,
        *,
        branch: str = "topic",
        title: str = "A change",
    ) -> MergeRequest:
        """A merge request from `branch`, which gets a commit with `files`."""
        if not repository.head(project.repository, branch):
            sha = repository.head(project.repository, project.default_branch)
            repository.set_ref(project.repository, f"refs/heads/{branch}", sha)
        if files:
            repository.commit(project.repository, files, branch=branch, message=title)
        with self.state.lock:
            return self.state.add_merge_request(project, branch, title)

    def create_pipeline(
        self,
        project: Project,
        ci_yaml: str,
        *,
        ref: str = "",
        merge_request: MergeRequest | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Pipeline:
        """Run a configuration on the branch `ref` (the default branch, or the merge request's).

        Raises:
            ci_config.ConfigError: the text is no .gitlab-ci.yml that the stand-in knows.
        """
        config = ci_config.parse(ci_yaml)
        branch = ref or (merge_request.source_branch if merge_request else project.default_branch)
        sha = repository.head(project.repository, branch)
        if not sha:
            raise LookupError(f"no branch {branch!r} in {project.path}")
        with self.state.lock:
            pipeline = self.state.add_pipeline(
                project,
                config,
                ref=branch,
                sha=sha,
                source="merge_request_event" if merge_request else "push",
                merge_request=merge_request,
                variables=dict(variables or {}),
            )
            repository.set_ref(project.repository, f"refs/pipelines/{pipeline.id}", sha)
            return pipeline

    def cancel(self, job: Job) -> None:
        """End a job as a person does by its cancel button; its runner learns it at its next call."""
        with self.state.lock:
            if job.status not in FINISHED:
                self.state.finish(job, "canceled")

    def fail(self, kind: Kind, **how: object) -> Fault:
        """Let calls meet a fault; `how` is Fault's other attributes."""
        fault = Fault(kind, **how)  # type: ignore[arg-type] # the dataclass checks the names
        self._server.faults.append(fault)
        return fault

    def set_clock(self, ahead_s: float) -> None:
        """Let the `Date` of every answer be so many seconds ahead of this machine's clock."""
        self._server.clock_ahead_s = ahead_s

    def heal(self) -> None:
        """No fault from now on."""
        self._server.faults.clear()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> bool:
        """Wait until `condition` holds, looking after each change; whether it does."""
        return self.state.wait(condition, timeout_s)

    def wait_for_jobs(self, jobs: Sequence[Job], timeout_s: float = 120.0) -> None:
        """Wait until all of them are finished.

        Raises:
            TimeoutError: with their states and the ends of their logs.
        """
        if not self.wait_for(lambda: all(job.status in FINISHED for job in jobs), timeout_s):
            raise TimeoutError("; ".join(f"{job.name}: {job.status}, log ends {job.log[-500:]!r}" for job in jobs))

    def wait_for_pipeline(self, pipeline: Pipeline, timeout_s: float = 120.0) -> str:
        """Wait until the pipeline is finished; its status.

        Raises:
            TimeoutError: with the jobs' states and the ends of their logs.
        """
        self.wait_for_jobs(pipeline.jobs, timeout_s)
        return pipeline.status

    def wait_for_runner(self, timeout_s: float = 60.0) -> Runner:
        """Wait until a runner's process has called.

        Raises:
            TimeoutError: none did.
        """
        if not self.wait_for(lambda: any(runner.contacted_at for runner in self.runners), timeout_s):
            raise TimeoutError("no runner called")
        return next(runner for runner in self.runners if runner.contacted_at)

    def _respond(self, request: Request) -> tuple[Response, str]:
        git = _GIT.fullmatch(request.path)
        if git:
            return self._git(request, git["path"]), ""
        # Handlers build absolute links with it; no client can set it, because it is overwritten here.
        request = dataclasses.replace(request, headers={**request.headers, "x-standin-origin": self.url})
        template = ""
        for route in ROUTES:
            found = route.match(request.path)
            if found is None or (template and template != route.template):
                continue
            template = route.template
            if route.method == request.method:
                return self._call(route.handler, dataclasses.replace(request, path_params=found)), template
        if template:
            return answer({"error": "405 Not Allowed"}, 405), template
        return answer({"error": "404 Not Found"}, 404), ""

    def _call(self, handler: Callable[[State, Request], Response], request: Request) -> Response:
        try:
            # Ids that are numbers only: GitLab's router says the same of any other.
            if "id" in request.path_params and not request.path.startswith(("/api/v4/projects/", "/api/v4/groups/")):
                request.params.integer("id")
            with self.state.lock:
                return handler(self.state, request)
        except ApiError as error:
            return answer(error.body, error.status, error.headers)

    def _git(self, request: Request, path: str) -> Response:
        """A clone by a running job's token, as user gitlab-ci-token."""
        project = self.state.project_at(path)
        kind, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, token = base64.b64decode(encoded).decode().partition(":") if kind == "Basic" else ("", "", "")
        except (binascii.Error, UnicodeDecodeError):
            user = token = ""
        with self.state.lock:
            allowed = user == "gitlab-ci-token" and any(
                job.token == token and job.running and job.pipeline.project is project
                for job in self.state.jobs.values()
            )
        if project is None or not allowed:
            error = message(401, "HTTP Basic: Access denied")
            return answer(error.body, 401, {"WWW-Authenticate": 'Basic realm="GitLab"'})
        return repository.serve(self.state.folder, request.path, request)
