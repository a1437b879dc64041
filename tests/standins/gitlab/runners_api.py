"""Runners: creating, listing, changing, deleting them, and what a runner says of itself."""

from __future__ import annotations

import secrets
from typing import Any

from standins.gitlab import auth
from standins.gitlab.model import MAINTAINER, OWNER, Group, Job, Manager, Project, Runner, User, contact_status, stamp
from standins.gitlab.state import State
from standins.gitlab.wire import ApiError, Params, Request, Response, answer, invalid, message, paginated

TYPES = ("instance_type", "group_type", "project_type")
_STATUSES = ("active", "paused", "online", "offline", "never_contacted", "stale")
_ACCESS = ("not_protected", "ref_protected")


def create(state: State, request: Request) -> Response:
    """POST /user/runners [lib/api/user_runners.rb, create_runner_service.rb]."""
    who = auth.caller(state, request, "create_runner")
    params = request.params
    params.required("runner_type")
    runner_type = params.choice("runner_type", TYPES)
    for kind, name in (("group_type", "group_id"), ("project_type", "project_id")):
        if runner_type == kind and params.integer(name) is None:
            raise invalid(f"{name} is missing")
    values = _attributes(params)
    group = project = None
    if runner_type == "group_type":
        group = state.groups.get(params.integer("group_id") or 0)
    elif runner_type == "project_type":
        project = state.projects.get(params.integer("project_id") or 0)
    if runner_type != "instance_type" and not group and not project:
        raise message(400, "400 Bad request - Missing/invalid scope")
    allowed = (
        who.user.admin
        or (group is not None and group.level(who.user) >= OWNER)
        or (project is not None and project.level(who.user) >= MAINTAINER)
    )
    if not allowed:
        raise message(403, "403 Forbidden - Insufficient permissions")
    problems = _problems(values)
    if problems:
        raise message(400, f"400 Bad request - {' and '.join(problems)}")
    runner = state.add_runner(runner_type, who.user)
    runner.group = group
    runner.projects = [project] if project else []
    _apply(runner, values)
    return answer(_registration(runner), 201)


def register(state: State, request: Request) -> Response:
    """POST /runners: registration tokens are off, as GitLab ships since 17.0."""
    request.params.required("token")
    raise ApiError(
        410,
        {"message": "410 Gone - runner registration disallowed", "reason": "runner_registration_disallowed"},
    )


def unregister(state: State, request: Request) -> Response:
    """DELETE /runners, by the runner's own token."""
    state.delete_runner(auth.runner_for(state, request, contacted=False))
    return Response(204)


def unregister_manager(state: State, request: Request) -> Response:
    """DELETE /runners/managers."""
    runner = auth.runner_for(state, request, contacted=False)
    if runner.managers.pop(request.params.required("system_id"), None) is None:
        raise message(404, "404 Runner manager not found Not Found")
    return Response(204)


def verify(state: State, request: Request) -> Response:
    """POST /runners/verify."""
    return answer(_registration(auth.runner_for(state, request)))


def reset_by_token(state: State, request: Request) -> Response:
    """POST /runners/reset_authentication_token, by the current token."""
    return _reset(state, auth.runner_for(state, request))


def reset_by_id(state: State, request: Request) -> Response:
    """POST /runners/:id/reset_authentication_token, by a user who may change the runner."""
    return _reset(state, _changeable(state, request))


def router_discovery(state: State, request: Request) -> Response:
    """GET /runners/router/discovery: no job router here, as on most servers."""
    if state.runner_by_token(request.headers.get("runner-token", "")) is None:
        raise message(403, "403 Forbidden")
    raise message(501, "501 Not Implemented - Job Router is not available. Please contact your administrator.")


def owned(state: State, request: Request) -> Response:
    """GET /runners: those of projects and groups that the caller owns."""
    user = auth.caller(state, request).user
    return _listed([runner for runner in state.runners.values() if _level(runner, user) >= MAINTAINER], request)


def everything(state: State, request: Request) -> Response:
    """GET /runners/all, for administrators."""
    if not auth.caller(state, request).user.admin:
        raise message(403, "403 Forbidden")
    return _listed(list(state.runners.values()), request)


def of_project(state: State, request: Request) -> Response:
    """GET /projects/:id/runners."""
    who = auth.caller(state, request)
    project = auth.project_for(state, who, request.path_params["id"], MAINTAINER)
    return _listed([runner for runner in state.runners.values() if runner.serves(project)], request)


def of_group(state: State, request: Request) -> Response:
    """GET /groups/:id/runners."""
    who = auth.caller(state, request)
    group = auth.group_for(state, who, request.path_params["id"], MAINTAINER)
    runners = [runner for runner in state.runners.values() if runner.group is group or runner.runner_type == TYPES[0]]
    return _listed(runners, request)


def details(state: State, request: Request) -> Response:
    """GET /runners/:id."""
    who = auth.caller(state, request, "manage_runner")
    runner = _runner(state, request)
    if runner.runner_type != "instance_type" and _level(runner, who.user) < MAINTAINER:
        raise message(403, "403 Forbidden - No access granted")
    return answer(_detailed(runner))


def update(state: State, request: Request) -> Response:
    """PUT /runners/:id."""
    runner = _changeable(state, request)
    values = _attributes(request.params)
    if not values:
        raise invalid("description, active, paused, tag_list, run_untagged are missing, at least one must be provided")
    tagless = values.get("tag_list", runner.tag_list) == [] and not values.get("run_untagged", runner.run_untagged)
    if problems := _problems({**values, **({"tag_list": [], "run_untagged": False} if tagless else {})}):
        raise ApiError(400, {"message": {"base": problems}})
    _apply(runner, values)
    state.touch()
    return answer(_detailed(runner))


def delete(state: State, request: Request) -> Response:
    """DELETE /runners/:id; a real server answers 204 without a body, the OpenAPI document says 200."""
    runner = _changeable(state, request)
    if len(runner.projects) > 1 and not auth.caller(state, request, "manage_runner").user.admin:
        raise message(403, "403 Forbidden - Runner associated with more than one project")
    state.delete_runner(runner)
    return Response(204)


def managers(state: State, request: Request) -> Response:
    """GET /runners/:id/managers."""
    who = auth.caller(state, request, "manage_runner")
    runner = _runner(state, request)
    if runner.runner_type != "instance_type" and _level(runner, who.user) < MAINTAINER:
        raise message(403, "403 Forbidden - No access granted")
    busy = {job.system_id for job in _jobs(state, runner) if job.running}
    return answer([_manager(manager, busy) for manager in runner.managers.values()])


def jobs(state: State, request: Request) -> Response:
    """GET /runners/:id/jobs, newest first."""
    runner = _changeable(state, request)
    status = request.params.text("status")
    found = [job for job in _jobs(state, runner) if status in {"", job.status}]
    return paginated([_job(job) for job in sorted(found, key=lambda job: -job.id)], request)


def _jobs(state: State, runner: Runner) -> list[Job]:
    return [job for job in state.jobs.values() if job.runner is runner]


def _attributes(params: Params) -> dict[str, Any]:
    """The runner's attributes among the parameters; absent ones are left out."""
    values: dict[str, Any] = {}
    if "tag_list" in params:
        values["tag_list"] = sorted(set(params.words("tag_list") or ()))
    for name in ("description", "maintenance_note"):
        if name in params:
            values[name] = params.text(name)
    for name in ("run_untagged", "locked", "paused"):
        if name in params:
            values[name] = params.flag(name, default=False)
    if "access_level" in params:
        values["access_level"] = params.choice("access_level", _ACCESS)
    if "maximum_timeout" in params.values:  # null takes the limit away
        values["maximum_timeout"] = params.integer("maximum_timeout")
    return values


def _problems(values: dict[str, Any]) -> list[str]:
    """What GitLab's validations say [app/models/ci/runner.rb]."""
    problems = []
    if not values.get("tag_list", []) and not values.get("run_untagged", True):
        problems.append("Tags list can not be empty when runner is not allowed to pick untagged jobs")
    if len(values.get("tag_list", [])) > 50:
        problems.append("Tags list Too many tags specified. Please limit the number of tags to 50")
    if any(len(tag) > 255 for tag in values.get("tag_list", [])):
        problems.append("Tags is invalid")
    if (values.get("maximum_timeout") or 600) < 600:
        problems.append("Maximum timeout needs to be at least 10 minutes")
    if len(values.get("description", "")) > 1024:
        problems.append("Description is too long (maximum is 1024 characters)")
    if len(values.get("maintenance_note", "")) > 1024:
        problems.append("Maintenance note is too long (maximum is 1024 characters)")
    return problems


def _apply(runner: Runner, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(runner, name, value)


def _runner(state: State, request: Request) -> Runner:
    runner = state.runners.get(int(request.path_params["id"]))
    if runner is None:
        raise message(404, "404 Runner Not Found")
    return runner


def _changeable(state: State, request: Request) -> Runner:
    who = auth.caller(state, request, "manage_runner")
    runner = _runner(state, request)
    if _level(runner, who.user) < MAINTAINER:
        raise message(403, "403 Forbidden - No access granted")
    return runner


def _level(runner: Runner, user: User) -> int:
    """The user's role where the runner belongs; an instance runner is an administrator's."""
    if user.admin:
        return OWNER
    places: list[Project | Group] = [*runner.projects, *([runner.group] if runner.group else [])]
    return max((place.level(user) for place in places), default=0)


def _reset(state: State, runner: Runner) -> Response:
    runner.token = runner.token.partition("_")[0] + "_" + secrets.token_urlsafe(15)
    state.touch()
    return answer({"token": runner.token, "token_expires_at": stamp(runner.token_expires_at)}, 201)


def _registration(runner: Runner) -> dict[str, Any]:
    return {"id": runner.id, "token": runner.token, "token_expires_at": stamp(runner.token_expires_at)}


def _listed(runners: list[Runner], request: Request) -> Response:
    params = request.params
    wanted_type, status = params.choice("type", TYPES), params.choice("status", _STATUSES)
    tags = set(params.words("tag_list") or ())
    for name in ("scope", "paused"):
        if name == "scope" and params.text("scope") not in {"", "specific", "shared", *TYPES, *_STATUSES}:
            raise message(400, "Scope contains invalid value")
    found = [
        runner
        for runner in runners
        if wanted_type in {"", runner.runner_type}
        and status in {"", runner.status, "paused" if runner.paused else "active"}
        and ("paused" not in params or params.flag("paused", default=False) == runner.paused)
        and tags <= set(runner.tag_list)
    ]
    return paginated([_basic(runner) for runner in sorted(found, key=lambda runner: -runner.id)], request)


def _basic(runner: Runner) -> dict[str, Any]:
    creator = runner.creator
    return {
        "id": runner.id,
        "description": runner.description,
        "ip_address": "",
        "active": not runner.paused,
        "paused": runner.paused,
        "is_shared": runner.runner_type == "instance_type",
        "runner_type": runner.runner_type,
        "name": None,
        "online": runner.status == "online" if runner.contacted_at else None,
        "created_by": {"id": creator.id, "username": creator.username, "name": creator.name, "state": "active"},
        "created_at": stamp(runner.created_at),
        "status": runner.status,
        "job_execution_status": "idle",
    }


def _detailed(runner: Runner) -> dict[str, Any]:
    latest = max(runner.managers.values(), key=lambda manager: manager.contacted_at or manager.created_at, default=None)
    return {
        **_basic(runner),
        "tag_list": runner.tag_list,
        "run_untagged": runner.run_untagged,
        "locked": runner.locked,
        "maximum_timeout": runner.maximum_timeout,
        "access_level": runner.access_level,
        "version": latest.version if latest else None,
        "revision": latest.revision if latest else None,
        "platform": latest.platform if latest else None,
        "architecture": latest.architecture if latest else None,
        "contacted_at": stamp(runner.contacted_at),
        "maintenance_note": runner.maintenance_note or None,
        "projects": [
            {"id": project.id, "name": project.name, "path": project.name, "path_with_namespace": project.path}
            for project in runner.projects
        ],
        "groups": [{"id": runner.group.id, "name": runner.group.path}] if runner.group else [],
    }


def _manager(manager: Manager, busy: set[str]) -> dict[str, Any]:
    return {
        "id": manager.id,
        "system_id": manager.system_id,
        "version": manager.version or None,
        "revision": manager.revision or None,
        "platform": manager.platform or None,
        "architecture": manager.architecture or None,
        "created_at": stamp(manager.created_at),
        "contacted_at": stamp(manager.contacted_at),
        "ip_address": None,
        "status": contact_status(manager.contacted_at),
        "job_execution_status": "active" if manager.system_id in busy else "idle",
    }


def _job(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "status": job.status,
        "stage": job.spec.stage,
        "name": job.name,
        "ref": job.pipeline.ref,
        "tag": False,
        "allow_failure": False,
        "created_at": stamp(job.created_at),
        "started_at": stamp(job.started_at),
        "finished_at": stamp(job.finished_at),
        "failure_reason": job.failure_reason or None,
        "project": {"id": job.pipeline.project.id, "path_with_namespace": job.pipeline.project.path},
    }
