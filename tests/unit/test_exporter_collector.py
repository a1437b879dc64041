"""The metrics of a scrape: right names, units and labels, and no series for what is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from gpurig.provisioning.facts import Gpu, HostFacts, Problem
from gpurig.runner.exporter.devices.figures import Figures, GpuProcess, SourceError
from gpurig.runner.exporter.devices.inventory import Inventory
from gpurig.runner.exporter.devices.xid import XidSeen
from gpurig.runner.exporter.exposition.collector import GpurigCollector
from gpurig.runner.exporter.exposition.text_format import Encoder
from gpurig.runner.exporter.jobs.model import (
    Accounts,
    BoxFacts,
    Disk,
    GpuUse,
    JobContainer,
    JobKey,
    JobUse,
    ProjectUse,
    RunnerEntry,
)
from gpurig.runner.exporter.readings import STALE_AFTER_S, Readings, stale
from gpurig.runner.exporter.sampler import Sampler
from gpurig.runner.exporter.serve import describe
from prometheus_client import CollectorRegistry
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
        self.facts_of_box: BoxFacts | Exception | None = None
        self.accounts = Accounts()
        self.xids: dict[str, dict[int, XidSeen]] = {}
        inventory = Inventory(lambda: self.facts)
        self.readings = Readings(
            inventory=Sampler("detect", inventory.read, period_s=30, monotonic=self.clock),
            figures=(Sampler("nvidia", lambda: self._give(self.figures), period_s=1, monotonic=self.clock),),
            box=Sampler("box", lambda: self._give(self.facts_of_box), period_s=30, monotonic=self.clock),
            accounts=lambda: self.accounts,
            xids=lambda: self.xids,
            monotonic=self.clock,
        )
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(GpurigCollector(self.readings.view))

    def clock(self):
        return self.now

    @staticmethod
    def _give(answer):
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sample(self):
        for sampler in self.readings.samplers:
            sampler.sample()

    def scrape(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Series by name: sorted labels to value."""
        text = Encoder(self.registry).encode(openmetrics=False).decode()
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
        (("collector", "box"),): 1,
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


def test_without_a_watcher_and_a_state_file_nothing_is_said_of_runners_and_disks(box):
    box.sample()
    scrape = box.scrape()
    silent = ("gpurig_runner", "gpurig_disk", "gpurig_images", "gpurig_models")
    assert [name for name in scrape if name.startswith(silent) and scrape[name]] == []


def test_runner_entries_show_their_tags_and_when_their_tokens_end(box):
    entries = (
        RunnerEntry(7, "box", ("cuda", "vram-4gb", "vram-8gb"), 1.8e9),
        RunnerEntry(8, "box 2", ("cpu", "vram-xgb", "my-vram-99gb")),
    )
    box.facts_of_box = BoxFacts(written_at=0, runners=entries)
    box.sample()
    scrape = box.scrape()
    assert scrape["gpurig_runner_entries"] == {(): 2}
    assert (("description", "box"), ("runner_id", "7"), ("tags", "cuda,vram-4gb,vram-8gb")) in scrape[
        "gpurig_runner_info"
    ]
    assert scrape["gpurig_runner_token_expiry_timestamp_seconds"] == {(("runner_id", "7"),): 1.8e9}
    assert scrape["gpurig_runner_vram_bytes"] == {(("runner_id", "7"),): 8 * 1024**3}


KEY = JobKey("100", "41", "9", "t1_abc")


def _container(name: str, key: JobKey, **more) -> JobContainer:
    return JobContainer(id=name, job=key, kind="build", started_at=1.0, **more)


def test_a_runner_entry_counts_its_jobs_and_not_their_containers(box):
    other = replace(KEY, job_id="101")
    ended = replace(KEY, job_id="102")
    box.facts_of_box = BoxFacts(
        written_at=0,
        containers=(
            _container("a", KEY),
            _container("b", KEY),
            _container("c", other),
            _container("d", ended, ended_at=2.0),
        ),
        runners=(RunnerEntry(7, "box", (), short="t1_abc"), RunnerEntry(8, "box 2", (), short="t1_idle")),
    )
    box.sample()
    assert box.scrape()["gpurig_runner_jobs_running"] == {(("runner", "t1_abc"),): 2, (("runner", "t1_idle"),): 0}


def test_the_box_shows_sizes_and_free_space(box):
    box.facts_of_box = BoxFacts(
        written_at=0, image_bytes={"job": 5}, model_bytes=7, disks=(Disk("models", free_bytes=1, total_bytes=2),)
    )
    box.sample()
    scrape = box.scrape()
    assert scrape["gpurig_images_bytes"] == {(("kind", "job"),): 5}
    assert scrape["gpurig_models_bytes"] == {(): 7}
    assert scrape["gpurig_disk_free_bytes"] == {(("purpose", "models"),): 1}
    assert scrape["gpurig_disk_total_bytes"] == {(("purpose", "models"),): 2}


def test_what_a_watcher_told_ends_when_it_is_silent_for_long(box):
    box.facts_of_box = BoxFacts(written_at=0, model_bytes=7)
    box.sample()
    box.facts_of_box = SourceError("the watcher is silent")
    box.now += STALE_AFTER_S - 1
    box.readings.box.sample()
    assert box.scrape()["gpurig_models_bytes"] == {(): 7}
    box.now += 2
    assert box.scrape()["gpurig_models_bytes"] == {}


def _job_labels(**more) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"job_id": "100", "project_id": "41", "pipeline_id": "9", "runner": "t1_abc", **more}.items()))


def test_a_jobs_use_is_shown_for_each_gpu_and_one_that_is_not_there_now_by_its_uuid(box):
    uses = (
        GpuUse("GPU-1", memory_bytes=10, memory_peak_bytes=20, gpu_seconds=1.5, energy_joules=300.0),
        GpuUse("GPU-gone", memory_bytes=0, memory_peak_bytes=5, gpu_seconds=0.5, energy_joules=1.0),
    )
    box.accounts = Accounts(
        jobs=(JobUse(KEY, uses, started_at=5.0, ended_at=9.0, exit_code=1, oom={"gpu": 1}),),
        projects=(ProjectUse("41", jobs=3, gpu_seconds=2.0, energy_joules=301.0, oom={"gpu": 1}),),
    )
    box.sample()
    scrape = box.scrape()
    assert scrape["gpurig_job_gpu_memory_bytes"] == {_job_labels(gpu="0"): 10, _job_labels(gpu="GPU-gone"): 0}
    assert scrape["gpurig_job_memory_peak_bytes"][_job_labels(gpu="0")] == 20
    assert scrape["gpurig_job_gpu_seconds"][_job_labels(gpu="0")] == 1.5
    assert scrape["gpurig_job_energy_joules"][_job_labels(gpu="0")] == 300.0
    assert scrape["gpurig_job_oom"] == {_job_labels(memory="gpu"): 1, _job_labels(memory="host"): 0}
    assert scrape["gpurig_job_start_timestamp_seconds"] == {_job_labels(): 5.0}
    assert scrape["gpurig_job_end_timestamp_seconds"] == {_job_labels(): 9.0}
    assert scrape["gpurig_project_jobs"] == {(("project_id", "41"),): 3}
    assert scrape["gpurig_project_oom"][(("memory", "gpu"), ("project_id", "41"))] == 1


def test_a_job_that_runs_has_no_end(box):
    box.accounts = Accounts(jobs=(JobUse(KEY, (), started_at=5.0),))
    box.sample()
    assert box.scrape()["gpurig_job_end_timestamp_seconds"] == {}


def test_energy_is_what_accounting_counted_else_the_cards_own(box):
    box.figures = {"GPU-1": Figures(energy_joules=5.0), "0x2": Figures(energy_joules=6.0)}
    box.accounts = Accounts(energy_joules={"GPU-1": 105.0})
    box.sample()
    assert _by_gpu(box.scrape()["gpurig_gpu_energy_joules"]) == {"0": 105.0, "1": 6.0}


def test_readings_by_name_become_a_series_each(box):
    box.figures = {
        "GPU-1": Figures(
            clocks_hertz={"sm": 2e9, "memory": 1e10},
            throttle_reasons={"power_cap": 1, "idle": 0},
            processes=(GpuProcess(1), GpuProcess(2)),
        )
    }
    box.xids = {"GPU-1": {79: XidSeen(2, 1.7e9)}}
    box.sample()
    scrape = box.scrape()
    gpu = {"gpu": "0", "uuid": "GPU-1"}

    def labels(**more):
        return tuple(sorted({**gpu, **more}.items()))

    assert scrape["gpurig_gpu_clock_hertz"] == {labels(clock="sm"): 2e9, labels(clock="memory"): 1e10}
    assert scrape["gpurig_gpu_throttle_reason"] == {labels(reason="power_cap"): 1, labels(reason="idle"): 0}
    assert _by_gpu(scrape["gpurig_gpu_processes"]) == {"0": 2}
    assert scrape["gpurig_gpu_xid_errors"] == {labels(xid="79"): 2}
    assert scrape["gpurig_gpu_xid_last_seen_timestamp_seconds"] == {labels(xid="79"): 1.7e9}


def test_the_drivers_of_the_cards_that_are_there_are_told(box):
    box.facts = HostFacts(gpus=(CARD,), cuda_version="12.8")
    box.sample()
    [labels] = box.scrape()["gpurig_driver_info"]
    assert dict(labels) == {"backend": "cuda", "driver": "570.10", "library": "", "cuda": "12.8"}


def test_health_names_the_collectors_that_hang_and_not_those_that_fail(box):
    assert stale(box.readings) == ["detect", "box", "nvidia"]
    box.figures = SourceError("down")
    box.sample()
    assert stale(box.readings) == []
    box.now += 100
    assert stale(box.readings) == ["nvidia"]


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
    assert describe(box.readings) == text


def test_what_the_watcher_cannot_read_is_a_collector_of_its_own(box):
    box.facts_of_box = BoxFacts(written_at=0.0, sources=("engine", "state"), problems={"engine": "no socket"})
    box.sample()
    scrape = box.scrape()
    assert scrape["gpurig_collector_success"][("collector", "engine"),] == 0
    assert scrape["gpurig_collector_success"][("collector", "state"),] == 1
    assert (("collector", "engine"),) not in scrape["gpurig_collector_duration_seconds"]
    assert (("collector", "engine"),) not in scrape["gpurig_collector_age_seconds"]
