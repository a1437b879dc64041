"""The runner's side of the job protocol, with the calls, headers and status codes of gitlab-runner's network/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from standins.runner.config import Entry

VERSION = "19.4.0"
# gitlab-runner reads these from its executor and shell; GitLab schedules jobs by some of them.
FEATURES = dict.fromkeys(
    (
        *("variables", "image", "artifacts", "upload_multiple_artifacts", "upload_raw_artifacts", "refspecs"),
        *("masking", "raw_variables", "artifacts_exclude", "multi_build_steps", "trace_reset", "trace_checksum"),
        *("trace_size", "cancelable", "return_exit_code", "cancel_gracefully", "image_executor_opts"),
    ),
    True,
)
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class TraceAnswer:
    """GitLab's answer to a part of the log; `offset` is where it wants the next, `interval_s` when (0: unsaid)."""

    accepted: bool
    offset: int
    over: bool = False
    interval_s: int = 0


class GitLabError(Exception):
    """GitLab could not be reached, or answered what the protocol has no place for."""


class Client:
    """One runner entry's connection."""

    def __init__(self, entry: Entry, system_id: str) -> None:
        """Nothing is sent yet."""
        self._entry = entry
        self._system_id = system_id
        self._base = f"{entry.url}/api/v4/"
        self._last_update = ""

    def request_job(self) -> dict[str, Any] | None:
        """POST jobs/request: a job, or None.

        Raises:
            GitLabError: refused or unreachable.
        """
        info = {
            "name": "gitlab-runner",
            "version": VERSION,
            "revision": "stand-in",
            "platform": "linux",
            "architecture": "amd64",
            "executor": "docker",
            "shell": "bash",
            "features": FEATURES,
            "config": {"gpus": self._entry.docker.get("gpus", "")},
        }
        token = self._entry.token
        answer = self._call(
            "POST",
            "jobs/request",
            json={"info": info, "token": token, "system_id": self._system_id, "last_update": self._last_update},
            headers={"RUNNER-TOKEN": token},
        )
        self._last_update = answer.headers.get("X-GitLab-Last-Update", self._last_update)
        if answer.status_code == 204:
            return None
        if answer.status_code != 201:
            raise GitLabError(f"jobs/request: {answer.status_code}")
        job = _document(answer)
        # The queue has changed by the job that was taken.
        self._last_update = ""
        return job

    def append_trace(self, job_id: int, token: str, start: int, content: bytes) -> TraceAnswer:
        """PATCH jobs/:id/trace with one part of the log.

        Raises:
            GitLabError: neither taken nor refused.
        """
        answer = self._call(
            "PATCH",
            f"jobs/{job_id}/trace?debug_trace=false",
            data=content,
            headers={
                "JOB-TOKEN": token,
                "Content-Type": "text/plain",
                "Content-Range": f"{start}-{start + len(content) - 1}",
            },
        )
        over = answer.status_code == 403 or answer.headers.get("Job-Status") in {"canceled", "failed"}
        interval = int(answer.headers.get("X-GitLab-Trace-Update-Interval") or 0)
        if over:
            return TraceAnswer(accepted=False, offset=start, over=True)
        if answer.status_code == 202:
            return TraceAnswer(accepted=True, offset=start + len(content), interval_s=interval)
        if answer.status_code == 416:
            return TraceAnswer(accepted=False, offset=int(answer.headers["Range"].partition("-")[2]))
        raise GitLabError(f"trace: {answer.status_code}")

    def update_job(self, job_id: int, token: str, **values: Any) -> int:
        """PUT jobs/:id; the status code."""
        body = {"token": token, **values}
        return self._call("PUT", f"jobs/{job_id}", json=body, headers={"JOB-TOKEN": token}).status_code

    def upload(self, job_id: int, token: str, path: Path, *, kind: str, form: str, expire_in: str) -> None:
        """POST jobs/:id/artifacts.

        Raises:
            GitLabError: not stored.
        """
        query = {"artifact_format": form, "artifact_type": kind, **({"expire_in": expire_in} if expire_in else {})}
        with path.open("rb") as stream:
            answer = self._call(
                "POST",
                f"jobs/{job_id}/artifacts",
                params=query,
                files={"file": (path.name, stream, "application/octet-stream")},
                headers={"JOB-TOKEN": token},
            )
        if answer.status_code != 201:
            raise GitLabError(f"uploading {kind}: {answer.status_code}")

    def download(self, job_id: int, token: str, target: Path) -> None:
        """GET jobs/:id/artifacts into `target`.

        Raises:
            GitLabError: not there, or not allowed.
        """
        answer = self._call("GET", f"jobs/{job_id}/artifacts", headers={"JOB-TOKEN": token})
        if answer.status_code != 200:
            raise GitLabError(f"downloading the artifacts of job {job_id}: {answer.status_code}")
        target.write_bytes(answer.content)

    def _call(self, method: str, path: str, **values: Any) -> requests.Response:
        headers = {"User-Agent": f"gitlab-runner {VERSION} (stand-in)", "Accept": "application/json"}
        headers |= values.pop("headers")
        try:
            return requests.request(
                method,
                self._base + path,
                headers=headers,
                timeout=_TIMEOUT_S,
                verify=self._entry.ca_file or True,
                **values,
            )
        except requests.RequestException as error:
            raise GitLabError(f"{method} {path.partition('?')[0]}: {type(error).__name__}") from error


def _document(answer: requests.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError as error:
        raise GitLabError("jobs/request: the answer is not JSON") from error
    if not isinstance(document, dict):
        raise GitLabError("jobs/request: the answer is no job")
    return document
