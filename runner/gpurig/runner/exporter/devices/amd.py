"""AMD's figures, from the amdgpu driver's files.

Units: https://docs.kernel.org/gpu/amdgpu/thermal.html (hwmon: millidegrees, microwatts) and
https://docs.kernel.org/gpu/amdgpu/driver-misc.html (mem_info_*: bytes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.devices.figures import Figures


class AmdSource:
    """Reads sysfs; needs no library and no permission."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Take the directory below which /sys lies."""
        self._devices = root / "sys" / "bus" / "pci" / "devices"

    def read(self, gpus: Sequence[Gpu]) -> Mapping[str, Figures]:
        """Figures by UUID; a GPU whose device folder is gone has a reason instead."""
        return {gpu.uuid: self._read_gpu(gpu) for gpu in gpus if gpu.backend == "rocm" and gpu.pci_address}

    def _read_gpu(self, gpu: Gpu) -> Figures:
        folder = self._devices / gpu.pci_address
        if not folder.is_dir():
            return Figures(lost=f"no PCI device {gpu.pci_address}")
        used = _number(folder / "mem_info_vram_used")
        if gpu.unified and used is not None:
            # On an APU what a job allocates lies in GTT, the carve-out is the smaller part.
            used += _number(folder / "mem_info_gtt_used") or 0
        busy = _number(folder / "gpu_busy_percent")
        hwmon = next(iter(sorted((folder / "hwmon").glob("hwmon*"))), folder / "hwmon" / "none")
        temperature = _number(hwmon / "temp1_input")
        power = _number(hwmon / "power1_average")
        if power is None:
            # Newer cards have the momentary value alone.
            power = _number(hwmon / "power1_input")
        limit = _number(hwmon / "power1_cap")
        return Figures(
            memory_used_bytes=used,
            utilization_ratio=None if busy is None else busy / 100,
            temperature_celsius=None if temperature is None else temperature / 1000,
            power_watts=None if power is None else power / 1_000_000,
            power_limit_watts=None if limit is None else limit / 1_000_000,
        )


def _number(path: Path) -> int | None:
    """A file's number; None where the file is missing, unreadable (a sleeping card says EBUSY) or holds none."""
    try:
        return int(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None
