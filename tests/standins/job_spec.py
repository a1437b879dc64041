"""The types that gitlab-runner decodes a job into [common/spec of 19.4]; a wrong one fails the job.

Facts only: names and JSON types. `null` and absence are Go's zero value everywhere; unknown fields are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NUMBER = (int, float)
_SCRIPT = {"name": str, "script": [str], "timeout": int, "when": str, "allow_failure": bool}
_VARIABLE = {"key": str, "value": str, "public": bool, "file": bool, "masked": bool, "raw": bool}
_IMAGE = {
    "name": str,
    "alias": str,
    "command": [str],
    "entrypoint": [str],
    "ports": [{"number": int, "protocol": str, "name": str}],
    "variables": [_VARIABLE],
    "pull_policy": [str],
    "executor_opts": {"docker": {"platform": str, "user": (str, int)}, "kubernetes": {"user": (str, int)}},
}
JOB: Mapping[str, Any] = {
    "id": int,
    "token": str,
    "allow_git_fetch": bool,
    "job_info": {
        "name": str,
        "stage": str,
        "pipeline_id": int,
        "project_id": int,
        "project_name": str,
        "project_full_path": str,
        "namespace_id": int,
        "root_namespace_id": int,
        "organization_id": int,
        "instance_id": str,
        "instance_uuid": str,
        "user_id": int,
        "scoped_user_id": int,
        "time_in_queue_seconds": _NUMBER,
        "project_jobs_running_on_instance_runners_count": str,
        "queue_size": int,
        "queue_depth": int,
    },
    "git_info": {
        "repo_url": str,
        "repo_object_format": str,
        "ref": str,
        "sha": str,
        "before_sha": str,
        "ref_type": str,
        "refspecs": [str],
        "depth": int,
        "protected": bool,
    },
    "runner_info": {"uuid": str, "timeout": int},
    "variables": [_VARIABLE],
    "steps": [_SCRIPT],
    "image": _IMAGE,
    "services": [_IMAGE],
    "artifacts": [
        {
            "name": str,
            "untracked": bool,
            "paths": [str],
            "exclude": [str],
            "when": str,
            "artifact_type": str,
            "artifact_format": str,
            "expire_in": str,
        }
    ],
    "cache": [{"key": str, "untracked": bool, "policy": str, "paths": [str], "when": str, "fallback_keys": [str]}],
    "credentials": [{"type": str, "url": str, "username": str, "password": str}],
    "dependencies": [{"id": int, "token": str, "name": str, "artifacts_file": {"filename": str, "size": int}}],
    "features": {"trace_sections": bool, "token_mask_prefixes": [str], "failure_reasons": [str]},
    "hooks": [{"name": str, "script": [str]}],
    "policy_options": {"execution_policy_job": bool, "policy_name": str},
}


def mismatches(value: Any, kind: Any = JOB, place: str = "job") -> list[str]:
    """Where `value` has another type than gitlab-runner decodes; empty where all fits."""
    if value is None:
        return []
    if isinstance(kind, Mapping):
        if not isinstance(value, Mapping):
            return [f"{place} is no object"]
        return [
            problem
            for name, item in value.items()
            if name in kind
            for problem in mismatches(item, kind[name], f"{place}.{name}")
        ]
    if isinstance(kind, list):
        if not isinstance(value, list):
            return [f"{place} is no list"]
        return [
            problem for number, item in enumerate(value) for problem in mismatches(item, kind[0], f"{place}[{number}]")
        ]
    wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
    return [f"{place} is {type(value).__name__}"] if wrong else []
