"""The one connection to GitLab: time limits, retries, custom CAs, and every failure as one of our errors.

Used by provisioning (runners) and by the report stage (the merge request's note).
"""

from __future__ import annotations

import contextlib
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpurig.common.errors import InputError, RemoteError

if TYPE_CHECKING:
    import gitlab

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


def connect(url: str, *, private_token: str | None = None, ca_file: Path | None = None) -> gitlab.Gitlab:
    """A client for `url`; nothing is sent yet.

    Raises:
        InputError: not a URL, no such CA file, or a token that could not stand in a header.
    """
    import gitlab  # noqa: PLC0415 - 100 ms that `--help` must not pay

    if ca_file is not None and not ca_file.is_file():
        raise InputError(
            f"there is no certificate authority's file {ca_file}",
            hint="check the path (--tls-ca-file, or in a job CI_SERVER_TLS_CA_FILE)",
        )
    if private_token is not None and not (private_token.isascii() and private_token.isprintable()):
        # The token itself is in no message.
        raise InputError(
            "the token holds characters that no GitLab token has", hint="check that the file holds the token alone"
        )

    return gitlab.Gitlab(
        checked_url(url),
        private_token=private_token,
        ssl_verify=str(ca_file) if ca_file else True,
        timeout=TIMEOUT_S,
        retry_transient_errors=False,
        keep_base_url=True,
        user_agent="gpurig",
    )


@contextlib.contextmanager
def translated(doing: str, url: str) -> Iterator[None]:
    """Turn what python-gitlab and requests raise while `doing` something into a RemoteError.

    Args:
        doing: a phrase for the message, for example "creating the runner".
        url: the server, for the message.
    """
    import gitlab  # noqa: PLC0415
    import requests  # noqa: PLC0415

    try:
        yield
    except gitlab.GitlabError as error:
        raise _from_gitlab(error, doing, url) from error
    except requests.exceptions.SSLError as error:
        raise RemoteError(
            f"{doing}: the TLS certificate of {url} is not trusted",
            hint="pass the certificate authority's file with --tls-ca-file",
        ) from error
    except requests.exceptions.Timeout as error:
        raise RemoteError(
            f"{doing}: {url} did not answer within {TIMEOUT_S:g} s", hint="check the network and the server's health"
        ) from error
    except requests.exceptions.ConnectionError as error:
        raise RemoteError(
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


def _from_gitlab(error: gitlab.GitlabError, doing: str, url: str) -> RemoteError:
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
    hint = _STATUS_HINTS.get(status, "GitLab itself failed: try again later, or look at its status page")
    return RemoteError(f"{doing}: GitLab answered {status}" + (f" ({reason})" if reason else ""), hint=hint)


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
