"""The caller, the server's version, projects, groups, CI lint and merge-request notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from standins.gitlab import auth, ci_config
from standins.gitlab.model import DEVELOPER, Group, MergeRequest, Note, Project, User, now, stamp
from standins.gitlab.state import State
from standins.gitlab.wire import Request, Response, answer, message, paginated

VERSION = "19.4.0-ee"
REVISION = "0123456789a"


def current_user(state: State, request: Request) -> Response:
    """GET /user."""
    who = auth.caller(state, request, "read_user")
    return answer({**user_basic(who.user), **({"is_admin": True} if who.user.admin else {}), "bot": False})


def version(state: State, request: Request) -> Response:
    """GET /version."""
    auth.caller(state, request, "read_user")
    return answer({"version": VERSION, "revision": REVISION})


def metadata(state: State, request: Request) -> Response:
    """GET /metadata."""
    auth.caller(state, request, "read_user")
    kas = {"enabled": False, "externalUrl": None, "externalK8sProxyUrl": None, "version": None}
    return answer({"version": VERSION, "revision": REVISION, "kas": kas, "enterprise": True})


def own_token(state: State, request: Request) -> Response:
    """GET /personal_access_tokens/self, with any scope."""
    token = auth.caller(state, request, "*").token
    if token is None:
        raise message(401, "401 Unauthorized")
    return answer(
        {
            "id": token.id,
            "name": token.name,
            "revoked": token.revoked,
            "created_at": stamp(token.created_at),
            "scopes": list(token.scopes),
            "user_id": token.user.id,
            "last_used_at": stamp(now()),
            "active": not token.revoked,
            "expires_at": token.expires_at.isoformat() if token.expires_at else None,
        }
    )


def revoke_own_token(state: State, request: Request) -> Response:
    """DELETE /personal_access_tokens/self, with any scope."""
    token = auth.caller(state, request, "*").token
    if token is None:
        raise message(401, "401 Unauthorized")
    token.revoked = True
    return Response(204)


def project(state: State, request: Request) -> Response:
    """GET /projects/:id."""
    who = auth.caller(state, request)
    return answer(_project(auth.project_for(state, who, request.path_params["id"], 1), request))


def group(state: State, request: Request) -> Response:
    """GET /groups/:id."""
    who = auth.caller(state, request)
    return answer(_group(auth.group_for(state, who, request.path_params["id"], 1), request))


def project_member(state: State, request: Request) -> Response:
    """GET /projects/:id/members/all/:user_id."""
    who = auth.caller(state, request)
    found = auth.project_for(state, who, request.path_params["id"], 1)
    return _member(state, request, {**found.group.members, **_higher(found.members, found.group.members)})


def group_member(state: State, request: Request) -> Response:
    """GET /groups/:id/members/all/:user_id."""
    who = auth.caller(state, request)
    return _member(state, request, auth.group_for(state, who, request.path_params["id"], 1).members)


def _higher(levels: Mapping[int, int], others: Mapping[int, int]) -> dict[int, int]:
    return {user: max(level, others.get(user, 0)) for user, level in levels.items()}


def _member(state: State, request: Request, levels: Mapping[int, int]) -> Response:
    number = int(request.path_params["user_id"])
    user = next((one for one in state.users if one.id == number), None)
    # An administrator who is no member is none here either.
    if user is None or number not in levels:
        raise message(404, "404 Not found")
    return answer(
        {**user_basic(user), "access_level": levels[number], "membership_state": "active", "expires_at": None}
    )


def lint(state: State, request: Request) -> Response:
    """POST /projects/:id/ci/lint."""
    who = auth.caller(state, request)
    auth.project_for(state, who, request.path_params["id"], DEVELOPER)
    content = request.params.required("content")
    errors = []
    try:
        ci_config.parse(content)
    except ci_config.ConfigError as error:
        errors.append(str(error))
    return answer(
        {"valid": not errors, "errors": errors, "warnings": [], "merged_yaml": content, "includes": [], "jobs": []}
    )


def notes(state: State, request: Request) -> Response:
    """GET /projects/:id/merge_requests/:iid/notes; a job token may read it."""
    found = _merge_request(state, request)[1].notes
    params = request.params
    order = params.choice("order_by", ("created_at", "updated_at"), "created_at")
    backwards = params.choice("sort", ("asc", "desc"), "desc") == "desc"
    ordered = sorted(found, key=lambda note: (getattr(note, order), note.id), reverse=backwards)
    place = _merge_request(state, request)
    return paginated([_note(note, *place) for note in ordered], request)


def note(state: State, request: Request) -> Response:
    """GET /projects/:id/merge_requests/:iid/notes/:note_id."""
    place = _merge_request(state, request)
    return answer(_note(_find_note(place[1], request), *place))


def create_note(state: State, request: Request) -> Response:
    """POST /projects/:id/merge_requests/:iid/notes; needs `api`, a job token does not do."""
    place = _merge_request(state, request)
    body = _note_body(request)
    moment = now()
    made = Note(
        state.next_id(), body, _author(state, request), moment, moment, request.params.flag("internal", default=False)
    )
    place[1].notes.append(made)
    state.changed.notify_all()
    return answer(_note(made, *place), 201)


def update_note(state: State, request: Request) -> Response:
    """PUT /projects/:id/merge_requests/:iid/notes/:note_id; only its author may."""
    place = _merge_request(state, request)
    found = _find_note(place[1], request)
    if found.author is not _author(state, request):
        raise message(403, "403 Forbidden")
    found.body, found.updated_at = _note_body(request), now()
    state.changed.notify_all()
    return answer(_note(found, *place))


def delete_note(state: State, request: Request) -> Response:
    """DELETE /projects/:id/merge_requests/:iid/notes/:note_id; a real server answers 204, the document says 200."""
    place = _merge_request(state, request)
    found = _find_note(place[1], request)
    if found.author is not _author(state, request):
        raise message(403, "403 Forbidden")
    place[1].notes.remove(found)
    return Response(204)


def user_basic(user: User) -> dict[str, Any]:
    return {"id": user.id, "username": user.username, "name": user.name, "state": "active", "locked": False}


def _merge_request(state: State, request: Request) -> tuple[Project, MergeRequest]:
    who = auth.caller(state, request, job_token=request.method == "GET")
    found = auth.project_for(state, who, request.path_params["id"], DEVELOPER)
    merge_request = found.merge_requests.get(int(request.path_params["noteable_id"]))
    if merge_request is None:
        raise message(404, "404 Not found")
    return found, merge_request


def _author(state: State, request: Request) -> User:
    return auth.caller(state, request).user


def _find_note(merge_request: MergeRequest, request: Request) -> Note:
    for found in merge_request.notes:
        if found.id == int(request.path_params["note_id"]):
            return found
    raise message(404, "404 Not found")


def _note_body(request: Request) -> str:
    body = request.params.required("body")
    if not body.strip():
        raise message(400, '400 Bad request - Note {:note=>["can\'t be blank"]}')
    if len(body.encode()) > 1_000_000:
        raise message(400, "400 Bad request - Note is too long (maximum is 1000000 characters)")
    return body


def _note(found: Note, place: Project, merge_request: MergeRequest) -> dict[str, Any]:
    return {
        "id": found.id,
        "type": None,
        "body": found.body,
        "author": user_basic(found.author),
        "created_at": stamp(found.created_at),
        "updated_at": stamp(found.updated_at),
        "system": False,
        "noteable_id": merge_request.id,
        "noteable_type": "MergeRequest",
        "project_id": place.id,
        "resolvable": False,
        "confidential": found.internal,
        "internal": found.internal,
        "imported": False,
        "imported_from": "none",
        "noteable_iid": merge_request.iid,
        "commands_changes": {},
    }


def _project(found: Project, request: Request) -> dict[str, Any]:
    origin = request.headers.get("x-standin-origin", "")
    return {
        "id": found.id,
        "description": None,
        "name": found.name,
        "name_with_namespace": f"{found.group.path} / {found.name}",
        "path": found.name,
        "path_with_namespace": found.path,
        "created_at": stamp(found.created_at),
        "default_branch": found.default_branch,
        "http_url_to_repo": f"{origin}/{found.path}.git",
        "web_url": f"{origin}/{found.path}",
        "visibility": "private",
        "namespace": {"id": found.group.id, "name": found.group.path, "path": found.group.path, "kind": "group"},
    }


def _group(found: Group, request: Request) -> dict[str, Any]:
    origin = request.headers.get("x-standin-origin", "")
    return {
        "id": found.id,
        "web_url": f"{origin}/groups/{found.path}",
        "name": found.path,
        "path": found.path,
        "full_path": found.path,
        "full_name": found.path,
        "visibility": "private",
        "parent_id": None,
    }
