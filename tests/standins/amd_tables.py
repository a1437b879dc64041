"""The tables that amdgpu shows as gpu_metrics, laid out by C's own rules from the kernel's field lists."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

_TYPES = {"B": ctypes.c_uint8, "H": ctypes.c_uint16, "I": ctypes.c_uint32, "Q": ctypes.c_uint64}

_CLOCKS_1 = "gfxclk socclk uclk vclk0 dclk0 vclk1 dclk1"
_CLOCKS_2 = "gfxclk socclk uclk fclk vclk dclk"
_TEMPERATURES = "H edge hotspot mem vrgfx vrsoc vrmem"
_BUSY = "H average_gfx_activity average_umc_activity average_mm_activity average_socket_power"


def _means(clocks: str) -> str:
    return "H " + " ".join(f"average_{clock}" for clock in clocks.split())


def _nows(clocks: str) -> str:
    return "H " + " ".join(f"current_{clock}" for clock in clocks.split())


_V1_1 = (
    _TEMPERATURES, _BUSY, "Q energy_accumulator system_clock_counter", _means(_CLOCKS_1), _nows(_CLOCKS_1),
    "I throttle_status", "H current_fan_speed pcie_link_width pcie_link_speed padding",
    "I gfx_activity_acc mem_activity_acc", "H temperature_hbm*4",
)  # fmt: skip
_V1_2 = (*_V1_1, "Q firmware_timestamp")
_INSTINCT = "H hotspot mem vrsoc curr_socket_power average_gfx_activity average_umc_activity"
_LINKS = "H pcie_link_width pcie_link_speed xgmi_link_width xgmi_link_speed", "I gfx_activity_acc mem_activity_acc"
_PCIE = "Q pcie_bandwidth_acc pcie_bandwidth_inst pcie_l0_to_recov_count_acc pcie_replay_count_acc pcie_replay_rover"
_NAK = "I pcie_nak_sent_count_acc pcie_nak_rcvd_count_acc"
_XGMI = "Q xgmi_read_data_acc*8 xgmi_write_data_acc*8"
_INSTANT = "H current_gfxclk*8 current_socclk*4 current_vclk0*4 current_dclk0*4 current_uclk"
_HELD = "I accumulation_counter prochot_residency ppt_residency socket_thm_residency vr_thm_residency hbm_thm_residency"
_ENERGY = "Q energy_accumulator system_clock_counter"
_V2_HEAT = (
    "H temperature_gfx temperature_soc temperature_core*8 temperature_l3*2 average_gfx_activity average_mm_activity"
)
_V2_REST = (
    "H average_socket_power average_cpu_power average_soc_power average_gfx_power average_core_power*8",
    _means(_CLOCKS_2), _nows(_CLOCKS_2), "H current_coreclk*8 current_l3clk*2", "I throttle_status",
)  # fmt: skip
_V2_1 = (_V2_HEAT, "Q system_clock_counter", *_V2_REST, "H fan_pwm padding*3")
_V2_2 = (*_V2_1, "Q indep_throttle_status")
_V2_3 = (*_V2_2, "H mean_temperature_gfx mean_temperature_soc mean_temperature_core*8 mean_temperature_l3*2")

FIELDS: Mapping[tuple[int, int], tuple[str, ...]] = {
    (1, 0): (
        "Q system_clock_counter", _TEMPERATURES, _BUSY, "I energy_accumulator", _means(_CLOCKS_1), _nows(_CLOCKS_1),
        "I throttle_status", "H current_fan_speed", "B pcie_link_width pcie_link_speed",
    ),
    (1, 1): _V1_1,
    (1, 2): _V1_2,
    (1, 3): (*_V1_2, "H voltage_soc voltage_gfx voltage_mem padding1", "Q indep_throttle_status"),
    (1, 4): (
        _INSTINCT, "H vcn_activity*4", _ENERGY, "I throttle_status gfxclk_lock_status", *_LINKS, _PCIE, _XGMI,
        "Q firmware_timestamp", _INSTANT, "H padding",
    ),
    (1, 5): (
        _INSTINCT, "H vcn_activity*4 jpeg_activity*32", _ENERGY, "I throttle_status gfxclk_lock_status", *_LINKS, _PCIE,
        _NAK, _XGMI, "Q firmware_timestamp", _INSTANT, "H padding",
    ),
    (1, 6): (
        _INSTINCT, _ENERGY, _HELD, "I gfxclk_lock_status", *_LINKS, _PCIE, _NAK, _XGMI, "Q firmware_timestamp",
        _INSTANT, "H num_partition", "Q xcp_stats*168", "I other_end_recovery",
    ),
    (1, 7): (
        _INSTINCT, "Q mem_max_bandwidth", _ENERGY, _HELD, "I gfxclk_lock_status", *_LINKS, _PCIE, _NAK, _XGMI,
        "H xgmi_link_status*8 padding", "Q firmware_timestamp", _INSTANT, "H num_partition", "Q xcp_stats*232",
        "I other_end_recovery",
    ),
    (1, 8): (
        _INSTINCT, "Q mem_max_bandwidth", _ENERGY, _HELD, "I gfxclk_lock_status", *_LINKS, _PCIE, _NAK, _XGMI,
        "H xgmi_link_status*8 padding", "Q firmware_timestamp", _INSTANT, "H num_partition", "Q xcp_stats*376",
        "I other_end_recovery",
    ),
    (2, 0): (
        "Q system_clock_counter", _V2_HEAT, *_V2_REST, "H fan_pwm padding",
    ),
    (2, 1): _V2_1,
    (2, 2): _V2_2,
    (2, 3): _V2_3,
    (2, 4): (*_V2_3, "H cpu_voltage soc_voltage gfx_voltage cpu_current soc_current gfx_current"),
    (3, 0): (
        "H temperature_gfx temperature_soc temperature_core*16 temperature_skin average_gfx_activity",
        "H average_vcn_activity average_ipu_activity*8 core_c0_activity*16 dram_reads dram_writes ipu_reads ipu_writes",
        "Q system_clock_counter", "I average_socket_power", "H average_ipu_power",
        "I average_apu_power average_gfx_power average_dgpu_power average_all_core_power",
        "H average_core_power*16 average_sys_power stapm_power_limit current_stapm_power_limit",
        "H average_gfxclk average_socclk average_vpeclk average_ipuclk average_fclk average_vclk average_uclk mpipu",
        "H current_coreclk*16 current_core_maxfreq current_gfx_maxfreq",
        "I prochot spl fppt sppt thm_core thm_gfx thm_soc time_filter_alphavalue",
    ),
}  # fmt: skip


def structure(version: tuple[int, int]) -> type[ctypes.Structure]:
    """The C structure of a version."""
    members: list[tuple[str, type]] = [("size", ctypes.c_uint16), ("major", ctypes.c_uint8), ("minor", ctypes.c_uint8)]
    for line in FIELDS[version]:
        kind, *names = line.split()
        for name, _, count in (one.partition("*") for one in names):
            members.append((name, _TYPES[kind] * int(count) if count else _TYPES[kind]))
    return type("gpu_metrics", (ctypes.Structure,), {"_fields_": members})


def table(version: tuple[int, int], **values: int | list[int]) -> bytes:
    """A table as the driver makes it: what is not given has all bits set."""
    shape = structure(version)
    made = shape.from_buffer_copy(b"\xff" * ctypes.sizeof(shape))
    made.size, made.major, made.minor = ctypes.sizeof(shape), *version
    for name, value in values.items():
        if isinstance(value, list):
            getattr(made, name)[: len(value)] = value
        else:
            setattr(made, name, value)
    return bytes(made)
