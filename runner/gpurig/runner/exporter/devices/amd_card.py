"""One AMD card: what the amdgpu driver's files tell of it, in two tiers.

Units: https://docs.kernel.org/gpu/amdgpu/thermal.html (hwmon: millidegrees, microwatts, hertz, turns a minute) and
https://docs.kernel.org/gpu/amdgpu/driver-misc.html (mem_info_*: bytes; *_busy_percent).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpurig.runner.exporter.devices.amd_files import (
    Folder,
    SlowDriver,
    bad_pages,
    dpm_clocks,
    pcie_generation,
    ras_counts,
    read_number,
    read_text,
    slot_folder,
)
from gpurig.runner.exporter.devices.amd_gpu_metrics import JOULES, Values, parse_gpu_metrics, throttle_reasons
from gpurig.runner.exporter.devices.amd_sleep import Sleep
from gpurig.runner.exporter.devices.figures import Figures

# What hardly changes: limits, link, error counts.
SLOW_S = 30.0
# How long every sensor may be refused, as during a reset, before the card counts as lost.
REFUSED_S = 10.0
# MI200: the one chip before table 1.4 whose energy counter has a documented unit (smu13_driver_if_aldebaran.h).
_ENERGY_ARCH = "gfx90a"
_LINK_NOW = ("pcie_generation", "pcie_width")


class AmdCard:
    """A PCI device that amdgpu drives; it may go and come back."""

    def __init__(
        self,
        folder: Path,
        *,
        unified: bool = False,
        arch: str = "",
        phase: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            folder: the PCI device's in sysfs.
            unified: its memory is the system's.
            arch: its gfx target.
            phase: when the slow tier is read a second time, as a share of its period: cards take turns.
            monotonic: the clock.
        """
        self._folder = folder
        self._unified = unified
        self._arch = arch
        self._phase = phase
        self._monotonic = monotonic
        self._begin()
        self._paused_until = float("-inf")
        self._paused_for = ""

    def _begin(self) -> None:
        """Know nothing: a card that comes back is another one to the driver."""
        path = str(self._folder)
        self._memory = Folder(path, self._monotonic)
        self._device = Folder(path, self._monotonic)
        self._hwmon: Folder | None = None
        self._sleep = Sleep(path, monotonic=self._monotonic)
        self._slow: dict[str, Any] = {}
        self._fan_max: int | None = None
        self._slow_due = float("-inf")
        self._last = Figures()
        self._table: Values = {}
        self._answered_at: float | None = None

    def read(self, *, used: bool) -> Figures:
        """The card's figures now, without its processes.

        Args:
            used: a process keeps it awake or works on it.
        """
        now = self._monotonic()
        if now < self._paused_until:
            return Figures(lost=self._paused_for)
        if not self._folder.is_dir():
            self._begin()
            return Figures(lost=f"no PCI device {self._folder.name}")
        try:
            return self._read(now, used=used)
        except SlowDriver as slow:
            # Firmware that hangs: one such card must not hold up the others.
            self._paused_for = f"its driver takes {slow.took_s:.0f} seconds to answer"
            self._paused_until = self._monotonic() + min(10 * slow.took_s, 60.0)
            return Figures(lost=self._paused_for)

    def _read(self, now: float, *, used: bool) -> Figures:
        self._memory.ask()
        state = self._sleep.look(working=used or bool(self._last.utilization_ratio))
        memory: dict[str, Any] = {"memory_used_bytes": self._memory_used()}
        if state == "asleep":
            kept = {name: value for name, value in self._slow.items() if name not in _LINK_NOW}
            self._last = Figures(**memory, **kept, utilization_ratio=0.0)
            self._table, self._answered_at = {}, None
        elif state == "resting":
            self._last = replace(self._last, **memory)
        else:
            self._last = self._read_awake(memory, now)
        return self._last

    def _read_awake(self, memory: Mapping[str, Any], now: float) -> Figures:
        self._device.ask()
        hwmon = self._hwmon = self._hwmon or self._find_hwmon()
        hwmon.ask()
        if now >= self._slow_due:
            self._slow = self._read_slow(self._device, hwmon)
            self._slow_due = now + (SLOW_S * self._phase if self._slow_due == float("-inf") else SLOW_S)
            # Not all of these need the card to answer.
            self._device.ask()
            hwmon.ask()
        fast = self._read_fast(self._device, hwmon)
        if not hwmon.answered:
            # A driver that was loaded again has another number there.
            self._hwmon = None
        lost = self._lost_reason(hwmon, now)
        return Figures(lost=lost) if lost else Figures(**memory, **self._slow, **fast)

    def _memory_used(self) -> int | None:
        # These two are the driver's own accounts: they can be read of a card that sleeps, and do not wake it.
        used = self._memory.amount("mem_info_vram_used")
        if self._unified:
            # What a job allocates on an APU lies in GTT; the carve-out is the smaller part.
            gtt = self._memory.amount("mem_info_gtt_used")
            return None if used is None and gtt is None else (used or 0) + (gtt or 0)
        return used

    def _find_hwmon(self) -> Folder:
        base = f"{self._folder}/hwmon"
        names = [name for name in Folder(base, self._monotonic).names() if name.startswith("hwmon")]
        # Other drivers may have sensors on the card as well.
        own = next((name for name in names if read_text(f"{base}/{name}/name") == "amdgpu"), next(iter(names), "none"))
        return Folder(f"{base}/{own}", self._monotonic)

    def _read_fast(self, device: Folder, hwmon: Folder) -> dict[str, Any]:
        table = parse_gpu_metrics(device.bytes("gpu_metrics") or b"")
        edge = _first(_divided(hwmon.number("temp1_input"), 1e3), _top(table, "edge"))
        hotspot = _first(_divided(hwmon.number("temp2_input"), 1e3), _top(table, "hotspot"))
        reasons = throttle_reasons(table, self._table)
        self._table = table
        return {
            "utilization_ratio": _first(_ratio(device.number("gpu_busy_percent")), _ratio(_top(table, "gfx_busy"))),
            "memory_utilization_ratio": _first(
                _ratio(device.number("mem_busy_percent")), _ratio(_top(table, "memory_busy"))
            ),
            # MI300 has no sensor at the chip's edge.
            "temperature_celsius": _first(edge, hotspot),
            "hotspot_temperature_celsius": hotspot,
            "memory_temperature_celsius": _first(_divided(hwmon.number("temp3_input"), 1e3), _top(table, "memory")),
            # Newer cards have the momentary value alone.
            "power_watts": _first(
                _divided(hwmon.amount("power1_average"), 1e6),
                _divided(hwmon.amount("power1_input"), 1e6),
                _top(table, "power"),
            ),
            "energy_joules": self._energy(table),
            "clocks_hertz": _clocks(device, hwmon, table),
            "fan_ratio": self._fan(hwmon, table),
            "throttle_reasons": reasons,
        }

    def _energy(self, table: Values) -> float | None:
        name = "undocumented_energy" if self._arch == _ENERGY_ARCH else "energy"
        # The second die of an MI250 says 0: the first counts for both.
        return _scaled(_top(table, name) or None, JOULES)

    def _fan(self, hwmon: Folder, table: Values) -> float | None:
        turns: int | None = _first(hwmon.amount("fan1_input"), _top(table, "fan_rpm"))
        if turns is not None and self._fan_max:
            return min(turns / self._fan_max, 1.0)
        step = hwmon.amount("pwm1")
        return step / 255 if step is not None and step <= 255 else None

    def _read_slow(self, device: Folder, hwmon: Folder) -> dict[str, Any]:
        self._fan_max = hwmon.amount("fan1_max")
        errors, repair = _ras(device)
        highest = {name: dpm_clocks(device.text(f"pp_dpm_{file}"))[1] for name, file in _DPM_FILES.items()}
        return {
            "temperature_limits_celsius": _limits(hwmon),
            "power_limit_watts": _divided(hwmon.amount("power1_cap"), 1e6),
            "max_clocks_hertz": {name: value for name, value in highest.items() if value is not None},
            "ecc_errors": errors,
            "retired_pages": {} if repair is None else {"bad": float(repair[0])},
            "memory_repair_pending": None if repair is None else repair[1] > 0,
            "pcie_replays": device.amount("pcie_replay_count"),
            # An APU is in no slot.
            **({} if self._unified else _link(self._folder)),
        }

    def _lost_reason(self, hwmon: Folder, now: float) -> str:
        """Why the card counts as gone, or ""."""
        sensors = self._device.answered + hwmon.answered
        refused = {**self._device.refused, **hwmon.refused}
        if sensors:
            self._answered_at = now
            return ""
        words = os.strerror(max(refused, key=refused.__getitem__)) if refused else ""
        if not self._memory.answered:
            return f"amdgpu does not answer: {words}" if words else f"amdgpu does not drive {self._folder.name}"
        if self._answered_at is not None and words and now - self._answered_at > REFUSED_S:
            return f"amdgpu reads none of its sensors ({words}): it is being reset, or a reset failed"
        return ""


_DPM_FILES = {"graphics": "sclk", "memory": "mclk", "video": "vclk"}


def _clocks(device: Folder, hwmon: Folder, table: Values) -> dict[str, float]:
    sensors = {"graphics": hwmon.amount("freq1_input"), "memory": hwmon.amount("freq2_input"), "video": None}
    found = {}
    for name, file in _DPM_FILES.items():
        value = _first(
            _scaled(sensors[name], 1.0),
            _scaled(_top(table, f"{name}_mhz"), 1e6),
            _scaled(_top(table, f"mean_{name}_mhz"), 1e6),
        )
        if value is None:
            value = dpm_clocks(device.text(f"pp_dpm_{file}"))[0]
        if value is not None:
            found[name] = value
    return found


def _limits(hwmon: Folder) -> dict[str, float]:
    """Where the card slows down and shuts down: by its hottest place where it has a sensor there.

    `crit` is the highest temperature that the driver lets it reach, `emergency` the one at which it switches off.
    """
    edge, junction = (f"temp{number}" for number in (1, 2))
    hottest = junction if hwmon.number(f"{junction}_crit") is not None else edge
    found = {
        "slowdown": hwmon.number(f"{hottest}_crit"),
        "shutdown": hwmon.number(f"{hottest}_emergency"),
        "max_operating": hwmon.number(f"{edge}_crit") if hottest != edge else None,
        "memory": hwmon.number("temp3_crit"),
    }
    return {name: value / 1000 for name, value in found.items() if value is not None and value > 0}


def _ras(device: Folder) -> tuple[dict[str, float], tuple[int, int] | None]:
    """Errors since the driver was loaded, of all units of the card, and its bad pages."""
    errors: dict[str, float] = {}
    names = device.names("ras")
    for name in names:
        if name.endswith("_err_count"):
            for kind, count in ras_counts(device.text(f"ras/{name}")).items():
                errors[kind] = errors.get(kind, 0.0) + count
    listed = device.text("ras/gpu_vram_bad_pages") if "gpu_vram_bad_pages" in names else None
    return errors, bad_pages(listed)


def _link(folder: Path) -> dict[str, int | None]:
    card = slot_folder(folder)
    slot = card.parent

    return {
        "pcie_generation": _generation(f"{card}/current_link_speed"),
        "pcie_width": _lanes(f"{card}/current_link_width"),
        "pcie_max_generation": _lower(_generation(f"{end}/max_link_speed") for end in (card, slot)),
        "pcie_max_width": _lower(_lanes(f"{end}/max_link_width") for end in (card, slot)),
    }


def _lower(ends: Iterable[int | None]) -> int | None:
    """What both ends of a link can do; one that does not tell is not counted."""
    return min((end for end in ends if end is not None), default=None)


def _generation(path: str) -> int | None:
    return pcie_generation(read_text(path))


def _lanes(path: str) -> int | None:
    """A link's width; None for 0, a link that is down, and for 255, a device that does not answer."""
    width = read_number(path)
    return width if width is not None and 0 < width <= 32 else None


def _top(table: Values, name: str) -> int | None:
    """A field of the table; of several units the highest."""
    return max(table[name]) if name in table else None


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _scaled(number: float | None, factor: float) -> float | None:
    return None if number is None else number * factor


def _divided(number: float | None, divisor: float) -> float | None:
    """3103000 microwatts are 3.103 watts; times a millionth they are 3.1029999999999998."""
    return None if number is None else number / divisor


def _ratio(percent: int | None) -> float | None:
    """A share, 0 to 1; None for a number that is no percentage, as firmware gives now and then."""
    return percent / 100 if percent is not None and 0 <= percent <= 100 else None
