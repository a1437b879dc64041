"""The metrics of a scrape: right names, units and labels, and no series for what is not known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from gpurig.provisioning.facts import Gpu, HostFacts, Problem
from gpurig.runner.exporter.devices.demo import DEMO_FACTS, DemoSource
from gpurig.runner.exporter.devices.figures import Figures, SourceError
from gpurig.runner.exporter.devices.inventory import Inventory
from gpurig.runner.exporter.exposition.collector import STALE_AFTER_S, GpurigCollector, Samplers
from gpurig.runner.exporter.runner_facts import RunnerEntry
from gpurig.runner.exporter.sampler import Sampler
from gpurig.runner.exporter.serve import describe, stale
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

MIB = 1024**2
CARD = Gpu(
    backend="cuda",
    uuid="GPU-1",
    name="NVIDIA GeForce RTX 4090",
    pci_address="0000:01:00.0",
    memory_bytes=24564 * MIB,
    arch="sm-89",
    driver="570.10",
)
OTHER = Gpu(backend="rocm", uuid="0x2", name="", pci_address="0000:03:00.0", memory_bytes=None)


class Box:
    """Samplers over what a test sets, on a clock that it moves."""

    def __init__(self):
        self.now = 1000.0
        self.facts = HostFacts(gpus=(CARD, OTHER))
        self.figures: Mapping[str, Figures] | Exception = {}
        self.entries: tuple[RunnerEntry, ...] | Exception | None = None
        inventory = Inventory(lambda: self.facts)
        self.samplers = Samplers(
            inventory=Sampler("detect", inventory.read, period_s=30, monotonic=self.clock),
            figures=(Sampler("nvidia", lambda: self._give(self.figures), period_s=1, monotonic=self.clock),),
            runner=Sampler("runner", lambda: self._give(self.entries), period_s=30, monotonic=self.clock),
        )
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(GpurigCollector(self.samplers, monotonic=self.clock))

    def clock(self):
        return self.now

    @staticmethod
    def _give(answer):
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sample(self):
        for sampler in self.samplers.every:
            sampler.sample()

    def scrape(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Series by name: sorted labels to value."""
        text = generate_latest(self.registry).decode()
        return {
            family.name: {tuple(sorted(one.labels.items())): one.value for one in family.samples}
            for family in text_string_to_metric_families(text)
        }


@pytest.fixture
def box():
    return Box()


def _by_gpu(family):
    return {dict(labels)["gpu"]: value for labels, value in family.items()}


def test_a_gpu_is_described_by_its_labels(box):
    box.sample()
    [info] = [labels for labels in box.scrape()["gpurig_gpu_info"] if dict(labels)["gpu"] == "0"]
    assert dict(info) == {
        "gpu": "0",
        "uuid": "GPU-1",
        "name": "NVIDIA GeForce RTX 4090",
        "arch": "sm-89",
        "backend": "cuda",
        "pci": "0000:01:00.0",
        "driver": "570.10",
    }


def test_memory_is_in_bytes_and_the_class_is_what_the_card_is_sold_as(box):
    box.sample()
    scrape = box.scrape()
    assert _by_gpu(scrape["gpurig_gpu_memory_total_bytes"]) == {"0": 24564 * MIB}
    assert _by_gpu(scrape["gpurig_gpu_vram_class_bytes"]) == {"0": 24 * 1024**3}


def test_a_field_that_a_card_does_not_have_has_no_series(box):
    box.figures = {"GPU-1": Figures(memory_used_bytes=5, power_watts=10.5), "0x2": Figures(utilization_ratio=0.5)}
    box.sample()
    scrape = box.scrape()
    assert _by_gpu(scrape["gpurig_gpu_memory_used_bytes"]) == {"0": 5}
    assert _by_gpu(scrape["gpurig_gpu_power_watts"]) == {"0": 10.5}
    assert _by_gpu(scrape["gpurig_gpu_utilization_ratio"]) == {"1": 0.5}
    assert scrape["gpurig_gpu_temperature_celsius"] == {}


def test_a_source_that_fails_loses_its_own_series_only(box):
    box.figures = SourceError("NVML: Unknown Error")
    box.sample()
    scrape = box.scrape()
    assert scrape["gpurig_collector_success"] == {
        (("collector", "detect"),): 1,
        (("collector", "nvidia"),): 0,
        (("collector", "runner"),): 1,
    }
    assert len(scrape["gpurig_gpu_info"]) == 2
    assert scrape["gpurig_gpu_memory_used_bytes"] == {}


def test_a_source_that_stays_silent_ends_its_series_instead_of_repeating_them(box):
    box.figures = {"GPU-1": Figures(power_watts=10.5)}
    box.sample()
    box.now += STALE_AFTER_S - 1
    assert _by_gpu(box.scrape()["gpurig_gpu_power_watts"]) == {"0": 10.5}
    box.now += 2
    scrape = box.scrape()
    assert scrape["gpurig_gpu_power_watts"] == {}
    assert scrape["gpurig_collector_age_seconds"][(("collector", "nvidia"),)] == STALE_AFTER_S + 1


def test_a_gpu_that_vanished_stays_visible_as_down_with_its_number(box):
    box.sample()
    box.facts = HostFacts(gpus=(OTHER,))
    box.sample()
    scrape = box.scrape()
    assert _by_gpu(scrape["gpurig_gpu_up"]) == {"0": 0, "1": 1}
    [labels] = scrape["gpurig_gpu_down_info"]
    assert dict(labels) == {"gpu": "0", "uuid": "GPU-1", "reason": "the last detection did not find it"}
    box.facts = HostFacts(gpus=(OTHER, CARD))
    box.sample()
    assert _by_gpu(box.scrape()["gpurig_gpu_up"]) == {"0": 1, "1": 1}


def test_a_gpu_that_fell_off_the_bus_is_down_with_the_drivers_words(box):
    box.figures = {"GPU-1": Figures(lost="GPU is lost")}
    box.sample()
    scrape = box.scrape()
    assert _by_gpu(scrape["gpurig_gpu_up"]) == {"0": 0, "1": 1}
    assert [dict(labels)["reason"] for labels in scrape["gpurig_gpu_down_info"]] == ["GPU is lost"]


def test_problems_are_counted_by_who_met_them(box):
    box.facts = HostFacts(problems=(Problem("nvml", "a"), Problem("nvml", "b"), Problem("amd-sysfs", "c")))
    box.sample()
    assert box.scrape()["gpurig_detection_problems"] == {(("source", "amd-sysfs"),): 1, (("source", "nvml"),): 2}


def test_a_name_with_quotes_and_control_characters_does_not_break_a_scrape(box):
    hostile = 'a"b\\c\nd\x1b[2J\ud800'
    box.facts = HostFacts(gpus=(Gpu(backend="cuda", uuid="u", name=hostile, pci_address="", memory_bytes=1),))
    box.sample()
    [labels] = box.scrape()["gpurig_gpu_info"]
    assert dict(labels)["name"] == 'a"b\\c\\x0ad\\x1b[2J\\xd800'


def test_without_a_state_file_nothing_is_said_of_runners(box):
    box.sample()
    assert not [name for name in box.scrape() if name.startswith("gpurig_runner")]


def test_runner_entries_show_their_tags_and_when_their_tokens_end(box):
    end = datetime(2027, 1, 1, tzinfo=UTC)
    box.entries = (RunnerEntry(7, "box", ("cuda", "vram-8gb"), end), RunnerEntry(8, "box 2", ("cpu",), None))
    box.sample()
    scrape = box.scrape()
    assert scrape["gpurig_runner_entries"] == {(): 2}
    assert (("description", "box"), ("runner_id", "7"), ("tags", "cuda,vram-8gb")) in scrape["gpurig_runner_info"]
    assert scrape["gpurig_runner_token_expiry_timestamp_seconds"] == {(("runner_id", "7"),): end.timestamp()}


def test_health_names_the_collectors_that_hang_and_not_those_that_fail(box):
    assert stale(box.samplers, monotonic=box.clock) == ["detect", "nvidia", "runner"]
    box.figures = SourceError("down")
    box.sample()
    assert stale(box.samplers, monotonic=box.clock) == []
    box.now += 100
    assert stale(box.samplers, monotonic=box.clock) == ["nvidia"]


@pytest.mark.parametrize(
    ("gpus", "text"),
    [
        ((), "0 GPUs"),
        ((CARD,), "1 GPU (NVIDIA GeForce RTX 4090)"),
        ((CARD, OTHER), "2 GPUs (NVIDIA GeForce RTX 4090, 0x2)"),
        ((CARD, replace(CARD, uuid="GPU-3"), OTHER), "3 GPUs (2 x NVIDIA GeForce RTX 4090, 0x2)"),
    ],
)
def test_the_log_counts_equal_gpus(box, gpus, text):
    box.facts = HostFacts(gpus=gpus)
    box.sample()
    assert describe(box.samplers) == text


def test_the_demo_is_a_function_of_the_clock():
    first, again, later = (DemoSource(lambda at=at: at).read(DEMO_FACTS.gpus) for at in (50.0, 50.0, 290.0))
    assert first == again
    assert first != later


@pytest.mark.parametrize("at", range(0, 700, 7))
def test_the_demos_figures_are_possible(at):
    for gpu in DEMO_FACTS.gpus:
        one = DemoSource(lambda: float(at)).read(DEMO_FACTS.gpus)[gpu.uuid]
        assert 0 <= one.utilization_ratio <= 1
        assert 0 < one.memory_used_bytes < gpu.memory_bytes
        assert 20 <= one.temperature_celsius <= 90
        assert 10 <= one.power_watts <= one.power_limit_watts


def test_the_documentation_lists_exactly_the_metrics_that_exist(box):
    box.entries = (RunnerEntry(7, "box", (), datetime(2027, 1, 1, tzinfo=UTC)),)
    box.sample()
    text = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(gpurig_\w+)`", text, flags=re.MULTILINE))
    assert documented == set(box.scrape())
