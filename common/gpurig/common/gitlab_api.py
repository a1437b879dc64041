"""The one connection to GitLab: time limits, retries, custom CAs, and every failure as one of our errors.

Used by provisioning (runners) and by the report stage (the merge request's note).
"""

from __future__ import annotations

import contextlib
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gpurig.common.errors import InputError, RemoteError, TransientError
from gpurig.common.retrying import retry_after_s

if TYPE_CHECKING:
    import gitlab
    import requests

TIMEOUT_S = 20.0


def checked_url(url: str) -> str:
    """GitLab's base URL without a trailing slash.

    Raises:
        InputError: it is not an http(s) URL with a host, or it carries a user name or password.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise InputError(f"not a URL: {error}", hint="write it like https://gitlab.example.com") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise InputError("the GitLab URL needs http:// or https:// and a host", hint="https://gitlab.example.com")
    if parts.username or parts.password:
        raise InputError("the GitLab URL carries a user name or password", hint="pass the token with --token-file")
    return url.rstrip("/")


def connect(
    url: str,
    *,
    private_token: str | None = None,
    job_token: str | None = None,
    ca_file: Path | None = None,
    timeout_s: float = TIMEOUT_S,
) -> gitlab.Gitlab:
    """A client for `url`; nothing is sent yet.

    Args:
        url: the server's.
        private_token: a user's, a project's or a group's token.
        job_token: a CI job's own token; at most one of the two is given.
        ca_file: the certificate authority to trust instead of the system's.
        timeout_s: seconds that the server may be silent.

    Raises:
        InputError: not a URL, no such CA file, or a token that could not stand in a header.
    """
    import gitlab  # noqa: PLC0415 - 100 ms that `--help` must not pay

    if ca_file is not None and not ca_file.is_file():
        raise InputError(
            f"there is no certificate authority's file {ca_file}",
            hint="check the path (--tls-ca-file, or in a job CI_SERVER_TLS_CA_FILE)",
        )
    token = private_token if job_token is None else job_token
    if token is not None and not (token.isascii() and token.isprintable()):
        # The token itself is in no message.
        raise InputError(
            "the token holds characters that no GitLab token has", hint="check that the file holds the token alone"
        )

    return gitlab.Gitlab(
        checked_url(url),
        private_token=private_token,
        job_token=job_token,
        ssl_verify=str(ca_file) if ca_file else True,
        timeout=timeout_s,
        retry_transient_errors=False,
        keep_base_url=True,
        user_agent="gpurig",
    )


@contextlib.contextmanager
def translated(doing: str, url: str, *, hints: Mapping[int, str] | None = None) -> Iterator[None]:
    """Turn what python-gitlab and requests raise while `doing` something into a RemoteError.

    It is a TransientError where the same call may succeed later.

    Args:
        doing: a phrase for the message, for example "creating the runner".
        url: the server, for the message.
        hints: what to do about a status, where that differs from what the statuses mean for runners.
    """
    import gitlab  # noqa: PLC0415
    import requests  # noqa: PLC0415

    try:
        yield
    except gitlab.GitlabError as error:
        raise _from_gitlab(error, doing, url, hints or {}) from error
    except requests.exceptions.SSLError as error:
        raise RemoteError(
            f"{doing}: the TLS certificate of {url} is not trusted",
            hint="pass the certificate authority's file with --tls-ca-file",
        ) from error
    except requests.exceptions.Timeout as error:
        raise TransientError(
            f"{doing}: {url} did not answer within {TIMEOUT_S:g} s", hint="check the network and the server's health"
        ) from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise TransientError(f"{doing}: the connection to {url} broke off", hint="check the network") from error
    except requests.exceptions.ConnectionError as error:
        raise TransientError(
            f"{doing}: cannot reach {url}", hint="check the URL, the network, DNS and proxy settings"
        ) from error
    except requests.exceptions.RequestException as error:
        raise RemoteError(
            f"{doing}: {url} sent an answer that is not HTTP as expected ({type(error).__name__})",
            hint="check that the URL is a GitLab, not a proxy or a login page",
        ) from error


_STATUS_HINTS = {
    400: "GitLab refused the values: check the options, and that the project or group exists",
    401: "the token is wrong, expired or revoked: make a new one and pass it with --token-file",
    403: "the token lacks the scope or its owner the role that this needs (create_runner; owner or maintainer)",
    404: "check the URL and the project or group, and that the token's owner may see it",
    409: "another change was made at the same time: run it again",
    422: "GitLab refused the values: check the options",
    429: "GitLab limits the rate: wait a minute and run it again",
}


# What may pass by itself: a limit on requests, and the server's or its proxies' own faults.
_PASSING = frozenset({408, 429, 500, 502, 503, 504, *range(520, 531)})


def _from_gitlab(error: gitlab.GitlabError, doing: str, url: str, hints: Mapping[int, str]) -> RemoteError:
    import gitlab  # noqa: PLC0415

    status = error.response_code
    if isinstance(error, gitlab.GitlabParsingError) or status is None or status < 400:
        return RemoteError(
            f"{doing}: {url} answered with something that is not GitLab's API",
            hint="check that the URL is a GitLab, not a proxy or a login page",
        )
    # A proxy's error page says nothing in one line.
    reason = _reason(error) if said_by_gitlab(error) else ""
    reason = reason if len(reason) <= 200 else reason[:200] + "…"
    hint = {**_STATUS_HINTS, **hints}.get(status, "GitLab itself failed: try again later, or look at its status page")
    said = f"{doing}: GitLab answered {status}" + (f" ({reason})" if reason else "")
    if status in _PASSING:
        return TransientError(said, hint=hint, retry_after_s=getattr(error, "retry_after_s", None))
    return RemoteError(said, hint=hint)


def _reason(error: gitlab.GitlabError) -> str:
    """GitLab's own words; for a token's faults they stand beside the error's code, as OAuth wants it."""
    body = json.loads(error.response_body or b"null")
    described = body.get("error_description") if isinstance(body, dict) else None
    reason = str(error.error_message or "").strip()
    return f"{reason}: {described.strip()}" if isinstance(described, str) and described.strip() else reason


def said_by_gitlab(error: gitlab.GitlabError) -> bool:
    """Whether GitLab itself answered: its API speaks JSON, and a proxy's error page does not."""
    try:
        json.loads(error.response_body or b"")
    except ValueError:
        return False
    return True


_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5


@contextlib.contextmanager
def streamed(client: gitlab.Gitlab, path: str, *, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    """GET a file below /api/v4; the answer's body is read as it comes.

    A package's file may lie in an object storage on another host: the redirection is followed here, without the token,
    because requests would send a PRIVATE-TOKEN or JOB-TOKEN header along.

    Args:
        client: from `connect`.
        path: below /api/v4, its segments encoded.
        headers: more of them: a `Range`, which a server need not heed.

    Raises:
        gitlab.GitlabError, requests.RequestException: for `translated`; 416 is an answer.
    """
    import gitlab  # noqa: PLC0415
    import requests  # noqa: PLC0415

    url = f"{client.api_url}{path}"
    sent = {"Accept-Encoding": "identity", "User-Agent": "gpurig", **headers}
    tokens = {"PRIVATE-TOKEN": client.private_token, "JOB-TOKEN": client.job_token}
    secret = {name: token for name, token in tokens.items() if token}
    home = urllib.parse.urlsplit(url)[:2]
    for _ in range(_MOST_REDIRECTS + 1):
        own = urllib.parse.urlsplit(url)[:2] == home
        response = client.session.get(
            url,
            headers=sent | (secret if own else {}),
            stream=True,
            timeout=client.timeout,
            verify=client.ssl_verify,
            allow_redirects=False,
        )
        with response:
            if response.status_code in _REDIRECTS:
                url = urllib.parse.urljoin(url, response.headers.get("Location", ""))
                if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
                    break
                continue
            if response.status_code >= 400 and response.status_code != 416:
                body = response.raw.read(10_000, decode_content=True)
                error = gitlab.GitlabHttpError(_said(body), response.status_code, body)
                error.retry_after_s = retry_after_s(response.headers.get("Retry-After"))  # type: ignore[attr-defined]  # read in _from_gitlab
                raise error
            yield response
            return
    raise requests.exceptions.TooManyRedirects(f"{path} is redirected without end")


def _said(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    said = document.get("message") or document.get("error") if isinstance(document, dict) else None
    return str(said or "")
