"""What POST /jobs/request answers: the fields of gitlab-runner's common/spec/spec.go, and the predefined variables."""

from __future__ import annotations

from typing import Any

from standins.gitlab.ci_config import ServiceSpec
from standins.gitlab.model import Job, Variable, stamp
from standins.gitlab.state import artifact_sources

_FAILURE_REASONS = (
    *("script_failure", "runner_system_failure", "job_execution_timeout", "image_pull_failure", "unknown_failure"),
    "runner_configuration_error",
)
_DEPTH = 20


def job_request(job: Job, origin: str) -> dict[str, Any]:
    """The job for its runner; `origin` is the server's URL."""
    pipeline, project, runner = job.pipeline, job.pipeline.project, job.runner
    scheme, _, host = origin.partition("://")
    limits = [job.spec.timeout_s, *((runner.maximum_timeout,) if runner and runner.maximum_timeout else ())]
    return {
        "id": job.id,
        "token": job.token,
        "allow_git_fetch": True,
        "job_info": {
            "id": job.id,
            "name": job.name,
            "stage": job.spec.stage,
            "pipeline_id": pipeline.id,
            "project_id": project.id,
            "project_name": project.name,
            "project_full_path": project.path,
            "namespace_id": project.group.id,
            "root_namespace_id": project.group.id,
            "organization_id": 1,
            "instance_id": "stand-in",
            "instance_uuid": "00000000-0000-0000-0000-000000000000",
            "user_id": pipeline.user.id,
            "time_in_queue_seconds": 0.0,
            "project_jobs_running_on_instance_runners_count": "0",
            "queue_size": 0,
            "queue_depth": 0,
        },
        "git_info": {
            "repo_url": f"{scheme}://gitlab-ci-token:{job.token}@{host}/{project.path}.git",
            "ref": pipeline.ref,
            "sha": pipeline.sha,
            "before_sha": "0" * 40,
            "ref_type": "branch",
            "refspecs": [
                f"+refs/pipelines/{pipeline.id}:refs/pipelines/{pipeline.id}",
                f"+refs/heads/{pipeline.ref}:refs/remotes/origin/{pipeline.ref}",
            ],
            "depth": _DEPTH,
            "repo_object_format": "sha1",
            "protected": pipeline.ref == project.default_branch,
        },
        "runner_info": {"timeout": min(limits), "runner_session_url": None},
        "variables": [
            {
                "key": variable.key,
                "value": variable.value,
                "public": variable.public,
                "masked": variable.masked,
                "file": variable.file,
                "raw": variable.raw,
            }
            for variable in variables(job, origin)
        ],
        "steps": _steps(job),
        "hooks": [],
        "image": _image(job),
        "services": [_service(spec) for spec in job.spec.services],
        "artifacts": _artifacts(job),
        "cache": [],
        "credentials": [],
        "dependencies": [_dependency(source, job) for source in artifact_sources(job)],
        "features": {
            "trace_sections": True,
            "token_mask_prefixes": ["glpat-", "glcbt-", "glrt-"],
            "failure_reasons": list(_FAILURE_REASONS),
        },
        "policy_options": {"execution_policy_job": False, "policy_name": ""},
    }


def variables(job: Job, origin: str) -> list[Variable]:
    """In GitLab's order of precedence, weakest first: predefined, the project's, the pipeline's and the job's YAML."""
    return [*_predefined(job, origin), *_yaml_below_project(job)]


def _yaml_below_project(job: Job) -> list[Variable]:
    # A project's variable wins over one in .gitlab-ci.yml [docs/ci/variables: precedence].
    yaml = (*job.pipeline.variables, *(Variable(key, value) for key, value in job.spec.variables.items()))
    return [*yaml, *job.pipeline.project.variables]


def _predefined(job: Job, origin: str) -> list[Variable]:
    pipeline, project, runner = job.pipeline, job.pipeline.project, job.runner
    scheme, _, host = origin.partition("://")
    name, _, port = host.partition(":")
    web = f"{origin}/{project.path}"
    values = {
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_API_V4_URL": f"{origin}/api/v4",
        "CI_COMMIT_BEFORE_SHA": "0" * 40,
        "CI_COMMIT_REF_NAME": pipeline.ref,
        "CI_COMMIT_REF_SLUG": pipeline.ref.lower().replace("/", "-"),
        "CI_COMMIT_SHA": pipeline.sha,
        "CI_COMMIT_SHORT_SHA": pipeline.sha[:8],
        "CI_CONFIG_PATH": ".gitlab-ci.yml",
        "CI_DEFAULT_BRANCH": project.default_branch,
        "CI_JOB_ID": str(job.id),
        "CI_JOB_IMAGE": job.spec.image,
        "CI_JOB_NAME": job.name,
        "CI_JOB_STAGE": job.spec.stage,
        "CI_JOB_STARTED_AT": stamp(job.started_at) or "",
        "CI_JOB_URL": f"{web}/-/jobs/{job.id}",
        "CI_PIPELINE_ID": str(pipeline.id),
        "CI_PIPELINE_IID": str(pipeline.iid),
        "CI_PIPELINE_SOURCE": pipeline.source,
        "CI_PIPELINE_URL": f"{web}/-/pipelines/{pipeline.id}",
        "CI_PROJECT_ID": str(project.id),
        "CI_PROJECT_NAME": project.name,
        "CI_PROJECT_NAMESPACE": project.group.path,
        "CI_PROJECT_PATH": project.path,
        "CI_PROJECT_URL": web,
        "CI_RUNNER_DESCRIPTION": runner.description if runner else "",
        "CI_RUNNER_ID": str(runner.id) if runner else "",
        "CI_RUNNER_TAGS": str(runner.tag_list) if runner else "[]",
        "CI_SERVER_FQDN": host,
        "CI_SERVER_HOST": name,
        "CI_SERVER_NAME": "GitLab",
        "CI_SERVER_PORT": port or {"https": "443"}.get(scheme, "80"),
        "CI_SERVER_PROTOCOL": scheme,
        "CI_SERVER_URL": origin,
    }
    merge_request = pipeline.merge_request
    if merge_request is not None:
        values |= {
            "CI_MERGE_REQUEST_ID": str(merge_request.id),
            "CI_MERGE_REQUEST_IID": str(merge_request.iid),
            "CI_MERGE_REQUEST_PROJECT_ID": str(project.id),
            "CI_MERGE_REQUEST_PROJECT_PATH": project.path,
            "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": merge_request.source_branch,
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": merge_request.target_branch,
            "CI_MERGE_REQUEST_TITLE": merge_request.title,
        }
    else:
        values["CI_COMMIT_BRANCH"] = pipeline.ref
    secret = {
        "CI_JOB_TOKEN": job.token,
        "CI_REPOSITORY_URL": f"{scheme}://gitlab-ci-token:{job.token}@{host}/{project.path}.git",
    }
    return [
        *(Variable(key, value) for key, value in values.items()),
        *(Variable(key, value, public=False, masked=key == "CI_JOB_TOKEN") for key, value in secret.items()),
    ]


def _steps(job: Job) -> list[dict[str, Any]]:
    timeout = job.spec.timeout_s
    steps = [
        {
            "name": "script",
            "script": list(job.spec.script),
            "timeout": timeout,
            "when": "on_success",
            "allow_failure": False,
        }
    ]
    if job.spec.after_script:
        steps.append(
            {
                "name": "after_script",
                "script": list(job.spec.after_script),
                "timeout": timeout,
                "when": "always",
                "allow_failure": True,
            }
        )
    return steps


def _image(job: Job) -> dict[str, Any] | None:
    if not job.spec.image:
        return None
    return {
        "name": job.spec.image,
        "entrypoint": list(job.spec.entrypoint) or None,
        "ports": [],
        "executor_opts": {},
        "pull_policy": list(job.spec.pull_policy),
    }


def _service(spec: ServiceSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "alias": spec.alias or None,
        "command": list(spec.command) or None,
        "entrypoint": list(spec.entrypoint) or None,
        "ports": [],
        "variables": [{"key": key, "value": value, "public": True} for key, value in spec.variables.items()],
        "executor_opts": {"docker": {"user": spec.user}} if spec.user else {},
        "pull_policy": list(spec.pull_policy),
    }


def _artifacts(job: Job) -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name or None,
            "untracked": spec.untracked,
            "paths": list(spec.paths),
            "exclude": list(spec.exclude),
            "when": spec.when,
            "expire_in": spec.expire_in or None,
            "artifact_type": spec.file_type,
            "artifact_format": spec.file_format,
        }
        for spec in job.spec.artifacts
    ]


def _dependency(source: Job, reader: Job) -> dict[str, Any]:
    archive = source.artifacts.get("archive")
    found: dict[str, Any] = {"id": source.id, "name": source.name, "token": reader.token}
    if archive is not None:
        found["artifacts_file"] = {"filename": archive.filename, "size": len(archive.content)}
    return found
