"""Repositories of models with revisions, and a storage on another address to which large files are redirected.

The paths, headers and error codes are those that huggingface_hub reads: `/api/models/REPO[/revision/REV]`,
`/REPO/resolve/REV/FILE` with X-Repo-Commit, X-Linked-Etag, X-Linked-Size and Location, X-Error-Code
[huggingface_hub: file_download.py, utils/_http.py].
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Self

from standins.gitlab.faults import Fault, Kind
from standins.gitlab.server import Exchange, Server
from standins.gitlab.wire import Request, Response, answer, ranged

_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?")
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class HubRepository:
    """A repository.

    Attributes:
        commits: the files of each commit by its hash, the newest last; `main` is the newest.
        license: what its card says; None where it has none.
        gated: asks for a token that accepted its terms.
        token: the one that is let in, where it is gated or private.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    license: str | None = "apache-2.0"
    license_name: str | None = None
    gated: bool = False
    private: bool = False
    token: str = "hf_right"

    def revision(self, name: str) -> str | None:
        if name == "main" and self.commits:
            return list(self.commits)[-1]
        return name if name in self.commits else None


class Hub:
    """The hub in this process; `storage` is its content network, on another port and so another host to a client."""

    def __init__(self) -> None:
        self.repositories: dict[str, HubRepository] = {}
        self.blobs: dict[str, bytes] = {}
        self.announced_size: int | None = None
        self.large_files = True
        self.ranges = True
        self.server = Server("127.0.0.1", 0, self._respond)
        self.storage = Server("127.0.0.1", 0, self._serve_blob)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for server in (self.server, self.storage):
            server.close()
            assert server.errors == []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def requests(self) -> list[Exchange]:
        return [*self.server.log.exchanges, *self.storage.log.exchanges]

    def fail(self, kind: Kind, *, storage: bool = False, times: int | None = None, **values: object) -> Fault:
        """Let calls meet a fault; it can be taken out of the server's list again."""
        fault = Fault(kind, times=times, **values)  # type: ignore[arg-type]  # the fields of Fault
        (self.storage if storage else self.server).faults.append(fault)
        return fault

    def heal(self) -> None:
        self.server.faults.clear()
        self.storage.faults.clear()

    def commit(self, repo: str, files: dict[str, bytes], **values: object) -> str:
        """A new commit with these files besides the earlier ones; makes the repository where it is new."""
        repository = self.repositories.setdefault(repo, HubRepository())
        for name, value in values.items():
            setattr(repository, name, value)
        before = list(repository.commits.values())[-1] if repository.commits else {}
        commit = hashlib.sha1(f"{repo}{len(repository.commits)}".encode()).hexdigest()  # noqa: S324 - as Git names commits
        repository.commits[commit] = before | files
        return commit

    def _respond(self, request: Request) -> tuple[Response, str]:
        if found := _API.fullmatch(request.path):
            return self._info(request, found["repo"], urllib.parse.unquote(found["revision"] or "main")), "api"
        if found := _RESOLVE.fullmatch(request.path):
            return self._resolve(
                request, **{k: urllib.parse.unquote(v) for k, v in found.groupdict().items()}
            ), "resolve"
        return _refused(404, "", "Not Found"), ""

    def _info(self, request: Request, repo: str, revision: str) -> Response:
        repository, refused = self._enter(request, repo, metadata=True)
        if repository is None:
            return refused
        commit = repository.revision(revision)
        if commit is None:
            return _refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        card = {"license": repository.license, "license_name": repository.license_name}
        return answer(
            {
                "_id": "1",
                "id": repo,
                "modelId": repo,
                "sha": commit,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "disabled": False,
                "tags": ["gguf"],
                "downloads": 1,
                "likes": 0,
                "cardData": {name: value for name, value in card.items() if value is not None},
                "siblings": [{"rfilename": name} for name in repository.commits[commit]],
            }
        )

    def _resolve(self, request: Request, *, repo: str, revision: str, file: str) -> Response:
        repository, refused = self._enter(request, repo)
        if repository is None:
            return refused
        commit = repository.revision(revision)
        if commit is None:
            return _refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        data = repository.commits[commit].get(file)
        if data is None:
            return _refused(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        if not self.large_files:
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 - Git's own name of a blob
            return ranged(request, data, {"X-Repo-Commit": commit, "ETag": f'"{git}"'})
        digest = hashlib.sha256(data).hexdigest()
        self.blobs.setdefault(digest, data)
        size = len(data) if self.announced_size is None else self.announced_size
        return Response(
            302,
            b"Found. Redirecting",
            {
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(size),
                "ETag": '"pointer"',
                "Location": f"http://127.0.0.1:{self.storage.server_port}/{digest}?Signature=secret",
            },
        )

    def _enter(self, request: Request, repo: str, *, metadata: bool = False) -> tuple[HubRepository | None, Response]:
        repository = self.repositories.get(repo)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if repository is None or (repository.private and token != repository.token):
            # To who is not let in it looks as if it were not there.
            return None, _refused(404 if token else 401, "RepoNotFound", "Repository not found")
        if repository.gated and token != repository.token and not metadata:
            return None, _refused(403 if token else 401, "GatedRepo", f"Access to model {repo} is restricted")
        return repository, Response(200)

    def _serve_blob(self, request: Request) -> tuple[Response, str]:
        data = self.blobs.get(request.path.strip("/"))
        if data is None or "Signature" not in request.query:
            return Response(403, b"<Error>AccessDenied</Error>", {"Content-Type": "application/xml"}), ""
        if not self.ranges:
            return Response(200, data, {"Content-Type": "binary/octet-stream"}), "blob"
        return ranged(request, data, {"Content-Type": "binary/octet-stream"}), "blob"


def _refused(status: int, code: str, text: str, headers: dict[str, str] | None = None) -> Response:
    return Response(
        status,
        f'{{"error":"{text}"}}'.encode(),
        {"Content-Type": "application/json", "X-Error-Code": code, "X-Error-Message": text, **(headers or {})},
    )
