"""A machine with AMD GPUs, as files: sysfs with every file that the exporter reads, KFD's processes and /proc.

`AmdBox(root, gpus=8)` writes it below a folder; detection finds the GPUs there, and `AmdSource(root)` reads them. The
processes have the pids that they are given, so that a test can pair them with containers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gpurig.provisioning.detect import detect
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.nvml import FixedNvml
from gpurig.runner.exporter.devices.figures import Figures

from standins import amd_tables

GIB = 1024**3
VRAM = 16 * GIB
# What a card says: file below its folder → text. `hwmon/` is the folder of its sensors.
FILES: Mapping[str, str] = {
    "vendor": "0x1002",
    "device": "0x73bf",
    "revision": "0xc1",
    "class": "0x030000",
    "mem_info_vram_total": f"{VRAM}",
    "mem_info_vram_used": f"{3 * GIB}",
    "mem_info_gtt_total": f"{31 * GIB}",
    "mem_info_gtt_used": "62369792",
    "gpu_busy_percent": "50",
    "mem_busy_percent": "20",
    "pp_dpm_sclk": "0: 500Mhz \n1: 2475Mhz *",
    "pp_dpm_mclk": "0: 96Mhz \n1: 1000Mhz *",
    "pp_dpm_vclk": "0: 40Mhz *\n1: 1200Mhz ",
    "pcie_replay_count": "3",
    "power/runtime_status": "active",
    "power/control": "auto",
    "power/autosuspend_delay_ms": "5000",
    "ras/umc_err_count": "ue: 1\nce: 4\nde: 7",
    "ras/gfx_err_count": "ue: 0\nce: 1",
    "ras/features": "feature mask: 0x5",
    "ras/gpu_vram_bad_pages": "0x00000001 : 0x00001000 : R\n0x00000002 : 0x00001000 : P\n0x00000003 : 0x00001000 : F",
    "hwmon/name": "amdgpu",
    "hwmon/temp1_input": "51000",
    "hwmon/temp1_label": "edge",
    "hwmon/temp1_crit": "100000",
    "hwmon/temp1_emergency": "105000",
    "hwmon/temp2_input": "64000",
    "hwmon/temp2_crit": "110000",
    "hwmon/temp2_emergency": "115000",
    "hwmon/temp3_input": "72000",
    "hwmon/temp3_crit": "100000",
    "hwmon/temp3_emergency": "105000",
    "hwmon/power1_average": "201500000",
    "hwmon/power1_cap": "255000000",
    "hwmon/freq1_input": "2320000000",
    "hwmon/freq2_input": "1000000000",
    "hwmon/fan1_input": "1200",
    "hwmon/fan1_max": "3000",
    "hwmon/pwm1": "102",
}
# The card's own switch: the GPU's own link is always full, the upper port's is the one to the slot.
PORTS: tuple[Mapping[str, str], ...] = (
    {"vendor": "0x1022", "class": "0x060400", "max_link_speed": "16.0 GT/s PCIe", "max_link_width": "16"},
    {
        "vendor": "0x1002",
        "class": "0x060400",
        "current_link_speed": "8.0 GT/s PCIe",
        "current_link_width": "8",
        "max_link_speed": "32.0 GT/s PCIe",
        "max_link_width": "16",
    },
    {"vendor": "0x1002", "class": "0x060400", "max_link_speed": "32.0 GT/s PCIe", "max_link_width": "16"},
)
TABLE: dict[str, Any] = {"current_vclk0": 40, "current_fan_speed": 1200, "indep_throttle_status": 1 << 1 | 1 << 36}

# What an exporter must read of such a card.
WHOLE = Figures(
    memory_used_bytes=3 * GIB,
    utilization_ratio=0.5,
    memory_utilization_ratio=0.2,
    temperature_celsius=51.0,
    hotspot_temperature_celsius=64.0,
    memory_temperature_celsius=72.0,
    temperature_limits_celsius={"slowdown": 110.0, "shutdown": 115.0, "max_operating": 100.0, "memory": 100.0},
    power_watts=201.5,
    power_limit_watts=255.0,
    clocks_hertz={"graphics": 2320e6, "memory": 1000e6, "video": 40e6},
    max_clocks_hertz={"graphics": 2475e6, "memory": 1000e6, "video": 1200e6},
    fan_ratio=0.4,
    throttle_reasons={"power_cap": 1.0, "sw_thermal": 1.0, "hw_thermal": 0.0},
    ecc_errors={"uncorrected": 1.0, "corrected": 5.0},
    retired_pages={"bad": 2.0},
    memory_repair_pending=True,
    pcie_generation=3,
    pcie_width=8,
    pcie_max_generation=4,
    pcie_max_width=16,
    pcie_replays=3,
    processes=(),
)


@dataclass(frozen=True)
class Card:
    """One card's files."""

    address: str
    folder: Path
    hwmon: Path
    gpu_id: int

    def path(self, name: str) -> Path:
        """Where a name of `FILES` lies."""
        head, _, rest = name.partition("/")
        return self.hwmon / rest if head == "hwmon" else self.folder / name

    def write(self, **files: str | int) -> None:
        """Write files; `__` in a name is `/`."""
        for name, content in files.items():
            path = self.path(name.replace("__", "/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")

    def write_table(self, version: tuple[int, int] = (1, 3), **values: int | list[int]) -> None:
        """Write the card's gpu_metrics."""
        (self.folder / "gpu_metrics").write_bytes(amd_tables.table(version, **values))

    def unplug(self) -> None:
        """Take it off the bus."""
        self.folder.rename(self.folder.with_name("gone"))

    def plug(self) -> None:
        """Put it back."""
        self.folder.with_name("gone").rename(self.folder)


def fdinfo(address: str, client: int, *, vram: int = 0, gtt: int = 0, busy_ns: int = 0, driver: str = "amdgpu") -> str:
    """What /proc/<pid>/fdinfo/<fd> says, as Linux 6.13 writes it; memory in bytes."""
    return (
        f"pos:\t0\nflags:\t02100002\nmnt_id:\t41\nino:\t650\ndrm-driver:\t{driver}\ndrm-client-id:\t{client}\n"
        f"drm-pdev:\t{address}\npasid:\t7517\ndrm-total-vram:\t{vram // 1024} KiB\ndrm-shared-vram:\t0\n"
        f"drm-resident-vram:\t{vram // 1024} KiB\ndrm-resident-gtt:\t{gtt // 1024} KiB\n"
        f"drm-memory-vram:\t{vram // 1024} KiB\ndrm-memory-gtt: \t{gtt // 1024} KiB\n"
        + (f"drm-engine-gfx:\t{busy_ns} ns\n" if busy_ns else "")
    )


class AmdBox:
    """The machine."""

    def __init__(self, root: Path, gpus: int = 1) -> None:
        """Write it below `root`, which need not exist."""
        self.root = root
        self._kfd = root / "sys/class/kfd/kfd"
        self._proc = root / "proc"
        (self._kfd / "proc").mkdir(parents=True)
        self._proc.mkdir(parents=True, exist_ok=True)
        _write(self._kfd / "topology/nodes/0", properties="cpu_cores_count 16\nsimd_count 0", gpu_id="0")
        self.cards = tuple(self._add_card(number) for number in range(gpus))

    @cached_property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that detection finds at first, in the order of the cards."""
        return detect(root=self.root, nvml=FixedNvml()).gpus

    def _add_card(self, number: int) -> Card:
        buses = [3 * number + step for step in range(1, 4)]
        address = f"0000:{buses[2]:02x}:00.0"
        folder = self.root / "sys/devices/pci0000:00" / f"0000:00:{number + 1:02x}.0"
        for port, bus in zip(PORTS, buses, strict=True):
            _write(folder, **port)
            folder = folder / f"0000:{bus:02x}:00.0"
        card = Card(address, folder, folder / "hwmon" / f"hwmon{number + 2}", gpu_id=40000 + number)
        for name, content in FILES.items():
            card.write(**{name: content})
        card.write(
            unique_id=f"{0xA0 + number:016x}",
            uevent=f"DRIVER=amdgpu\nPCI_ID=1002:73BF\nPCI_SLOT_NAME={address}",
            current_link_speed="32.0 GT/s PCIe",
            current_link_width="16",
            max_link_speed="32.0 GT/s PCIe",
            max_link_width="16",
        )
        card.write_table(**TABLE)
        (folder / f"drm/renderD{128 + number}").mkdir(parents=True)
        _link(self.root / "sys/bus/pci/devices" / address, folder)
        _link(self.root / f"sys/class/drm/card{number}/device", folder)
        _link(self.root / f"sys/class/drm/renderD{128 + number}/device", folder)
        node = self._kfd / f"topology/nodes/{number + 1}"
        _write(node / "mem_banks/0", properties=f"heap_type 1\nsize_in_bytes {VRAM}")
        _write(
            node,
            gpu_id=str(card.gpu_id),
            properties="\n".join(
                f"{name} {value}"
                for name, value in {
                    "cpu_cores_count": 0,
                    "simd_count": 144,
                    "gfx_target_version": 100300,
                    "vendor_id": 4098,
                    "device_id": 0x73BF,
                    "location_id": buses[2] << 8,
                    "domain": 0,
                    "drm_render_minor": 128 + number,
                    "unique_id": 0xA0 + number,
                }.items()
            ),
        )
        return card

    def compute(
        self,
        pid: int,
        held: Mapping[int, int],
        *,
        occupied: Mapping[int, int] | None = None,
        queues: Iterable[int] = (),
        context: str = "",
    ) -> None:
        """A process that computes (ROCm): it has opened every card.

        Args:
            pid: the host's number for it.
            held: bytes that it holds, by number of the card.
            occupied: compute units that it occupies, likewise; none for cards that do not tell.
            queues: cards on which it has a queue.
            context: for example "context_1": what it has in a further address space of its own.
        """
        folder = self._kfd / "proc" / str(pid) / context
        for number, card in enumerate(self.cards):
            _write(folder, **{f"vram_{card.gpu_id}": str(held.get(number, 0)), f"sdma_{card.gpu_id}": "0"})
            _write(folder / f"stats_{card.gpu_id}", evicted_ms="0")
            if occupied is not None and number in occupied:
                _write(folder / f"stats_{card.gpu_id}", cu_occupancy=str(occupied[number]))
        (folder / "queues").mkdir(exist_ok=True)
        for queue, number in enumerate(queues):
            _write(folder / f"queues/{queue}", gpuid=str(self.cards[number].gpu_id), type="2", size="4096")
        self.start(pid)

    def start(
        self, pid: int, files: Mapping[int, str] | None = None, *, targets: Mapping[int, str] | None = None
    ) -> None:
        """A process, with GPU files.

        Args:
            pid: the host's number for it.
            files: what fdinfo says of each GPU file, by descriptor.
            targets: other files that it has open, by descriptor.
        """
        folder = self._proc / str(pid)
        (folder / "fd").mkdir(parents=True, exist_ok=True)
        (folder / "fdinfo").mkdir(exist_ok=True)
        named = {**(targets or {}), **dict.fromkeys(files or (), "/dev/dri/renderD128")}
        for descriptor, target in named.items():
            link = folder / "fd" / str(descriptor)
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            text = (files or {}).get(descriptor, "pos:\t0\nflags:\t0100002\nmnt_id:\t13\nino:\t7\n")
            (folder / "fdinfo" / str(descriptor)).write_text(text)

    def end(self, pid: int) -> None:
        """The process ends."""
        shutil.rmtree(self._kfd / "proc" / str(pid), ignore_errors=True)
        shutil.rmtree(self._proc / str(pid), ignore_errors=True)


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
