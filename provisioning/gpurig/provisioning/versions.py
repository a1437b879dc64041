"""Version numbers, compared by their leading numbers."""

from __future__ import annotations

import re


def numbers(version: str) -> tuple[int, ...]:
    """(580, 95, 5) of "580.95.05", (19, 4, 0) of "19.4.0-ee"; () where it starts with no number."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def older(version: str, than: tuple[int, ...]) -> bool:
    """Whether a version is older; one without numbers is."""
    return numbers(version)[: len(than)] < than
