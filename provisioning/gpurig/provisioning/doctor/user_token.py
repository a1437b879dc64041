"""The user's token: known to GitLab, wide enough, valid for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

from gpurig.provisioning.doctor.exchange import Answer
from gpurig.provisioning.doctor.finding import Finding, Status
from gpurig.provisioning.role import ENOUGH, Said, look_at_role, needed_role, scopes_of
from gpurig.provisioning.settings import RunnerType
from gpurig.provisioning.state import Registration

PATH = "/personal_access_tokens/self"

_NEEDED = "create_runner or api"
_SOON_DAYS = 30
# gitlab-runner renews its own tokens; one that is this close was not renewed.
_RUNNER_SOON_DAYS = 3
_NEW = "make a new one (User settings, Access tokens; scope create_runner) and pass it with --token-file"


def judge(answer: Answer | None, today: date, *, skipped: str = "") -> tuple[Finding, ...]:
    """The findings on the token's scopes and on its end.

    Args:
        answer: to GET /personal_access_tokens/self, which every scope may ask; None where it was not asked.
        today: in UTC, as GitLab counts.
        skipped: why it was not asked.
    """
    if answer is None:
        hint = "" if "--url" in skipped else "--token-file FILE, or the variable GPURIG_TOKEN"
        return (_say("skipped", skipped, hint=hint), _end("skipped", skipped))
    if answer.trouble or answer.status >= 500:
        return (_say("skipped", "GitLab did not answer"), _end("skipped", "GitLab did not answer"))
    if answer.status == 401:
        return (_say("failed", _refusal(answer.document or {}), hint=_NEW), _end("skipped", "GitLab refuses the token"))
    if answer.status != 200 or answer.document is None or not isinstance(answer.document.get("scopes"), list):
        reason = "GitLab tells nothing about this kind of token"
        if answer.status == 403:
            reason = "GitLab does not let this token ask about itself"
        return (_say("skipped", reason), _end("skipped", reason))
    return (_scopes(answer.document), _expiry(answer.document, today))


def _refusal(document: dict[str, Any]) -> str:
    said = str(document.get("error_description") or "").lower()
    if "expired" in said:
        return "the token has expired"
    if "revoked" in said:
        return "the token was revoked"
    return "GitLab does not know the token: it is wrong, expired or revoked"


def _scopes(document: dict[str, Any]) -> Finding:
    found = ", ".join(sorted(str(scope) for scope in document["scopes"])) or "none"
    if document.get("revoked") is True or document.get("active") is False:
        return _say("failed", "the token is no longer active", found=found, hint=_NEW)
    scopes = scopes_of(document)
    if scopes is None:
        return _say("skipped", "a fine-grained token: GitLab does not say whether it may create runners", found=found)
    if not ENOUGH & set(scopes):
        return _say("failed", "the token's scopes do not allow to create a runner", found=found, hint=_NEW)
    return _say("ok", "its scope allows to create runners", found=found)


def judge_role(
    kind: RunnerType | None, target: str, token: Answer | None, ask: Callable[[str], Answer], *, skipped: str = ""
) -> tuple[Finding, ...]:
    """The finding on the role of the token's owner in the project or group that shall get the runner.

    Args:
        kind: whose runner it shall be; None where nobody said so yet.
        target: the project or group.
        token: the answer to GET /personal_access_tokens/self; None where it was not asked.
        ask: GETs another path of GitLab's API.
        skipped: why nothing was asked.
    """
    if kind is None:
        skipped = skipped or "nobody said whose runner: give --project, --group or --instance"
    elif token is not None and token.status == 401:
        skipped = "GitLab refuses the token"
    if skipped or kind is None:
        return (Finding("token role", "skipped", skipped, area="gitlab"),)

    def said(path: str) -> Said:
        answer = ask(path)
        return Said(answer.status, answer.document)

    role = look_at_role(said, kind, target, token.document if token is not None and token.status == 200 else None)
    needed = f"{needed_role(kind)} of the {kind}" if target else needed_role(kind)
    if role.verdict == "unknown":
        return (Finding("token role", "skipped", role.message, needed=needed, area="gitlab"),)
    if role.verdict == "enough":
        message = "the token's owner may create the runner"
        return (Finding("token role", "ok", message, found=role.found, needed=needed, area="gitlab"),)
    return (
        Finding("token role", "failed", role.message, found=role.found, needed=needed, hint=role.hint, area="gitlab"),
    )


def _expiry(document: dict[str, Any], today: date) -> Finding:
    text = document.get("expires_at")
    if text is None:
        return _end("ok", "never expires", found="never")
    try:
        end = date.fromisoformat(str(text)[:10])
    except ValueError:
        return _end("skipped", "GitLab told no date")
    days = (end - today).days
    if days <= 0:
        return _end("failed", f"the token expired on {end}", found=str(end), hint=_NEW)
    if days <= _SOON_DAYS:
        message = f"the token expires in {days} day{'s' if days > 1 else ''}; the runner itself keeps working"
        return _end("warning", message, found=str(end), hint=_NEW)
    return _end("ok", f"{days} days left", found=str(end))


def judge_runners(registrations: Sequence[Registration], now: datetime) -> tuple[Finding, ...]:
    """The finding on the tokens of this box's runners, from what is remembered."""
    if not registrations:
        return (Finding("runner tokens", "skipped", "this box has no runner yet", area="gitlab"),)
    ends = [(_aware(one.expires_at), one.id) for one in registrations if one.expires_at is not None]
    if not ends:
        message = f"{len(registrations)} that never expire" if len(registrations) > 1 else "never expires"
        return (Finding("runner tokens", "ok", message, area="gitlab"),)
    end, number = min(ends)
    days = (end - now).total_seconds() / 86400
    found = f"#{number} until {end:%Y-%m-%d %H:%M}"
    if days > _RUNNER_SOON_DAYS:
        return (Finding("runner tokens", "ok", "gitlab-runner renews them", found=found, area="gitlab"),)
    gone = days <= 0
    message = f"the token of runner #{number} {'has expired' if gone else 'expires soon'} and was not renewed"
    hint = "gpurig up --token-file FILE makes a new runner" if gone else "does gitlab-runner run? gpurig status"
    return (Finding("runner tokens", "failed" if gone else "warning", message, found=found, hint=hint, area="gitlab"),)


def _aware(end: datetime) -> datetime:
    """A time without a zone, as somebody may have written it into the state, is UTC."""
    return end if end.tzinfo else end.replace(tzinfo=UTC)


def _say(status: Status, message: str, *, found: str = "", hint: str = "") -> Finding:
    return Finding("token", status, message, found=found, needed=_NEEDED, hint=hint, area="gitlab")


def _end(status: Status, message: str, *, found: str = "", hint: str = "") -> Finding:
    needed = f"more than {_SOON_DAYS} days"
    return Finding("token expiry", status, message, found=found, needed=needed, hint=hint, area="gitlab")
