"""The GPU driver as a container sees it, found out without llama.cpp: in milliseconds, and with nothing that can crash.

Facts only; `gpu_fit` judges them. What is not there is a value, never an error.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# cuda.h: CUresult, CUdevice_attribute.
_CUDA_SUCCESS = 0
_MAJOR, _MINOR = 75, 76
_CUDA_ERRORS = {
    3: "not initialized",
    34: "a stub library stands in for the driver",
    100: "no device",
    101: "invalid device",
    803: "the driver's library and kernel module are of different versions",
    804: "forward compatibility was tried on hardware that has none",
    999: "unknown error",
}
_NAME_BYTES = 256

# The second is what the first links to; a container may show only one of them.
_TOPOLOGIES = ("sys/class/kfd/kfd/topology/nodes", "sys/devices/virtual/kfd/kfd/topology/nodes")


@dataclass(frozen=True)
class Card:
    """A GPU that the driver shows.

    Attributes:
        arch: "sm-89", "gfx1100"; "" where it is not told.
        name: the product's; "" where it is not told.
    """

    arch: str
    name: str = ""


@dataclass(frozen=True)
class CudaFacts:
    """NVIDIA's driver in this container.

    Attributes:
        nodes: the device files that are here.
        driver: the kernel module's version, "580.95.05"; "" where nobody tells.
        library: the driver's library loads.
        cuda: the newest CUDA it serves, 12020 for 12.2; 0 where it is not known.
        error: why it does not start; "" where it does.
        cards: what it shows.
    """

    nodes: tuple[str, ...] = ()
    driver: str = ""
    library: bool = False
    cuda: int = 0
    error: str = ""
    cards: tuple[Card, ...] = ()


@dataclass(frozen=True)
class RocmFacts:
    """AMD's driver in this container.

    Attributes:
        driver: "amdgpu 6.10.5", "amdgpu of Linux 6.8.0"; "" where the kernel has no such module.
        kfd: /dev/kfd is here.
        closed: device files that are here and that this user may not open.
        cards: the GPUs whose device files are here.
        elsewhere: GPUs that the kernel knows and that were not given to this container.
        taken_for: what HSA_OVERRIDE_GFX_VERSION makes the runtime take every card for; "" where it is not set.
    """

    driver: str = ""
    kfd: bool = False
    closed: tuple[str, ...] = ()
    cards: tuple[Card, ...] = ()
    elsewhere: int = 0
    taken_for: str = ""


def read_cuda(root: Path = Path("/"), library: str = "libcuda.so.1") -> CudaFacts:
    """Ask the driver's files below `root`, and its library."""
    nodes = tuple(
        str(Path("/") / path.relative_to(root))
        for pattern in ("dev/nvidiactl", "dev/nvidia[0-9]*", "dev/dxg")
        for path in sorted(root.glob(pattern))
    )
    # "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue …"; the open module says "Open Kernel Module for".
    told = re.search(r"Kernel Module(?: for \S+)?\s+(\d+\.[\d.]+)", _text(root / "proc/driver/nvidia/version"))
    driver = told[1] if told else ""
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return CudaFacts(nodes=nodes, driver=driver)
    number = ctypes.c_int()
    version = number.value if cuda.cuDriverGetVersion(ctypes.byref(number)) == _CUDA_SUCCESS else 0
    driver = driver or _nvml_version()
    code = cuda.cuInit(0)
    if code != _CUDA_SUCCESS:
        return CudaFacts(nodes, driver, library=True, cuda=version, error=_CUDA_ERRORS.get(code, f"error {code}"))
    return CudaFacts(nodes, driver, library=True, cuda=version, cards=_cuda_cards(cuda))


def _cuda_cards(cuda: Any) -> tuple[Card, ...]:
    count = ctypes.c_int()
    if cuda.cuDeviceGetCount(ctypes.byref(count)) != _CUDA_SUCCESS:
        return ()
    cards = []
    for index in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(_NAME_BYTES)
        if cuda.cuDeviceGet(ctypes.byref(device), index) != _CUDA_SUCCESS:
            continue
        told = [
            cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            for value, attribute in ((major, _MAJOR), (minor, _MINOR))
        ]
        cuda.cuDeviceGetName(name, _NAME_BYTES, device)
        arch = "" if any(told) else f"sm-{major.value}{minor.value}"
        cards.append(Card(arch, name.value.decode(errors="replace")))
    return tuple(cards)


def _nvml_version() -> str:
    """The driver's version from NVML; "" where that is not here."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ""
    if nvml.nvmlInit_v2() != 0:
        return ""
    text = ctypes.create_string_buffer(_NAME_BYTES)
    told = nvml.nvmlSystemGetDriverVersion(text, _NAME_BYTES) == 0
    nvml.nvmlShutdown()
    return text.value.decode(errors="replace") if told else ""


def read_rocm(root: Path = Path("/")) -> RocmFacts:
    """Ask the kernel's files below `root`."""
    module = root / "sys/module/amdgpu"
    version = _text(module / "version").strip()
    driver = f"amdgpu {version}" if version else f"amdgpu of Linux {platform.release()}" if module.is_dir() else ""
    given, elsewhere, closed = [], 0, []
    kfd = root / "dev/kfd"
    for minor, card in _kfd_cards(root):
        node = root / f"dev/dri/renderD{minor}"
        if not node.exists():
            elsewhere += 1
            continue
        given.append(card)
        if not os.access(node, os.R_OK | os.W_OK):
            closed.append(f"/dev/dri/renderD{minor}")
    if kfd.exists() and not os.access(kfd, os.R_OK | os.W_OK):
        closed.insert(0, "/dev/kfd")
    override = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", os.environ.get("HSA_OVERRIDE_GFX_VERSION", ""))
    major, minor, stepping = (int(part) for part in override.groups()) if override else (0, 0, 0)
    return RocmFacts(
        driver,
        kfd=kfd.exists(),
        closed=tuple(closed),
        cards=tuple(given),
        elsewhere=elsewhere,
        taken_for=gfx_name(major * 10000 + minor * 100 + stepping),
    )


def _kfd_cards(root: Path) -> list[tuple[int, Card]]:
    """The GPUs of the kernel's topology, each with the number of its render node."""
    folder = next((root / place for place in _TOPOLOGIES if (root / place).is_dir()), None)
    cards = []
    for node in sorted(folder.iterdir()) if folder else []:
        pairs = (line.split() for line in _text(node / "properties").splitlines())
        values = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
        # A CPU has no SIMDs.
        if values.get("simd_count") and values.get("drm_render_minor"):
            card = Card(gfx_name(values.get("gfx_target_version", 0)), _text(node / "name").strip())
            cards.append((values["drm_render_minor"], card))
    return cards


def gfx_name(version: int) -> str:
    """The target's name: 90010 is "gfx90a", 110501 "gfx1151"; "" for 0, which old kernels tell."""
    major, minor, stepping = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{stepping:x}" if version > 0 and max(minor, stepping) <= 0xF else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
