"""The way to GitLab: name, certificate, answer, version, and the clocks of both ends."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping

from gpurig.provisioning.distribution import Command, Distribution
from gpurig.provisioning.doctor.exchange import Answer, Trouble
from gpurig.provisioning.doctor.finding import Finding, Status
from gpurig.provisioning.versions import numbers

# `POST /user/runners` came with 15.10 behind a flag, and is on by default from 16.0 (GitLab, "Register runners").
OLDEST_GITLAB = (16, 0)

# A token's or certificate's first minutes, and the retry times of job requests, suffer from the first; TLS and
# signatures break at the second.
_SKEW_WARNING_S = 30.0
_SKEW_FAILURE_S = 300.0

NO_URL = "nobody said which GitLab: give --url"

# X509_V_ERR_… of OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME = frozenset({62, 64})


def judge(answer: Answer) -> tuple[Finding, ...]:
    """The findings on the name, the certificate and the answer; what lies behind a failure is skipped."""
    return (_dns(answer), _tls(answer), _api(answer))


def unasked(reason: str, hint: str = "") -> tuple[Finding, ...]:
    """The same where GitLab was not asked."""
    return tuple(
        Finding(name, "skipped", reason, hint=hint, area="gitlab") for name in ("gitlab dns", "gitlab tls", "gitlab")
    )


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or url


def _dns(answer: Answer) -> Finding:
    host = _host(answer.url)
    if answer.trouble == "dns":
        return _failed(
            "gitlab dns",
            f"the name {host} cannot be resolved ({answer.detail})",
            "check the name in --url, and the name servers",
            commands=(Command(("getent", "ahosts", host), by_hand=True, as_root=False),),
        )
    if answer.trouble in {"proxy", "ca-file"}:
        return Finding("gitlab dns", "skipped", "not reached yet", area="gitlab")
    return Finding("gitlab dns", "ok", "resolves", found=host, area="gitlab")


def _tls(answer: Answer) -> Finding:
    parts = urllib.parse.urlsplit(answer.url)
    if answer.trouble == "tls":
        message, hint = _distrust(answer, parts.hostname or "")
        where = f"{parts.hostname}:{parts.port or 443}"
        look = Command(("openssl", "s_client", "-connect", where, "-brief"), by_hand=True, as_root=False)
        return _failed("gitlab tls", message, hint, commands=(look,))
    if answer.trouble == "ca-file":
        return _failed("gitlab tls", "the file of certificate authorities cannot be read", "see --tls-ca-file")
    if answer.trouble in {"dns", "proxy", "refused", "timeout"} and not answer.status:
        return Finding("gitlab tls", "skipped", "not reached", area="gitlab")
    if parts.scheme == "http":
        local = parts.hostname in {"localhost", "::1"} or (parts.hostname or "").startswith("127.")
        if local:
            return Finding("gitlab tls", "skipped", "http on this machine", area="gitlab")
        message = "http: tokens and job variables cross the network unencrypted"
        return Finding("gitlab tls", "warning", message, found="http", needed="https", area="gitlab")
    return Finding("gitlab tls", "ok", "the certificate is valid and trusted", found="https", area="gitlab")


def _distrust(answer: Answer, host: str) -> tuple[str, str]:
    code = answer.tls_code
    if code == _EXPIRED:
        return (
            f"the TLS certificate of {host} has expired",
            "have it renewed; if others reach it, this machine's clock is wrong: see date",
        )
    if code == _NOT_YET_VALID:
        return f"the TLS certificate of {host} is not valid yet", "this machine's clock may be wrong: see date"
    if code in _OTHER_NAME:
        return (
            f"the TLS certificate is for another name than {host}",
            "use the name that the certificate has in --url",
        )
    if code in _UNKNOWN_AUTHORITY:
        return (
            f"the TLS certificate of {host} was signed by an authority that is not known here",
            "pass the authority's certificate with --tls-ca-file",
        )
    if code:
        return f"the TLS certificate of {host} is refused: {answer.detail}", "have it replaced"
    return f"no TLS connection with {host}: {answer.detail}", "check that the URL's port speaks https"


_TROUBLES: Mapping[Trouble, tuple[str, str]] = {
    "proxy": ("the HTTP proxy does not let us through", "check https_proxy, http_proxy and no_proxy"),
    "refused": ("{host} cannot be reached ({detail})", "check the URL's port, the network and its firewalls"),
    "timeout": ("{host} did not answer in time", "check the network, its firewalls, and the server's health"),
    "not-http": ("{host} sent no HTTP answer ({detail})", "check that the URL is a GitLab's"),
}


def _api(answer: Answer) -> Finding:
    host = _host(answer.url)
    if answer.trouble in _TROUBLES:
        message, hint = _TROUBLES[answer.trouble]
        return _failed("gitlab", message.format(host=host, detail=answer.detail), hint)
    if answer.trouble:
        return Finding("gitlab", "skipped", "not reached", area="gitlab")
    if 300 <= answer.status < 400:
        target = _origin(answer.location)
        return _failed(
            "gitlab", f"{answer.url} redirects to {target}", "give the address that it redirects to as --url"
        )
    if answer.status >= 500:
        hint = "GitLab itself failed: try again later, or look at its status page"
        return _failed("gitlab", f"{host} answered {answer.status}", hint)
    if answer.document is None or answer.status == 404:
        hint = "check that the URL is a GitLab, not a proxy or a login page"
        return _failed("gitlab", f"{answer.url} answers, but not as GitLab's API", hint)
    return Finding("gitlab", "ok", "its API answers", found=answer.url, area="gitlab")


def _origin(location: str) -> str:
    """A redirect's scheme, host and port, without a user name or what else it may carry."""
    try:
        parts = urllib.parse.urlsplit(location)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        return "another place"
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


def judge_version(answer: Answer | None) -> tuple[Finding, ...]:
    """The finding on GitLab's version; None where GitLab was not asked."""
    needed = f"{'.'.join(map(str, OLDEST_GITLAB))} or newer"

    def say(status: Status, message: str, *, found: str = "", hint: str = "") -> tuple[Finding, ...]:
        return (Finding("gitlab version", status, message, found=found, needed=needed, hint=hint, area="gitlab"),)

    reason = _untold(answer)
    if answer is None or reason:
        return say("skipped", reason)
    version = str((answer.document or {}).get("version", "")) if answer.status == 200 else ""
    if not numbers(version):
        return say("skipped", "GitLab did not tell it")
    if numbers(version)[:2] < OLDEST_GITLAB:
        return say(
            "failed",
            f"GitLab {version} cannot create runners by its API as gpurig does",
            found=version,
            hint="have GitLab upgraded",
        )
    return say("ok", "creates runners by its API", found=version)


def _untold(answer: Answer | None) -> str:
    """Why GitLab did not tell its version; "" where it may have."""
    if answer is None:
        return "not asked"
    if answer.trouble or answer.status >= 500:
        return "GitLab did not answer"
    if answer.status == 401:
        return "GitLab tells it only to a token that it knows"
    if answer.status == 403:
        return "this token may not ask: that takes the scope read_user, read_api or api"
    return ""


def judge_clock(answer: Answer | None, where: Distribution) -> tuple[Finding, ...]:
    """The finding on this machine's clock, held against GitLab's."""
    needed = f"within {_SKEW_WARNING_S:.0f} s"
    skew = answer.skew_s if answer is not None else None
    if skew is None:
        reason = "GitLab's clock was not seen" if answer is None or answer.trouble else "GitLab sent no date"
        return (Finding("clock", "skipped", reason, needed=needed),)
    # The server's date is cut to seconds.
    found = f"{max(0.0, abs(skew) - 0.5):.0f} s off"
    if abs(skew) <= _SKEW_WARNING_S:
        return (Finding("clock", "ok", "agrees with GitLab's", found=found, needed=needed),)
    way = "ahead of" if skew > 0 else "behind"
    return (
        Finding(
            "clock",
            "failed" if abs(skew) > _SKEW_FAILURE_S else "warning",
            f"this machine's clock is {_span(abs(skew))} {way} GitLab's",
            found=found,
            needed=needed,
            commands=where.keep_time(),
            hint="have it set by the network (NTP); if it is GitLab's clock that is wrong, tell its administrator",
        ),
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


def _failed(name: str, message: str, hint: str, *, commands: tuple[Command, ...] = ()) -> Finding:
    return Finding(name, "failed", message, commands=commands, hint=hint, area="gitlab")
