"""amdgpu's binary tables: every version that the kernel has, cut off, of unknown versions, and made of noise."""

from __future__ import annotations

import ctypes

import pytest
from gpurig.runner.exporter.devices.amd_gpu_metrics import parse_gpu_metrics, throttle_reasons
from hypothesis import given
from hypothesis import strategies as st
from standins.amd_tables import FIELDS, structure, table

VERSIONS = sorted(FIELDS)
# By our names: the kernel's, where a version has them.
NAMES = {
    "edge": ("edge",),
    "hotspot": ("hotspot",),
    "memory": ("mem",),
    "gfx_busy": ("average_gfx_activity",),
    "memory_busy": ("average_umc_activity",),
    "power": ("average_socket_power", "curr_socket_power"),
    "energy": ("energy_accumulator",),
    "undocumented_energy": ("energy_accumulator",),
    "graphics_mhz": ("current_gfxclk",),
    "memory_mhz": ("current_uclk",),
    "video_mhz": ("current_vclk0", "current_vclk"),
    "mean_graphics_mhz": ("average_gfxclk",),
    "mean_memory_mhz": ("average_uclk",),
    "mean_video_mhz": ("average_vclk",),
    "fan_rpm": ("current_fan_speed",),
    "throttle": ("indep_throttle_status",),
    "residencies": (
        "prochot_residency",
        "ppt_residency",
        "socket_thm_residency",
        "vr_thm_residency",
        "hbm_thm_residency",
    ),
}
# Of cards, whose tables have the clocks of this moment, the means; of APUs, what has no unit common to all chips.
LEFT = {
    1: {"mean_graphics_mhz", "mean_memory_mhz", "mean_video_mhz"},
    2: {"gfx_busy", "power"},
    3: {"gfx_busy", "power"},
}


def numbered(version: tuple[int, int]) -> tuple[bytes, dict[str, tuple[int, ...]]]:
    """A table in which every field has a number of its own, and what our names stand for in it."""
    shape = structure(version)
    made = shape.from_buffer_copy(table(version))
    told: dict[str, tuple[int, ...]] = {}
    for number, (name, *_) in enumerate(shape._fields_[3:], start=1):
        value = getattr(made, name)
        if isinstance(value, ctypes.Array):
            numbers = tuple(number + position for position in range(len(value)))
            value[:] = numbers
        else:
            numbers = (number,)
            setattr(made, name, number)
        told[name] = numbers
    found = {}
    for ours, theirs in NAMES.items():
        numbers = tuple(number for name in theirs for number in told.get(name, ()))
        if numbers:
            found[ours] = numbers
    return bytes(made), found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_is_read_from_where_c_puts_it(version):
    data, expected = numbered(version)
    found = parse_gpu_metrics(data)
    assert found
    assert {name: expected[name] for name in found} == found
    missing = expected.keys() - found.keys() - {"energy", "undocumented_energy"}
    assert missing <= LEFT[version[0]]
    assert ("energy" in found, "undocumented_energy" in found) == (
        (1, 4) <= version < (2, 0),
        (1, 1) <= version < (1, 4),
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_table_that_is_cut_off_tells_what_lies_before_the_cut(version):
    data, _ = numbered(version)
    whole = parse_gpu_metrics(data)
    for length in range(0, len(data), 3):
        part = parse_gpu_metrics(data[:length])
        assert part.items() <= whole.items()
    assert parse_gpu_metrics(data[:4]) == {}


def test_a_table_that_says_it_is_shorter_than_it_is_tells_no_more():
    data = bytearray(table((1, 3), edge=50, indep_throttle_status=1))
    data[:2] = (8).to_bytes(2, "little")
    assert parse_gpu_metrics(bytes(data)) == {"edge": (50,)}


@pytest.mark.parametrize("version", [(0, 0), (1, 9), (1, 200), (2, 5), (3, 1), (4, 0), (255, 255)])
def test_an_unknown_version_is_left_alone(version):
    data = bytearray(table((1, 3), edge=50))
    data[2:4] = bytes(version)
    assert parse_gpu_metrics(bytes(data)) == {}


def test_what_a_table_does_not_tell_is_not_there():
    assert parse_gpu_metrics(table((1, 3))) == {}
    assert parse_gpu_metrics(table((1, 4), current_gfxclk=[2100, 0xFFFF, 1900])) == {"graphics_mhz": (2100, 1900)}


@given(st.binary(max_size=4000), st.sampled_from([*VERSIONS, (1, 9), (9, 9)]), st.integers(0, 0xFFFF))
def test_no_bytes_make_it_fail(noise, version, size):
    for data in (noise, size.to_bytes(2, "little") + bytes(version) + noise):
        found = parse_gpu_metrics(data)
        assert all(number >= 0 for numbers in found.values() for number in numbers)
        assert set(throttle_reasons(found, {}).values()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("bit", "reason"),
    [
        *((bit, "power_cap") for bit in (*range(8), *range(16, 24), 56)),
        *((bit, "sw_thermal") for bit in range(32, 44)),
        *((bit, "hw_thermal") for bit in range(44, 48)),
        (57, None),
        (8, None),
        (63, None),
    ],
)
def test_each_bit_of_the_throttle_status_is_one_reason(bit, reason):
    found = throttle_reasons({"throttle": (1 << bit,)}, {})
    assert [name for name, held in found.items() if held] == ([reason] if reason else [])


def test_counts_of_another_shape_tell_nothing():
    five = {"residencies": (1, 2, 3, 4, 5)}
    assert throttle_reasons(five, {"residencies": (1, 2)}) == {}
    assert throttle_reasons({"residencies": (1,)}, five) == {}
    assert throttle_reasons({}, five) == {}
