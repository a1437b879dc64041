"""What the AMD source makes of recorded machines: everything that a recording has, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpurig.provisioning.detect import detect
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.nvml import FixedNvml
from gpurig.runner.exporter.devices.amd import AmdSource
from gpurig.runner.exporter.devices.figures import Figures
from standins import machines

AMD = [
    name
    for name in machines.names()
    if any("kfd" in path or "amdgpu" in text for path, text in machines.load(name).files.items())
]
WITH_FIGURES = [name for name in AMD if machines.load(name).figures]


def gpus_of(root: Path) -> list[Gpu]:
    """Every AMD GPU that detection knows: those too that it would not give to jobs, as integrated ones."""
    facts = detect(root=root, nvml=FixedNvml())
    known = (*facts.gpus, *(gpu for gpu, _ in facts.ignored))
    return [gpu for gpu in known if gpu.backend == "rocm"]


def link_devices(root: Path, gpus: list[Gpu]) -> None:
    """On a machine the card's folder is a link to the PCI device's; a recording has the card's alone."""
    devices = root / "sys/bus/pci/devices"
    devices.mkdir(parents=True, exist_ok=True)
    for gpu in gpus:
        for uevent in (root / "sys/class/drm").glob("card*/device/uevent"):
            if gpu.pci_address in uevent.read_text() and not (devices / gpu.pci_address).exists():
                (devices / gpu.pci_address).symlink_to(uevent.parent)


def test_there_are_recordings():
    assert len(AMD) >= 19
    assert len(WITH_FIGURES) >= 8


@pytest.mark.parametrize("name", WITH_FIGURES)
def test_everything_that_a_recording_has_comes_out_and_nothing_else(name, tmp_path):
    machine = machines.load(name)
    gpus = gpus_of(machine.build(tmp_path))
    link_devices(tmp_path, gpus)
    found = {gpu.pci_address: gpu for gpu in gpus}
    read = AmdSource(tmp_path).read(gpus)
    for address, expected in machine.figures.items():
        assert read[found[address].uuid] == Figures(**expected)


@pytest.mark.parametrize("name", AMD)
def test_a_recording_without_its_devices_has_them_lost_and_fails_no_reading(name, tmp_path):
    gpus = gpus_of(machines.load(name).build(tmp_path))
    read = AmdSource(tmp_path).read(gpus)
    assert read.keys() == {gpu.uuid for gpu in gpus}
    assert all(figures.lost for figures in read.values())
