"""What a check found: frozen values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gpurig.common.errors import EXIT_OK, EXIT_PREREQUISITE, EXIT_REMOTE
from gpurig.provisioning.distribution import Command

Status = Literal["ok", "warning", "failed", "skipped"]
Area = Literal["box", "gitlab"]


@dataclass(frozen=True)
class Finding:
    """One prerequisite, judged.

    Attributes:
        name: what was looked at, for example "engine"; unique in a report except for "gpu", which has one a problem.
        status: "skipped" is neither fine nor wrong: it could not be asked, and `message` says why.
        message: what is so, one line; never a secret.
        found: the version, size or state that was found; "" where there is none.
        needed: what it must be; "" where anything will do.
        commands: the fix, in order; empty where no command is the fix.
        hint: what to do besides.
        area: whose turn it is: this box, or GitLab and the network.
    """

    name: str
    status: Status
    message: str
    found: str = ""
    needed: str = ""
    commands: tuple[Command, ...] = ()
    hint: str = ""
    area: Area = "box"


def exit_code(findings: Iterable[Finding]) -> int:
    """0 where nothing failed, 4 where something on the box did, 5 where only GitLab or the network did."""
    areas = {finding.area for finding in findings if finding.status == "failed"}
    if "box" in areas:
        return EXIT_PREREQUISITE
    return EXIT_REMOTE if areas else EXIT_OK
