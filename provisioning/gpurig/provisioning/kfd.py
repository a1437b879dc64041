"""AMD's compute topology (KFD) as sysfs shows it: one node a GPU, or one a partition of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpurig.provisioning.host import children, read_line, to_number

# The second is what the first links to; a container or a recording may have only one of them.
_TOPOLOGIES = ("sys/class/kfd/kfd/topology/nodes", "sys/devices/virtual/kfd/kfd/topology/nodes")

# kfd_crat.h: 1 is memory of the device that the host can see, 2 memory that it cannot.
_DEVICE_HEAPS = {1, 2}


@dataclass(frozen=True)
class KfdNode:
    """A GPU node of the topology.

    Attributes:
        number: the node's directory.
        address: PCI address of the card, with function 0; "" where an old kernel or a cut recording lacks it.
        partition: the number of the card's partition, which KFD counts in the address's function bits.
        device_id: the model's PCI number; 0 where absent.
        gfx_version: major * 10000 + minor * 100 + stepping, 0 on old kernels.
        bank_bytes: the size of its own memory banks; None where none is told.
        render_minor: its node is /dev/dri/renderD<n>; None where absent.
        unique_id: the card's serial identity; 0 where it has none.
    """

    number: int
    address: str
    partition: int
    device_id: int
    gfx_version: int
    bank_bytes: int | None
    render_minor: int | None
    unique_id: int


def topology_folder(root: Path) -> Path | None:
    """The directory of the topology's nodes below `root`; None where the kernel offers no KFD."""
    return next((root / place for place in _TOPOLOGIES if (root / place).is_dir()), None)


def read_nodes(root: Path) -> tuple[KfdNode, ...]:
    """The GPU nodes below `root`, in the order of their numbers; CPU nodes are left out."""
    folder = topology_folder(root)
    nodes = [_read_node(entry) for entry in children(folder)] if folder else []
    return tuple(sorted((node for node in nodes if node), key=lambda node: node.number))


def _read_node(folder: Path) -> KfdNode | None:
    properties = read_properties(folder / "properties")
    number = to_number(folder.name)
    # A CPU has no SIMDs. (An APU of an old kernel is one node with cores and SIMDs.)
    if number is None or not properties.get("simd_count"):
        return None
    # bits 0-2 function, 3-7 device, 8-15 bus: kfd_topology.c takes pci_dev_id(); the domain has its own line.
    location = properties.get("location_id", 0)
    domain = properties.get("domain", 0)
    return KfdNode(
        number=number,
        address=f"{domain:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.0" if location else "",
        partition=location & 0x7,
        device_id=properties.get("device_id", 0),
        gfx_version=properties.get("gfx_target_version", 0),
        bank_bytes=_bank_bytes(folder / "mem_banks"),
        render_minor=properties.get("drm_render_minor") or None,
        unique_id=properties.get("unique_id", 0),
    )


def read_properties(path: Path) -> dict[str, int]:
    """A KFD `properties` file: a name and a number per line; other lines are skipped."""
    pairs = (line.split() for line in read_line(path).splitlines())
    numbers = {pair[0]: to_number(pair[1]) for pair in pairs if len(pair) == 2}
    return {name: value for name, value in numbers.items() if value is not None}


def _bank_bytes(folder: Path) -> int | None:
    total = 0
    for bank in children(folder):
        properties = read_properties(bank / "properties")
        if properties.get("heap_type") in _DEVICE_HEAPS:
            total += properties.get("size_in_bytes", 0)
    return total or None


def gfx_name(version: int) -> str:
    """The target's name: 90010 is "gfx90a", 110501 "gfx1151"; minor and stepping are one hexadecimal digit each.

    "" for a number that is no target.
    """
    major, minor, stepping = version // 10000, version // 100 % 100, version % 100
    if version <= 0 or max(minor, stepping) > 0xF:
        return ""
    return f"gfx{major}{minor:x}{stepping:x}"


def gfx_major(target: str) -> int:
    """The major version of a target: 9 of "gfx90a", 10 of "gfx1030"; 0 for what is none."""
    digits = target.removeprefix("gfx")[:-2]
    return int(digits) if digits.isdecimal() else 0


def render_gid(root: Path, path: str) -> int | None:
    """The numeric group of a device file below `root`; None where it does not exist."""
    try:
        return (root / path.lstrip("/")).stat().st_gid
    except OSError:
        return None
