"""What checks may use beside the answer itself; a run hands over what it has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """Nothing by default: a check says in words what it lacks."""
