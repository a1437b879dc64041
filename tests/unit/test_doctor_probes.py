"""Whatever goes wrong while a box is looked at becomes a finding, never a traceback."""

from __future__ import annotations

import errno
import inspect
import itertools

import pytest
from gpurig.common.errors import InputError, PrerequisiteError, RemoteError
from gpurig.provisioning.doctor import CHECKS, Box, exit_code
from standins.doctor_box import FixedBox

METHODS = sorted(name for name, _ in inspect.getmembers(Box, inspect.isfunction) if not name.startswith("_"))
ERRORS = (
    OSError(errno.EIO, "Input/output error"),
    PermissionError(errno.EACCES, "Permission denied"),
    TimeoutError("timed out"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    PrerequisiteError("the engine says no", hint="look at its log"),
    InputError("that cannot be", hint="give another"),
    RemoteError("GitLab says no"),
)
# A missing one changes what is advised, and nothing else.
_ADVICE_ONLY = {"distribution"}


def test_every_check_is_fine_on_a_box_where_all_is_well() -> None:
    findings = FixedBox().examine()
    assert {name: one.message for name, one in findings.items() if one.status not in {"ok", "skipped"}} == {}
    assert [name for name, one in findings.items() if one.status == "skipped"] == ["runner tokens"]
    assert exit_code(findings.values()) == 0


def test_every_way_to_look_is_used_on_such_a_box_but_for_one() -> None:
    box = FixedBox()
    box.examine()
    # Whose port it is matters only where it is taken; a distribution only where a command is advised.
    assert set(METHODS) - set(box.asked) == {"exporters"}


@pytest.mark.parametrize(
    ("method", "error"),
    list(itertools.product(METHODS, ERRORS)),
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_look_that_fails_is_a_finding(method: str, error: Exception) -> None:
    box = FixedBox(failures={method: error}, taken="port 9476 is in use" if method == "exporters" else "")
    findings = box.examine()
    reported = set(findings)
    for check in CHECKS:
        names = {"gitlab", "gitlab dns", "gitlab tls"} if check.name == "gitlab" else {check.name}
        assert names & reported, f"{check.name} says nothing"
    if method in _ADVICE_ONLY:
        assert exit_code(findings.values()) == 0
        return
    failed = [one for one in findings.values() if one.status == "failed"]
    assert failed, f"nobody noticed that {method} failed"
    assert exit_code(findings.values()) in {4, 5}
    assert all(one.message and "\n" not in one.message for one in findings.values())
    # What stands on what failed is skipped, and never fine: see the engine's.
    assert box.asked.count(method) <= (3 if method in {"space", "image"} else 1), "asked again after it failed"


def test_without_an_engine_nothing_that_needs_it_is_called_fine() -> None:
    findings = FixedBox(failures={"engine": PrerequisiteError("no engine")}).examine()
    assert findings["engine"].status == "failed"
    for name in ("gpu wiring", "cgroup driver", "image space", "runner image"):
        assert findings[name].status == "skipped"
        assert "engine" in findings[name].message


def test_without_detection_nothing_about_gpus_is_called_fine() -> None:
    findings = FixedBox(failures={"host": OSError(errno.EIO, "Input/output error")}).examine()
    assert findings["gpu"].status == "failed"
    for name in ("driver", "toolkit", "cdi spec", "gpu wiring", "cgroup driver", "amd devices", "image space"):
        assert findings[name].status == "skipped", name
