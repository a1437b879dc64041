"""AMD's models by PCI number: what old kernels and consumer cards do not tell about themselves.

Targets: the kernel's and LLVM's own lists. Names: libdrm's amdgpu.ids (the host's copy is asked first).
"""

from __future__ import annotations

import re
from pathlib import Path

from gpurig.provisioning.host import read_line

# (first PCI number, last, target), for kernels whose KFD has no `gfx_target_version` (before 5.16).
_TARGETS = (
    (0x1114, 0x1114, "gfx1152"),
    (0x13C0, 0x13C0, "gfx1036"),
    (0x13FE, 0x13FE, "gfx1013"),
    (0x1435, 0x1435, "gfx1033"),
    (0x1506, 0x1506, "gfx1036"),
    (0x150E, 0x150E, "gfx1150"),
    (0x1586, 0x1586, "gfx1151"),
    (0x15BF, 0x15BF, "gfx1103"),
    (0x15C8, 0x15C8, "gfx1103"),
    (0x15D8, 0x15DD, "gfx902"),
    (0x15E7, 0x15E7, "gfx90c"),
    (0x1636, 0x1638, "gfx90c"),
    (0x163F, 0x163F, "gfx1033"),
    (0x164C, 0x164C, "gfx90c"),
    (0x164D, 0x164D, "gfx1035"),
    (0x164E, 0x164E, "gfx1036"),
    (0x1681, 0x1681, "gfx1035"),
    (0x1900, 0x1901, "gfx1103"),
    (0x66A0, 0x66AF, "gfx906"),
    (0x67A0, 0x67BE, "gfx701"),
    (0x67C0, 0x67FF, "gfx803"),
    (0x6860, 0x687F, "gfx900"),
    (0x6920, 0x6939, "gfx802"),
    (0x694C, 0x694F, "gfx803"),
    (0x6980, 0x699F, "gfx803"),
    (0x69A0, 0x69AF, "gfx904"),
    (0x6FDF, 0x6FDF, "gfx803"),
    (0x7300, 0x730F, "gfx803"),
    (0x7310, 0x731F, "gfx1010"),
    (0x7340, 0x734F, "gfx1012"),
    (0x7360, 0x7362, "gfx1011"),
    (0x7388, 0x7390, "gfx908"),
    (0x73A0, 0x73BF, "gfx1030"),
    (0x73C0, 0x73DF, "gfx1031"),
    (0x73E0, 0x73FF, "gfx1032"),
    (0x7408, 0x7410, "gfx90a"),
    (0x7420, 0x743F, "gfx1034"),
    (0x7440, 0x745E, "gfx1100"),
    (0x7460, 0x747E, "gfx1101"),
    (0x7480, 0x749F, "gfx1102"),
    (0x74A0, 0x74BD, "gfx942"),
    (0x7550, 0x7551, "gfx1201"),
    (0x7590, 0x7590, "gfx1200"),
    (0x75A0, 0x75B3, "gfx950"),
)

# Version of the graphics core → target (kfd_device.c, kgd2kfd_probe). They only look alike: GC 11.0.3 is gfx1101.
_CORES = {
    (9, 2, 1): "gfx904",
    (9, 4, 0): "gfx906",
    (9, 4, 1): "gfx908",
    (9, 4, 2): "gfx90a",
    (9, 4, 3): "gfx942",
    (9, 4, 4): "gfx942",
    (9, 5, 0): "gfx950",
    (10, 1, 10): "gfx1010",
    (10, 1, 2): "gfx1011",
    (10, 1, 1): "gfx1012",
    (10, 1, 3): "gfx1013",
    (10, 1, 4): "gfx1013",
    (10, 3, 0): "gfx1030",
    (10, 3, 2): "gfx1031",
    (10, 3, 4): "gfx1032",
    (10, 3, 1): "gfx1033",
    (10, 3, 5): "gfx1034",
    (10, 3, 3): "gfx1035",
    (10, 3, 6): "gfx1036",
    (10, 3, 7): "gfx1036",
    (11, 0, 0): "gfx1100",
    (11, 0, 3): "gfx1101",
    (11, 0, 2): "gfx1102",
    (11, 0, 1): "gfx1103",
    (11, 0, 4): "gfx1103",
    (11, 5, 0): "gfx1150",
    (11, 5, 1): "gfx1151",
    (11, 5, 2): "gfx1152",
    (11, 5, 3): "gfx1153",
    (12, 0, 0): "gfx1200",
    (12, 0, 1): "gfx1201",
}

# (PCI number, revision) → name; revision None where the number has one model only.
_NAMES = {
    (0x1586, 0xC1): "Radeon 8060S",
    (0x1586, 0xC2): "Radeon 8050S",
    (0x6860, None): "Radeon Instinct MI25",
    (0x731F, 0xC1): "Radeon RX 5700 XT",
    (0x731F, 0xC4): "Radeon RX 5700",
    (0x738C, None): "Instinct MI100",
    (0x73A5, 0xC0): "Radeon RX 6950 XT",
    (0x73AF, 0xC0): "Radeon RX 6900 XT",
    (0x73BF, 0xC0): "Radeon RX 6900 XT",
    (0x73BF, 0xC1): "Radeon RX 6800 XT",
    (0x73BF, 0xC3): "Radeon RX 6800",
    (0x73DF, 0xC0): "Radeon RX 6750 XT",
    (0x73DF, 0xC1): "Radeon RX 6700 XT",
    (0x73DF, 0xC5): "Radeon RX 6700 XT",
    (0x73EF, 0xC1): "Radeon RX 6650 XT",
    (0x73FF, 0xC1): "Radeon RX 6600 XT",
    (0x73FF, 0xC7): "Radeon RX 6600",
    (0x7408, None): "Instinct MI250X",
    (0x740F, None): "Instinct MI210",
    (0x743F, 0xC1): "Radeon RX 6500 XT",
    (0x743F, 0xC7): "Radeon RX 6400",
    (0x7448, None): "Radeon PRO W7900",
    (0x744C, 0xC8): "Radeon RX 7900 XTX",
    (0x744C, 0xCC): "Radeon RX 7900 XT",
    (0x744C, 0xCE): "Radeon RX 7900 GRE",
    (0x745E, None): "Radeon PRO W7800",
    (0x7470, None): "Radeon PRO W7700",
    (0x747E, 0xC8): "Radeon RX 7800 XT",
    (0x747E, 0xFF): "Radeon RX 7700 XT",
    (0x7480, 0xC0): "Radeon RX 7600 XT",
    (0x7480, 0xCF): "Radeon RX 7600",
    (0x74A0, None): "Instinct MI300A",
    (0x74A1, None): "Instinct MI300X",
    (0x74A2, None): "Instinct MI308X",
    (0x74A5, None): "Instinct MI325X",
    (0x7550, 0xC0): "Radeon RX 9070 XT",
    (0x7550, 0xC2): "Radeon RX 9070 GRE",
    (0x7550, 0xC3): "Radeon RX 9070",
    (0x7551, 0xC0): "Radeon AI PRO R9700",
    (0x7590, 0xC0): "Radeon RX 9060 XT",
    (0x7590, 0xC7): "Radeon RX 9060",
    (0x75A0, None): "Instinct MI350X",
    (0x75A3, None): "Instinct MI355X",
}

# Targets that exist only inside a processor. The memory sizes tell an APU too, but not where a kernel gives KFD the
# carve-out (when that is larger than the GTT) or a recording lacks one of them.
APU_TARGETS = frozenset({
    "gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036",
    "gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153",
})  # fmt: skip

MI300A = 0x74A0


def target_of(device_id: int) -> str:
    """The gfx target of a PCI number; "" where it is not known."""
    return next((target for first, last, target in _TARGETS if first <= device_id <= last), "")


def target_of_core(core: tuple[int, int, int] | None) -> str:
    """The gfx target of a graphics core's version; "" where it is not known."""
    return _CORES.get(core, "") if core else ""


def name_of(root: Path, device_id: int, revision: int | None) -> str:
    """The product's name: from the host's amdgpu.ids, else from our own list; "" where neither knows it."""
    if revision is not None:
        ids = read_line(root / "usr/share/libdrm/amdgpu.ids")
        found = re.search(rf"^{device_id:04X},\s*{revision:02X},\s*(.+)$", ids, re.MULTILINE | re.IGNORECASE)
        if found:
            return found[1].strip()
    return _NAMES.get((device_id, revision)) or _NAMES.get((device_id, None), "")
