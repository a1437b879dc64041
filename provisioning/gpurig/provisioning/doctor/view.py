"""What the checks found, for a person in 80 columns, and as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

from gpurig.common.terminal import harmless, shorten
from gpurig.provisioning.distribution import Command, Distribution
from gpurig.provisioning.doctor.finding import Finding, Status, exit_code

# Raised when a key of --json changes its meaning or goes; new keys leave it as it is.
SCHEMA = 1

_WIDTH = 80
_NAME = 15
_MARKS: dict[Status, str] = {"ok": "ok", "warning": "warn", "failed": "FAIL", "skipped": "skip"}
_INDENT = 6 + _NAME


def as_document(findings: Sequence[Finding], where: Distribution) -> dict[str, Any]:
    """The findings as `--json` prints them; docs/doctor.md describes every key."""
    return {
        "schema": SCHEMA,
        "distribution": {"name": where.name, "family": where.family},
        "checks": [_entry(finding) for finding in findings],
        "summary": {status: _counted(findings)[status] for status in _MARKS},
        "exit_code": exit_code(findings),
    }


def _entry(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "area": finding.area,
        "status": finding.status,
        "message": finding.message,
        "found": finding.found,
        "needed": finding.needed,
        "commands": [
            {"argv": list(one.argv), "by_hand": one.by_hand, "as_root": one.as_root} for one in finding.commands
        ],
        "hint": finding.hint,
    }


def _counted(findings: Sequence[Finding]) -> Counter[Status]:
    return Counter(finding.status for finding in findings)


def as_text(findings: Sequence[Finding], where: Distribution, *, root: bool) -> str:
    """The findings for a person: a line a check, and under it what mends it.

    Args:
        findings: in the order of the checks.
        where: the distribution that the commands are for.
        root: the reader is root and needs no sudo.
    """
    lines: list[str] = []
    for finding in findings:
        lines += _lines(finding, root=root)
    return "\n".join([*lines, "", *_summary(findings, where)])


def _lines(finding: Finding, *, root: bool) -> list[str]:
    head = f"{_MARKS[finding.status]:<6}{finding.name:<{_NAME}}"
    if finding.status in {"ok", "skipped"}:
        return [head + shorten(harmless(_short(finding)), _WIDTH - _INDENT)]
    told = finding.needed in finding.message
    said = finding.message if told else f"{finding.message} (needs {finding.needed})"
    lines = textwrap.wrap(harmless(said), _WIDTH - _INDENT, break_on_hyphens=False)
    shown = [head + lines[0], *(" " * _INDENT + line for line in lines[1:])]
    for command in finding.commands:
        shown += _command(command, root=root)
    if finding.hint:
        shown += textwrap.wrap(
            f"hint: {harmless(finding.hint)}",
            _WIDTH,
            initial_indent=" " * 6,
            subsequent_indent=" " * 12,
            break_on_hyphens=False,
        )
    return shown


def _short(finding: Finding) -> str:
    """What an unremarkable check says on its one line."""
    if finding.status == "skipped":
        return finding.message
    if finding.found and finding.needed:
        return f"{finding.found} (needs {finding.needed})"
    whole = ": ".join(filter(None, (finding.found, finding.message)))
    return whole if len(whole) <= _WIDTH - _INDENT else finding.found or finding.message


def _command(command: Command, *, root: bool) -> list[str]:
    """A command as it can be copied, also where it is longer than a line."""
    title = "by hand: " if command.by_hand else "run: "
    lines = textwrap.wrap(
        harmless(command.text(root=root)),
        _WIDTH - 2,
        initial_indent=" " * 6 + title,
        subsequent_indent=" " * 12,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


def _summary(findings: Sequence[Finding], where: Distribution) -> list[str]:
    counts = _counted(findings)
    words: tuple[tuple[Status, str], ...] = (
        ("ok", "fine"),
        ("warning", "to look at"),
        ("failed", "failed"),
        ("skipped", "skipped"),
    )
    counted = ", ".join(f"{counts[status]} {word}" for status, word in words if counts[status])
    lines = [f"{counted}; {harmless(where.name)}"]
    if any(not one.by_hand for finding in findings if finding.status == "failed" for one in finding.commands):
        lines.append("gpurig up --install-missing asks, then runs what stands behind run: under FAIL.")
    return lines
