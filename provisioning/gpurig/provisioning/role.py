"""Whether the owner of the user's token may create the runner that is wanted: what GitLab says of the owner's role.

GitLab demands Maintainer of the project, Owner of the group, or an administrator for a runner of the whole instance
(docs.gitlab.com/api/users, "Create a runner"). Levels: docs.gitlab.com/api/members, "Roles".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from gpurig.provisioning.settings import RunnerType

# Which scopes may create a runner, and the one that says nothing about it.
ENOUGH = frozenset({"create_runner", "api"})
_GRANULAR = "granular"

_LEVELS = {0: "no access", 5: "Minimal", 10: "Guest", 15: "Planner", 20: "Reporter", 25: "Security Manager"}
_LEVELS |= {30: "Developer", 40: "Maintainer", 50: "Owner", 60: "administrator"}
_NEEDED: Mapping[RunnerType, tuple[int, str]] = {
    "project": (40, "Maintainer"),
    "group": (50, "Owner"),
    "instance": (60, "administrator"),
}


@dataclass(frozen=True)
class Said:
    """GitLab's answer to one GET.

    Attributes:
        status: HTTP's.
        document: the answer's JSON object; None where it was something else.
    """

    status: int
    document: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Role:
    """What is known of the token's owner.

    Attributes:
        verdict: "enough", "too low", or "unknown" where GitLab does not tell.
        found: the role; "" where it is not known.
        needed: the role that it takes.
        message: one line about it.
        hint: what to do about it.
    """

    verdict: Literal["enough", "too low", "unknown"]
    needed: str
    found: str = ""
    message: str = ""
    hint: str = ""


def needed_role(kind: RunnerType) -> str:
    """The role that creating such a runner takes."""
    return _NEEDED[kind][1]


def scopes_of(token: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """The scopes in GitLab's answer to GET /personal_access_tokens/self, sorted; None where it does not tell them.

    A fine-grained token's say nothing about what it may.
    """
    scopes = (token or {}).get("scopes")
    if not isinstance(scopes, list) or (token or {}).get("granular_scopes") or _GRANULAR in scopes:
        return None
    return tuple(sorted(str(scope) for scope in scopes))


def look_at_role(ask: Callable[[str], Said], kind: RunnerType, target: str, token: Mapping[str, Any] | None) -> Role:
    """Ask GitLab for the role of the token's owner.

    Args:
        ask: GETs a path below /api/v4.
        kind: whose runner it shall be.
        target: the project's or group's number or path; not looked at for an instance's.
        token: GitLab's answer to GET /personal_access_tokens/self; None where it gave none.
    """
    level, needed = _NEEDED[kind]
    if kind == "instance":
        return _administrator(ask("/user"), needed)
    user_id = (token or {}).get("user_id")
    if not isinstance(user_id, int):
        return Role("unknown", needed, message="GitLab does not tell whose token it is")
    said = ask(f"/{kind}s/{quote(target, safe='')}/members/all/{user_id}")
    had = _level(said)
    if had is not None and had >= level:
        return Role("enough", needed, found=_LEVELS.get(had, str(had)))
    if had is None and said.status != 404:
        return _untold(said, needed)
    # An administrator may everything, and need be a member of nothing.
    administrator = _administrator(ask("/user"), needed)
    return administrator if administrator.verdict == "enough" else _too_low(ask, kind, target, had)


def _too_low(ask: Callable[[str], Said], kind: RunnerType, target: str, had: int | None) -> Role:
    needed = needed_role(kind)
    if had is None and ask(f"/{kind}s/{quote(target, safe='')}").status == 404:
        return Role(
            "too low",
            needed,
            found="none",
            message=f"the token's owner sees no {kind} {target}",
            hint=f"check the {kind}'s number or path; whose token it is must be {needed} there",
        )
    found = "no member" if had is None else _LEVELS.get(had, str(had))
    return Role(
        "too low",
        needed,
        found=found,
        message=f"the token's owner is {found} in the {kind} {target}, and a runner takes {needed}",
        hint=f"use a token of a {needed}, or have the role raised (in the {kind}: Manage, Members)",
    )


def _level(said: Said) -> int | None:
    value = (said.document or {}).get("access_level") if said.status == 200 else None
    return value if isinstance(value, int) else None


def _untold(said: Said, needed: str) -> Role:
    may_not = "a token of this scope may not ask for its owner's role"
    silent = "GitLab does not tell the role of the token's owner"
    return Role("unknown", needed, message=may_not if said.status in {401, 403} else silent)


def _administrator(said: Said, needed: str) -> Role:
    if said.status != 200 or said.document is None:
        return _untold(said, needed)
    # GitLab shows the field to administrators only.
    if said.document.get("is_admin") is True:
        return Role("enough", needed, found="administrator")
    return Role(
        "too low",
        needed,
        found="no administrator",
        message="the token's owner is no administrator, and a runner for the whole instance takes one",
        hint="use an administrator's token, or make it a project's or group's runner: --project or --group",
    )
