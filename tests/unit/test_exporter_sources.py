"""What the sources make of a device's answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpurig.provisioning.facts import Gpu, HostFacts, Problem
from gpurig.runner.exporter.devices.amd import AmdSource
from gpurig.runner.exporter.devices.figures import Figures, SourceError
from gpurig.runner.exporter.devices.inventory import Inventory


def _gpu(backend="rocm", uuid="u", pci="0000:03:00.0", *, unified=False) -> Gpu:
    return Gpu(backend=backend, uuid=uuid, name="", pci_address=pci, memory_bytes=None, unified=unified)


@pytest.fixture
def sysfs(tmp_path: Path):
    """Writes files of the card 0000:03:00.0; gives the root."""
    device = tmp_path / "sys/bus/pci/devices/0000:03:00.0"

    def write(**files) -> Path:
        for name, text in files.items():
            path = device / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n", encoding="ascii")
        return tmp_path

    return write


def test_amd_units_become_base_units(sysfs):
    root = sysfs(
        mem_info_vram_used=123456,
        gpu_busy_percent=42,
        hwmon__hwmon3__temp1_input=51000,
        hwmon__hwmon3__power1_average=98500000,
        hwmon__hwmon3__power1_cap=303000000,
    )
    assert AmdSource(root).read([_gpu()]) == {
        "u": Figures(
            memory_used_bytes=123456,
            utilization_ratio=0.42,
            temperature_celsius=51.0,
            power_watts=98.5,
            power_limit_watts=303.0,
        )
    }


def test_a_card_without_average_power_tells_its_momentary_one(sysfs):
    root = sysfs(mem_info_vram_used=1, hwmon__hwmon0__power1_input=5000000)
    assert AmdSource(root).read([_gpu()])["u"].power_watts == 5.0


def test_on_an_apu_memory_in_use_counts_what_lies_in_system_memory(sysfs):
    root = sysfs(mem_info_vram_used=100, mem_info_gtt_used=4000)
    assert AmdSource(root).read([_gpu(unified=True)])["u"].memory_used_bytes == 4100
    assert AmdSource(root).read([_gpu()])["u"].memory_used_bytes == 100


def test_an_unreadable_file_costs_its_own_field_only(sysfs):
    root = sysfs(mem_info_vram_used="nonsense", gpu_busy_percent=7)
    assert AmdSource(root).read([_gpu()])["u"] == Figures(utilization_ratio=0.07)


def test_an_amd_card_whose_device_is_gone_is_lost(tmp_path):
    assert AmdSource(tmp_path).read([_gpu()])["u"].lost == "no PCI device 0000:03:00.0"


def test_a_source_reads_only_its_own_vendors_cards(sysfs):
    assert AmdSource(sysfs(gpu_busy_percent=1)).read([_gpu(backend="cuda")]) == {}


def test_a_broken_driver_fails_the_source_instead_of_showing_no_gpus():
    known = Inventory(lambda: HostFacts(problems=(Problem("nvml", "version mismatch"),))).read()
    with pytest.raises(SourceError, match="version mismatch"):
        known.require("cuda")
    assert known.require("rocm") == []


def test_a_numbers_owner_never_changes_when_cards_come_and_go():
    a, b, c = (_gpu(uuid=name) for name in "abc")
    seen = iter([(a, b), (b,), (c, b), (a, b, c)])
    inventory = Inventory(lambda: HostFacts(gpus=next(seen)))
    numbers = [{known.gpu.uuid: (known.index, known.present) for known in inventory.read().gpus} for _ in range(4)]
    assert numbers == [
        {"a": (0, True), "b": (1, True)},
        {"a": (0, False), "b": (1, True)},
        {"a": (0, False), "b": (1, True), "c": (2, True)},
        {"a": (0, True), "b": (1, True), "c": (2, True)},
    ]
