"""gitlab-runner's program on this machine, for who wants it from its package instead of its container."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.process import run
from gpurig.provisioning.distribution import Distribution, distribution
from gpurig.provisioning.versions import numbers, older

PROGRAM = "gitlab-runner"

# `group_add`, the newest key that config.toml uses, came with 16.6 (gitlab-runner's CHANGELOG, v16.6.0).
OLDEST_RUNNER = (16, 6)
REPOSITORY = "the package comes from GitLab's own repository: docs.gitlab.com/runner/install/linux-repository"
_TIMEOUT_S = 30


@dataclass(frozen=True)
class RunnerBinary:
    """The program.

    Attributes:
        path: absolute, as it was found: a link that a package keeps up to date stays a link.
        version: "19.4.0"; "" where it told none, as one that was built by hand does.
    """

    path: Path
    version: str


def find_runner_binary(wanted: Path | None = None, *, where: Callable[[], Distribution] = distribution) -> RunnerBinary:
    """The program at `wanted`, or the one on PATH, and its version.

    Args:
        wanted: what the user named.
        where: tells the distribution, whose commands the hint names.

    Raises:
        InputError: what the user named is not there, or no program. PrerequisiteError: there is none on PATH, or it
        does not run.
    """
    found = str(wanted) if wanted is not None else shutil.which(PROGRAM)
    if found is None:
        commands = "; ".join(one.text(root=os.geteuid() == 0) for one in where().install("gitlab-runner"))
        raise PrerequisiteError(
            f"--service systemd needs gitlab-runner on this machine, and there is no {PROGRAM} on PATH",
            hint=f"{commands or 'install it'} ({REPOSITORY}); or name it with --runner-binary",
        )
    if not os.access(found, os.X_OK) or not Path(found).is_file():
        raise InputError(f"--runner-binary: {found} is no program", hint=f"/usr/bin/{PROGRAM} is where packages put it")
    done = run([found, "--version"], timeout_s=_TIMEOUT_S)
    if done.code != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise PrerequisiteError(
            f"{found} --version ended with {done.code}" + (f": {said[-1][:200]}" if said else ""),
            hint="see what it says: " + f"{found} --version",
        )
    return RunnerBinary(Path(found).absolute(), version_of(done.stdout))


def version_of(printed: str) -> str:
    """The version in what `gitlab-runner --version` prints; "" where there is none.

    Format: gitlab-runner's common/version.go, "Version:      19.4.0" in a line of its own. What is no version in a
    program's output must not reach a unit file.
    """
    found = re.search(r"^Version:[ \t]+v?(\d[0-9A-Za-z.~+_-]{0,60})[ \t]*$", printed, re.MULTILINE)
    return found[1] if found else ""


def check_runner_binary(binary: RunnerBinary) -> None:
    """It understands what config.toml says; one that does not tell its version is taken at the user's word.

    Raises:
        PrerequisiteError: it is too old.
    """
    if numbers(binary.version) and older(binary.version, OLDEST_RUNNER):
        oldest = ".".join(map(str, OLDEST_RUNNER))
        raise PrerequisiteError(
            f"{binary.path} is gitlab-runner {binary.version}, and {oldest} or newer is needed",
            hint=f"upgrade it ({REPOSITORY}), or leave out --service systemd",
        )
