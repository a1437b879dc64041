"""The shape of a metric family's description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric family.

    Attributes:
        name: as Prometheus' text format shows it; a counter's ends in `_total`.
        kind: its type.
        unit: of its value, for people.
        labels: in their order.
        text: its HELP line.
        nvidia, amd: where the value is from; "" where that vendor's cards do not have it.
    """

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    labels: tuple[str, ...]
    text: str
    nvidia: str = ""
    amd: str = ""
