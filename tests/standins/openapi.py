"""Exchanges held against GitLab's OpenAPI document (the slice in ../shared/gitlab-api), where it can be trusted.

Where the document differs from a real server, the difference stands here with its reason; its README names them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from standins.gitlab import Exchange
from standins.gitlab.wire import Upload

PLACE = "GPURIG_GITLAB_OPENAPI"
_BESIDE = Path("shared/gitlab-api/openapi-slice.yaml")

# A real server answers these; the document has other numbers or none.
STATUSES: Mapping[tuple[str, str], frozenset[int]] = {
    # `destroy_conditionally!` answers 204 [lib/api/helpers.rb]; the document says 200 with a body.
    ("DELETE", "/api/v4/runners/{id}"): frozenset({204}),
    ("DELETE", "/api/v4/projects/{id}/merge_requests/{noteable_id}/notes/{note_id}"): frozenset({204}),
}
# In lib/api/project_packages.rb and lib/api/package_files.rb, and not in the slice.
NOT_IN_SLICE = frozenset(
    {
        ("GET", "/api/v4/projects/{id}/packages"),
        ("GET", "/api/v4/projects/{id}/packages/{package_id}/package_files"),
    }
)
# Authentication and scopes are answered before any operation looks, and stand at few operations of the document.
_EVERYWHERE = frozenset({401, 403})
# Required in the document, by the server only with the matching runner_type [lib/api/user_runners.rb].
_NOT_REQUIRED = {("POST", "/api/v4/user/runners"): {"group_id", "project_id"}}
# gitlab-runner sends them and the server reads them [common/network.go, lib/api/ci/helpers/runner.rb].
_UNDOCUMENTED_BODY = {
    ("POST", "/api/v4/runners/verify"): {"info"},
    ("PUT", "/api/v4/jobs/{id}"): {"info"},
    ("DELETE", "/api/v4/runners"): {"token"},
    ("DELETE", "/api/v4/runners/managers"): {"token", "system_id"},
    ("PATCH", "/api/v4/jobs/{id}/trace"): {"debug_trace", "token"},
}
# The entities expose these [lib/api/entities/ci/job_request], the document leaves them out.
_UNDOCUMENTED_ANSWER = {("GET", "/api/v4/user"): {"is_admin"}}
# Operations that the slice does not have, by their place in GitLab's own description of them.
_NUMBER, _TEXT = {"type": "integer"}, {"type": "string"}
_MEMBER = {
    # docs.gitlab.com/api/members, "Get a member of a group or project, including inherited and invited members".
    "responses": {
        "200": {
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            **dict.fromkeys(("id", "access_level"), _NUMBER),
                            **dict.fromkeys(("username", "name", "state", "avatar_url", "web_url", "email"), _TEXT),
                            **dict.fromkeys(("created_at", "expires_at", "membership_state"), _TEXT),
                            "locked": {"type": "boolean"},
                            "created_by": {"type": "object"},
                        },
                        "required": ["id", "access_level"],
                    }
                }
            }
        },
        "404": {},
    }
}
_BESIDE_THE_SLICE = {
    "/api/v4/projects/{id}/members/all/{user_id}": {"get": _MEMBER},
    "/api/v4/groups/{id}/members/all/{user_id}": {"get": _MEMBER},
}
# One object in the document, an array or a free value on a server: validated by gitlab-runner itself, not by this.
_UNTRUSTED_ANSWERS = frozenset({("POST", "/api/v4/jobs/request")})


def find() -> Path | None:
    """The slice: where GPURIG_GITLAB_OPENAPI says, or in `shared` beside the repository; None where it is not."""
    named = os.environ.get(PLACE)
    path = Path(named) if named else Path(__file__).resolve().parents[3] / _BESIDE
    return path if path.is_file() else None


@dataclass(frozen=True)
class Document:
    """The parsed document."""

    content: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> Document:
        return cls(yaml.safe_load(path.read_text(encoding="utf-8")))

    def operation(self, method: str, template: str) -> Mapping[str, Any] | None:
        paths = {**_BESIDE_THE_SLICE, **self.content["paths"]}
        found = paths.get(template, {}).get(method.lower())
        return found if isinstance(found, dict) else None

    def violations(self, exchange: Exchange) -> list[str]:
        """What of a call and its answer the document does not know; empty where all fits."""
        request, response = exchange.request, exchange.response
        key = (request.method, exchange.template)
        operation = self.operation(*key)
        if key in NOT_IN_SLICE:
            return []
        if operation is None:
            return [f"{key}: no such operation"]
        problems = []
        if response is not None:
            documented = {int(status) for status in operation["responses"]} | STATUSES.get(key, frozenset())
            if response.status not in documented | _EVERYWHERE:
                problems.append(f"{key}: status {response.status} is not documented")
            if response.status < 300:
                problems += self._body_problems(key, operation, exchange)
        if response is None or response.status < 300:
            problems += self._request_problems(key, operation, exchange)
        return problems

    def _request_problems(self, key: tuple[str, str], operation: Mapping[str, Any], exchange: Exchange) -> list[str]:
        request = exchange.request
        parameters = {item["name"]: item for item in operation.get("parameters", []) if item["in"] == "query"}
        content = operation.get("requestBody", {}).get("content", {})
        schema = self._resolved(next((item["schema"] for item in content.values()), {}))
        fields = set(schema.get("properties", {}))
        problems = [
            f"{key}: the query parameter {name} is not documented"
            for name in request.query
            # Grape takes a body's parameters from the query too, and gitlab-runner sends some there.
            if name.removesuffix("[]") not in {*parameters, *fields, *_UNDOCUMENTED_BODY.get(key, ()), "private_token"}
        ]
        if request.content_type not in {"application/json", "multipart/form-data"}:
            return problems
        body = {name: value for name, value in request.params.values.items() if name not in request.query}
        unknown = set(body) - fields - _UNDOCUMENTED_BODY.get(key, set())
        problems += [f"{key}: the body's {name} is not documented" for name in sorted(unknown)]
        required = [name for name in schema.get("required", []) if name not in _NOT_REQUIRED.get(key, ())]
        values = {name: "" if isinstance(value, Upload) else value for name, value in body.items()}
        return problems + _errors(key, "request", values, {**schema, "required": required} if required else schema)

    def _body_problems(self, key: tuple[str, str], operation: Mapping[str, Any], exchange: Exchange) -> list[str]:
        response = exchange.response
        documented = operation["responses"].get(str(response.status), {}) if response else {}
        schema = documented.get("content", {}).get("application/json", {}).get("schema")
        if schema is None or response is None or key in _UNTRUSTED_ANSWERS:
            return []
        document = json.loads(response.body)
        whole = self._resolved(schema)
        extra = _UNDOCUMENTED_ANSWER.get(key, set())
        problems = []
        # Lists are documented as one object.
        for item in document if isinstance(document, list) else [document]:
            values = {name: value for name, value in _without_null(item).items() if name not in extra}
            if not whole.get("additionalProperties"):
                unknown = sorted(set(values) - set(whole.get("properties", {})))
                problems += [f"{key}: the answer's {name} is not documented" for name in unknown]
            problems += _errors(key, "answer", values, _loosened(whole))
        return problems

    def _resolved(self, schema: Any) -> Any:
        """The schema without references, and with OpenAPI's `nullable` as JSON Schema says it."""
        if isinstance(schema, list):
            return [self._resolved(item) for item in schema]
        if not isinstance(schema, dict):
            return schema
        if "$ref" in schema:
            return self._resolved(self.content["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        made = {name: self._resolved(value) for name, value in schema.items() if name != "nullable"}
        return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") is True else made


def _errors(key: tuple[str, str], what: str, value: Any, schema: Mapping[str, Any]) -> list[str]:
    found = jsonschema.Draft7Validator(schema).iter_errors(value)
    return [f"{key}: {what} {'/'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def _without_null(value: Any) -> Any:
    """Without fields that are null: the document never says `nullable` in an answer."""
    if isinstance(value, dict):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value


def _loosened(schema: Any) -> Any:
    """Fields without a declared type came out as plain `string` in the document, and lists of entities as one."""
    if isinstance(schema, list):
        return [_loosened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "string" and not schema.keys() & {"enum", "format", "pattern"}:
        return {}
    made = {name: _loosened(value) for name, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        return {"anyOf": [made, {"type": "array", "items": made}]}
    return made
