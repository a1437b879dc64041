"""The amdgpu driver's binary table of readings, /sys/class/drm/card*/device/gpu_metrics.

Format: kgd_pp_interface.h of the kernel, `struct gpu_metrics_v1_0` to `v1_8`, `v2_0` to `v2_4` (APUs) and `v3_0` (newer
APUs), in the machine's own byte order with C's alignment. What a table does not tell has all bits set. Only what the
header or the driver gives a unit for is taken: of APUs neither temperature, power nor activity, because their units
differ from chip to chip. 1.9 holds its fields otherwise; it and versions still to come are left alone.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType

_Field = tuple[int, str]
_Layout = Mapping[str, _Field]

_HEADER = struct.Struct("=HBB")

# Field: offset and type. From 1.1 to 1.3 and from 2.1 to 2.4 fields were only added at the end.
_V1_0: _Layout = MappingProxyType({
    "edge": (16, "H"), "hotspot": (18, "H"), "memory": (20, "H"), "gfx_busy": (28, "H"), "memory_busy": (30, "H"),
    "power": (34, "H"), "graphics_mhz": (54, "H"), "memory_mhz": (58, "H"), "video_mhz": (60, "H"),
    "fan_rpm": (72, "H"),
})  # fmt: skip
_V1_1: _Layout = MappingProxyType({
    "edge": (4, "H"), "hotspot": (6, "H"), "memory": (8, "H"), "gfx_busy": (16, "H"), "memory_busy": (18, "H"),
    "power": (22, "H"), "undocumented_energy": (24, "Q"), "graphics_mhz": (54, "H"), "memory_mhz": (58, "H"),
    "video_mhz": (60, "H"), "fan_rpm": (72, "H"),
})  # fmt: skip
_V1_3: _Layout = MappingProxyType({**_V1_1, "throttle": (112, "Q")})
_V1_4: _Layout = MappingProxyType({
    "hotspot": (4, "H"), "memory": (6, "H"), "power": (10, "H"), "gfx_busy": (12, "H"), "memory_busy": (14, "H"),
    "energy": (24, "Q"), "graphics_mhz": (240, "8H"), "video_mhz": (264, "4H"),
    "memory_mhz": (280, "H"),
})  # fmt: skip
_V1_5: _Layout = MappingProxyType({
    **_V1_4, "energy": (88, "Q"), "graphics_mhz": (312, "8H"), "video_mhz": (336, "4H"),
    "memory_mhz": (352, "H"),
})  # fmt: skip
_V1_6: _Layout = MappingProxyType({
    **_V1_4, "energy": (16, "Q"), "residencies": (36, "5I"), "graphics_mhz": (264, "8H"),
    "video_mhz": (288, "4H"), "memory_mhz": (304, "H"),
})  # fmt: skip
_V1_7: _Layout = MappingProxyType({
    **_V1_4, "energy": (24, "Q"), "residencies": (44, "5I"), "graphics_mhz": (296, "8H"),
    "video_mhz": (320, "4H"), "memory_mhz": (336, "H"),
})  # fmt: skip
_V2_0: _Layout = MappingProxyType({
    "graphics_mhz": (80, "H"), "memory_mhz": (84, "H"), "video_mhz": (88, "H"),
    "mean_graphics_mhz": (68, "H"), "mean_memory_mhz": (72, "H"), "mean_video_mhz": (76, "H"),
})  # fmt: skip
_V2_1: _Layout = MappingProxyType({
    "graphics_mhz": (76, "H"), "memory_mhz": (80, "H"), "video_mhz": (84, "H"),
    "mean_graphics_mhz": (64, "H"), "mean_memory_mhz": (68, "H"), "mean_video_mhz": (72, "H"),
})  # fmt: skip
_V2_2: _Layout = MappingProxyType({**_V2_1, "throttle": (120, "Q")})
_V3_0: _Layout = MappingProxyType(
    {"mean_graphics_mhz": (174, "H"), "mean_video_mhz": (184, "H"), "mean_memory_mhz": (186, "H")}
)

_LAYOUTS: Mapping[tuple[int, int], _Layout] = MappingProxyType({
    (1, 0): _V1_0, (1, 1): _V1_1, (1, 2): _V1_1, (1, 3): _V1_3, (1, 4): _V1_4, (1, 5): _V1_5, (1, 6): _V1_6,
    (1, 7): _V1_7, (1, 8): _V1_7, (2, 0): _V2_0, (2, 1): _V2_1, (2, 2): _V2_2, (2, 3): _V2_2, (2, 4): _V2_2,
    (3, 0): _V3_0,
})  # fmt: skip

# From 1.4 on: "Energy (15.259uJ (2^-16) units)". Before, the header names no unit, and chips differ.
JOULES = 2.0**-16

# amdgpu_smu.h, SMU_THROTTLER_*_BIT. Limits of current (TDC, EDC) count as limits of power: the remedy is the same. FIT
# (57) is left out: it bounds the voltage of any card at full boost.
_THROTTLERS = (
    ("power_cap", (*range(8), *range(16, 24), 56)),
    ("sw_thermal", range(32, 44)),
    ("hw_thermal", range(44, 48)),
)
# `prochot, ppt, socket_thm, vr_thm, hbm_thm` _residency_acc.
_RESIDENCIES = ("hw_thermal", "power_cap", "sw_thermal", "sw_thermal", "sw_thermal")

Values = Mapping[str, tuple[int, ...]]


def parse_gpu_metrics(data: bytes) -> Values:
    """What a table tells, by our own names; empty for one that is cut off or of an unknown version.

    Temperatures are in °C, power in watts, busy shares in percent, clocks in MHz, energy in units of `JOULES`. A field
    of several units, such as the clocks of a card with several dies, has a number for each that tells one.
    """
    if len(data) < _HEADER.size:
        return {}
    size, major, minor = _HEADER.unpack_from(data)
    end = min(size, len(data))
    found = {}
    for name, (offset, kind) in _LAYOUTS.get((major, minor), {}).items():
        field = f"={kind}"
        width = struct.calcsize(field)
        if offset + width > end:
            continue
        numbers = struct.unpack_from(field, data, offset)
        untold = (1 << 8 * width // len(numbers)) - 1
        told = tuple(number for number in numbers if number != untold)
        if told:
            found[name] = told
    return found


def throttle_reasons(now: Values, before: Values) -> dict[str, float]:
    """Which reasons hold the clocks down, 1 or 0 each; none where the table does not tell.

    Args:
        now: a table.
        before: the one of the reading before: where tables count how long each reason held, it held when that grew.
    """
    if "throttle" in now:
        status = now["throttle"][0]
        return {reason: float(any(status >> bit & 1 for bit in bits)) for reason, bits in _THROTTLERS}
    counts, earlier = now.get("residencies", ()), before.get("residencies", ())
    if len(counts) != len(_RESIDENCIES) or len(earlier) != len(_RESIDENCIES):
        return {}
    grown = dict.fromkeys(_RESIDENCIES, 0.0)
    for reason, count, was in zip(_RESIDENCIES, counts, earlier, strict=True):
        # 32 bits that overflow differ as well.
        grown[reason] = max(grown[reason], float(count != was))
    return grown
