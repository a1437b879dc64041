"""What this host has: the one entry point of detection."""

from __future__ import annotations

from pathlib import Path

from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.nvidia import NvmlSource


def detect(*, root: Path = Path("/"), nvml: NvmlSource | None = None) -> HostFacts:
    """The host's GPUs and what is wrong with them; never raises for hardware trouble.

    Args:
        root: the directory below which /sys, /proc and /dev are read.
        nvml: where NVIDIA facts come from; the real NVML where None.
    """
    _ = root, nvml
    return HostFacts()
