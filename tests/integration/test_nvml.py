"""NVIDIA's real binding over a fake libnvidia-ml.so.1: what detection makes of recorded machines and of every fault.

Each test starts processes of its own, because the binding keeps the library that it has once loaded.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.process import Finished, run
from gpurig.provisioning.detect import detect
from gpurig.runner.commands.detect import as_document
from standins import machines
from standins.nvml import FakeNvml, state_text

RTX_4090 = {
    "uuid": "GPU-00000000-0000-0000-0000-000000000001",
    "name": "NVIDIA GeForce RTX 4090",
    "pci": "00000000:01:00.0",
    "compute": "8.9",
    "memory_total": 24564 * 2**20,
    "mig_mode": 0,
}
RTX_5080 = {**RTX_4090, "uuid": "GPU-2", "name": "NVIDIA GeForce RTX 5080", "pci": "00000000:02:00.0"}
HOST = {"driver": "580.95.05", "nvml": "13.580.95.05", "cuda": 13000}
NVIDIA_MACHINES = [name for name in machines.names() if machines.load(name).nvml is not None]

# Each call that detection makes of a device, and the field that it fills.
DEVICE_CALLS = {
    "nvmlDeviceGetUUID": "uuid",
    "nvmlDeviceGetName": "name",
    "nvmlDeviceGetPciInfo_v3": "pci",
    "nvmlDeviceGetMemoryInfo": "memory_total",
    "nvmlDeviceGetCudaComputeCapability": "compute",
    "nvmlDeviceGetMigMode": "mig_mode",
}
HARMLESS = ("NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "DEPRECATED")
ODD = ("UNKNOWN", "NO_PERMISSION", "CORRUPTED_INFOROM", "TIMEOUT", "OPERATING_SYSTEM", "4242")
FATAL = ("GPU_IS_LOST", "RESET_REQUIRED")


def probe(fake: FakeNvml, root: Path, states: Sequence[Mapping[str, Any] | str]) -> list[dict[str, Any]]:
    """Detection's documents under each state."""
    texts = [state if isinstance(state, str) else state_text(state) for state in states]
    done = run(
        [sys.executable, "-m", "standins.nvml.probe", str(fake.state), str(root)],
        timeout_s=120,
        env={**fake.environment(), "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=json.dumps(texts),
    )
    assert done.code == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def one(fake: FakeNvml, root: Path, state: Mapping[str, Any] | str) -> dict[str, Any]:
    document: dict[str, Any] = probe(fake, root, [state])[0]["document"]
    return document


def command(fake: FakeNvml, *arguments: str) -> Finished:
    return run([sys.executable, "-m", "gpurig.runner", "detect", *arguments], timeout_s=60, env=fake.environment())


@pytest.mark.parametrize("name", NVIDIA_MACHINES)
def test_the_real_binding_reads_a_recorded_machine_as_the_unit_tests_do(
    name: str, fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    machine = machines.load(name)
    root = machine.build(tmp_path / "root") if machine.files else tmp_path
    assert machine.nvml is not None
    expected = as_document(detect(root=root, nvml=machine.source()))
    assert one(fake_nvml, root, machine.nvml) == json.loads(json.dumps(expected))


def test_a_field_that_a_card_does_not_support_is_empty_and_takes_nothing_else_along(
    fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    cases = list(itertools.product(DEVICE_CALLS, HARMLESS))
    states = [{**HOST, "gpu": [{**RTX_4090, "error": [f"{call} {error}"]}, RTX_5080]} for call, error in cases]
    whole = one(fake_nvml, tmp_path, {**HOST, "gpu": [RTX_4090, RTX_5080]})["gpus"]
    own = {"uuid": "uuid", "name": "name", "pci": "pci_address", "memory_total": "memory_bytes", "compute": "arch"}
    for (call, error), answer in zip(cases, probe(fake_nvml, tmp_path, states), strict=True):
        gpus = answer["document"]["gpus"]
        assert len(gpus) == 2, (call, error)
        found = next(gpu for gpu in gpus if gpu["index"] == "0")
        before = next(gpu for gpu in whole if gpu["index"] == "0")
        changed = {key for key in before if found[key] != before[key]} - {"tags", "vram_class_gb"}
        field = own.get(DEVICE_CALLS[call])
        assert changed == ({field} if field else set()), (call, error)
        assert not any(problem["unusable"] for problem in answer["document"]["problems"])
        assert next(gpu for gpu in gpus if gpu["index"] == "1") == next(gpu for gpu in whole if gpu["index"] == "1")


def test_a_refusal_for_another_reason_is_told_in_nvmls_words_and_the_card_stays(
    fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    cases = list(itertools.product(DEVICE_CALLS, ODD))
    states = [{**HOST, "gpu": [{**RTX_4090, "error": [f"{call} {error}"]}]} for call, error in cases]
    for (call, error), answer in zip(cases, probe(fake_nvml, tmp_path, states), strict=True):
        document = answer["document"]
        assert len(document["gpus"]) == 1, (call, error)
        assert any("cannot be read" in problem["message"] for problem in document["problems"]), (call, error)


def test_a_card_that_is_lost_at_any_call_is_a_problem_and_the_other_card_stays(
    fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    calls = [*DEVICE_CALLS, "nvmlDeviceGetHandleByIndex_v2", "*"]
    cases = list(itertools.product(calls, FATAL))
    states = [{**HOST, "gpu": [{**RTX_4090, "error": [f"{call} {error}"]}, RTX_5080]} for call, error in cases]
    for (call, error), answer in zip(cases, probe(fake_nvml, tmp_path, states), strict=True):
        document = answer["document"]
        assert [gpu["name"] for gpu in document["gpus"]] == ["NVIDIA GeForce RTX 5080"], (call, error)
        assert [problem["unusable"] for problem in document["problems"]] == [True], (call, error)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("LIB_RM_VERSION_MISMATCH", "version mismatch"),
        ("UNKNOWN", "Unknown Error"),
        ("NO_PERMISSION", "Insufficient Permissions"),
        ("OPERATING_SYSTEM", "operating system"),
        ("999", "Unknown Error"),
    ],
)
def test_a_driver_that_does_not_start_is_a_broken_driver_and_never_no_gpu(
    error: str, words: str, fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    for call in ("nvmlInitWithFlags", "nvmlDeviceGetCount_v2"):
        document = one(fake_nvml, tmp_path, {**HOST, "error": [f"{call} {error}"], "gpu": [RTX_4090]})
        assert document["gpus"] == []
        (problem,) = document["problems"]
        assert words.lower() in problem["message"].lower()
        assert problem["hint"]
        assert problem["unusable"]


def test_a_version_mismatch_names_both_versions_and_the_fix(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025\nGCC version: 12\n")
    document = one(
        fake_nvml, tmp_path, {**HOST, "nvml": "12.570.124.04", "error": ["nvmlInitWithFlags LIB_RM_VERSION_MISMATCH"]}
    )
    (problem,) = document["problems"]
    assert "12.570.124.04" in problem["message"]
    assert "570.86.15" in problem["message"]
    assert "reboot" in problem["hint"]


def test_every_start_of_nvml_is_closed_again_whatever_fails_between(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    log = tmp_path / "calls"
    failures = [[f"{call} GPU_IS_LOST"] for call in (*DEVICE_CALLS, "nvmlDeviceGetCount_v2")]
    host = {**HOST, "log": str(log)}
    states = [
        {**host, "error": failure if "Count" in failure[0] else [], "gpu": [{**RTX_4090, "error": failure}]}
        for failure in failures
    ]
    probe(fake_nvml, tmp_path, [*states, {**host, "error": ["nvmlInitWithFlags UNKNOWN"]}])
    calls = log.read_text().split()
    started = calls.count("nvmlInitWithFlags") - 1
    assert started == len(states)
    assert calls.count("nvmlShutdown") == started


def test_a_name_that_is_not_text_is_a_problem_and_no_crash(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    state = state_text({**HOST, "gpu": [RTX_4090]}).replace("RTX 4090", "RTX \udcff\udcfe")
    document = one(fake_nvml, tmp_path, state)
    assert len(document["gpus"]) == 1
    assert any("its name cannot be read" in problem["message"] for problem in document["problems"])


def test_mig_mode_without_parts_is_a_card_that_nothing_can_use(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    document = one(fake_nvml, tmp_path, {**HOST, "gpu": [{**RTX_4090, "mig_mode": 1}]})
    assert document["gpus"] == []
    assert [problem["unusable"] for problem in document["problems"]] == [True]


def test_a_mig_part_that_fails_leaves_the_other_parts(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    part = {"uuid": "MIG-1", "name": "NVIDIA A100 MIG 1g.5gb", "memory_total": 4864 * 2**20, "gpu_instance": 1}
    lost = {**part, "uuid": "MIG-2", "error": ["nvmlDeviceGetMemoryInfo GPU_IS_LOST"]}
    document = one(fake_nvml, tmp_path, {**HOST, "gpu": [{**RTX_4090, "mig_mode": 1, "mig": [lost, part]}]})
    assert [gpu["uuid"] for gpu in document["gpus"]] == ["MIG-1"]
    assert document["gpus"][0]["parent"] == RTX_4090["uuid"]
    assert [problem["unusable"] for problem in document["problems"]] == [True]


def test_a_discrete_card_that_does_not_tell_its_memory_never_claims_the_systems(
    fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       65000000 kB\n")
    card = {key: value for key, value in RTX_4090.items() if key != "memory_total"}
    document = one(fake_nvml, tmp_path, {**HOST, "gpu": [card]})
    assert document["gpus"][0]["memory_bytes"] is None
    assert not document["gpus"][0]["unified"]
    assert not [tag for tag in document["tags"] if tag.startswith("vram-")]


def test_the_command_shows_the_card_and_ends_with_0(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.set({**HOST, "gpu": [RTX_4090]})
    done = command(fake_nvml, "--host-root", str(tmp_path))
    assert done.code == 0, done.stderr
    assert "24 GB" in done.stdout
    assert "rtx-4090" in done.stdout


def test_the_command_shows_a_broken_driver_and_ends_with_4(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.set({**HOST, "error": ["nvmlInitWithFlags LIB_RM_VERSION_MISMATCH"]})
    done = command(fake_nvml, "--host-root", str(tmp_path))
    assert done.code == 4
    assert "mismatch" in done.stdout
    assert "hint: " in done.stdout
    assert "Traceback" not in done.stderr


def test_eight_gpus_are_detected_within_200_ms(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    cards = [{**RTX_4090, "uuid": f"GPU-{n}", "pci": f"00000000:{n:02X}:00.0"} for n in range(1, 9)]
    state = {**HOST, "delay_us": ["* 500"], "gpu": cards}
    answers = probe(fake_nvml, tmp_path, [state] * 5)
    assert all(len(answer["document"]["gpus"]) == 8 for answer in answers)
    assert min(answer["seconds"] for answer in answers) < 0.2


def test_the_delay_of_a_call_is_really_waited(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    state = {**HOST, "gpu": [{**RTX_4090, "delay_us": ["nvmlDeviceGetMemoryInfo 300000"]}]}
    (answer,) = probe(fake_nvml, tmp_path, [state])
    assert answer["seconds"] >= 0.3
