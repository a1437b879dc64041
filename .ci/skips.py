"""Fails when a test was skipped for a reason that is not expected on the machine that checks changes.

Usage: skips.py JUNIT_FILE ALLOWED_FILE; the second holds one substring of an allowed reason a line.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET  # the file is our own pytest's
from pathlib import Path


def unexpected(report: Path, allowed: list[str]) -> list[str]:
    """The skipped tests whose reason holds none of the allowed substrings, as "test: reason"."""
    return [
        f"{case.get('classname')}::{case.get('name')}: {skip.get('message')}"
        for case in ET.parse(report).iter("testcase")  # noqa: S314 - the file is our own pytest's
        for skip in case.iter("skipped")
        if not any(reason in (skip.get("message") or "") for reason in allowed)
    ]


def main() -> int:
    """Print the unexpected skips; 1 where there are some."""
    report, allowed_file = (Path(word) for word in sys.argv[1:3])
    lines = allowed_file.read_text().splitlines()
    found = unexpected(report, [line for line in lines if line and not line.startswith("#")])
    for line in found:
        sys.stdout.write(f"skipped, but should have run: {line}\n")
    sys.stdout.write(f"{len(found)} unexpected skips\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
