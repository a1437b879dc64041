"""What the AMD source makes of the driver's files: all of them, and each of them missing or broken."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import pytest
from gpurig.provisioning.facts import DeviceNode
from gpurig.runner.exporter.devices import amd_files
from gpurig.runner.exporter.devices.amd import AmdSource
from gpurig.runner.exporter.devices.amd_card import SLOW_S
from gpurig.runner.exporter.devices.amd_files import bad_pages, dpm_clocks, pcie_generation, ras_counts
from gpurig.runner.exporter.devices.figures import Figures
from gpurig.runner.exporter.exposition.gpu_metrics import THROTTLE_REASONS
from hypothesis import given, settings
from hypothesis import strategies as st
from standins.amd_box import FILES, GIB, WHOLE, AmdBox
from standins.amd_driver import Refusals
from standins.clocks import FakeClock

# What no file of the driver tells.
UNTOLD = {
    "memory_reserved_bytes",
    "encoder_utilization_ratio",
    "decoder_utilization_ratio",
    "energy_joules",
    "performance_state",
}
# By file: the fields that are other ones without it. A file that only helps another, or has a stand-in, has none.
LOST = {
    "mem_info_vram_used": {"memory_used_bytes"},
    "gpu_busy_percent": {"utilization_ratio"},
    "mem_busy_percent": {"memory_utilization_ratio"},
    "pp_dpm_sclk": {"max_clocks_hertz"},
    "pp_dpm_mclk": {"max_clocks_hertz"},
    "pp_dpm_vclk": {"max_clocks_hertz"},
    "pcie_replay_count": {"pcie_replays"},
    "ras/umc_err_count": {"ecc_errors"},
    "ras/gfx_err_count": {"ecc_errors"},
    "ras/gpu_vram_bad_pages": {"retired_pages", "memory_repair_pending"},
    "hwmon/temp1_input": {"temperature_celsius"},
    "hwmon/temp1_crit": {"temperature_limits_celsius"},
    "hwmon/temp2_input": {"hotspot_temperature_celsius"},
    "hwmon/temp2_crit": {"temperature_limits_celsius"},
    "hwmon/temp2_emergency": {"temperature_limits_celsius"},
    "hwmon/temp3_input": {"memory_temperature_celsius"},
    "hwmon/temp3_crit": {"temperature_limits_celsius"},
    "hwmon/power1_average": {"power_watts"},
    "hwmon/power1_cap": {"power_limit_watts"},
    "hwmon/freq1_input": {"clocks_hertz"},
    "hwmon/fan1_input": set(),
    "gpu_metrics": {"throttle_reasons"},
}
EVERY_FILE = sorted({*FILES, "gpu_metrics"})


@pytest.fixture
def clock():
    return FakeClock(now=100.0)


@pytest.fixture
def box(tmp_path):
    return AmdBox(tmp_path)


@pytest.fixture
def read(box, clock):
    """Reads the box's first GPU, with one source."""
    source, (gpu, *_) = AmdSource(box.root, monotonic=clock.monotonic), box.gpus
    return lambda: source.read([gpu])[gpu.uuid]


@pytest.fixture
def driver(monkeypatch, box):
    return Refusals(monkeypatch, box)


def changed(figures: Figures) -> set[str]:
    """The fields that are not what a card tells that answers everything."""
    return {one.name for one in fields(Figures) if getattr(figures, one.name) != getattr(WHOLE, one.name)}


def read_anew(box: AmdBox) -> Figures:
    """What a source that knows nothing yet reads of the box's first GPU."""
    (gpu, *_) = box.gpus
    return AmdSource(box.root).read([gpu])[gpu.uuid]


def amounts(figures: Figures) -> list[float]:
    """Every number that cannot be below 0: all but temperatures."""
    found: list[float] = []
    for one in fields(Figures):
        value = getattr(figures, one.name)
        if "temperature" not in one.name and isinstance(value, Mapping):
            found += value.values()
        elif "temperature" not in one.name and isinstance(value, int | float):
            found.append(value)
    return found


def test_every_field_that_the_driver_tells_is_there_in_base_units(read):
    assert read() == WHOLE
    empty = Figures()
    assert {one.name for one in fields(Figures) if getattr(WHOLE, one.name) == getattr(empty, one.name)} == {
        *UNTOLD,
        "lost",
    }


def test_the_reasons_are_those_of_the_catalogue():
    assert WHOLE.throttle_reasons.keys() <= set(THROTTLE_REASONS)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_file_that_is_refused_costs_its_own_field_only(name, box, driver):
    for number in (errno.EPERM, errno.EACCES, errno.EBUSY, errno.EIO, errno.EINVAL, errno.ENODATA):
        driver.refuse(number, name)
        assert changed(read_anew(box)) == LOST.get(name, set())


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_file_that_is_missing_or_garbage_costs_its_own_field_only(name, box):
    path = box.cards[0].path(name)
    for content in (b"", b"\0", b"nonsense", b"-1", b"9" * 40, b"\xff\xfe", b"1 2\n3"):
        path.write_bytes(content)
        figures = read_anew(box)
        assert changed(figures) <= LOST.get(name, set()), content
        assert not [one for one in amounts(figures) if one < 0]
    path.unlink()
    assert changed(read_anew(box)) == LOST.get(name, set())
    path.mkdir()
    assert changed(read_anew(box)) == LOST.get(name, set())


@settings(max_examples=60)
@given(name=st.sampled_from(EVERY_FILE), content=st.binary(max_size=200))
def test_no_content_of_any_file_makes_a_reading_fail(name, content, tmp_path_factory):
    box = AmdBox(tmp_path_factory.mktemp("box"))
    gpus = box.gpus
    box.cards[0].path(name).write_bytes(content)
    figures = AmdSource(box.root).read(gpus)[gpus[0].uuid]
    assert figures.lost == ""
    for share in (figures.utilization_ratio, figures.memory_utilization_ratio, figures.fan_ratio):
        assert share is None or 0 <= share <= 1


def test_the_table_fills_in_what_the_text_files_lack(read, box):
    card = box.cards[0]
    for name in (
        "temp1_input",
        "temp2_input",
        "temp3_input",
        "power1_average",
        "freq1_input",
        "freq2_input",
        "fan1_input",
    ):
        card.path(f"hwmon/{name}").unlink()
    card.path("gpu_busy_percent").unlink()
    card.path("mem_busy_percent").unlink()
    card.write_table(
        edge=50, hotspot=60, mem=70, average_gfx_activity=30, average_umc_activity=10, average_socket_power=150,
        current_gfxclk=2000, current_uclk=900, current_vclk0=800, current_fan_speed=1500, indep_throttle_status=0,
    )  # fmt: skip
    figures = read()
    assert (figures.temperature_celsius, figures.hotspot_temperature_celsius) == (50, 60)
    assert figures.memory_temperature_celsius == 70
    assert (figures.utilization_ratio, figures.memory_utilization_ratio) == (0.3, 0.1)
    assert (figures.power_watts, figures.fan_ratio) == (150, 0.5)
    assert figures.clocks_hertz == {"graphics": 2000e6, "memory": 900e6, "video": 800e6}
    assert set(figures.throttle_reasons.values()) == {0.0}


def test_a_card_without_a_tachometer_tells_its_fan_by_the_signal_to_it(read, box):
    box.cards[0].path("hwmon/fan1_max").unlink()
    assert read().fan_ratio == pytest.approx(102 / 255)


def test_a_card_without_a_junction_sensor_has_the_edges_limits(read, box):
    for name in ("temp2_crit", "temp2_emergency", "temp3_crit"):
        box.cards[0].path(f"hwmon/{name}").unlink()
    assert read().temperature_limits_celsius == {"slowdown": 100.0, "shutdown": 105.0}


def test_a_chip_without_a_sensor_at_its_edge_has_the_hottest_places_temperature(read, box):
    box.cards[0].path("hwmon/temp1_input").unlink()
    assert read().temperature_celsius == 64.0


def test_the_energy_counter_counts_where_its_unit_is_documented(box, clock):
    gpu = box.gpus[0]
    box.cards[0].write_table((1, 4), energy_accumulator=1 << 20)
    source = AmdSource(box.root, monotonic=clock.monotonic)
    assert source.read([gpu])[gpu.uuid].energy_joules == 16.0
    box.cards[0].write_table((1, 3), energy_accumulator=1 << 20)
    assert source.read([gpu])[gpu.uuid].energy_joules is None
    mi200 = replace(gpu, arch="gfx90a")
    assert AmdSource(box.root).read([mi200])[gpu.uuid].energy_joules == 16.0
    # The second chip of an MI250 has no counter of its own.
    box.cards[0].write_table((1, 3), energy_accumulator=0)
    assert AmdSource(box.root).read([mi200])[gpu.uuid].energy_joules is None


def test_where_a_table_counts_throttling_a_reason_holds_while_its_count_grows(read, box):
    card = box.cards[0]
    held = {"prochot_residency": 7, "ppt_residency": 9, "socket_thm_residency": 1, "vr_thm_residency": 0}
    card.write_table((1, 6), **held, hbm_thm_residency=0)
    assert read().throttle_reasons == {}
    card.write_table((1, 6), **{**held, "ppt_residency": 12}, hbm_thm_residency=0)
    assert read().throttle_reasons == {"power_cap": 1.0, "hw_thermal": 0.0, "sw_thermal": 0.0}
    assert read().throttle_reasons == {"power_cap": 0.0, "hw_thermal": 0.0, "sw_thermal": 0.0}


def test_a_gpu_behind_its_cards_own_switch_tells_the_link_to_the_slot(read, box):
    # A GPU without such a switch: its own link, and what the port above it can do.
    own = box.cards[0].folder
    (own.parent / "vendor").write_text("0x1022\n")
    assert (read().pcie_generation, read().pcie_width) == (5, 16)


def test_an_apu_is_in_no_slot_and_counts_what_lies_in_system_memory(box):
    gpu = replace(box.gpus[0], unified=True)
    figures = AmdSource(box.root).read([gpu])[gpu.uuid]
    assert figures.memory_used_bytes == 3 * GIB + 62369792
    assert (figures.pcie_generation, figures.pcie_width, figures.pcie_max_generation) == (None, None, None)


def test_slow_values_are_read_seldom(read, driver, clock):
    asked = driver.asked
    read()
    assert {"hwmon/power1_cap", "pp_dpm_sclk", "ras/umc_err_count"} <= set(asked)
    for _ in range(int(SLOW_S) - 1):
        asked.clear()
        clock.now += 1
        assert read() == WHOLE
        assert not {"hwmon/power1_cap", "pp_dpm_sclk", "ras/umc_err_count"} & set(asked)
    clock.now += 1
    read()
    assert "hwmon/power1_cap" in asked


def test_cards_take_turns_with_their_slow_values(tmp_path, clock):
    box = AmdBox(tmp_path, gpus=4)
    source, gpus = AmdSource(tmp_path, monotonic=clock.monotonic), box.gpus
    source.read(gpus)
    for card in box.cards:
        card.write(hwmon__power1_cap=1_000_000)
    seen = []
    for _ in range(int(SLOW_S) + 1):
        clock.now += 1
        seen.append(sum(figures.power_limit_watts == 1.0 for figures in source.read(gpus).values()))
    assert [seen.count(number) > 1 for number in (1, 2, 3)] == [True, True, True]
    assert seen[-1] == 4


def test_a_partition_has_what_is_true_for_it_and_not_what_is_the_cards_alone(box):
    card = box.cards[0]
    whole = box.gpus[0]
    node = box.root / "sys/class/kfd/kfd/topology/nodes/1"
    second = node.with_name("2")
    (second / "mem_banks/0").mkdir(parents=True)
    (second / "gpu_id").write_text("40001\n")
    (node / "mem_banks/0/used_memory").write_text(f"{GIB}\n")
    box.compute(50, {0: GIB // 2})
    (box.root / "sys/class/kfd/kfd/proc/50/vram_40001").write_text(f"{5 * GIB}\n")
    parts = [replace(whole, uuid=f"a0-{part}", parent="a0", index=f"{part + 1}") for part in (0, 1)]
    found = AmdSource(box.root).read(parts)
    first, other = found["a0-0"], found["a0-1"]
    for one in (first, other):
        assert (one.temperature_celsius, one.clocks_hertz) == (51.0, WHOLE.clocks_hertz)
        assert (one.utilization_ratio, one.power_watts, one.power_limit_watts, one.energy_joules) == (None,) * 4
    # A kernel that tells a partition's memory in use, and one that tells what its processes have.
    assert (first.memory_used_bytes, other.memory_used_bytes) == (GIB, 5 * GIB)
    assert [(one.pid, one.memory_bytes) for one in first.processes or ()] == [(50, GIB // 2)]
    assert [(one.pid, one.memory_bytes) for one in other.processes or ()] == [(50, 5 * GIB)]
    assert card.gpu_id == 40000


def test_a_gpu_without_an_address_is_found_by_its_render_node(box):
    gpu = replace(box.gpus[0], pci_address="", nodes=(DeviceNode("/dev/kfd"), DeviceNode("/dev/dri/renderD128")))
    assert AmdSource(box.root).read([gpu])[gpu.uuid].power_watts == 201.5


def test_a_gpu_that_nothing_leads_to_is_lost_and_not_an_error(tmp_path):
    gpu = replace(AmdBox(tmp_path).gpus[0], pci_address="", nodes=())
    assert AmdSource(tmp_path).read([gpu])[gpu.uuid].lost


def test_a_source_without_cards_of_its_own_looks_at_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "listdir", lambda _: pytest.fail("looked"))
    assert AmdSource(tmp_path).read([]) == {}


@pytest.mark.parametrize(
    ("text", "clocks"),
    [
        ("0: 500Mhz *\n1: 2660Mhz ", (500e6, 2660e6)),
        ("0: 500Mhz\n1: 31Mhz *\n2: 2219Mhz", (31e6, 2219e6)),
        ("S: 19Mhz *\n0: 615Mhz\n1: 800Mhz\n2: 888Mhz\n3: 1000Mhz", (19e6, 1000e6)),
        ("0: 300Mhz \n1: 600Mhz ", (None, 600e6)),
        ("0: 2.5GT/s, x8 \n1: 8.0GT/s, x16 *", (None, None)),
        ("", (None, None)),
        (None, (None, None)),
    ],
)
def test_clock_levels(text, clocks):
    assert dpm_clocks(text) == clocks


@pytest.mark.parametrize(
    ("text", "generation"),
    [
        ("2.5 GT/s PCIe", 1), ("5.0 GT/s PCIe", 2), ("8.0 GT/s PCIe", 3), ("16.0 GT/s PCIe", 4), ("32.0 GT/s PCIe", 5),
        ("64.0 GT/s PCIe", 6), ("8 GT/s", 3), ("Unknown", None), ("Unknown speed", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_link_speeds(text, generation):
    assert pcie_generation(text) == generation


def test_error_counts_and_bad_pages_that_cannot_be_told_are_none():
    assert ras_counts("Query currently inaccessible") == {}
    assert bad_pages("") == (0, 0)
    assert bad_pages(None) is None


def test_the_real_file_is_read_whole_and_no_further_than_its_bound(tmp_path):
    path = Path(tmp_path / "long")
    path.write_bytes(b"x" * 100_000)
    assert len(amd_files.read_bytes(str(path))) == 100_000
    path.write_bytes(b"x" * 1_000_000)
    assert len(amd_files.read_bytes(str(path))) == 256 * 1024
