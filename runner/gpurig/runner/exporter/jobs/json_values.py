"""Values of a JSON document that somebody else may have written, held against their form and bounds; without pydantic.

Each raises ValueError, with words for a log, for what is not of its form.
"""

from __future__ import annotations

from typing import Any

_MOST_ITEMS = 2048
_MOST_TEXT = 2048
# More than any sum of bytes, joules or seconds, and any time.
_MOST = 1e18


def as_object(value: object) -> dict[str, Any]:
    """An object of a bounded number of fields."""
    if not isinstance(value, dict) or len(value) > _MOST_ITEMS:
        raise ValueError("no object, or one that is too long")
    return value


def as_list(value: object) -> list[Any]:
    """A list of a bounded length."""
    if not isinstance(value, list) or len(value) > _MOST_ITEMS:
        raise ValueError("no list, or one that is too long")
    return value


def as_text(value: object) -> str:
    """A text of a bounded length."""
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise ValueError("no text, or one that is too long")
    return value


def as_amount(value: object) -> float:
    """A number from 0 on, and no more than can be."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST:
        raise ValueError(f"{str(value)[:40]} is no amount")
    return float(value)


def as_count(value: object) -> int:
    """A whole number from 0 on, and no more than can be."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{str(value)[:40]} is no count")
    return value
