"""Who calls, and whether they may: access tokens with scopes and roles, job tokens, runner tokens."""

from __future__ import annotations

from dataclasses import dataclass

from standins.gitlab.model import AccessToken, Group, Job, Project, Runner, User, now
from standins.gitlab.state import State
from standins.gitlab.wire import ApiError, Request, message


@dataclass(frozen=True)
class Caller:
    """The user behind a request, with the token or the job that proved it."""

    user: User
    token: AccessToken | None = None
    job: Job | None = None


def caller(state: State, request: Request, *extra_scopes: str, job_token: bool = False) -> Caller:
    """Authenticate.

    Args:
        state: the memory.
        request: `api` covers every method, `read_api` reading.
        extra_scopes: scopes that this route accepts too; "*" for any.
        job_token: a running job's token is enough.

    Raises:
        ApiError: 401 for a missing, wrong, expired or revoked token, 403 for a token without the scope.
    """
    value, job_value = _secrets(request)
    if job_value and job_token:
        job = next((job for job in state.jobs.values() if job.token == job_value and job.running), None)
        if job is None:
            raise message(401, "401 Unauthorized")
        return Caller(job.pipeline.user, job=job)
    token = next((token for token in state.tokens if token.value == value), None)
    if not value or token is None:
        raise message(401, "401 Unauthorized")
    if token.revoked:
        raise _bearer_error("Token was revoked. You have to re-authorize from the user.")
    if token.expires_at is not None and token.expires_at <= now().date():
        raise _bearer_error("Token is expired. You can either do re-authorization or token refresh.")
    accepted = {"api", *extra_scopes, *(("read_api",) if request.method == "GET" else ())}
    if "*" not in accepted and not accepted & set(token.scopes):
        raise ApiError(
            403,
            {
                "error": "insufficient_scope",
                "error_description": "The request requires higher privileges than provided by the access token.",
                "scope": " ".join(sorted(accepted)),
            },
        )
    return Caller(token.user, token=token)


def _secrets(request: Request) -> tuple[str, str]:
    headers = request.headers
    bearer = headers.get("authorization", "")
    value = headers.get("private-token") or (bearer[7:] if bearer.lower().startswith("bearer ") else "")
    return value or "".join(request.query.get("private_token", ())[-1:]), headers.get("job-token", "")


def _bearer_error(description: str) -> ApiError:
    return ApiError(401, {"error": "invalid_token", "error_description": description})


def project_for(state: State, who: Caller, reference: str, level: int) -> Project:
    """The project, if the caller's role there is at least `level`.

    Raises:
        ApiError: 404 for a project that the caller may not even see, 403 for a role that is too low.
    """
    project = state.project_at(reference)
    if project is None or not project.level(who.user):
        raise message(404, "404 Project Not Found")
    if project.level(who.user) < level:
        raise message(403, "403 Forbidden")
    return project


def group_for(state: State, who: Caller, reference: str, level: int) -> Group:
    """The group, with the same rules as `project_for`."""
    group = state.group_at(reference)
    if group is None or not group.level(who.user):
        raise message(404, "404 Group Not Found")
    if group.level(who.user) < level:
        raise message(403, "403 Forbidden")
    return group


def runner_for(state: State, request: Request, *, contacted: bool = True) -> Runner:
    """The runner whose authentication token the parameters carry; remembers the process that called.

    Raises:
        ApiError: 403, as GitLab answers an unknown token.
    """
    params = request.params
    runner = state.runner_by_token(params.required("token"))
    if runner is None:
        raise message(403, "403 Forbidden")
    if contacted:
        info = params.table("info")
        manager = state.contact(runner, params.text("system_id", "<legacy>"))
        for name in ("version", "revision", "platform", "architecture"):
            if info.get(name):
                setattr(manager, name, str(info[name]))
        if isinstance(info.get("features"), dict):
            manager.features = info["features"]
    return runner


def job_for(state: State, request: Request, *, running: bool = True) -> Job:
    """The job of the path, if the token (parameter or JOB-TOKEN) is its own and it runs.

    Raises:
        ApiError: 403; GitLab says no 404 here, because a runner ends the job for a 403 only.
    """
    job = state.jobs.get(int(request.path_params["id"]))
    token = request.params.text("token") or request.headers.get("job-token", "")
    if job is None or job.token != token:
        raise message(403, "403 Forbidden")
    if running and not job.running:
        raise message(403, "403 Forbidden - Job is not processing on runner", {"Job-Status": job.status})
    return job
