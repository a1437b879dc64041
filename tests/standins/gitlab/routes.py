"""Every operation that the stand-in serves, with the path templates of GitLab's OpenAPI document."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass

from standins.gitlab import jobs_api, packages_api, projects_api, runners_api
from standins.gitlab.state import State
from standins.gitlab.wire import Request, Response

Handler = Callable[[State, Request], Response]


@dataclass(frozen=True)
class Route:
    """One operation."""

    method: str
    template: str
    handler: Handler

    def match(self, path: str) -> dict[str, str] | None:
        """The path's parameters, percent-decoded; None where it is another path.

        A parameter is one segment (a project's path comes percent-encoded), a number where the name says so, and
        `artifact_path` is the rest.
        """
        pattern = re.sub(r"\\{(\w+)\\}", _parameter, re.escape(self.template))
        found = re.fullmatch(pattern, path)
        return {name: urllib.parse.unquote(value) for name, value in found.groupdict().items()} if found else None


def _parameter(found: re.Match[str]) -> str:
    name = found[1]
    if name == "artifact_path":
        return f"(?P<{name}>.+)"
    return f"(?P<{name}>{_NUMBER if name in _NUMBERS else '[^/]+'})"


_NUMBER = r"\d+"
_NUMBERS = frozenset({"noteable_id", "note_id", "job_id", "runner_id", "package_id", "user_id"})
_NUMBERED = frozenset({"noteable_id", "note_id", "job_id", "runner_id", "package_id"})
_PACKAGES = "/api/v4/projects/{id}/packages"
_GENERIC = _PACKAGES + "/generic/{package_name}/{package_version}/{file_name}"
_NOTES = "/api/v4/projects/{id}/merge_requests/{noteable_id}/notes"

ROUTES = (
    Route("POST", "/api/v4/user/runners", runners_api.create),
    Route("GET", "/api/v4/runners", runners_api.owned),
    Route("POST", "/api/v4/runners", runners_api.register),
    Route("DELETE", "/api/v4/runners", runners_api.unregister),
    Route("GET", "/api/v4/runners/all", runners_api.everything),
    Route("POST", "/api/v4/runners/verify", runners_api.verify),
    Route("DELETE", "/api/v4/runners/managers", runners_api.unregister_manager),
    Route("POST", "/api/v4/runners/reset_authentication_token", runners_api.reset_by_token),
    Route("GET", "/api/v4/runners/router/discovery", runners_api.router_discovery),
    Route("GET", "/api/v4/runners/{id}", runners_api.details),
    Route("PUT", "/api/v4/runners/{id}", runners_api.update),
    Route("DELETE", "/api/v4/runners/{id}", runners_api.delete),
    Route("GET", "/api/v4/runners/{id}/managers", runners_api.managers),
    Route("GET", "/api/v4/runners/{id}/jobs", runners_api.jobs),
    Route("POST", "/api/v4/runners/{id}/reset_authentication_token", runners_api.reset_by_id),
    Route("GET", "/api/v4/projects/{id}/runners", runners_api.of_project),
    Route("GET", "/api/v4/groups/{id}/runners", runners_api.of_group),
    Route("GET", "/api/v4/user", projects_api.current_user),
    Route("GET", "/api/v4/version", projects_api.version),
    Route("GET", "/api/v4/metadata", projects_api.metadata),
    Route("GET", "/api/v4/personal_access_tokens/self", projects_api.own_token),
    Route("DELETE", "/api/v4/personal_access_tokens/self", projects_api.revoke_own_token),
    Route("GET", "/api/v4/projects/{id}", projects_api.project),
    Route("GET", "/api/v4/groups/{id}", projects_api.group),
    Route("GET", "/api/v4/projects/{id}/members/all/{user_id}", projects_api.project_member),
    Route("GET", "/api/v4/groups/{id}/members/all/{user_id}", projects_api.group_member),
    Route("POST", "/api/v4/projects/{id}/ci/lint", projects_api.lint),
    Route("GET", _NOTES, projects_api.notes),
    Route("POST", _NOTES, projects_api.create_note),
    Route("GET", _NOTES + "/{note_id}", projects_api.note),
    Route("PUT", _NOTES + "/{note_id}", projects_api.update_note),
    Route("DELETE", _NOTES + "/{note_id}", projects_api.delete_note),
    Route("GET", _PACKAGES, packages_api.packages),
    Route("GET", _PACKAGES + "/{package_id}/package_files", packages_api.package_files),
    Route("GET", _GENERIC, packages_api.download),
    Route("PUT", _GENERIC, packages_api.upload),
    Route("POST", "/api/v4/jobs/request", jobs_api.request_job),
    Route("PUT", "/api/v4/jobs/{id}", jobs_api.update),
    Route("PATCH", "/api/v4/jobs/{id}/trace", jobs_api.append_trace),
    Route("POST", "/api/v4/jobs/{id}/artifacts/authorize", jobs_api.authorize_artifacts),
    Route("POST", "/api/v4/jobs/{id}/artifacts", jobs_api.upload_artifacts),
    Route("GET", "/api/v4/jobs/{id}/artifacts", jobs_api.download_artifacts),
    Route("GET", "/api/v4/projects/{id}/jobs/{job_id}/artifacts", jobs_api.project_artifacts),
)
