"""One question to GitLab, with everything that its answer, or its lack, tells about the way there."""

from __future__ import annotations

import email.utils
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from gpurig.common.gitlab_api import TIMEOUT_S

Trouble = Literal["", "dns", "proxy", "refused", "timeout", "tls", "not-http", "ca-file"]

_MOST_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """What became of one GET.

    Attributes:
        url: GitLab's address.
        trouble: why there was no answer; "" where there was one.
        detail: the reason in the words of the library that met it.
        tls_code: OpenSSL's verification error (X509_V_ERR_…); 0 where verification was not what failed.
        status: HTTP's, 0 without an answer.
        location: where a redirect points to.
        document: the answer's JSON object; None where it was something else.
        skew_s: how far this machine's clock is ahead of the server's `Date`, in seconds, exact to about one; None
            where the server sent none.
    """

    url: str
    trouble: Trouble = ""
    detail: str = ""
    tls_code: int = 0
    status: int = 0
    location: str = ""
    document: dict[str, Any] | None = None
    skew_s: float | None = None


def ask(
    url: str,
    path: str,
    *,
    token: str | None,
    ca_file: Path | None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """GET `path` of GitLab's API at `url`, by the way that the product itself takes: proxies and CA bundle included.

    Args:
        url: GitLab's address without a trailing slash.
        path: below /api/v4, with its leading slash.
        token: a user's; sent as a header, None for none.
        ca_file: the certificate authority to trust instead of the usual ones.
        now: this machine's clock.
        timeout_s: for the connection, and for each wait after it.
    """
    import requests  # noqa: PLC0415 - heavy

    headers = {"User-Agent": "gpurig"} | ({"PRIVATE-TOKEN": token} if token else {})
    before = now()
    try:
        with (
            requests.Session() as session,
            session.get(
                f"{url}/api/v4{path}",
                headers=headers,
                # Without one, requests would take a password from ~/.netrc.
                auth=lambda request: request,
                verify=str(ca_file) if ca_file else True,
                timeout=timeout_s,
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            after = now()
            body = response.raw.read(_MOST_BYTES, decode_content=True)
            return Answer(
                url=url,
                status=response.status_code,
                location=response.headers.get("Location", ""),
                document=parse_object(body),
                skew_s=skew_of(response.headers.get("Date", ""), before, after),
            )
    # UnicodeError and other ValueErrors: a host name or a proxy's address that cannot be one.
    except (OSError, ValueError) as error:
        return _without_answer(url, error)
    except Exception as error:
        import urllib3  # noqa: PLC0415

        # Below requests, a body that breaks off shows as urllib3's error.
        if isinstance(error, urllib3.exceptions.HTTPError):
            return _without_answer(url, error)
        raise


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is; None where it is something else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def skew_of(date: str, before: datetime, after: datetime) -> float | None:
    """Seconds by which the middle of the exchange is ahead of the server's date, which is cut to whole seconds.

    None where the header holds no date (RFC 9110, 5.6.7).
    """
    try:
        sent = email.utils.parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    sent = sent if sent.tzinfo else sent.replace(tzinfo=UTC)
    middle = before + (after - before) / 2
    return (middle - sent - timedelta(seconds=0.5)).total_seconds()


def _without_answer(url: str, error: BaseException) -> Answer:
    import requests  # noqa: PLC0415
    import urllib3  # noqa: PLC0415

    chain = list(_causes(error))
    names = {type(one).__name__ for one in chain}
    unverified = next((one for one in chain if isinstance(one, ssl.SSLCertVerificationError)), None)
    detail = _innermost(chain)
    if unverified is not None:
        return Answer(url, "tls", unverified.verify_message or detail, tls_code=unverified.verify_code)
    kinds: tuple[tuple[Trouble, bool], ...] = (
        ("proxy", bool(names & {"ProxyError", "InvalidProxyURL"})),
        ("tls", any(isinstance(one, ssl.SSLError | requests.exceptions.SSLError) for one in chain)),
        ("dns", bool(names & {"NameResolutionError", "gaierror", "LocationParseError", "InvalidURL", "UnicodeError"})),
        ("timeout", any(isinstance(one, requests.exceptions.Timeout | TimeoutError) for one in chain)),
        ("timeout", "ReadTimeoutError" in names),
        ("not-http", any(isinstance(one, urllib3.exceptions.ProtocolError) for one in chain)),
        ("refused", any(isinstance(one, requests.exceptions.ConnectionError) for one in chain)),
    )
    found = next((kind for kind, holds in kinds if holds), None)
    if found is None and isinstance(error, OSError) and not isinstance(error, requests.exceptions.RequestException):
        # requests says so of a CA bundle that is not there.
        found = "ca-file"
    return Answer(url, found or "not-http", detail)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything that libraries hid in it: causes, arguments, urllib3's `reason`."""
    pending: list[Any] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        pending += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]


def _innermost(chain: list[BaseException]) -> str:
    """The system's own word where there is one: the libraries' name their internals."""
    system = next((one.strerror for one in chain if isinstance(one, OSError) and one.strerror), "")
    return str(system) if system and isinstance(system, str) else type(chain[0]).__name__
