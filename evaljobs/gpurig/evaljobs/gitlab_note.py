"""The note on the merge request: one for each suite, updated in place.

A job's own token (CI_JOB_TOKEN) may read notes but not write them, so this needs a project or group token with the
scope `api`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gpurig.common.errors import PrerequisiteError, RemoteError
from gpurig.common.files import read_text
from gpurig.common.gitlab_api import connect, translated
from gpurig.evaljobs.report.note import marker

TOKEN_VARIABLE = "GPURIG_NOTE_TOKEN"  # noqa: S105 - a variable's name

_DOING = "writing the merge request's note"
# python-gitlab waits twice as long each time when GitLab limits the rate: three waits are under a second, its own
# default of ten is minutes, and a note is not worth a job's time.
_RETRIES = 3


@dataclass(frozen=True)
class MergeRequest:
    """Where the note belongs.

    Attributes:
        url: GitLab's base URL.
        project: the project's id.
        iid: the merge request's number in its project.
        token: a token that may write notes.
        ca_file: the certificate authority of the server; None: the system's.
    """

    url: str
    project: str
    iid: int
    token: str = field(repr=False)
    ca_file: Path | None = None


def in_merge_request(environ: Mapping[str, str]) -> bool:
    """Whether this is a job of a merge request pipeline."""
    return bool(environ.get("CI_MERGE_REQUEST_IID"))


def find_merge_request(environ: Mapping[str, str], token_file: Path | None) -> MergeRequest:
    """The merge request from GitLab's predefined variables, the token from `token_file` or GPURIG_NOTE_TOKEN.

    Raises:
        PrerequisiteError: not in a merge request pipeline, or no token. InputError: the token file cannot be read.
    """
    url, project, iid = (environ.get(name, "") for name in ("CI_SERVER_URL", "CI_PROJECT_ID", "CI_MERGE_REQUEST_IID"))
    if not (url and project and iid.isdecimal()):
        raise PrerequisiteError(
            "this is no job of a merge request pipeline, so there is nowhere to put a note",
            hint="rules: - if: $CI_PIPELINE_SOURCE == 'merge_request_event'",
        )
    token = (read_text(token_file) if token_file else environ.get(TOKEN_VARIABLE, "")).strip()
    if not token:
        raise PrerequisiteError(
            "the merge request's note needs a token with the scope api: a job's own may not write notes",
            hint=f"make a project access token and give it as the masked variable {TOKEN_VARIABLE}",
        )
    ca_file = environ.get("CI_SERVER_TLS_CA_FILE", "")
    return MergeRequest(url, project, int(iid), token, Path(ca_file) if ca_file else None)


def post_note(place: MergeRequest, suite: str, text: str) -> Literal["created", "updated", "unchanged"]:
    """Put `text` on the merge request: over the suite's earlier note where there is one of ours.

    Raises:
        RemoteError: GitLab refused or did not answer.
    """
    client = connect(place.url, private_token=place.token, ca_file=place.ca_file)
    with translated(_DOING, place.url), _own_hints(place.url):
        import gitlab  # noqa: PLC0415 - translated() has imported it already

        notes = client.projects.get(place.project, lazy=True).mergerequests.get(place.iid, lazy=True).notes
        first_line = marker(suite)
        for note in notes.list(iterator=True, per_page=100, order_by="created_at", sort="asc", max_retries=_RETRIES):
            body = note.attributes.get("body") or ""
            if note.attributes.get("system") or not body.startswith(first_line):
                continue
            if body.strip() == text.strip():
                return "unchanged"
            try:
                notes.update(note.get_id(), {"body": text}, max_retries=_RETRIES)
            except gitlab.GitlabUpdateError as error:
                # Anybody may write a note that begins like ours; only its author may change it.
                if error.response_code in {403, 404}:
                    continue
                raise
            return "updated"
        notes.create({"body": text}, max_retries=_RETRIES)
        return "created"


@contextlib.contextmanager
def _own_hints(url: str) -> Iterator[None]:
    """The failures whose fix lies in the job's settings, not in an option of the box's commands."""
    import gitlab  # noqa: PLC0415
    import requests  # noqa: PLC0415

    try:
        yield
    except gitlab.GitlabError as error:
        if error.response_code not in {401, 403, 404}:
            raise
        raise RemoteError(
            f"{_DOING}: GitLab answered {error.response_code}",
            hint=f"{TOKEN_VARIABLE} must be a valid token of this project (role Reporter or above) with the scope api",
        ) from error
    except requests.exceptions.SSLError as error:
        raise RemoteError(
            f"{_DOING}: the TLS certificate of {url} is not trusted",
            hint="name the certificate authority's file in CI_SERVER_TLS_CA_FILE",
        ) from error
