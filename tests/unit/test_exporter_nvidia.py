"""What the NVIDIA source makes of NVML's answers and refusals, with a binding that a test drives."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import pynvml
import pytest
from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.devices.driver import DriverFacts
from gpurig.runner.exporter.devices.figures import Figures, GpuProcess, SourceError
from gpurig.runner.exporter.devices.nvidia import NvidiaSource
from gpurig.runner.exporter.devices.nvidia_device import ABSENT_S, PATIENCE_S, SLOW_S
from gpurig.runner.exporter.devices.nvml_session import NvmlSession
from standins.nvml import binding
from standins.nvml.binding import FakeBinding, by_number, field_value, memory, process, sample

GIB = 1024**3
START = 1_700_000_000.0


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.at = 100.0

    def monotonic(self) -> float:
        return self.at

    def now(self) -> float:
        return START + self.at


def gpu(uuid="GPU-a", **other) -> Gpu:
    given = {"name": "", "pci_address": "0000:01:00.0", "memory_bytes": None, "index": "0", **other}
    return Gpu(backend="cuda", uuid=uuid, **given)


CARD, SECOND = gpu(), gpu("GPU-b")
CLOCK_START_US = int((START + 100) * 1e6)
# By function: an answer, and the fields that are empty without it.
ANSWERS = {
    "nvmlDeviceGetMemoryInfo": (memory(3 * GIB, GIB // 2), {"memory_used_bytes", "memory_reserved_bytes"}),
    "nvmlDeviceGetUtilizationRates": (
        SimpleNamespace(gpu=50, memory=20),
        {"utilization_ratio", "memory_utilization_ratio"},
    ),
    "nvmlDeviceGetEncoderUtilization": ([7, 1000], {"encoder_utilization_ratio"}),
    "nvmlDeviceGetDecoderUtilization": ([8, 1000], {"decoder_utilization_ratio"}),
    "nvmlDeviceGetTemperature": (66, {"temperature_celsius"}),
    "nvmlDeviceGetFieldValues": (field_value(88), {"memory_temperature_celsius"}),
    "nvmlDeviceGetTemperatureThreshold": (by_number([95, 92, 105, 90]), {"temperature_limits_celsius"}),
    "nvmlDeviceGetPowerUsage": (201500, {"power_watts"}),
    "nvmlDeviceGetEnforcedPowerLimit": (450000, {"power_limit_watts"}),
    "nvmlDeviceGetTotalEnergyConsumption": (123456, {"energy_joules"}),
    "nvmlDeviceGetClockInfo": (by_number([2520, 2520, 10501, None]), {"clocks_hertz"}),
    "nvmlDeviceGetMaxClockInfo": (by_number([3105, 3105, 10501, 2415]), {"max_clocks_hertz"}),
    "nvmlDeviceGetFanSpeed_v2": (by_number([31, 34]), {"fan_ratio"}),
    "nvmlDeviceGetPerformanceState": (2, {"performance_state"}),
    "nvmlDeviceGetCurrentClocksEventReasons": (0b1100100, {"throttle_reasons"}),
    "nvmlDeviceGetTotalEccErrors": (by_number([5, 1]), {"ecc_errors"}),
    "nvmlDeviceGetRetiredPages": (by_number([[1, 2, 3], []]), set()),
    "nvmlDeviceGetRetiredPagesPendingStatus": (0, set()),
    "nvmlDeviceGetRemappedRows": ((4, 2, 1, 0), set()),
    "nvmlDeviceGetCurrPcieLinkGeneration": (1, {"pcie_generation"}),
    "nvmlDeviceGetCurrPcieLinkWidth": (8, {"pcie_width"}),
    "nvmlDeviceGetMaxPcieLinkGeneration": (4, {"pcie_max_generation"}),
    "nvmlDeviceGetMaxPcieLinkWidth": (16, {"pcie_max_width"}),
    "nvmlDeviceGetPcieReplayCounter": (3, {"pcie_replays"}),
    "nvmlDeviceGetComputeRunningProcesses_v3": ([process(10, 2 * GIB), process(11, GIB)], set()),
    "nvmlDeviceGetGraphicsRunningProcesses_v3": ([process(11, GIB), process(12, 5)], set()),
    "nvmlDeviceGetProcessUtilization": ([sample(10, CLOCK_START_US - 1, 40)], set()),
}
WHOLE = Figures(
    memory_used_bytes=3 * GIB,
    memory_reserved_bytes=GIB // 2,
    utilization_ratio=0.5,
    memory_utilization_ratio=0.2,
    encoder_utilization_ratio=0.07,
    decoder_utilization_ratio=0.08,
    temperature_celsius=66.0,
    memory_temperature_celsius=88.0,
    temperature_limits_celsius={"shutdown": 95.0, "slowdown": 92.0, "memory": 105.0, "max_operating": 90.0},
    power_watts=201.5,
    power_limit_watts=450.0,
    energy_joules=123.456,
    clocks_hertz={"graphics": 2520e6, "sm": 2520e6, "memory": 10501e6},
    max_clocks_hertz={"graphics": 3105e6, "sm": 3105e6, "memory": 10501e6, "video": 2415e6},
    fan_ratio=0.34,
    performance_state=2,
    throttle_reasons={
        "idle": 0.0,
        "application_clocks": 0.0,
        "power_cap": 1.0,
        "hw_slowdown": 0.0,
        "sync_boost": 0.0,
        "sw_thermal": 1.0,
        "hw_thermal": 1.0,
        "hw_power_brake": 0.0,
        "display_clocks": 0.0,
    },
    ecc_errors={"corrected": 5.0, "uncorrected": 1.0},
    retired_pages={"single_bit": 3.0, "double_bit": 0.0, "remapped_correctable": 4.0, "remapped_uncorrectable": 2.0},
    memory_repair_pending=True,
    pcie_generation=1,
    pcie_width=8,
    pcie_max_generation=4,
    pcie_max_width=16,
    pcie_replays=3,
    processes=(GpuProcess(10, 2 * GIB, 0.4), GpuProcess(11, GIB, 0.0), GpuProcess(12, 5, 0.0)),
)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def nvml():
    return FakeBinding(nvmlDeviceGetNumFans=2, **{name: answer for name, (answer, _) in ANSWERS.items()})


@pytest.fixture
def source(nvml, clock):
    session = NvmlSession(lambda: nvml, monotonic=clock.monotonic)
    return NvidiaSource(session, monotonic=clock.monotonic, now=clock.now)


def changed(figures: Figures) -> set[str]:
    """The fields that are not what a card tells that answers everything."""
    return {one.name for one in fields(Figures) if getattr(figures, one.name) != getattr(WHOLE, one.name)}


def test_every_field_that_nvml_tells_is_there_in_base_units(source):
    assert source.read([CARD]) == {"GPU-a": WHOLE}


def test_the_throttle_reasons_are_those_of_the_catalogue():
    from gpurig.runner.exporter.exposition.gpu_metrics import THROTTLE_REASONS

    assert set(WHOLE.throttle_reasons) == set(THROTTLE_REASONS)


def test_a_source_without_nvidia_gpus_does_not_touch_nvml(source, nvml):
    assert source.read([replace(CARD, backend="rocm")]) == {}
    assert not nvml.calls


@pytest.mark.parametrize("function", ANSWERS)
@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_DEPRECATED,
        pynvml.NVML_ERROR_UNKNOWN,
        4242,
    ],
)
def test_every_field_may_be_missing_on_its_own(source, nvml, function, code):
    nvml.fail(function, code)
    empty = ANSWERS[function][1]
    figures = source.read([CARD])["GPU-a"]
    if function == "nvmlDeviceGetFanSpeed_v2":
        assert figures.fan_ratio is None
    for name in empty:
        assert not getattr(figures, name), name
    related = empty or {"retired_pages", "memory_repair_pending", "processes"}
    assert changed(figures) <= related


def test_a_function_that_a_card_does_not_have_is_asked_again_seldom(source, nvml, clock):
    nvml.fail("nvmlDeviceGetPowerUsage", pynvml.NVML_ERROR_NOT_SUPPORTED)
    for _ in range(60):
        source.read([CARD])
        clock.at += 1
    assert nvml.calls["nvmlDeviceGetPowerUsage"] == 1
    nvml.recover()
    clock.at += ABSENT_S
    assert source.read([CARD])["GPU-a"].power_watts == 201.5


def test_a_passing_error_costs_one_reading(source, nvml, clock):
    source.read([CARD])
    nvml.fail("nvmlDeviceGetPowerUsage", pynvml.NVML_ERROR_UNKNOWN)
    clock.at += 1
    assert source.read([CARD])["GPU-a"].power_watts is None
    nvml.recover()
    clock.at += 1
    assert source.read([CARD])["GPU-a"].power_watts == 201.5


def test_a_function_that_fails_again_and_again_is_asked_ever_more_seldom(source, nvml, clock):
    nvml.fail("nvmlDeviceGetPowerUsage", pynvml.NVML_ERROR_UNKNOWN)
    for _ in range(300):
        source.read([CARD])
        clock.at += 1
    assert nvml.calls["nvmlDeviceGetPowerUsage"] <= 13
    nvml.recover()
    clock.at += 60
    assert source.read([CARD])["GPU-a"].power_watts == 201.5


def test_what_changes_slowly_is_asked_seldom_and_stands_while_the_card_answers_with_errors(source, nvml, clock):
    source.read([CARD])
    for _ in range(int(SLOW_S) * 2):
        clock.at += 1
        source.read([CARD])
    assert nvml.calls["nvmlDeviceGetEnforcedPowerLimit"] == 3
    assert nvml.calls["nvmlDeviceGetPowerUsage"] == 1 + int(SLOW_S) * 2
    nvml.fail("nvmlDeviceGetEnforcedPowerLimit", pynvml.NVML_ERROR_TIMEOUT)
    clock.at += SLOW_S
    assert source.read([CARD])["GPU-a"].power_limit_watts == 450
    clock.at += 60
    assert source.read([CARD])["GPU-a"].power_limit_watts is None


def test_cards_take_turns_with_what_changes_slowly(source, nvml, clock):
    cards = [gpu(f"GPU-{number}") for number in range(8)]
    source.read(cards)
    asked = []
    for _ in range(int(SLOW_S)):
        before = nvml.calls["nvmlDeviceGetEnforcedPowerLimit"]
        clock.at += 1
        source.read(cards)
        asked.append(nvml.calls["nvmlDeviceGetEnforcedPowerLimit"] - before)
    assert sum(asked) == 8
    assert max(asked) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),
        ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"),
        ("nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2"),
    ],
)
@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_DEPRECATED])
def test_where_the_driver_lacks_one_function_another_tells_the_same(  # noqa: PLR0917 - fixtures and parameters
    source, nvml, clock, old, new, code
):
    nvml.answers[new] = nvml.answers[old]
    nvml.fail(old, code)
    assert source.read([CARD])["GPU-a"] == WHOLE
    source.read([CARD])
    assert nvml.calls[old] == 1
    clock.at += ABSENT_S
    source.read([CARD])
    assert nvml.calls[old] == 2


def test_fans_that_only_the_old_function_tells_are_told(source, nvml):
    nvml.fail("nvmlDeviceGetNumFans", pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    nvml.answers["nvmlDeviceGetFanSpeed"] = 33
    assert source.read([CARD])["GPU-a"].fan_ratio == 0.33


@pytest.mark.parametrize(("percent", "told"), [(100, 1.0), (120, 1.0), (4_000_000_000, None), (0, 0.0)])
def test_a_fan_that_is_faster_than_its_full_speed_is_at_full_speed(source, nvml, percent, told):
    nvml.answers |= {"nvmlDeviceGetNumFans": 1, "nvmlDeviceGetFanSpeed_v2": percent}
    assert source.read([CARD])["GPU-a"].fan_ratio == told


@pytest.mark.parametrize(
    ("function", "garbage", "field"),
    [
        ("nvmlDeviceGetUtilizationRates", SimpleNamespace(gpu=4_000_000_000, memory=1), "utilization_ratio"),
        ("nvmlDeviceGetPowerUsage", 2**32 - 1, "power_watts"),
        ("nvmlDeviceGetTotalEnergyConsumption", 2**64 - 1, "energy_joules"),
        ("nvmlDeviceGetPerformanceState", 32, "performance_state"),
        ("nvmlDeviceGetFieldValues", field_value(0), "memory_temperature_celsius"),
        ("nvmlDeviceGetFieldValues", field_value(50, code=3), "memory_temperature_celsius"),
    ],
)
def test_a_number_that_means_nothing_is_no_number(source, nvml, function, garbage, field):
    nvml.answers[function] = garbage
    assert getattr(source.read([CARD])["GPU-a"], field) is None


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetHandleByUUID", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetPowerUsage"]
)
@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED])
def test_a_card_that_is_lost_has_nvmls_words_comes_back_and_leaves_the_other(source, nvml, function, code):
    source.read([CARD, SECOND]) if function != "nvmlDeviceGetHandleByUUID" else None
    nvml.fail(function, code, "GPU-a")
    assert source.read([CARD, SECOND]) == {"GPU-a": Figures(lost=str(pynvml.NVMLError(code))), "GPU-b": WHOLE}
    nvml.recover()
    assert changed(source.read([CARD, SECOND])["GPU-a"]) <= {"processes"}


def test_while_a_card_is_lost_nvml_is_begun_anew_ever_more_seldom_because_only_then_it_lists_cards(source, nvml, clock):
    nvml.fail("nvmlDeviceGetHandleByUUID", pynvml.NVML_ERROR_NOT_FOUND, "GPU-a")
    for _ in range(600):
        source.read([CARD, SECOND])
        clock.at += 1
    assert 8 <= nvml.calls["nvmlInit"] <= 18
    nvml.recover()
    clock.at += 5
    assert source.read([CARD, SECOND])["GPU-a"].lost == ""


def test_a_card_that_nobody_asks_for_any_more_is_not_looked_for(source, nvml, clock):
    nvml.fail("nvmlDeviceGetHandleByUUID", pynvml.NVML_ERROR_NOT_FOUND, "GPU-a")
    source.read([CARD, SECOND])
    for _ in range(60):
        clock.at += 1
        source.read([SECOND])
    assert nvml.calls["nvmlInit"] == 1


def test_a_handle_that_nvml_does_not_know_any_more_is_a_lost_card_and_then_a_new_handle(source, nvml, clock):
    source.read([CARD])
    for function in ANSWERS:
        nvml.fail(function, pynvml.NVML_ERROR_INVALID_ARGUMENT)
    clock.at += SLOW_S
    assert source.read([CARD])["GPU-a"].lost
    nvml.recover()
    assert source.read([CARD])["GPU-a"].lost == ""
    assert nvml.calls["nvmlDeviceGetHandleByUUID"] == 2


def test_a_card_whose_driver_hangs_holds_up_the_others_only_now_and_then(source, nvml, clock):
    source.read([CARD, SECOND])

    def hang():
        clock.at += 3 * PATIENCE_S

    nvml.answers["nvmlDeviceGetPowerUsage"] = lambda handle: hang() if handle == "GPU-a" else 201500
    before = nvml.calls["nvmlDeviceGetPowerUsage"]
    found = source.read([CARD, SECOND])
    assert found["GPU-a"] == Figures(lost="its driver takes 6 seconds to answer")
    assert found["GPU-b"].power_watts == 201.5
    for _ in range(30):
        clock.at += 1
        source.read([CARD, SECOND])
    assert nvml.calls["nvmlDeviceGetPowerUsage"] - before == 2 + 30
    assert nvml.calls["nvmlInit"] == 1


def test_a_driver_that_went_away_fails_the_source_and_is_looked_for_again(source, nvml):
    assert source.read([CARD]) == {"GPU-a": WHOLE}
    nvml.fail("nvmlDeviceGetPowerUsage", pynvml.NVML_ERROR_UNINITIALIZED)
    with pytest.raises(SourceError, match="Uninitialized"):
        source.read([CARD])
    nvml.recover()
    assert source.read([CARD])["GPU-a"].power_watts == 201.5
    assert nvml.calls["nvmlInit"] == 2


def test_a_driver_that_does_not_start_is_tried_ever_more_seldom(source, nvml, clock):
    nvml.fail("nvmlInit", pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    for _ in range(120):
        with pytest.raises(SourceError, match="NVML: Driver Not Loaded"):
            source.read([CARD])
        clock.at += 1
    assert nvml.calls["nvmlInit"] <= 14
    nvml.recover()
    clock.at += 15
    assert source.read([CARD])["GPU-a"].lost == ""


def test_a_version_mismatch_names_both_versions_and_what_helps(nvml, tmp_path):
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025\n")
    nvml.fail("nvmlInit", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    with pytest.raises(SourceError) as caught:
        NvidiaSource(NvmlSession(lambda: nvml, root=tmp_path)).read([CARD])
    assert str(caught.value).endswith("(library 13.580.95.05, kernel module 570.86.15): start the exporter again")


def test_nvml_is_begun_once_while_it_works_and_let_go_at_the_end(source, nvml):
    source.read([CARD])
    source.read([CARD])
    source.close()
    assert nvml.calls["nvmlInit"] == nvml.calls["nvmlShutdown"] == 1


def test_the_drivers_versions_are_known_once_nvml_was_begun(source):
    assert source.driver is None
    source.read([CARD])
    assert source.driver == DriverFacts("cuda", "580.95.05", "13.580.95.05", "13.0")


def test_a_binding_that_lacks_a_function_costs_its_field(source, nvml, monkeypatch):
    monkeypatch.delattr(pynvml, "nvmlDeviceGetRemappedRows")
    assert changed(source.read([CARD])["GPU-a"]) == {"retired_pages", "memory_repair_pending"}


@pytest.mark.parametrize(
    ("failing", "pages", "pending"),
    [
        (["nvmlDeviceGetRemappedRows"], {"single_bit": 3.0, "double_bit": 0.0}, False),
        (
            ["nvmlDeviceGetRetiredPages", "nvmlDeviceGetRetiredPagesPendingStatus"],
            {"remapped_correctable": 4.0, "remapped_uncorrectable": 2.0},
            True,
        ),
        (
            ["nvmlDeviceGetRemappedRows", "nvmlDeviceGetRetiredPages", "nvmlDeviceGetRetiredPagesPendingStatus"],
            {},
            None,
        ),
    ],
)
def test_cards_that_retire_pages_and_cards_that_remap_rows_tell_what_they_do(source, nvml, failing, pages, pending):
    for function in failing:
        nvml.fail(function, pynvml.NVML_ERROR_NOT_SUPPORTED)
    figures = source.read([CARD])["GPU-a"]
    assert (figures.retired_pages, figures.memory_repair_pending) == (pages, pending)


def test_a_jetson_that_has_no_uuid_is_asked_by_its_number(source, nvml):
    jetson = gpu("nvidia-gpu-0", pci_address="", unified=True)
    assert source.read([jetson])["nvidia-gpu-0"].lost == ""
    assert nvml.calls["nvmlDeviceGetHandleByIndex"] == 1
    assert nvml.calls["nvmlDeviceGetHandleByUUID"] == 0


def test_memory_of_a_gpu_that_shares_the_systems_is_what_its_processes_hold(source, nvml):
    nvml.fail("nvmlDeviceGetMemoryInfo", pynvml.NVML_ERROR_NOT_SUPPORTED)
    assert source.read([gpu(unified=True)])["GPU-a"].memory_used_bytes == 3 * GIB + 5
    nvml.answers["nvmlDeviceGetComputeRunningProcesses_v3"] = [process(10, None)]
    assert source.read([gpu(unified=True)])["GPU-a"].memory_used_bytes is None
    assert source.read([SECOND])["GPU-b"].memory_used_bytes is None


class TestParts:
    """MIG: a card that is split."""

    PARTS = (
        gpu("MIG-1", mig=True, parent="GPU-a", index="0:0"),
        gpu("MIG-2", mig=True, parent="GPU-a", index="0:1"),
    )

    @pytest.fixture
    def nvml(self, nvml):
        nvml.answers |= {
            "nvmlDeviceGetGpuInstanceId": lambda handle: {"MIG-1": 3, "MIG-2": 4}[handle],
            "nvmlDeviceGetComputeInstanceId": 0,
            "nvmlDeviceGetMemoryInfo": lambda handle: memory({"MIG-1": 10, "MIG-2": 20}[handle], 1),
            "nvmlDeviceGetComputeRunningProcesses_v3": [
                SimpleNamespace(pid=10, usedGpuMemory=7, gpuInstanceId=3, computeInstanceId=0),
                SimpleNamespace(pid=11, usedGpuMemory=8, gpuInstanceId=4, computeInstanceId=0),
                SimpleNamespace(pid=12, usedGpuMemory=9, gpuInstanceId=4, computeInstanceId=1),
            ],
            "nvmlDeviceGetGraphicsRunningProcesses_v3": [],
        }
        return nvml

    def test_a_part_has_its_own_memory_and_processes_and_its_cards_temperature(self, source):
        found = source.read(self.PARTS)
        assert [one.memory_used_bytes for one in found.values()] == [10, 20]
        assert [one.processes for one in found.values()] == [(GpuProcess(10, 7),), (GpuProcess(11, 8),)]
        assert [one.temperature_celsius for one in found.values()] == [66, 66]

    def test_what_only_the_whole_card_has_is_not_counted_once_a_part(self, source):
        for one in source.read(self.PARTS).values():
            assert (one.utilization_ratio, one.power_watts, one.energy_joules) == (None, None, None)

    def test_the_card_is_asked_once_for_all_its_parts(self, source, nvml):
        source.read(self.PARTS)
        assert nvml.calls["nvmlDeviceGetTemperature"] == 1

    def test_a_card_that_is_lost_takes_its_parts_along(self, source, nvml):
        nvml.fail("nvmlDeviceGetTemperature", pynvml.NVML_ERROR_GPU_IS_LOST)
        assert {one.lost for one in source.read(self.PARTS).values()} == {"GPU is lost"}

    def test_a_part_that_is_gone_leaves_the_others(self, source, nvml):
        nvml.fail("nvmlDeviceGetHandleByUUID", pynvml.NVML_ERROR_NOT_FOUND, "MIG-1")
        found = source.read(self.PARTS)
        assert (found["MIG-1"].lost, found["MIG-2"].lost) == ("Not Found", "")


class TestProcesses:
    """Who uses the card."""

    @pytest.fixture
    def listed(self, nvml):
        def put(compute, graphics=(), samples=()):
            nvml.answers["nvmlDeviceGetComputeRunningProcesses_v3"] = list(compute)
            nvml.answers["nvmlDeviceGetGraphicsRunningProcesses_v3"] = list(graphics)
            nvml.answers["nvmlDeviceGetProcessUtilization"] = list(samples)

        return put

    def test_one_that_computes_and_draws_is_counted_once(self, source, listed):
        listed([process(1, 100)], [process(1, 100), process(2, 50)])
        assert [(one.pid, one.memory_bytes) for one in source.read([CARD])["GPU-a"].processes] == [(1, 100), (2, 50)]

    def test_one_whose_memory_the_driver_does_not_tell_stays_with_what_is_known(self, source, listed):
        listed([process(1, None)], [process(1, 70), process(2, None)])
        assert source.read([CARD])["GPU-a"].processes == (GpuProcess(1, 70, 0.0), GpuProcess(2, None, None))

    def test_no_process_is_none_and_no_answer_is_unknown(self, source, nvml, listed):
        listed([])
        assert source.read([CARD])["GPU-a"].processes == ()
        assert nvml.calls["nvmlDeviceGetProcessUtilization"] == 0
        for function in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v3"):
            nvml.fail(function, pynvml.NVML_ERROR_NO_PERMISSION)
        assert source.read([CARD])["GPU-a"].processes is None

    def test_where_the_driver_does_not_tell_who_is_busy_it_is_unknown(self, source, nvml, listed):
        listed([process(1, 100)])
        nvml.fail("nvmlDeviceGetProcessUtilization", pynvml.NVML_ERROR_NOT_SUPPORTED)
        assert source.read([CARD])["GPU-a"].processes == (GpuProcess(1, 100),)

    def test_where_nobody_was_busy_each_use_is_0(self, source, nvml, listed):
        listed([process(1, 100)])
        # The binding gives the empty list as the error "success".
        for code in (pynvml.NVML_ERROR_NOT_FOUND, 0):
            nvml.answers["nvmlDeviceGetProcessUtilization"] = lambda *_arguments, code=code: _raise(code)
            assert source.read([CARD])["GPU-a"].processes == (GpuProcess(1, 100, 0.0),)

    def test_each_question_is_about_the_time_since_the_newest_sample(self, source, nvml, clock):
        asked = []

        def samples(_handle, since_us):
            asked.append(since_us)
            return [sample(10, int(clock.now() * 1e6) - 1000, 40)]

        nvml.answers["nvmlDeviceGetProcessUtilization"] = samples
        source.read([CARD])
        clock.at += 1
        source.read([CARD])
        assert asked == [CLOCK_START_US - 1_000_000, CLOCK_START_US - 1000]

    def test_the_last_samples_stand_until_the_driver_had_time_for_new_ones(self, source, nvml, clock):
        def use():
            return {one.pid: one.utilization_ratio for one in source.read([CARD])["GPU-a"].processes}[10]

        assert use() == 0.4
        nvml.answers["nvmlDeviceGetProcessUtilization"] = []
        clock.at += 1
        assert use() == 0.4
        clock.at += 1.5
        assert use() == 0

    def test_a_sample_that_is_no_percentage_or_from_another_time_counts_for_nothing(self, source, listed, clock):
        late, early = CLOCK_START_US + 3_600_000_000, CLOCK_START_US - 5_000_000
        listed(
            [process(1, 1), process(2, 1), process(3, 1)],
            samples=[sample(1, CLOCK_START_US - 5, 4_000_000), sample(2, late, 50), sample(3, early, 50)],
        )
        assert {one.utilization_ratio for one in source.read([CARD])["GPU-a"].processes} == {0.0}

    def test_a_clock_that_was_set_back_hides_no_samples(self, source, nvml, clock):
        source.read([CARD])
        clock.now = lambda: START - 3600
        source._now = clock.now
        source._use["GPU-a"]._now = clock.now
        nvml.answers["nvmlDeviceGetProcessUtilization"] = [sample(10, int((START - 3600) * 1e6) - 9, 90)]
        assert source.read([CARD])["GPU-a"].processes[0].utilization_ratio == 0.9


def _raise(code: int):
    raise pynvml.NVMLError(code)


def test_the_stand_in_has_no_function_that_the_binding_lacks():
    with pytest.raises(AttributeError):
        _ = binding.FakeBinding().nvmlDeviceGetNothing
