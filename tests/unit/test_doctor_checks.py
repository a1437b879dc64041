"""Each prerequisite of the box, judged: what is wrong, what is needed, and what mends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpurig.provisioning.cuda import cuda_major_for
from gpurig.provisioning.distribution import Distribution, Family
from gpurig.provisioning.doctor import Finding, exit_code
from gpurig.provisioning.doctor.engine import EngineSeen
from gpurig.provisioning.doctor.nodes import NodeSeen, judge
from gpurig.provisioning.doctor.space import SpaceSeen, judge_images
from gpurig.provisioning.doctor.toolkit import ToolkitSeen, parse_version
from gpurig.provisioning.facts import Backend, HostFacts, Problem
from gpurig.provisioning.versions import numbers, older
from standins.doctor_box import CARD, ENGINE, RADEON, FixedBox

GB = 1000**3


def commands(finding: Finding) -> list[str]:
    return [one.text(root=True) for one in finding.commands]


def seen(reason: str, *, installed: bool = False) -> EngineSeen:
    return EngineSeen(problem="no Docker Engine", hint="a hint", reason=reason, installed=installed, user="ada")


@pytest.mark.parametrize(
    ("family", "installed", "expected"),
    [
        ("debian", False, ["apt-get update", "apt-get install -y docker.io", "systemctl enable --now docker"]),
        ("fedora", False, ["dnf install -y moby-engine", "systemctl enable --now docker"]),
        ("arch", False, ["pacman -S --needed --noconfirm docker", "systemctl enable --now docker"]),
        ("debian", True, ["systemctl enable --now docker"]),
        ("unknown", False, []),
    ],
)
def test_a_missing_engine_is_installed_and_a_stopped_one_started(
    family: Family, *, installed: bool, expected: list[str]
) -> None:
    box = FixedBox(where=Distribution("x", family), engine_seen=seen("absent", installed=installed))
    finding = box.examine()["engine"]
    assert finding.status == "failed"
    assert commands(finding) == expected
    assert finding.hint


def test_a_user_without_permission_is_put_into_the_group_by_hand() -> None:
    finding = FixedBox(engine_seen=seen("permission", installed=True)).examine()["engine"]
    (command,) = finding.commands
    assert command.by_hand
    assert command.text(root=False) == "sudo usermod -aG docker ada"
    assert "log in again" in finding.hint


def test_an_old_engine_is_told_with_both_versions() -> None:
    old = EngineSeen(problem="Docker Engine 19.03.15 is too old", version="19.03.15", reason="outdated", installed=True)
    finding = FixedBox(engine_seen=old).examine()["engine"]
    assert (finding.status, finding.found, finding.needed) == ("failed", "19.03.15", "20.10 or newer")


def test_a_broken_driver_fails_and_is_a_warning_for_a_cpu_box() -> None:
    broken = HostFacts(problems=(Problem("nvml", "the driver is broken", "reboot", unusable=True),))
    finding = FixedBox(host_facts=broken).examine()["gpu"]
    assert (finding.status, finding.message) == ("failed", "the driver is broken")
    assert finding.hint.startswith("reboot; or gpurig up --cpu")
    assert FixedBox(host_facts=broken).examine(cpu=True)["gpu"].status == "warning"
    mentioned = HostFacts((CARD,), problems=(Problem("nvml", "one card is reserved"),))
    assert FixedBox(host_facts=mentioned).examine()["gpu"].status == "warning"


@pytest.mark.parametrize(
    ("cuda", "gpu", "status", "needed"),
    [
        ("13.0", {}, "ok", "580 or newer"),
        ("13.0", {"driver": "570.211.01"}, "failed", "580 or newer"),
        ("13.0", {"driver": "580.65.06", "arch": "sm-75"}, "ok", "580 or newer"),
        ("13.0", {"driver": "580.65.06", "arch": "sm-61"}, "failed", "sm-75 or newer"),
        ("13.0", {"driver": "580.65.06", "arch": "sm-70"}, "failed", "sm-75 or newer"),
        ("12.6", {"driver": "525.60.13", "arch": "sm-61"}, "ok", "525 or newer"),
        ("12.6", {"driver": "520.61.05"}, "failed", "525 or newer"),
        ("12.8", {"driver": "565.90", "arch": "sm-120"}, "failed", "570 or newer"),
        ("12.8", {"driver": "570.86.10", "arch": "sm-120"}, "ok", "570 or newer"),
        ("13.0", {"driver": ""}, "warning", ""),
        ("", {}, "ok", "525 or newer; 580 for CUDA 13"),
        ("", {"driver": "535.129.03"}, "ok", "525 or newer; 580 for CUDA 13"),
        ("", {"driver": "580.65.06", "arch": "sm-61"}, "ok", "525 or newer"),
        ("", {"driver": "515.65.01"}, "failed", "525 or newer for CUDA 12"),
        ("", {"driver": "535.129.03", "arch": "sm-120"}, "failed", "570 or newer for CUDA 12"),
        ("", {"driver": "470.1", "arch": "sm-35"}, "failed", "sm-50 or newer"),
    ],
)
def test_the_driver_is_held_against_the_cuda_of_the_image_or_against_the_oldest_there_is(
    cuda: str, gpu: dict[str, Any], status: str, needed: str
) -> None:
    finding = FixedBox(host_facts=HostFacts((replace(CARD, **gpu),))).examine(image_cuda=cuda)["driver"]
    assert finding.status == status
    assert finding.needed.startswith(needed)
    assert all(one.by_hand for one in finding.commands), "a driver is nothing to install behind a user's back"


@pytest.mark.parametrize(
    ("toolkit", "status", "found"),
    [
        (ToolkitSeen(installed=True, version="1.17.8"), "ok", "1.17.8"),
        (ToolkitSeen(installed=True, version="1.18.0"), "ok", "1.18.0"),
        (ToolkitSeen(installed=True, version="1.17.7"), "warning", "1.17.7"),
        (ToolkitSeen(installed=True, version="1.11.0"), "failed", "1.11.0"),
        (ToolkitSeen(installed=True), "warning", ""),
        # The spec that is there works without it.
        (ToolkitSeen(installed=False), "warning", ""),
    ],
)
def test_the_toolkit_is_judged_by_its_version(toolkit: ToolkitSeen, status: str, found: str) -> None:
    finding = FixedBox(toolkit_seen=toolkit).examine()["toolkit"]
    assert (finding.status, finding.found) == (status, found)
    if status != "ok":
        assert finding.needed


def test_without_toolkit_and_without_a_spec_the_box_cannot_work() -> None:
    bare = replace(ENGINE, cdi_devices=())
    box = FixedBox(engine_seen=EngineSeen(bare), toolkit_seen=ToolkitSeen(installed=False), specs=())
    findings = box.examine()
    assert commands(findings["toolkit"]) == ["apt-get update", "apt-get install -y nvidia-container-toolkit"]
    assert findings["toolkit"].status == findings["cdi spec"].status == findings["gpu wiring"].status == "failed"
    assert exit_code(findings.values()) == 4


def test_an_engine_without_cdi_is_restarted_after_the_toolkit_came_because_it_looks_once() -> None:
    plain = replace(ENGINE, version="24.0.9", cdi=False, cdi_devices=())
    box = FixedBox(engine_seen=EngineSeen(plain), toolkit_seen=ToolkitSeen(installed=False), specs=())
    assert commands(box.examine()["toolkit"])[-1] == "systemctl restart docker"


def test_the_toolkits_version_is_read_from_what_it_prints() -> None:
    assert parse_version("NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80\n") == "1.17.8"
    assert parse_version("nvidia-ctk version 1.18.0-rc.1") == "1.18.0"
    assert parse_version("") == ""


@pytest.mark.parametrize(
    ("driver", "arch", "major"),
    [
        ("580.95.05", "sm-89", 13),
        ("580.95.05", "sm-75", 13),
        ("580.95.05", "sm-70", 12),
        ("580.95.05", "", 13),
        ("579.99", "sm-89", 12),
        ("570.86.10", "sm-120", 12),
        ("565.90", "sm-120", None),
        ("520.61.05", "sm-89", None),
        ("", "sm-89", None),
    ],
)
def test_each_card_gets_the_newest_cuda_that_it_and_its_driver_run(driver: str, arch: str, major: int | None) -> None:
    assert cuda_major_for(replace(CARD, driver=driver, arch=arch)) == major


def test_an_engine_elsewhere_is_not_mended_by_the_distributions_commands() -> None:
    finding = FixedBox(engine_seen=seen("absent", installed=True)).examine(docker_host="unix:///run/mine.sock")[
        "engine"
    ]
    assert finding.commands == ()
    assert "unix:///run/mine.sock" in finding.hint


def test_the_runtime_under_systemds_cgroups_loses_gpus_and_cdi_or_cgroupfs_does_not() -> None:
    runtime = replace(ENGINE, version="24.0.9", cdi=False, cdi_devices=(), nvidia_runtime=True)
    findings = FixedBox(engine_seen=EngineSeen(runtime)).examine()
    assert findings["gpu wiring"].found == "by NVIDIA's runtime, device files"
    hazard = findings["cgroup driver"]
    assert hazard.status == "warning"
    assert "daemon-reload" in hazard.message
    assert "native.cgroupdriver=cgroupfs" in hazard.hint
    calm = FixedBox(engine_seen=EngineSeen(replace(runtime, cgroup_driver="cgroupfs"))).examine()
    assert calm["cgroup driver"].status == "ok"
    assert FixedBox().examine()["cgroup driver"].status == "ok"
    specless = replace(runtime, version="28.5.1", cdi=True)
    finding = FixedBox(engine_seen=EngineSeen(specless)).examine()["cgroup driver"]
    assert commands(finding)[-1] == "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"


def test_an_engine_that_can_do_nothing_with_nvidia_gets_the_runtime() -> None:
    plain = replace(ENGINE, version="24.0.9", cdi=False, cdi_devices=())
    finding = FixedBox(engine_seen=EngineSeen(plain)).examine()["gpu wiring"]
    assert finding.status == "failed"
    assert commands(finding) == ["nvidia-ctk runtime configure --runtime=docker", "systemctl restart docker"]


KFD = NodeSeen("/dev/kfd", mode=0o660, gid=105, group="render", usable=True)


@pytest.mark.parametrize(
    ("node", "status", "words"),
    [
        (KFD, "ok", "open"),
        (replace(KFD, mode=0o666, gid=0, group="root"), "ok", "open"),
        (replace(KFD, mode=None), "failed", "/dev/kfd is not there"),
        (replace(KFD, mode=0o600), "failed", "closed to its group"),
        (replace(KFD, gid=0, group="root"), "failed", "closed to its group"),
        (replace(KFD, usable=False), "warning", "ada may not use"),
    ],
)
def test_amds_device_files_are_judged_by_who_may_open_them(node: NodeSeen, status: str, words: str) -> None:
    (finding,) = judge((node,), (RADEON,), user="ada")
    assert finding.status == status
    assert words in finding.message
    assert bool(finding.commands) == (status != "ok")


def test_a_radeon_without_known_files_and_a_box_without_one() -> None:
    assert judge((), (replace(RADEON, nodes=()),), user="ada")[0].status == "warning"
    assert judge((), (CARD,), user="ada")[0].status == "skipped"


@pytest.mark.parametrize(
    ("free_gb", "backends", "set_up", "status"),
    [
        (50, ("cuda", "rocm"), False, "ok"),
        (49, ("cuda", "rocm"), False, "failed"),
        (6, ("cpu",), False, "ok"),
        (5, ("cpu",), False, "failed"),
        (5, ("cuda",), True, "warning"),
        (1, ("cuda",), True, "failed"),
    ],
)
def test_space_is_needed_for_what_is_not_there_yet(
    free_gb: int, backends: tuple[Backend, ...], *, set_up: bool, status: str
) -> None:
    (finding,) = judge_images(SpaceSeen(Path("/d"), free_gb * GB, 500 * GB), backends, set_up=set_up)
    assert finding.status == status
    assert finding.found == f"{free_gb}.0 GB free"
    assert all(one.by_hand for one in finding.commands), "nobody's images are deleted for them"


def test_a_port_that_our_own_exporter_has_is_fine_and_a_strangers_is_not() -> None:
    taken = FixedBox(taken="port 9476 is in use").examine()["metrics port"]
    assert (taken.status, taken.hint) == ("failed", "--metrics-listen")
    ours = FixedBox(taken="port 9476 is in use", listening=("127.0.0.1:9476",)).examine()["metrics port"]
    assert ours.status == "ok"
    six = FixedBox(taken="in use", listening=("::1:9476",)).examine(metrics_listen="[::1]:9476")["metrics port"]
    assert six.status == "ok"
    assert FixedBox(taken="in use").examine(metrics_listen="off")["metrics port"].status == "skipped"


def test_a_runner_image_that_no_registry_gives_is_a_network_failure() -> None:
    findings = FixedBox(registry_problem="no such host").examine()
    assert findings["runner image"].status == "failed"
    assert exit_code(findings.values()) == 5


def test_the_box_comes_before_the_network_in_the_exit_code() -> None:
    assert exit_code(FixedBox(registry_problem="no such host", free_bytes=0).examine().values()) == 4


def test_settings_that_cannot_be_read_are_a_failure_with_their_own_hint() -> None:
    finding = FixedBox().examine(unread="cannot read state.json", unread_hint="use sudo")["settings"]
    assert (finding.status, finding.hint) == ("failed", "use sudo")


@pytest.mark.parametrize(
    ("version", "expected"),
    [("580.95.05", (580, 95, 5)), ("19.4.0-ee", (19, 4, 0)), ("v1.2", (1, 2)), ("26.1.5+dfsg1", (26, 1, 5)), ("x", ())],
)
def test_versions_are_compared_by_their_numbers(version: str, expected: tuple[int, ...]) -> None:
    assert numbers(version) == expected
    assert older("9.9", (10,))
    assert not older("1.17.10", (1, 17, 8))


def test_a_cpu_box_asks_nothing_of_nvidia_or_amd() -> None:
    findings = FixedBox(toolkit_seen=ToolkitSeen(installed=False), specs=()).examine(cpu=True)
    skipped = {name for name, one in findings.items() if one.status == "skipped"}
    assert {"driver", "toolkit", "cdi spec", "gpu wiring", "cgroup driver", "amd devices"} <= skipped
    assert findings["image space"].needed == "6 GB"
