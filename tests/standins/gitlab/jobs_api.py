"""The job protocol, as gitlab-runner speaks it (its network/gitlab.go and network/trace.go; lib/api/ci/runner.rb)."""

from __future__ import annotations

import re
import zlib

from standins.gitlab import auth
from standins.gitlab.model import DEVELOPER, Artifact, Job, now
from standins.gitlab.payload import job_request
from standins.gitlab.state import State
from standins.gitlab.wire import Request, Response, Upload, answer, invalid, message

FILE_TYPES = (
    *("archive", "metadata", "trace", "junit", "metrics", "metrics_referee", "network_referee", "dotenv", "cobertura"),
    *("codequality", "sast", "dast", "cyclonedx", "annotations", "terraform", "accessibility", "sarif"),
)
FILE_FORMATS = ("zip", "gzip", "raw")
# What the runner is told to wait between two trace updates while somebody watches the job; 30 otherwise.
TRACE_INTERVAL_S = 3
ARTIFACT_LIMIT_BYTES = 100 * 2**20


def request_job(state: State, request: Request) -> Response:
    """POST /jobs/request: 201 with a job, or 204."""
    runner = auth.runner_for(state, request)
    system_id = request.params.text("system_id", "<legacy>")
    queue = {"X-GitLab-Last-Update": state.queue_value}
    if runner.paused or request.params.text("last_update") == state.queue_value:
        return Response(204, headers=queue)
    waiting = (job for job in state.jobs.values() if job.status == "pending" and runner.takes(job))
    job = min(waiting, key=lambda job: job.id, default=None)
    if job is None:
        return Response(204, headers=queue)
    job.status, job.runner, job.system_id, job.started_at = "running", runner, system_id, now()
    state.touch()
    return answer(job_request(job, request.headers["x-standin-origin"]), 201)


def update(state: State, request: Request) -> Response:
    """PUT /jobs/:id: the runner says how the job stands; the final state ends it."""
    job = auth.job_for(state, request)
    params = request.params
    wanted = params.text("state")
    output = params.table("output")
    if output:
        job.reported = (str(output.get("checksum", "")), int(output.get("bytesize") or 0))
    if wanted in {"success", "failed"}:
        failed = wanted == "failed"
        state.finish(
            job,
            wanted,
            (params.text("failure_reason") or "unknown_failure") if failed else "",
            (params.integer("exit_code") or None) if failed else 0,
        )
    elif wanted != "running":
        return Response(400, b"400")
    else:
        state.changed.notify_all()
    interval = str(TRACE_INTERVAL_S)
    return Response(200, b"200", {"Job-Status": job.status, "X-GitLab-Trace-Update-Interval": interval})


def append_trace(state: State, request: Request) -> Response:
    """PATCH /jobs/:id/trace: append where the log ends, or 416 with where it does [append_build_trace_service.rb]."""
    job = auth.job_for(state, request)
    found = re.match(r"(\d+)-(\d+)", request.headers.get("content-range", ""))
    if "content-range" not in request.headers:
        raise message(400, "400 Missing header Content-Range")
    start = int(found[1]) if found else 0
    if start == len(job.trace):
        job.trace += request.body
        job.trace_ranges.append((start, len(job.trace)))
    size = {"Range": f"0-{len(job.trace)}"}
    if len(job.trace) != start + len(request.body):
        raise message(416, "416 Range Not Satisfiable", size)
    state.changed.notify_all()
    interval = str(TRACE_INTERVAL_S)
    return Response(202, b"0", {**size, "Job-Status": job.status, "X-GitLab-Trace-Update-Interval": interval})


def trace_is_whole(job: Job) -> bool:
    """Whether the log is what the runner said in its last update: size and CRC-32."""
    return job.reported == (f"crc32:{zlib.crc32(job.trace):08x}", len(job.trace))


def authorize_artifacts(state: State, request: Request) -> Response:
    """POST /jobs/:id/artifacts/authorize; on a real server Workhorse asks it, not the runner."""
    auth.job_for(state, request)
    params = request.params
    params.choice("artifact_type", FILE_TYPES, "archive")
    if (params.integer("filesize") or 0) > ARTIFACT_LIMIT_BYTES:
        raise message(413, "413 Request Entity Too Large")
    return answer({"TempPath": "/artifacts/tmp/uploads", "MaximumSize": ARTIFACT_LIMIT_BYTES})


def upload_artifacts(state: State, request: Request) -> Response:
    """POST /jobs/:id/artifacts: one archive or report."""
    job = auth.job_for(state, request)
    params = request.params
    upload = params.values.get("file")
    if not isinstance(upload, Upload):
        raise invalid("file is missing" if upload is None else "file is invalid")
    if len(upload.content) > ARTIFACT_LIMIT_BYTES:
        raise message(413, "413 Request Entity Too Large")
    kind = params.choice("artifact_type", FILE_TYPES, "archive")
    form = params.choice("artifact_format", FILE_FORMATS, "zip")
    known = job.artifacts.get(kind)
    if known is not None and known.content != upload.content:
        raise message(400, "400 Bad request - another artifact of the same type already exists")
    magic = {"zip": b"PK", "gzip": b"\x1f\x8b", "raw": b""}[form]
    if not upload.content.startswith(magic):
        raise message(400, "400 Bad request - Invalid artifact format")
    job.artifacts[kind] = Artifact(kind, form, upload.filename, upload.content, params.text("expire_in"))
    state.changed.notify_all()
    return answer({"message": "201 Created"}, 201)


def download_artifacts(state: State, request: Request) -> Response:
    """GET /jobs/:id/artifacts, with the job's own token or that of a running job of the same project."""
    job = state.jobs.get(int(request.path_params["id"]))
    token = request.params.text("token") or request.headers.get("job-token", "")
    reader = next((other for other in state.jobs.values() if other.token == token), None)
    if job is None or reader is None or not (reader is job or reader.running):
        raise message(403, "403 Forbidden")
    if reader.pipeline.project is not job.pipeline.project:
        raise message(403, "403 Forbidden")
    return _archive(job)


def project_artifacts(state: State, request: Request) -> Response:
    """GET /projects/:id/jobs/:job_id/artifacts, for a person or a job token."""
    who = auth.caller(state, request, job_token=True)
    project = auth.project_for(state, who, request.path_params["id"], DEVELOPER)
    job = state.jobs.get(int(request.path_params["job_id"]))
    if job is None or job.pipeline.project is not project:
        raise message(404, "404 Not found")
    return _archive(job)


def _archive(job: Job) -> Response:
    archive = job.artifacts.get("archive")
    if archive is None:
        raise message(404, "404 Not found")
    disposition = f'attachment; filename="{archive.filename}"'
    return Response(
        200, archive.content, {"Content-Type": "application/octet-stream", "Content-Disposition": disposition}
    )
