"""Files of GitLab's generic package registry (doc/user/packages/generic_packages)."""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurig.common.gitlab_api import TIMEOUT_S, connect, streamed, translated
from gpurig.common.models.reference import PackageReference
from gpurig.common.models.remote import CHUNK, Body, RemoteFacts, answered_span, range_header, refuse_page

if TYPE_CHECKING:
    import gitlab

_HINTS = {
    401: "the token is wrong, expired or revoked: pass another with --token-file; a job's own is CI_JOB_TOKEN",
    403: "the token needs read_api or api and the role Reporter; for a job's token, the project must allow this one",
    404: "check project, package, version and file, and that the token's owner may see the project",
}


@dataclass(frozen=True)
class GitLabAccess:
    """How to reach a GitLab.

    Attributes:
        url: the server's.
        private_token: a user's, a project's or a group's token.
        job_token: a CI job's own.
        ca_file: the certificate authority to trust instead of the system's.
        timeout_s: seconds that it may be silent.
    """

    url: str
    private_token: str | None = None
    job_token: str | None = None
    ca_file: Path | None = None
    timeout_s: float = TIMEOUT_S

    def __repr__(self) -> str:
        """Without the tokens."""
        return f"GitLabAccess({self.url!r})"


@dataclass(frozen=True)
class PackageFile:
    """One file of a generic package as the source of a transfer."""

    reference: PackageReference
    access: GitLabAccess

    @property
    def label(self) -> str:
        """As the user writes it."""
        return str(self.reference)

    def look(self) -> RemoteFacts:
        """Its size and hash, from the package's list of files.

        A deploy token may download and not list: then nothing is known beforehand, and a file that is not there shows
        when it is asked for.
        """
        import gitlab  # noqa: PLC0415 - heavy

        client = self._client()
        with translated(f"looking for {self.label}", self.access.url, hints=_HINTS):
            try:
                files = self._listed(client)
            except gitlab.GitlabError as error:
                if error.response_code not in {401, 403, 404}:
                    raise
                return RemoteFacts()
        same = [file for file in files if file.get("file_name") == self.reference.file]
        if not same:
            return RemoteFacts()
        # Of several files of one name GitLab serves the newest.
        newest = max(same, key=lambda file: int(file.get("id") or 0))
        size, sha256 = newest.get("size"), newest.get("file_sha256")
        return RemoteFacts(
            size_bytes=size if isinstance(size, int) else None,
            sha256=sha256.lower() if isinstance(sha256, str) and len(sha256) == 64 else None,
            etag=str(newest.get("id") or ""),
        )

    @contextlib.contextmanager
    def open(
        self,
        start: int,
        facts: RemoteFacts,  # noqa: ARG002 - a version's file stays the same
        *,
        stop: int | None = None,
    ) -> Iterator[Body]:
        """Its bytes from `start` on."""
        where = self.reference
        parts = ("projects", where.project, "packages", "generic", where.package, where.version, where.file)
        path = "/" + "/".join(_segment(part) for part in parts)
        doing = f"fetching {self.label}"
        with (
            translated(doing, self.access.url, hints=_HINTS),
            streamed(self._client(), path, headers=range_header(start, stop)) as response,
        ):
            refuse_page(self.label, response.headers)
            begins, total = answered_span(response.status_code, response.headers, start)
            chunks = iter(()) if response.status_code == 416 else response.iter_content(CHUNK)
            yield Body(begins, chunks, total)

    def _listed(self, client: gitlab.Gitlab) -> list[dict[str, Any]]:
        where = self.reference
        packages = f"/projects/{_segment(where.project)}/packages"
        # python-gitlab would wait for a 429 by itself; here one place does.
        options: dict[str, Any] = {"obey_rate_limit": False, "iterator": True}
        query = {"package_type": "generic", "package_name": where.package, "package_version": where.version}
        found: list[dict[str, Any]] = []
        for package in client.http_list(packages, query_data=query, **options):
            # The search is by part of the name.
            if package.get("name") == where.package and package.get("version") == where.version:
                found += client.http_list(f"{packages}/{int(package['id'])}/package_files", **options)
        return found

    def _client(self) -> gitlab.Gitlab:
        access = self.access
        return connect(
            access.url,
            private_token=access.private_token,
            job_token=access.job_token,
            ca_file=access.ca_file,
            timeout_s=access.timeout_s,
        )


def _segment(text: str) -> str:
    return urllib.parse.quote(text, safe="")
