"""What the kernel says about the machine: PCI display devices, platform, memory. Everything below a root directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gpurig.provisioning.facts import Platform

NVIDIA = 0x10DE
AMD = 0x1002

_PCI_ADDRESS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", re.IGNORECASE)
# Display controllers: VGA (0x0300), XGA, 3D (0x0302, data-centre cards) and "other" (0x0380, some APUs).
_DISPLAY_CLASS = 0x03
# Instinct cards say "processing accelerator".
_ACCELERATOR_CLASS = 0x1200


@dataclass(frozen=True)
class PciDevice:
    """A GPU as the PCI bus shows it, whether or not a driver has it.

    Attributes:
        address: "0000:01:00.0".
        vendor: 0x10de is NVIDIA, 0x1002 AMD.
        device: the model's number.
        driver: the kernel driver bound to it: "nvidia", "nouveau", "amdgpu", "vfio-pci" …; "" for none.
    """

    address: str
    vendor: int
    device: int
    driver: str


@dataclass(frozen=True)
class Host:
    """The machine around the GPUs.

    Attributes:
        platform: the kind of machine.
        memory_bytes: RAM, None where /proc/meminfo is unreadable.
        nvidia_module: version of the loaded nvidia kernel module, "" where none is.
        amdgpu_module: version of AMD's own amdgpu module, "" for the kernel's.
        pci: NVIDIA's and AMD's GPUs on the PCI bus, in the order of their addresses.
    """

    platform: Platform
    memory_bytes: int | None
    nvidia_module: str
    amdgpu_module: str
    pci: tuple[PciDevice, ...]


def read_line(path: Path) -> str:
    """The file's text without surrounding white space and NULs; "" where it cannot be read.

    sysfs files fail one by one (ENODEV, EIO, EINVAL of a device that is gone): absent and unreadable are the same.
    """
    try:
        return path.read_bytes().decode(errors="replace").strip(" \t\r\n\0")
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """The file's number, decimal or 0x…; None where there is none."""
    return to_number(read_line(path))


def to_number(text: str) -> int | None:
    """A number as sysfs writes it, decimal or 0x…; None for anything else."""
    try:
        return int(text, 16 if text.lower().startswith("0x") else 10)
    except ValueError:
        return None


def children(path: Path) -> list[Path]:
    """What lies in a directory, sorted by name; nothing where it cannot be listed."""
    try:
        return sorted(path.iterdir())
    except OSError:
        return []


def pci_address(text: str) -> str:
    """A PCI address in the kernel's spelling, "0000:01:00.0"; "" where `text` holds none.

    NVML writes the domain with eight digits and in capitals ("0000000F:01:00.0").
    """
    found = _PCI_ADDRESS.search(text)
    if not found:
        return ""
    domain, bus, device, function = (int(part, 16) for part in found.groups())
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function}"


def pci_order(address: str) -> tuple[int, ...]:
    """A sort key for addresses; devices without one come last."""
    found = _PCI_ADDRESS.search(address)
    return (0, *(int(part, 16) for part in found.groups())) if found else (1,)


def look_at_host(root: Path) -> Host:
    """Read the machine below `root`."""
    return Host(
        platform=_platform(root),
        memory_bytes=_memory_bytes(root),
        nvidia_module=nvidia_module_version(root),
        amdgpu_module=read_line(root / "sys/module/amdgpu/version"),
        pci=_pci_devices(root),
    )


def _platform(root: Path) -> Platform:
    if (root / "dev/dxg").exists():
        return "wsl2"
    if (root / "etc/nv_tegra_release").exists() or "nvidia,tegra" in read_line(root / "proc/device-tree/compatible"):
        return "jetson"
    return "linux"


def _memory_bytes(root: Path) -> int | None:
    found = re.search(r"^MemTotal:\s*(\d+)\s*kB", read_line(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def nvidia_module_version(root: Path) -> str:
    """The version in the first line of /proc/driver/nvidia/version ("NVRM version: … Kernel Module  570.124.04  …")."""
    found = re.search(r"Kernel Module\D*?(\d+\.\d+(?:\.\d+)?)", read_line(root / "proc/driver/nvidia/version"))
    return found[1] if found else read_line(root / "sys/module/nvidia/version")


def _pci_devices(root: Path) -> tuple[PciDevice, ...]:
    found = []
    for folder in children(root / "sys/bus/pci/devices"):
        address = pci_address(folder.name)
        kind = read_number(folder / "class") or 0
        vendor = read_number(folder / "vendor")
        if not address or vendor not in {NVIDIA, AMD}:
            continue
        if kind >> 16 != _DISPLAY_CLASS and kind >> 8 != _ACCELERATOR_CLASS:
            continue
        found.append(
            PciDevice(
                address=address, vendor=vendor, device=read_number(folder / "device") or 0, driver=_driver(folder)
            )
        )
    return tuple(sorted(found, key=lambda device: pci_order(device.address)))


def _driver(folder: Path) -> str:
    link = folder / "driver"
    try:
        return link.readlink().name
    except OSError:
        # A recording cannot always keep links; uevent says the same.
        found = re.search(r"^DRIVER=(\S+)", read_line(folder / "uevent"), re.MULTILINE)
        return found[1] if found else ""
