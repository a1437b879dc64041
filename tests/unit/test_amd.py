"""AMD GPUs in sysfs: what is missing, odd or broken."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from gpurig.provisioning.amd_models import name_of, target_of, target_of_core
from gpurig.provisioning.amd_smi import InstalledAmdLibrary, LibraryCard
from gpurig.provisioning.detect import detect
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.kfd import gfx_name
from gpurig.provisioning.nvml import FixedNvml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standins import machines

CARD = "rx9060xt-beside-raphael-igpu"
NODE = "sys/class/kfd/kfd/topology/nodes/1"
DEVICE = "sys/class/drm/card0/device"


def look(root: Path) -> HostFacts:
    return detect(root=root, nvml=FixedNvml())


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A machine with an RX 9060 XT and an integrated GPU."""
    return machines.load(CARD).build(tmp_path)


def add_device_files(root: Path, *names: str) -> None:
    for name in names:
        (root / "dev" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "dev" / name).touch()


def add_pci(root: Path, address: str, *, device: int, driver: str) -> None:
    folder = root / "sys/bus/pci/devices" / address
    folder.mkdir(parents=True)
    (folder / "vendor").write_text("0x1002\n")
    (folder / "device").write_text(f"{device:#06x}\n")
    (folder / "class").write_text("0x030000\n")
    if driver:
        (folder / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (90010, "gfx90a"),
        (90402, "gfx942"),
        (100302, "gfx1032"),
        (110501, "gfx1151"),
        (120001, "gfx1201"),
        (0, ""),
        (91631, ""),
        (-1, ""),
    ],
)
def test_a_target_is_spelled_with_hexadecimal_minor_and_stepping(version: int, name: str) -> None:
    assert gfx_name(version) == name


def test_a_container_gets_the_numeric_groups_of_the_device_files(box: Path) -> None:
    add_device_files(box, "kfd", "dri/renderD128")
    group = os.getgid()
    (gpu,) = look(box).gpus
    assert [(node.path, node.gid) for node in gpu.nodes] == [("/dev/kfd", group), ("/dev/dri/renderD128", group)]
    assert look(box).problems == ()


@pytest.mark.parametrize("absent", ["kfd", "dri/renderD128"])
def test_a_device_file_that_is_missing_keeps_the_card_from_use(absent: str, box: Path) -> None:
    add_device_files(box, *({"kfd", "dri/renderD128"} - {absent}))
    (problem,) = look(box).problems
    assert f"/dev/{absent}" in problem.message
    assert problem.unusable


def test_the_topology_is_found_where_only_the_devices_directory_shows_it(box: Path) -> None:
    (box / "sys/devices/virtual").mkdir(parents=True)
    (box / "sys/class/kfd").rename(box / "sys/devices/virtual/kfd")
    (gpu,) = look(box).gpus
    assert gpu.arch == "gfx1200"


def test_a_real_tree_in_which_device_is_a_link_is_read_like_a_recording(tmp_path: Path) -> None:
    machine = machines.load(CARD)
    flat = look(machine.build(tmp_path / "flat"))
    root = machine.build(tmp_path / "linked")
    for card, address in (("card0", "0000:03:00.0"), ("card1", "0000:13:00.0")):
        target = root / "sys/devices/pci0000:00" / address
        target.parent.mkdir(parents=True, exist_ok=True)
        (root / "sys/class/drm" / card / "device").rename(target)
        (target / "uevent").unlink()
        (root / "sys/class/drm" / card / "device").symlink_to(target)
    assert look(root) == flat


def test_a_card_that_kfd_does_not_know_is_a_problem_and_not_silently_gone(box: Path) -> None:
    (box / NODE / "properties").unlink()
    facts = look(box)
    assert [gpu.pci_address for gpu in facts.gpus] == ["0000:03:00.0"]
    (problem,) = facts.problems
    assert "no KFD node" in problem.message
    assert problem.unusable


def test_a_card_without_a_driver_is_a_problem(tmp_path: Path) -> None:
    add_pci(tmp_path, "0000:03:00.0", device=0x744C, driver="")
    facts = look(tmp_path)
    assert facts.backend == "cpu"
    (problem,) = facts.problems
    assert "0000:03:00.0" in problem.message
    assert problem.unusable


@pytest.mark.parametrize(("device", "driver"), [(0x164E, ""), (0x67DF, ""), (0x744C, "vfio-pci"), (0x6779, "radeon")])
def test_a_card_that_would_not_be_used_anyway_is_no_failure(device: int, driver: str, tmp_path: Path) -> None:
    add_pci(tmp_path, "0000:03:00.0", device=device, driver=driver)
    assert not any(problem.unusable for problem in look(tmp_path).problems)


def test_a_card_under_the_old_radeon_driver_is_ignored(tmp_path: Path) -> None:
    machine = machines.load("rx580").build(tmp_path)
    uevent = machine / DEVICE / "uevent"
    uevent.write_text(uevent.read_text().replace("DRIVER=amdgpu", "DRIVER=radeon"))
    ((_, reason),) = look(machine).ignored
    assert "radeon" in reason


def test_an_unknown_integrated_gpu_is_told_by_its_bank_being_the_gtt(box: Path) -> None:
    properties = box / "sys/class/kfd/kfd/topology/nodes/2/properties"
    properties.write_text(properties.read_text().replace("100306", "130000"))
    facts = look(box)
    assert [gpu.pci_address for gpu in facts.gpus] == ["0000:03:00.0"]
    assert [(gpu.arch, gpu.unified) for gpu, _ in facts.ignored] == [("gfx1300", True)]


def test_a_card_as_large_as_its_gtt_is_still_a_card(box: Path) -> None:
    (box / DEVICE / "mem_info_gtt_total").write_text("17095983104\n")
    (gpu,) = look(box).gpus
    assert not gpu.unified


def test_the_cards_own_discovery_table_tells_the_target_where_kfd_does_not(box: Path) -> None:
    properties = box / NODE / "properties"
    properties.write_text(properties.read_text().replace("gfx_target_version 120000\n", ""))
    core = box / DEVICE / "ip_discovery/die/0/GC/0"
    core.mkdir(parents=True)
    for name, value in (("major", 11), ("minor", 0), ("revision", 3)):
        (core / name).write_text(f"{value}\n")
    assert [gpu.arch for gpu in look(box).gpus] == ["gfx1101"]


def test_the_hosts_own_list_of_names_is_asked_first(box: Path) -> None:
    ids = box / "usr/share/libdrm/amdgpu.ids"
    ids.parent.mkdir(parents=True)
    ids.write_text("1.0.0\n7590,\tC0,\tAMD Radeon RX 9060 XT 16GB\n")
    assert [gpu.name for gpu in look(box).gpus] == ["AMD Radeon RX 9060 XT 16GB"]


def test_models_are_known_by_number_and_revision(tmp_path: Path) -> None:
    assert name_of(tmp_path, 0x744C, 0xC8) == "Radeon RX 7900 XTX"
    assert name_of(tmp_path, 0x744C, None) == ""
    assert name_of(tmp_path, 0x740F, 0x02) == "Instinct MI210"
    assert target_of(0x6860) == "gfx900"
    assert target_of(0xFFFF) == ""
    assert target_of_core((11, 5, 1)) == "gfx1151"
    assert target_of_core(None) == ""


class Library:
    """A vendor's library that knows one card."""

    def __init__(self) -> None:
        self.asked = 0

    def cards(self) -> Mapping[str, LibraryCard]:
        self.asked += 1
        return {"0000:05:00.0": LibraryCard("AMD Radeon AI PRO R9700", 34208743424)}


def test_the_vendors_library_adds_what_sysfs_lacks(tmp_path: Path) -> None:
    library = Library()
    facts = detect(root=machines.load("r9700-kfd-part").build(tmp_path), nvml=FixedNvml(), amd_library=library)
    assert [gpu.name for gpu in facts.gpus] == ["AMD Radeon AI PRO R9700"]


def test_the_vendors_library_is_left_alone_where_nothing_is_missing(box: Path) -> None:
    library = Library()
    detect(root=box, nvml=FixedNvml(), amd_library=library)
    assert library.asked == 0


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = SimpleNamespace(name=name)  # type: ignore[assignment]  # what find_spec looks at
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


def test_amdsmi_is_read_card_by_card(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    class AmdSmiError(Exception):
        pass

    def memory_total(handle: int, _: object) -> int:
        if handle == 2:
            raise AmdSmiError
        return 17095983104

    _module(
        monkeypatch,
        "amdsmi",
        AmdSmiException=AmdSmiError,
        AmdSmiMemoryType=SimpleNamespace(VRAM=0),
        amdsmi_init=lambda: None,
        amdsmi_shut_down=lambda: closed.append(True),
        amdsmi_get_processor_handles=lambda: [1, 2],
        amdsmi_get_gpu_device_bdf=lambda handle: f"0000:0{handle}:00.0",
        amdsmi_get_gpu_asic_info=lambda handle: {"market_name": "AMD Radeon RX 9060 XT" if handle == 1 else "N/A"},
        amdsmi_get_gpu_memory_total=memory_total,
    )
    assert InstalledAmdLibrary().cards() == {
        "0000:01:00.0": LibraryCard("AMD Radeon RX 9060 XT", 17095983104),
        "0000:02:00.0": LibraryCard("", None),
    }
    assert closed == [True]


def test_a_broken_amdsmi_leaves_the_work_to_pyrsmi(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("ROCM_HOME")

    rocml = {
        "smi_initialize": lambda: None,
        "smi_shutdown": lambda: None,
        "smi_get_device_count": lambda: 1,
        "smi_get_device_pci_id": lambda _: (1 << 32) | 0x0200,
        "smi_get_device_memory_total": lambda _: 17095983104,
        "smi_get_device_name": lambda _: b"Radeon RX 9060 XT",
    }
    _module(monkeypatch, "amdsmi", amdsmi_init=broken)
    _module(monkeypatch, "pyrsmi", __path__=[])
    _module(monkeypatch, "pyrsmi.rocml", **rocml)
    assert InstalledAmdLibrary().cards() == {"0001:02:00.0": LibraryCard("Radeon RX 9060 XT", 17095983104)}


def test_without_either_library_there_is_nothing_to_add() -> None:
    assert InstalledAmdLibrary().cards() == {}


FILES = sorted(machines.load(CARD).files)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(FILES),
    content=st.one_of(st.binary(max_size=40), st.text("0123456789abcdefx -\n", max_size=40).map(str.encode)),
)
def test_no_content_of_any_file_makes_detection_raise(name: str, content: bytes, tmp_path: Path) -> None:
    root = machines.load(CARD).build(tmp_path)
    (root / name).write_bytes(content)
    facts = look(root)
    assert facts.platform == "linux"


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_became_a_directory_makes_nothing_raise(name: str, box: Path) -> None:
    (box / name).unlink()
    (box / name).mkdir()
    assert look(box).platform == "linux"
