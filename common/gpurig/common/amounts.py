"""Amounts of GPU use in words, the same wherever a person reads them."""

from __future__ import annotations

_GIB = 1024**3


def gib_text(size_bytes: float) -> str:
    """A GPU's memory, whose sizes are sold in powers of two: "5.3"; the unit, GiB, is the caller's."""
    return f"{size_bytes / _GIB:.1f}"


def seconds_text(seconds: float) -> str:
    """Seconds of a GPU: "3.2", "412", "12,400"."""
    return f"{seconds:.1f}" if seconds < 9.95 else f"{seconds:,.0f}"


def energy_text(joules: float) -> str:
    """Energy: "950 J", "3.8 kJ", "38 kJ", "1.2 MJ"."""
    value, unit = joules, "J"
    for bigger in ("kJ", "MJ", "GJ"):
        if value < 999.5:
            break
        value, unit = value / 1000, bigger
    return f"{value:.0f} {unit}" if unit == "J" or value >= 9.95 else f"{value:.1f} {unit}"
