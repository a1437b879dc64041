"""NVIDIA GPUs, as NVML tells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gpurig.provisioning.facts import Problem


@dataclass(frozen=True)
class NvmlReading:
    """What one pass over NVML gave.

    Attributes:
        problems: what NVML refused, with its own words.
    """

    problems: tuple[Problem, ...] = ()


class NvmlSource(Protocol):
    """Where NVIDIA facts come from: the real binding, or a test's own."""

    def read(self) -> NvmlReading:
        """Everything detection wants, in one pass; never raises for hardware trouble."""
