"""Git repositories of the projects: made with git's own plumbing, served through git's own `http-backend`."""

from __future__ import annotations

import os
import subprocess  # noqa: TID251 - a CGI program talks in bytes; common.process decodes text
from collections.abc import Mapping
from pathlib import Path

from gpurig.common import process

from standins.gitlab.wire import Request, Response

_TIMEOUT_S = 60.0
_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "Stand-in",
    "GIT_AUTHOR_EMAIL": "standin@example.com",
    "GIT_COMMITTER_NAME": "Stand-in",
    "GIT_COMMITTER_EMAIL": "standin@example.com",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
}


def create(folder: Path) -> None:
    """Make an empty bare repository."""
    folder.mkdir(parents=True)
    _git(folder, "init", "--quiet", "--bare", "--initial-branch=main", ".")
    _git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")


def commit(folder: Path, files: Mapping[str, str], *, branch: str, message: str) -> str:
    """Add a commit with these files (whole content, by path) to `branch`; the sha."""
    parent = head(folder, branch)
    lines = [f"commit refs/heads/{branch}", f"committer {_ENVIRONMENT['GIT_COMMITTER_NAME']} <a@example.com> now"]
    lines += [f"data {len(message.encode())}", message, *([f"from {parent}"] if parent else [])]
    for path, content in files.items():
        lines += [f"M 100644 inline {path}", f"data {len(content.encode())}", content]
    _git(folder, "fast-import", "--quiet", "--date-format=now", stdin="\n".join(lines) + "\n")
    return head(folder, branch)


def head(folder: Path, branch: str) -> str:
    """The branch's commit; "" where there is none."""
    done = process.run(
        ["git", "-C", str(folder), "rev-parse", "--quiet", "--verify", f"refs/heads/{branch}"],
        timeout_s=_TIMEOUT_S,
        env=_environment(),
    )
    return done.stdout.strip()


def set_ref(folder: Path, ref: str, sha: str) -> None:
    """Point `ref` to a commit."""
    _git(folder, "update-ref", ref, sha)


def serve(root: Path, path: str, request: Request) -> Response:
    """Answer a Git client (smart HTTP) for the repositories below `root`."""
    query = "&".join(f"{name}={value}" for name, values in request.query.items() for value in values)
    environment = {
        **_environment(),
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": request.method,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
        "CONTENT_LENGTH": str(len(request.body)),
        "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
        "REMOTE_USER": "gitlab-ci-token",
        "REMOTE_ADDR": "127.0.0.1",
    }
    done = subprocess.run(
        ["git", "http-backend"],  # noqa: S607 - the git of PATH, as everywhere
        input=request.body,
        capture_output=True,
        env=environment,
        timeout=_TIMEOUT_S,
        check=True,
    )
    head_bytes, _, body = done.stdout.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head_bytes.decode().split("\r\n"))
    status = int(headers.pop("Status", "200").split()[0])
    return Response(status, body, headers)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), **_ENVIRONMENT}


def _git(folder: Path, *arguments: str, stdin: str = "") -> str:
    done = process.run(["git", "-C", str(folder), *arguments], timeout_s=_TIMEOUT_S, env=_environment(), stdin=stdin)
    if done.code != 0:
        raise RuntimeError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
