"""NVIDIA's real binding over a fake libnvidia-ml.so.1: the exporter's figures of recorded machines and under faults.

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
from gpurig.common.process import run
from gpurig.runner.exporter.devices.nvidia_device import ABSENT_S, SLOW_S
from standins import machines
from standins.nvml import FakeNvml, state_text
from standins.nvml.cards import HOST, MIB, full_card

NVIDIA_MACHINES = [name for name in machines.names() if machines.load(name).nvml is not None]
FIRST, SECOND = full_card(0), full_card(1)
WHOLE = {
    "memory_used_bytes": 5000 * MIB,
    "memory_reserved_bytes": 400 * MIB,
    "utilization_ratio": 0.75,
    "memory_utilization_ratio": 0.3,
    "encoder_utilization_ratio": 0.05,
    "decoder_utilization_ratio": 0.06,
    "temperature_celsius": 61.0,
    "hotspot_temperature_celsius": None,
    "memory_temperature_celsius": 70.0,
    "temperature_limits_celsius": {"shutdown": 95.0, "slowdown": 92.0, "memory": 105.0, "max_operating": 90.0},
    "power_watts": 201.5,
    "power_limit_watts": 450.0,
    "clocks_hertz": {"graphics": 2520e6, "sm": 2520e6, "memory": 10501e6, "video": 1950e6},
    "max_clocks_hertz": {"graphics": 3105e6, "sm": 3105e6, "memory": 10501e6, "video": 2415e6},
    "fan_ratio": 0.34,
    "performance_state": 2,
    "throttle_reasons": {
        "idle": 0.0,
        "application_clocks": 0.0,
        "power_cap": 1.0,
        "hw_slowdown": 0.0,
        "sync_boost": 0.0,
        "sw_thermal": 0.0,
        "hw_thermal": 0.0,
        "hw_power_brake": 0.0,
        "display_clocks": 0.0,
    },
    "ecc_errors": {"corrected": 5.0, "uncorrected": 1.0},
    "retired_pages": {
        "single_bit": 3.0,
        "double_bit": 0.0,
        "remapped_correctable": 4.0,
        "remapped_uncorrectable": 2.0,
    },
    "memory_repair_pending": True,
    "pcie_generation": 1,
    "pcie_width": 8,
    "pcie_max_generation": 4,
    "pcie_max_width": 16,
    "pcie_replays": 3,
    "processes": [
        {"pid": 10, "memory_bytes": 1024 * MIB, "utilization_ratio": 0.6},
        {"pid": 11, "memory_bytes": 512 * MIB, "utilization_ratio": 0.15},
    ],
    "lost": "",
}
# Each call that reading makes, and the fields that it fills.
CALLS = {
    "nvmlDeviceGetMemoryInfo_v2": {"memory_used_bytes", "memory_reserved_bytes"},
    "nvmlDeviceGetComputeRunningProcesses_v3": {"processes"},
    "nvmlDeviceGetGraphicsRunningProcesses_v3": {"processes"},
    "nvmlDeviceGetProcessUtilization": {"processes"},
    "nvmlDeviceGetUtilizationRates": {"utilization_ratio", "memory_utilization_ratio"},
    "nvmlDeviceGetPowerUsage": {"power_watts"},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_joules"},
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_watts"},
    "nvmlDeviceGetEncoderUtilization": {"encoder_utilization_ratio"},
    "nvmlDeviceGetDecoderUtilization": {"decoder_utilization_ratio"},
    "nvmlDeviceGetTemperature": {"temperature_celsius"},
    "nvmlDeviceGetFieldValues": {"memory_temperature_celsius"},
    "nvmlDeviceGetClockInfo": {"clocks_hertz"},
    "nvmlDeviceGetCurrentClocksEventReasons": {"throttle_reasons"},
    "nvmlDeviceGetPerformanceState": {"performance_state"},
    "nvmlDeviceGetTemperatureThreshold": {"temperature_limits_celsius"},
    "nvmlDeviceGetMaxClockInfo": {"max_clocks_hertz"},
    "nvmlDeviceGetNumFans": {"fan_ratio"},
    "nvmlDeviceGetFanSpeed_v2": {"fan_ratio"},
    "nvmlDeviceGetTotalEccErrors": {"ecc_errors"},
    "nvmlDeviceGetRetiredPages": {"retired_pages"},
    "nvmlDeviceGetRetiredPagesPendingStatus": {"memory_repair_pending"},
    "nvmlDeviceGetRemappedRows": {"retired_pages", "memory_repair_pending"},
    "nvmlDeviceGetCurrPcieLinkGeneration": {"pcie_generation"},
    "nvmlDeviceGetCurrPcieLinkWidth": {"pcie_width"},
    "nvmlDeviceGetMaxPcieLinkGeneration": {"pcie_max_generation"},
    "nvmlDeviceGetMaxPcieLinkWidth": {"pcie_max_width"},
    "nvmlDeviceGetPcieReplayCounter": {"pcie_replays"},
}
ABOUT_THE_FIELD = (
    "INVALID_ARGUMENT",
    "NOT_SUPPORTED",
    "NO_PERMISSION",
    "NOT_FOUND",
    "INSUFFICIENT_SIZE",
    "TIMEOUT",
    "IRQ_ISSUE",
    "FUNCTION_NOT_FOUND",
    "CORRUPTED_INFOROM",
    "OPERATING_SYSTEM",
    "IN_USE",
    "MEMORY",
    "NO_DATA",
    "ARGUMENT_VERSION_MISMATCH",
    "DEPRECATED",
    "NOT_READY",
    "INVALID_STATE",
    "UNKNOWN",
    "4242",
)
LASTING = {
    "INVALID_ARGUMENT",
    "NOT_SUPPORTED",
    "NO_PERMISSION",
    "FUNCTION_NOT_FOUND",
    "CORRUPTED_INFOROM",
    "ARGUMENT_VERSION_MISMATCH",
    "DEPRECATED",
}
ABOUT_THE_CARD = ("GPU_IS_LOST", "RESET_REQUIRED", "GPU_NOT_FOUND")
ABOUT_NVML = ("UNINITIALIZED", "DRIVER_NOT_LOADED", "LIBRARY_NOT_FOUND", "LIB_RM_VERSION_MISMATCH")


def read(fake: FakeNvml, steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the source tells at each step (standins/nvml/reading.py)."""
    done = run(
        [sys.executable, "-m", "standins.nvml.reading", str(fake.state)],
        timeout_s=300,
        env={**fake.environment(), "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=json.dumps(steps),
    )
    assert done.code == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def text(*cards: Mapping[str, Any], **host: Any) -> str:
    return state_text({**HOST, **host, "gpu": cards})


def changed(figures: Mapping[str, Any]) -> set[str]:
    """The fields that are not what a card tells that tells everything."""
    return {name for name, value in {**WHOLE, "energy_joules": None}.items() if _known(figures, name) != value}


def _known(figures: Mapping[str, Any], name: str) -> Any:
    # Energy grows from call to call.
    return None if name == "energy_joules" and figures[name] else figures[name] if name != "energy_joules" else "empty"


def test_a_card_that_tells_everything_is_told_in_full_and_so_are_its_drivers_versions(
    fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    (answer,) = read(fake_nvml, [{"text": text(FIRST, SECOND), "root": str(tmp_path)}])
    assert answer["error"] == ""
    for card in (FIRST, SECOND):
        figures = answer["figures"][card["uuid"]]
        assert figures["energy_joules"] >= 1000
        assert changed(figures) == set()
    assert answer["driver"] == {"backend": "cuda", "driver": "580.95.05", "library": "13.580.95.05", "cuda": "13.0"}


def expected(machine: Mapping[str, Any], part: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a recording says of a card, or of a part of it, as figures."""
    own = machine if part is None else part
    alone = machine if part is None else {}
    scaled = {
        "temperature_celsius": (machine, "temperature", 1),
        "memory_temperature_celsius": (machine, "temperature_memory", 1),
        "memory_used_bytes": (own, "memory_used", 1),
        "utilization_ratio": (alone, "utilization_gpu", 0.01),
        "memory_utilization_ratio": (alone, "utilization_memory", 0.01),
        "encoder_utilization_ratio": (alone, "utilization_encoder", 0.01),
        "decoder_utilization_ratio": (alone, "utilization_decoder", 0.01),
        "power_watts": (alone, "power_mw", 0.001),
        "power_limit_watts": (alone, "power_limit_mw", 0.001),
        "energy_joules": (alone, "energy_mj", 0.001),
        "fan_ratio": (machine, "fan", 0.01),
        "performance_state": (machine, "pstate", 1),
        "pcie_generation": (machine, "pcie_gen", 1),
        "pcie_width": (machine, "pcie_width", 1),
        "pcie_max_generation": (machine, "pcie_gen_max", 1),
        "pcie_max_width": (machine, "pcie_width_max", 1),
        "pcie_replays": (machine, "pcie_replays", 1),
    }
    named = {
        "temperature_limits_celsius": (
            {
                "shutdown": "temperature_shutdown",
                "slowdown": "temperature_slowdown",
                "max_operating": "temperature_max",
                "memory": "temperature_memory_max",
            },
            1,
        ),
        "clocks_hertz": ({name: f"clock_{name}" for name in ("graphics", "sm", "memory", "video")}, 1e6),
        "max_clocks_hertz": ({name: f"max_clock_{name}" for name in ("graphics", "sm", "memory", "video")}, 1e6),
        "ecc_errors": ({name: f"ecc_{name}_aggregate" for name in ("corrected", "uncorrected")}, 1),
        "retired_pages": (
            {
                "single_bit": "retired_single_bit",
                "double_bit": "retired_double_bit",
                "remapped_correctable": "remapped_corrected",
                "remapped_uncorrectable": "remapped_uncorrected",
            },
            1,
        ),
    }
    found: dict[str, Any] = {
        field: None if key not in source else pytest.approx(source[key] * factor)
        for field, (source, key, factor) in scaled.items()
    }
    if "utilization_gpu" in alone and "utilization_memory" not in alone:
        # NVML tells both or none; where one alone was recorded, the fake tells it twice.
        found["memory_utilization_ratio"] = found["utilization_ratio"]
    if "memory_total" in own:
        found["memory_used_bytes"] = own.get("memory_used", 0)
    for field, (keys, factor) in named.items():
        found[field] = {name: machine[key] * factor for name, key in keys.items() if key in machine}
    found["processes"] = {}
    for line in own.get("process", ()):
        pid, used, *_ = line.split()
        found["processes"][int(pid)] = None if used == "-" else int(used)
    pending = [machine[key] for key in ("retired_pending", "remapped_pending") if key in machine]
    found["memory_repair_pending"] = any(pending) if pending else None
    return found


@pytest.fixture(scope="module")
def recorded(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the source tells of each recorded machine; one process reads them all."""
    fake = FakeNvml(nvml_library, tmp_path_factory.mktemp("recorded") / "nvml.txt")
    steps = []
    for name in NVIDIA_MACHINES:
        machine = machines.load(name)
        root = machine.build(tmp_path_factory.mktemp(name))
        steps.append({"text": state_text(machine.nvml or {}), "root": str(root)})
    return dict(zip(NVIDIA_MACHINES, read(fake, steps), strict=True))


@pytest.mark.parametrize("name", NVIDIA_MACHINES)
def test_every_field_of_a_recorded_machine_is_told_and_every_other_is_empty(
    name: str, recorded: Mapping[str, Mapping[str, Any]]
) -> None:
    machine, answer = machines.load(name), recorded[name]
    nvml = machine.nvml or {}
    assert answer["error"] == ""
    seen = 0
    for card in nvml["gpu"]:
        parts = card.get("mig", []) if card.get("mig_mode") else [None]
        for part in parts:
            uuid = (part or card).get("uuid", "nvidia-gpu-0")
            if uuid not in answer["figures"]:
                continue
            seen += 1
            figures = dict(answer["figures"][uuid])
            processes = figures["processes"]
            figures["processes"] = {one["pid"]: one["memory_bytes"] for one in processes or ()}
            wanted = expected(card, part)
            if "memory_total" not in (part or card):
                # Unified memory: what the processes hold.
                wanted["memory_used_bytes"] = sum(wanted["processes"].values())
            assert {field: figures[field] for field in wanted} == wanted
            assert figures["lost"] == ""
    assert seen == len(answer["figures"]) > 0


Fault = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
FAULTS = [*itertools.product(CALLS, (*ABOUT_THE_FIELD, *ABOUT_THE_CARD, *ABOUT_NVML))]
FAULTS += [("*", error) for error in ABOUT_THE_CARD]


@pytest.fixture(scope="module")
def swept(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Fault]:
    """What is told before, while and after each call fails for the first card; one process reads it all."""
    folder = tmp_path_factory.mktemp("swept")
    well = text(FIRST, SECOND)
    steps: list[dict[str, Any]] = []
    for function, error in FAULTS:
        failing = text({**FIRST, "error": [f"{function} {error}"]}, SECOND)
        steps += [
            {"text": well, "root": str(folder)},
            {"text": failing, "advance_s": SLOW_S},
            {"text": well, "advance_s": ABSENT_S if error in LASTING else 1},
        ]
    answers = read(FakeNvml(nvml_library, folder / "nvml.txt"), steps)
    threes = zip(answers[::3], answers[1::3], answers[2::3], strict=True)
    return dict(zip(FAULTS, threes, strict=True))


@pytest.mark.parametrize("function", CALLS)
def test_any_error_about_a_field_empties_it_leaves_the_rest_and_passes(
    function: str, swept: Mapping[tuple[str, str], Fault]
) -> None:
    for error in ABOUT_THE_FIELD:
        before, during, after = swept[function, error]
        for answer in (before, during, after):
            assert answer["error"] == "", error
            assert changed(answer["figures"][SECOND["uuid"]]) == set(), error
        assert changed(before["figures"][FIRST["uuid"]]) == set(), error
        assert changed(during["figures"][FIRST["uuid"]]) <= CALLS[function], error
        assert changed(after["figures"][FIRST["uuid"]]) == set(), error


@pytest.mark.parametrize("function", [*CALLS, "*"])
def test_a_card_that_is_lost_at_any_call_leaves_the_other_and_comes_back(
    function: str, swept: Mapping[tuple[str, str], Fault]
) -> None:
    for error in ABOUT_THE_CARD:
        _, during, after = swept[function, error]
        assert during["figures"][FIRST["uuid"]]["lost"], error
        assert changed(during["figures"][SECOND["uuid"]]) == set(), error
        assert changed(after["figures"][FIRST["uuid"]]) == set(), error


@pytest.mark.parametrize("function", CALLS)
def test_a_driver_that_goes_away_at_any_call_fails_the_source_and_the_next_reading_works(
    function: str, swept: Mapping[tuple[str, str], Fault]
) -> None:
    for error in ABOUT_NVML:
        _, during, after = swept[function, error]
        assert during["error"].startswith("NVML: "), error
        assert after["error"] == "", error
        assert changed(after["figures"][FIRST["uuid"]]) == set(), error


def test_after_a_reload_each_card_is_itself_although_their_numbers_changed(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    hot, cold = {**FIRST, "temperature": 80}, {**SECOND, "temperature": 20}
    _, gone, after = read(
        fake_nvml,
        [
            {"text": text(hot, cold), "root": str(tmp_path)},
            {"text": None, "advance_s": 1},
            {"text": text(cold, hot, driver="580.126.09"), "advance_s": 1},
        ],
    )
    assert gone["error"] == "NVML: Driver Not Loaded"
    assert after["figures"][FIRST["uuid"]]["temperature_celsius"] == 80
    assert after["figures"][SECOND["uuid"]]["temperature_celsius"] == 20
    assert after["driver"]["driver"] == "580.126.09"


def test_a_driver_that_was_updated_under_the_exporter_says_so_with_its_versions(
    fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    failing = text(FIRST, error=["* LIB_RM_VERSION_MISMATCH"])
    *_, last = read(
        fake_nvml,
        [
            {"text": text(FIRST), "root": str(tmp_path)},
            {"text": failing, "advance_s": 1},
            {"text": text(FIRST, error=["nvmlInitWithFlags LIB_RM_VERSION_MISMATCH"]), "advance_s": 1},
        ],
    )
    assert "version mismatch" in last["error"]
    assert "library 13.580.95.05" in last["error"]
    assert last["error"].endswith("start the exporter again")


def test_a_card_that_leaves_the_bus_is_lost_and_returns_with_another_number(
    fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    steps = [
        {"text": text(FIRST, SECOND), "root": str(tmp_path)},
        {"text": text(SECOND), "advance_s": 1},
        {"advance_s": 6},
        {"text": text(SECOND, FIRST), "advance_s": 10},
        {"advance_s": 10},
    ]
    before, *_, last = answers = read(fake_nvml, steps)
    assert {answer["error"] for answer in answers} == {""}
    assert answers[2]["figures"][FIRST["uuid"]]["lost"] == "Not Found"
    for answer in (before, last):
        for card in (FIRST, SECOND):
            assert changed(answer["figures"][card["uuid"]]) == set()


def test_parts_of_a_card_have_their_own_memory_and_processes(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    part = {"name": "NVIDIA H100 MIG 1g.10gb", "memory_total": 9728 * MIB, "compute_instance": 0}
    parts = [
        {**part, "uuid": "MIG-1", "gpu_instance": 3, "memory_used": 100, "process": ["20 70 compute 3 0"]},
        {**part, "uuid": "MIG-2", "gpu_instance": 4, "memory_used": 200, "process": ["21 - compute 4 0"]},
    ]
    card = full_card(0, mig_mode=1, mig=parts, process=[], use=[])
    (answer,) = read(fake_nvml, [{"text": text(card), "root": str(tmp_path)}])
    figures = [answer["figures"][uuid] for uuid in ("MIG-1", "MIG-2")]
    assert [one["memory_used_bytes"] for one in figures] == [100, 200]
    assert [[(process["pid"], process["memory_bytes"]) for process in one["processes"]] for one in figures] == [
        [(20, 70)],
        [(21, None)],
    ]
    assert {one["utilization_ratio"] for one in figures} == {None}
    assert {one["temperature_celsius"] for one in figures} == {61}


def test_energy_grows_with_the_cards_power_and_is_the_cards_own(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    steps = [{"text": text({**FIRST, "delay_us": ["nvmlDeviceGetPowerUsage 200000"]}), "root": str(tmp_path)}, {}]
    joules = [answer["figures"][FIRST["uuid"]]["energy_joules"] for answer in read(fake_nvml, steps)]
    # 0.2 seconds with 201.5 watts.
    assert joules[1] - joules[0] >= 40
