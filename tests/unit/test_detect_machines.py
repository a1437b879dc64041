"""Every recorded machine is detected right."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpurig.provisioning.detect import detect
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.tags import tags_for
from gpurig.provisioning.vram import vram_class_gb
from standins import machines


def _seen(gpu: Gpu, wanted: dict[str, object]) -> dict[str, object]:
    """The GPU's side of an expectation, key by key."""
    sides = {
        "pci": gpu.pci_address,
        "class_gb": vram_class_gb(gpu.memory_bytes) or 0 if gpu.memory_bytes else 0,
        "nodes": [node.path for node in gpu.nodes],
    }
    return {key: sides[key] if key in sides else getattr(gpu, key) for key in wanted}


@pytest.mark.parametrize("name", machines.names())
def test_a_recorded_machine_is_detected_right(name: str, tmp_path: Path) -> None:
    machine = machines.load(name)
    facts = detect(root=machine.build(tmp_path), nvml=machine.source())
    expect = machine.expect
    assert [_seen(gpu, wanted) for gpu, wanted in zip(facts.gpus, expect["gpus"], strict=True)] == expect["gpus"]
    assert facts.backend == expect["backend"]
    assert facts.platform == expect.get("platform", "linux")
    assert facts.cuda_version == expect.get("cuda_version", "")
    ignored = expect.get("ignored", [])
    for (gpu, reason), wanted in zip(facts.ignored, ignored, strict=True):
        assert (gpu.pci_address, gpu.arch) == (wanted["pci"], wanted["arch"])
        assert wanted["reason"] in reason
    # Every problem is expected, and every expected one is there.
    wanted_problems = expect.get("problems", [])
    messages = [problem.message for problem in facts.problems]
    assert all(any(part in message for part in wanted_problems) for message in messages), messages
    assert all(any(part in message for message in messages) for part in wanted_problems), messages
    assert any(problem.unusable for problem in facts.problems) == expect.get("unusable", False)


@pytest.mark.parametrize("name", machines.names())
def test_each_gpu_of_a_machine_is_itself(name: str, tmp_path: Path) -> None:
    machine = machines.load(name)
    facts = detect(root=machine.build(tmp_path), nvml=machine.source())
    assert len({gpu.uuid for gpu in facts.gpus}) == len(facts.gpus)
    assert all(len(tags_for([gpu])) == len(set(tags_for([gpu]))) for gpu in facts.gpus)


def test_an_integrated_gpu_that_is_the_first_card_hides_no_card_behind_it(tmp_path: Path) -> None:
    machine = machines.load("rx6600-beside-raphael-igpu")
    facts = detect(root=machine.build(tmp_path), nvml=machine.source())
    assert [gpu.name for gpu in facts.gpus] == ["Radeon RX 6600"]
    assert "vram-8gb" in tags_for(facts.gpus)


def test_there_is_a_recording_of_every_kind_of_machine() -> None:
    kinds = [machines.load(name).expect for name in machines.names()]
    assert {kind["backend"] for kind in kinds} == {"cuda", "rocm", "cpu"}
    assert {kind.get("platform", "linux") for kind in kinds} == {"linux", "wsl2", "jetson"}
    assert any(gpu.get("mig") for kind in kinds for gpu in kind["gpus"])
    assert any(gpu.get("unified") for kind in kinds for gpu in kind["gpus"])
