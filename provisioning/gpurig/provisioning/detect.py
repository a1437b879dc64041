"""What this host has: the one entry point of detection."""

from __future__ import annotations

from pathlib import Path

from gpurig.provisioning import nvidia
from gpurig.provisioning.amd import look_at_amd
from gpurig.provisioning.amd_smi import AmdLibrary, InstalledAmdLibrary, NoAmdLibrary
from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.provisioning.host import look_at_host, pci_order
from gpurig.provisioning.nvml import NvmlSource, PynvmlSource


def detect(
    *, root: Path = Path("/"), nvml: NvmlSource | None = None, amd_library: AmdLibrary | None = None
) -> HostFacts:
    """The host's GPUs and what is wrong with them; never raises for hardware trouble.

    Args:
        root: the directory below which /sys, /proc and /dev are read.
        nvml: where NVIDIA facts come from; the real NVML where None, wherever `root` points.
        amd_library: asked for what sysfs does not tell of AMD cards; where None the installed one, if there is one and
            `root` is this machine.
    """
    host = look_at_host(root)
    reading = (nvml or PynvmlSource()).read()
    green = nvidia.judge(reading, host)
    library = amd_library or (InstalledAmdLibrary() if root == Path("/") else NoAmdLibrary())
    red = look_at_amd(root, host, library)
    return HostFacts(
        gpus=tuple(sorted((*green.gpus, *red.gpus), key=_order)),
        ignored=tuple(sorted(red.ignored, key=lambda entry: _order(entry[0]))),
        problems=(*green.problems, *red.problems),
        cuda_version=reading.cuda,
        platform=host.platform,
        system_memory_bytes=host.memory_bytes,
    )


def _order(gpu: Gpu) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """PCI address, then the number of the part."""
    return pci_order(gpu.pci_address), tuple(int(part) for part in gpu.index.split(":") if part.isdecimal())
