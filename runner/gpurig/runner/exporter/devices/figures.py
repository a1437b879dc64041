"""What a source tells of a GPU at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gpurig.provisioning.facts import Gpu


class SourceError(Exception):
    """A source cannot be read at all; its message says why, one line."""


@dataclass(frozen=True)
class Figures:
    """One GPU's readings; None where the card or its driver does not tell.

    Attributes:
        memory_used_bytes: memory in use, by jobs and by the driver.
        utilization_ratio: share of the last moments in which the GPU worked, 0 to 1.
        temperature_celsius: of the chip.
        power_watts: of the whole card where the vendor tells it, of the chip elsewhere.
        power_limit_watts: what the driver lets it take.
        lost: why it does not answer; "" for a GPU that does.
    """

    memory_used_bytes: int | None = None
    utilization_ratio: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    lost: str = ""


class Source(Protocol):
    """Reads the figures of one vendor's GPUs."""

    def read(self, gpus: Sequence[Gpu]) -> Mapping[str, Figures]:
        """Figures by UUID, for those of `gpus` that are this source's.

        Raises:
            SourceError: none of them can be read.
        """
