"""Calls to the stand-in GitLab as a runner or a person makes them, for tests without a runner."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from standins.gitlab import GitLab

_INFO = {
    "name": "gitlab-runner",
    "version": "19.4.0",
    "revision": "abc",
    "platform": "linux",
    "architecture": "amd64",
    "executor": "docker",
    "features": {"artifacts": True},
    "config": {"gpus": ""},
}


@dataclass(frozen=True)
class Api:
    """A GitLab with one set of credentials in the headers."""

    server: GitLab
    headers: dict[str, str]

    @classmethod
    def person(cls, server: GitLab, *scopes: str) -> Api:
        return cls(server, {"PRIVATE-TOKEN": server.add_token(*scopes)})

    def call(self, method: str, path: str, **values: Any) -> requests.Response:
        headers = {**self.headers, **values.pop("headers", {})}
        verify = str(self.server.ca_file) if self.server.ca_file else True
        return requests.request(
            method, f"{self.server.url}/api/v4/{path}", headers=headers, timeout=10, verify=verify, **values
        )


@dataclass(frozen=True)
class HandRunner:
    """A runner's side of the protocol, one call at a time."""

    api: Api
    token: str

    @classmethod
    def make(cls, server: GitLab, project_id: int, *tags: str, **values: Any) -> HandRunner:
        body = {"runner_type": "project_type", "project_id": project_id, "tag_list": list(tags), **values}
        answer = Api.person(server, "create_runner").call("POST", "user/runners", json=body)
        answer.raise_for_status()
        return cls(Api(server, {}), answer.json()["token"])

    def request(self, last_update: str = "") -> requests.Response:
        body = {"token": self.token, "system_id": "s_000000000000", "info": _INFO, "last_update": last_update}
        return self.api.call("POST", "jobs/request", json=body)

    def take(self) -> dict[str, Any]:
        """The next job.

        Raises:
            LookupError: none waits for this runner.
        """
        answer = self.request()
        if answer.status_code != 201:
            raise LookupError(f"no job: {answer.status_code}")
        job: dict[str, Any] = answer.json()
        return job

    def patch(self, job: dict[str, Any], content: bytes, start: int) -> requests.Response:
        span = f"{start}-{start + len(content) - 1}"
        headers = {"JOB-TOKEN": job["token"], "Content-Range": span, "Content-Type": "text/plain"}
        return self.api.call("PATCH", f"jobs/{job['id']}/trace", data=content, headers=headers)

    def update(self, job: dict[str, Any], state: str, log: bytes = b"", **values: Any) -> requests.Response:
        output = {"checksum": f"crc32:{zlib.crc32(log):08x}", "bytesize": len(log)}
        body = {"token": job["token"], "state": state, "output": output, **values}
        return self.api.call("PUT", f"jobs/{job['id']}", json=body)

    def upload(self, job: dict[str, Any], content: bytes, **query: str) -> requests.Response:
        return self.api.call(
            "POST",
            f"jobs/{job['id']}/artifacts",
            params=query,
            files={"file": ("artifacts.zip", content)},
            headers={"JOB-TOKEN": job["token"]},
        )

    def download(self, job_id: int, token: str) -> requests.Response:
        return self.api.call("GET", f"jobs/{job_id}/artifacts", headers={"JOB-TOKEN": token})


def zipped(**files: str) -> bytes:
    """A zip archive of these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()
