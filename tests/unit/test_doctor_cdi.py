"""CDI specs: present, stale, absent, damaged, in conflict; recorded ones from real machines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpurig.provisioning.doctor import Finding
from gpurig.provisioning.doctor.cdi import SpecSeen, judge, look, read_spec
from gpurig.provisioning.engine_facts import EngineFacts
from hypothesis import given
from hypothesis import strategies as st
from standins.doctor_box import CARD, DRIVER, ENGINE, SPEC

# As nvidia-ctk writes them; values of real ones (driver 615 on a 0.7.0 spec, driver 575 on 0.5.0, WSL2 on 0.3.0).
LIBRARY = "/usr/lib64/libcuda.so.615.71.09"
SPEC_615 = {
    "cdiVersion": "0.7.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "major": 195, "fileMode": 438}]}},
        {"name": "GPU-8f1f4d06-07fd-27a7-52d5-e58aa060d256", "containerEdits": {}},
        {"name": "all", "containerEdits": {}},
    ],
    "containerEdits": {
        "deviceNodes": [{"path": "/dev/nvidiactl"}],
        "hooks": [{"args": ["nvidia-cdi-hook", "enable-cuda-compat", "--host-driver-version=615.71.09"]}],
        "mounts": [{"hostPath": LIBRARY, "containerPath": LIBRARY, "options": ["ro"]}],
    },
}
SPEC_WSL = {
    "cdiVersion": "0.3.0",
    "kind": "nvidia.com/gpu",
    "devices": [{"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/dxg"}]}}],
    "containerEdits": {"env": ["NVIDIA_VISIBLE_DEVICES=void"]},
}


def only(specs: tuple[SpecSeen, ...], *, driver: str = DRIVER, engine: EngineFacts | None = ENGINE) -> Finding:
    (finding,) = judge(specs, [replace(CARD, driver=driver)], engine)
    return finding


def host(root: Path, *files: str) -> Path:
    for name in files:
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_a_recorded_spec_tells_its_driver_and_what_of_it_is_gone(tmp_path: Path) -> None:
    root = host(tmp_path, "/dev/nvidia0", "/dev/nvidiactl")
    seen = read_spec(Path("/etc/cdi/nvidia.yaml"), SPEC_615, root)
    assert seen.drivers == ("615.71.09",)
    assert seen.missing == (LIBRARY,)
    assert "GPU-8f1f4d06-07fd-27a7-52d5-e58aa060d256" in seen.devices
    assert read_spec(Path("x"), SPEC_615, host(root, LIBRARY)).missing == ()
    assert read_spec(Path("x"), SPEC_WSL, host(root, "/dev/dxg")) == SpecSeen(Path("x"), "nvidia.com/gpu", ("all",))


def test_a_spec_of_the_loaded_driver_is_fine() -> None:
    finding = only((SPEC,))
    assert (finding.status, finding.found, finding.needed) == ("ok", f"driver {DRIVER}", f"driver {DRIVER}")


def test_a_spec_of_another_driver_is_stale_and_is_written_again_where_it_lies() -> None:
    spec = replace(SPEC, path=Path("/var/run/cdi/nvidia.yaml"), drivers=("575.57.08",))
    finding = only((spec,))
    assert finding.status == "failed"
    assert finding.message == "/var/run/cdi/nvidia.yaml was written for driver 575.57.08, and 580.95.05 is loaded"
    assert [one.argv for one in finding.commands] == [
        ("mkdir", "-p", "/var/run/cdi"),
        ("nvidia-ctk", "cdi", "generate", "--output=/var/run/cdi/nvidia.yaml"),
    ]


def test_a_spec_whose_files_are_gone_is_stale_without_any_version() -> None:
    finding = only((replace(SPEC, drivers=(), missing=("/usr/lib/libcuda.so.1", "/dev/nvidia3")),))
    assert finding.status == "failed"
    assert finding.message == "/etc/cdi/nvidia.yaml names files that are gone: /usr/lib/libcuda.so.1 and 1 more"


def test_without_a_spec_one_is_generated() -> None:
    bare = replace(ENGINE, cdi_devices=())
    finding = only((), engine=bare)
    assert finding.status == "failed"
    assert finding.commands[-1].argv == ("nvidia-ctk", "cdi", "generate", "--output=/etc/cdi/nvidia.yaml")
    assert only((), engine=replace(bare, nvidia_runtime=True)).status == "warning"
    assert only((), engine=None).status == "failed"


def test_a_card_that_was_added_since_makes_a_spec_stale() -> None:
    second = replace(CARD, uuid="GPU-2", pci_address="0000:02:00.0", index="1")
    (finding,) = judge((SPEC,), [CARD, second], replace(ENGINE, cdi_devices=("nvidia.com/gpu=0",)))
    assert finding.status == "failed"
    assert "added since" in finding.message


def test_one_name_in_two_specs_of_a_folder_means_nothing_and_in_two_folders_is_fine() -> None:
    other = replace(SPEC, path=Path("/etc/cdi/old.yaml"))
    finding = only((SPEC, other))
    assert finding.status == "failed"
    assert finding.commands[0].by_hand, "which of the two is right is the user's to say"
    assert only((SPEC, replace(SPEC, path=Path("/var/run/cdi/nvidia.yaml")))).status == "ok"


def test_an_engine_without_cdi_is_no_failure_and_one_where_it_is_off_can_turn_it_on() -> None:
    assert only((SPEC,), engine=replace(ENGINE, version="24.0.9", cdi=False)).status == "skipped"
    off = only((SPEC,), engine=replace(ENGINE, version="26.1.5", cdi=False))
    assert off.status == "warning"
    assert all(one.by_hand for one in off.commands), "a restart of the engine ends other people's containers"


@pytest.mark.parametrize("text", ["{", "kind: [", "- a\n", "kind: 3\n", "\x00", "a: &a [*a]\n", "[" * 5000])
def test_a_damaged_spec_is_told_and_written_again(text: str, tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").write_text(text)
    (spec,) = look([tmp_path])
    assert spec.problem
    finding = only((spec,), engine=replace(ENGINE, cdi_devices=()))
    assert finding.status == "failed"
    assert str(tmp_path) in finding.commands[-1].argv[-1]


def test_specs_are_read_from_both_formats_and_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(SPEC_WSL))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(SPEC_615))
    (tmp_path / "notes.txt").write_text("kind: nvidia.com/gpu")
    specs = look([tmp_path, tmp_path / "absent"], root=tmp_path)
    assert [spec.path.name for spec in specs] == ["a.json", "b.yaml"]
    assert {spec.kind for spec in specs} == {"nvidia.com/gpu"}


def test_a_spec_that_contains_itself_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("kind: nvidia.com/gpu\ndevices: &d\n- name: '0'\n  again: *d\n")
    assert look([tmp_path])[0].devices == ("0",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["devices", "containerEdits", "cdiVersion"]), JSON))
def test_any_document_of_the_kind_is_read(document: dict[str, Any]) -> None:
    seen = read_spec(Path("x.json"), {"kind": "nvidia.com/gpu", **document}, Path("/nowhere"))
    assert seen.kind == "nvidia.com/gpu"
