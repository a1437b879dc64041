"""From a process on a GPU to the report of the job that started it: real engine, real processes, NVIDIA's real binding.

Only the driver is a fake: it reports the processes of the containers.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess  # noqa: TID251 - the exporter runs beside the test, and is killed
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gpurig.common.waiting import wait_for
from gpurig.evaljobs.gpu_use import find_gpu_use
from gpurig.evaljobs.report import note_markdown
from gpurig.evaljobs.results import JobRef
from gpurig.provisioning.engine_facts import DEFAULT_ADDRESS
from prometheus_client.parser import text_string_to_metric_families
from standins.evalrun import results
from standins.gitlab_containers import JobContainers, job_containers
from standins.nvml import FakeNvml

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

pytestmark = pytest.mark.docker

GIB = 1024**3
CARD = {
    "uuid": "GPU-aaaaaaaa-0000-4000-8000-000000000000",
    "name": "NVIDIA GeForce RTX 4090",
    "pci": "00000000:01:00.0",
    "compute": "8.9",
    "memory_total": 24 * GIB,
    "utilization_gpu": 80,
    "power_mw": 300_000,
    "power_limit_mw": 400_000,
    "energy_mj": "0 +power",
}


@pytest.fixture
def jobs(engine: docker.DockerClient, base_image: str) -> Iterator[JobContainers]:
    with job_containers(engine, base_image) as made:
        yield made


class Box:
    """An exporter that reads the fake card, by hand on the host; `read` is what it writes for node_exporter."""

    def __init__(self, folder: Path, nvml: FakeNvml) -> None:
        self.folder, self.nvml = folder, nvml
        self.output = folder / "gpurig.prom"
        self.usage = folder / "usage"

    @contextlib.contextmanager
    def exporter(self) -> Iterator[subprocess.Popen[str]]:
        """Run it; it is killed at the end."""
        options = {
            "--output": self.output,
            "--every": "1",
            "--period": "0.1",
            "--idle-period": "0.1",
            "--engine": os.environ.get("DOCKER_HOST", DEFAULT_ADDRESS),
            "--root": self.folder,
            "--state-dir": self.folder / "state",
            "--usage-dir": self.usage,
        }
        command = [sys.executable, "-m", "gpurig.runner", "metrics", "textfile"]
        command += [str(word) for option in options.items() for word in option]
        process = subprocess.Popen(command, env=self.nvml.environment(), stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.kill()
            _, said = process.communicate(timeout=30)
            # A bug of the exporter shows in its log.
            assert "Traceback" not in said, said

    def set(self, *processes: tuple[Container, int, int]) -> None:
        """The processes on the card, with the GiB that each holds and the per cent of the time that it uses."""
        listed, used = [], []
        for container, gib, percent in processes:
            container.reload()
            pid = container.attrs["State"]["Pid"]
            listed.append(f"{pid} {gib * GIB} compute")
            used.append(f"{pid} {percent}")
        card = {**CARD, "process": listed, "use": used}
        self.nvml.set({"driver": "580.95.05", "nvml": "13.580", "cuda": 13000, "gpu": [card]})

    def read(self) -> dict[str, dict[str, float]]:
        """By name, the values by job; the project's under its number."""
        found: dict[str, dict[str, float]] = {}
        with contextlib.suppress(FileNotFoundError):
            for family in text_string_to_metric_families(self.output.read_text()):
                for one in family.samples:
                    if one.name.startswith(("gpurig_job_", "gpurig_project_")):
                        found.setdefault(one.name, {})[one.labels.get("job_id") or one.labels["project_id"]] = one.value
        return found

    def until(self, condition: Callable[[dict[str, dict[str, float]]], object]) -> dict[str, dict[str, float]]:
        """The first reading with which `condition` holds."""
        last: dict[str, dict[str, float]] = {}

        def look() -> bool:
            nonlocal last
            last = self.read()
            return bool(condition(last))

        assert wait_for(look, timeout_s=60, interval_s=0.1), last
        return last


def value(read: Mapping[str, Mapping[str, float]], name: str, of: str) -> float:
    return read.get(name, {}).get(of, 0.0)


def test_jobs_on_one_gpu_are_told_apart_through_a_kill_of_the_exporter_and_in_their_reports(
    jobs: JobContainers, engine: docker.DockerClient, base_image: str, fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    box = Box(tmp_path, fake_nvml)
    sleep = ["sleep", "600"]
    first, second = jobs.run(sleep), jobs.run(sleep)
    service = jobs.run(sleep, job=int(jobs.job_of(first)), kind="service")
    one, two = jobs.job_of(first), jobs.job_of(second)
    stranger = engine.containers.run(base_image, sleep, detach=True, network_mode="none")
    seconds, peak, joules = (
        "gpurig_job_gpu_seconds_total",
        "gpurig_job_memory_peak_bytes",
        "gpurig_job_energy_joules_total",
    )
    try:
        # A quarter of what is used is the first job's, half the second's, a quarter nobody's.
        box.set((first, 2, 10), (service, 1, 10), (second, 4, 40), (stranger, 1, 20))
        with box.exporter():
            before = box.until(lambda read: value(read, seconds, one) > 1)
            assert value(before, seconds, two) == pytest.approx(2 * value(before, seconds, one), rel=0.1)
            assert value(before, joules, two) == pytest.approx(2 * value(before, joules, one), rel=0.1)
            # 300 W, less a fifth of the idle power (a tenth of the limit); and half of that is the second job's.
            assert value(before, joules, two) / value(before, seconds, two) == pytest.approx(292 / 2 / 0.4, rel=0.1)
            assert (value(before, peak, one), value(before, peak, two)) == (3 * GIB, 4 * GIB)
        box.set((first, 1, 20), (second, 4, 40), (stranger, 1, 20))
        with box.exporter():
            after = box.until(lambda read: value(read, seconds, one) > value(before, seconds, one) + 0.2)
            for name in (seconds, peak, joules):
                assert value(after, name, one) >= value(before, name, one)
            assert value(after, peak, one) == 3 * GIB
            of_both = value(after, joules, one) + value(after, joules, two)
            assert value(after, "gpurig_project_energy_joules_total", "42") == pytest.approx(of_both)
            second.kill()
            box.set((first, 1, 20), (stranger, 1, 20))
            ended = box.until(lambda read: value(read, "gpurig_job_end_timestamp_seconds", two))
            assert value(ended, "gpurig_job_gpu_memory_bytes", two) == 0
            final = wait_for(lambda: _final(box.usage / "42" / f"{two}.json"), timeout_s=30)
            assert final
            assert final["text"].startswith("GPU: RTX 4090, peak 4.0 of 24.0 GiB, ")
    finally:
        stranger.remove(force=True)
    found = find_gpu_use(box.usage, {"CI_PROJECT_ID": "42", "CI_PIPELINE_ID": "9"}, pytest.fail)
    note = note_markdown(results(gpu_use=found, job=JobRef(id=one)))
    assert f"| {one} (this job) | NVIDIA GeForce RTX 4090 | 3.0 of 24.0 GiB |" in note
    assert f"| {two} | NVIDIA GeForce RTX 4090 | 4.0 of 24.0 GiB |" in note


def _final(file: Path) -> dict[str, object] | None:
    content: dict[str, object] = json.loads(file.read_text())
    return content if content["ended"] else None
