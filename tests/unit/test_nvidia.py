"""What NVML's reading means beside what the PCI bus shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpurig.provisioning.facts import Problem
from gpurig.provisioning.host import NVIDIA, Host, PciDevice, pci_address
from gpurig.provisioning.nvidia import NvidiaFacts, judge
from gpurig.provisioning.nvml import (
    DRIVER_NOT_LOADED,
    LIBRARY_NOT_FOUND,
    UNKNOWN,
    VERSION_MISMATCH,
    NvmlDevice,
    NvmlFailure,
    NvmlReading,
    text,
)

BARE = Host(platform="linux", memory_bytes=64 * 2**30, nvidia_module="", amdgpu_module="", pci=())
CARD = PciDevice("0000:01:00.0", NVIDIA, 0x2684, "nvidia")
RTX_4090 = NvmlDevice(
    index="0",
    uuid="GPU-1",
    name="NVIDIA GeForce RTX 4090",
    pci="00000000:01:00.0",
    memory_bytes=24564 * 2**20,
    compute=(8, 9),
)


def with_cards(*cards: PciDevice) -> Host:
    return replace(BARE, pci=cards)


def refused(code: int, words: str = "some words") -> NvmlReading:
    return NvmlReading(failure=NvmlFailure(code, words))


def the_problem(reading: NvmlReading, host: Host) -> Problem:
    facts = judge(reading, host)
    assert facts.gpus == ()
    (problem,) = facts.problems
    return problem


def test_a_machine_without_nvidia_has_nothing_to_complain_about() -> None:
    assert judge(refused(LIBRARY_NOT_FOUND), BARE) == NvidiaFacts()


def test_a_card_without_its_driver_is_named_with_its_address() -> None:
    problem = the_problem(refused(LIBRARY_NOT_FOUND), with_cards(replace(CARD, driver="")))
    assert "0000:01:00.0" in problem.message
    assert "install" in problem.hint
    assert problem.unusable


def test_a_kernel_module_without_its_library_is_told_with_its_version() -> None:
    problem = the_problem(refused(LIBRARY_NOT_FOUND), replace(with_cards(CARD), nvidia_module="570.86.15"))
    assert "570.86.15" in problem.message
    assert problem.unusable


def test_a_library_without_its_kernel_module_is_told_where_a_card_is() -> None:
    problem = the_problem(refused(DRIVER_NOT_LOADED), with_cards(replace(CARD, driver="")))
    assert "modprobe" in problem.hint
    assert problem.unusable


def test_a_loaded_module_without_its_device_files_is_not_called_unloaded() -> None:
    problem = the_problem(refused(DRIVER_NOT_LOADED), replace(BARE, nvidia_module="570.86.15"))
    assert "although" in problem.message
    assert "/dev/nvidiactl" in problem.hint
    assert problem.unusable


def test_a_driver_on_a_machine_without_a_card_keeps_nothing_from_use() -> None:
    assert not the_problem(refused(DRIVER_NOT_LOADED), BARE).unusable
    assert not the_problem(NvmlReading(driver="580.95.05"), BARE).unusable


def test_a_card_of_a_virtual_machine_is_no_broken_driver() -> None:
    problem = the_problem(refused(LIBRARY_NOT_FOUND), with_cards(replace(CARD, driver="vfio-pci")))
    assert "virtual machine" in problem.message
    assert not problem.unusable


def test_a_card_under_nouveau_cannot_be_used() -> None:
    problem = the_problem(refused(DRIVER_NOT_LOADED), with_cards(replace(CARD, driver="nouveau")))
    assert "nouveau" in problem.message
    assert problem.unusable


def test_a_card_that_the_driver_does_not_list_is_told_and_the_others_stay() -> None:
    other = replace(CARD, address="0000:02:00.0")
    facts = judge(NvmlReading(devices=(RTX_4090,)), with_cards(CARD, other))
    assert [gpu.uuid for gpu in facts.gpus] == ["GPU-1"]
    (problem,) = facts.problems
    assert "0000:02:00.0" in problem.message
    assert problem.unusable


def test_a_card_without_a_handle_is_told_once_with_its_address() -> None:
    lost = NvmlDevice(index="1", failure=NvmlFailure(15, "GPU is lost"))
    facts = judge(NvmlReading(devices=(RTX_4090, lost)), with_cards(CARD, replace(CARD, address="0000:02:00.0")))
    (problem,) = facts.problems
    assert "GPU is lost" in problem.message
    assert "0000:02:00.0" in problem.message


def test_two_cards_without_handles_are_told_once_each_and_not_mixed_up() -> None:
    lost = [NvmlDevice(index=str(n), failure=NvmlFailure(15, "GPU is lost")) for n in (1, 2)]
    cards = [replace(CARD, address=f"0000:0{n}:00.0") for n in (1, 2, 3)]
    facts = judge(NvmlReading(devices=(RTX_4090, *lost)), with_cards(*cards))
    assert len(facts.problems) == 2
    assert all("NVML's number" in problem.message for problem in facts.problems)


def test_a_spare_card_for_a_virtual_machine_is_told_and_is_no_failure() -> None:
    spare = replace(CARD, address="0000:02:00.0", driver="vfio-pci")
    facts = judge(NvmlReading(devices=(RTX_4090,)), with_cards(CARD, spare))
    assert len(facts.gpus) == 1
    assert [problem.unusable for problem in facts.problems] == [False]


@pytest.mark.parametrize("code", [VERSION_MISMATCH, UNKNOWN, 4, 17, 12345])
def test_every_refusal_to_start_keeps_nvmls_words_and_says_what_to_do(code: int) -> None:
    problem = the_problem(refused(code, "the words of NVML"), with_cards(CARD))
    assert "the words of NVML" in problem.message
    assert problem.hint
    assert problem.unusable


def test_a_jetson_without_the_library_is_no_cpu_box() -> None:
    problem = the_problem(refused(LIBRARY_NOT_FOUND), replace(BARE, platform="jetson"))
    assert "JetPack" in problem.hint
    assert problem.unusable


def test_windows_subsystem_without_the_library_points_to_windows() -> None:
    problem = the_problem(refused(LIBRARY_NOT_FOUND), replace(BARE, platform="wsl2"))
    assert "/dev/dxg" in problem.message
    assert "wsl --update" in problem.hint
    # The device is there for AMD's and Intel's GPUs as well.
    assert not problem.unusable


def test_unified_memory_is_the_systems_where_the_driver_tells_none() -> None:
    spark = NvmlDevice(index="0", uuid="GPU-1", name="NVIDIA GB10", pci="0000000F:01:00.0", compute=(12, 1))
    (gpu,) = judge(NvmlReading(devices=(spark,)), BARE).gpus
    assert (gpu.memory_bytes, gpu.unified, gpu.pci_address) == (64 * 2**30, True, "000f:01:00.0")


def test_unified_memory_is_the_drivers_where_it_tells_some() -> None:
    spark = NvmlDevice(index="0", uuid="GPU-1", name="NVIDIA GB10", memory_bytes=120 * 2**30, compute=(12, 1))
    (gpu,) = judge(NvmlReading(devices=(spark,)), BARE).gpus
    assert (gpu.memory_bytes, gpu.unified) == (120 * 2**30, True)


def test_a_card_that_tells_no_uuid_is_known_by_its_address() -> None:
    (gpu,) = judge(NvmlReading(devices=(replace(RTX_4090, uuid=""),)), BARE).gpus
    assert gpu.uuid == "nvidia-0000:01:00.0-0"


@pytest.mark.parametrize("value", ["NVIDIA T4", b"NVIDIA T4", b"NVIDIA T4\0\0"])
def test_strings_of_old_and_new_bindings_are_read_alike(value: str | bytes) -> None:
    assert text(value) == "NVIDIA T4"


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("00000000:01:00.0", "0000:01:00.0"),
        ("0000000F:01:00.0", "000f:01:00.0"),
        ("00010000:C1:00.0", "10000:c1:00.0"),
        ("0000:0b:00.1", "0000:0b:00.1"),
        ("N/A", ""),
        ("", ""),
    ],
)
def test_a_pci_address_is_spelled_as_the_kernel_does(written: str, address: str) -> None:
    assert pci_address(written) == address
