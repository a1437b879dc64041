"""What was found on a host: frozen values, no behaviour that touches the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Backend = Literal["cuda", "rocm", "cpu"]
Platform = Literal["linux", "wsl2", "jetson"]


@dataclass(frozen=True)
class Problem:
    """Something a probe met that a person should know; a probe never raises for it.

    Attributes:
        source: who says so: "nvml", "amd-sysfs", "docker" …
        message: what, one line.
        hint: what to do.
        unusable: a GPU is there and this keeps it from being used; `gpurig detect` then ends with exit code 4.
    """

    source: str
    message: str
    hint: str = ""
    unusable: bool = False


@dataclass(frozen=True)
class DeviceNode:
    """A device file that a container needs.

    Attributes:
        path: for example "/dev/kfd".
        gid: its numeric group; a container's `group_add` wants the number, names differ between images.
    """

    path: str
    gid: int | None = None


@dataclass(frozen=True)
class Gpu:
    """One GPU (or MIG part, or AMD partition) that could run jobs.

    Attributes:
        backend: "cuda" or "rocm".
        uuid: identity that survives a reboot: NVML's UUID, "MIG-…" for a part, for AMD `unique_id` or the PCI address.
        name: the product's name as the vendor writes it; may be empty.
        pci_address: "0000:01:00.0"; empty where the platform has none (Jetson).
        memory_bytes: memory a job can use on it, as the driver reports it (unified: the system's, or carve-out plus
            GTT); None where unknown.
        unified: that memory is the system's (GB10, Jetson, Ryzen AI Max).
        arch: "sm-89", "gfx1100", or "" where unknown.
        driver: the kernel driver's version, "" where unknown.
        nodes: device files a container needs where no CDI or vendor runtime brings them (AMD).
        mig: it is a part of an NVIDIA card (MIG).
        parent: where it is a part of a card, the card's identity: NVML's UUID, or AMD's unique id or PCI address.
        index: the driver's own numbering, which CDI device names may use: NVML's "0", for a MIG part "0:1"; for AMD
            the KFD node's number; "" where neither is known.
    """

    backend: Literal["cuda", "rocm"]
    uuid: str
    name: str
    pci_address: str
    memory_bytes: int | None
    unified: bool = False
    arch: str = ""
    driver: str = ""
    nodes: tuple[DeviceNode, ...] = ()
    mig: bool = False
    parent: str = ""
    index: str = ""


@dataclass(frozen=True)
class HostFacts:
    """A host as detection saw it.

    Attributes:
        gpus: GPUs that jobs may use, as far as `problems` says nothing else, in the order of their PCI address.
        ignored: GPUs that are no runner GPUs (integrated ones beside a card, too old), each with the reason.
        problems: what went wrong while looking: a broken driver is here, never "no GPU".
        cuda_version: the highest CUDA version the NVIDIA driver supports, for example "12.8"; "" without one.
        platform: "wsl2" has no PCI bus and no device files of its own, "jetson" no PCI address.
        system_memory_bytes: the machine's RAM, from /proc/meminfo; None where that is unreadable.
    """

    gpus: tuple[Gpu, ...] = ()
    ignored: tuple[tuple[Gpu, str], ...] = ()
    problems: tuple[Problem, ...] = ()
    cuda_version: str = ""
    platform: Platform = "linux"
    system_memory_bytes: int | None = None

    @property
    def backend(self) -> Backend:
        """The backend of the first GPU; "cpu" without one."""
        return self.gpus[0].backend if self.gpus else "cpu"
