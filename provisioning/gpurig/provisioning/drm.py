"""AMD's display side (amdgpu) as sysfs shows it: one card a PCI device, with its memory and identity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gpurig.provisioning.host import AMD, children, pci_address, read_line, read_number

_CARD = re.compile(r"card\d+")
_RENDER = re.compile(r"renderD(\d+)")


@dataclass(frozen=True)
class DrmCard:
    """A card that amdgpu drives.

    Attributes:
        address: its PCI address.
        device_id: the model's PCI number; 0 where absent.
        revision: tells models with one number apart; None where absent.
        vram_bytes: memory of its own, or a carve-out of the system's; None where absent.
        gtt_bytes: system memory that the GPU may map; None where absent.
        render_minor: its node is /dev/dri/renderD<n>; None where absent.
        product_name: mostly empty on consumer cards.
        unique_id: sixteen hexadecimal digits, or "".
        core: version of its graphics core from the card's own discovery table; None where the kernel shows none.
        driver: the kernel driver, "amdgpu", "radeon" …; "" where unknown.
    """

    address: str
    device_id: int
    revision: int | None
    vram_bytes: int | None
    gtt_bytes: int | None
    render_minor: int | None
    product_name: str
    unique_id: str
    core: tuple[int, int, int] | None
    driver: str


def read_cards(root: Path) -> tuple[DrmCard, ...]:
    """The amdgpu cards below `root`.

    The 28 card nodes that four MI300A have for partitions (platform devices `amdgpu_xcp`) are no cards: they have no
    PCI address.
    """
    folder = root / "sys/class/drm"
    minors = _render_minors(folder)
    cards = []
    for entry in children(folder):
        device = entry / "device"
        if not _CARD.fullmatch(entry.name) or read_number(device / "vendor") != AMD:
            continue
        address = _address(device)
        if address:
            cards.append(_read_card(device, address, minors))
    return tuple(cards)


def _read_card(device: Path, address: str, minors: dict[str, int]) -> DrmCard:
    uevent = read_line(device / "uevent")
    identity = re.search(r"^PCI_ID=1002:([0-9A-F]{4})$", uevent, re.MULTILINE | re.IGNORECASE)
    own = next((int(found[1]) for node in children(device / "drm") if (found := _RENDER.fullmatch(node.name))), None)
    unique_id = read_line(device / "unique_id")
    driver = re.search(r"^DRIVER=(\S+)$", uevent, re.MULTILINE)
    return DrmCard(
        address=address,
        device_id=read_number(device / "device") or (int(identity[1], 16) if identity else 0),
        revision=read_number(device / "revision"),
        vram_bytes=read_number(device / "mem_info_vram_total") or None,
        gtt_bytes=read_number(device / "mem_info_gtt_total") or None,
        render_minor=own if own is not None else minors.get(address),
        product_name=read_line(device / "product_name"),
        unique_id=unique_id if unique_id.strip("0") else "",
        core=_core(device),
        driver=driver[1] if driver else "",
    )


def _render_minors(folder: Path) -> dict[str, int]:
    """PCI address → render minor, for trees in which a device does not list its own nodes."""
    return {
        address: int(found[1])
        for entry in children(folder)
        if (found := _RENDER.fullmatch(entry.name)) and (address := _address(entry / "device"))
    }


def _address(device: Path) -> str:
    """The PCI address: uevent says it; where that is missing, the directory that `device` links to."""
    found = re.search(r"^PCI_SLOT_NAME=(\S+)$", read_line(device / "uevent"), re.MULTILINE)
    if found:
        return pci_address(found[1])
    try:
        return pci_address(device.resolve().name)
    except OSError:
        return ""


def _core(device: Path) -> tuple[int, int, int] | None:
    folder = device / "ip_discovery/die/0/GC/0"
    major, minor, revision = (read_number(folder / name) for name in ("major", "minor", "revision"))
    return (major, minor, revision) if major is not None and minor is not None and revision is not None else None
