"""A day of the exporter on a fake clock, for benchmarks/exporter.py: does its memory grow, or the number of its series?

Everything is the exporter's own but the devices, the engine and /proc: 8 GPUs are read every second, 20 slots run jobs
of one to ten minutes of 300 projects, one after the other, and a scrape comes every 15 seconds.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gpurig.provisioning.facts import Gpu, HostFacts
from gpurig.runner.exporter.devices.figures import Figures, GpuProcess
from gpurig.runner.exporter.devices.inventory import Inventory
from gpurig.runner.exporter.exposition.collector import GpurigCollector
from gpurig.runner.exporter.exposition.text_format import Encoder
from gpurig.runner.exporter.jobs.accounting import Accounting
from gpurig.runner.exporter.jobs.model import BoxFacts, JobContainer, JobKey
from gpurig.runner.exporter.jobs.state_file import StateFile
from gpurig.runner.exporter.readings import Readings
from gpurig.runner.exporter.sampler import Sampler
from prometheus_client import CollectorRegistry

GPUS, SLOTS, PROJECTS = 8, 20, 300
KEPT_S, SCRAPE_S, HOUR_S = 300, 15, 3600
START = 1.8e9
MIB = 2**20


class Box:
    """The devices, the engine and /proc of a busy box; `now` is its clock."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.now = 0.0
        self.jobs = 0
        self.gpus = tuple(
            Gpu("cuda", f"GPU-{number}", "NVIDIA GeForce RTX 4090", f"0000:{number + 1:02x}:00.0", 24564 * MIB)
            for number in range(GPUS)
        )
        self.containers: dict[int, JobContainer] = {}
        self.ended: list[JobContainer] = []
        self.ends: dict[int, float] = {}
        self.facts = BoxFacts(written_at=START)

    def step(self) -> None:
        """A second passes: jobs end, and others begin in their places."""
        self.now += 1
        changed = False
        for slot in range(SLOTS):
            if self.now >= self.ends.get(slot, 0.0):
                changed = True
                self._next(slot)
        kept = [one for one in self.ended if START + self.now - (one.ended_at or 0.0) < KEPT_S]
        if changed or len(kept) != len(self.ended):
            self.ended = kept
            self.facts = BoxFacts(written_at=START + self.now, containers=(*self.containers.values(), *kept))

    def _next(self, slot: int) -> None:
        running = self.containers.get(slot)
        if running is not None:
            self.ended.append(
                JobContainer(running.id, running.job, "build", running.started_at, START + self.now, exit_code=0)
            )
        self.jobs += 1
        project = self.jobs * 31 % PROJECTS
        key = JobKey(str(self.jobs), str(project), str(self.jobs // 3), f"t1_bEnCh{slot % GPUS}")
        self.containers[slot] = JobContainer(f"{self.jobs:064x}", key, "build", START + self.now)
        self.ends[slot] = self.now + 60 + self.jobs * 7919 % 540

    def containers_of(self, pid: int) -> tuple[str, ...]:
        """As /proc says; every job has a process of its own number."""
        return (f"{pid:064x}",)

    def figures(self) -> Mapping[str, Figures]:
        """What NVML would say."""
        found = {}
        for number, gpu in enumerate(self.gpus):
            processes = tuple(
                GpuProcess(int(one.id, 16), (slot + 1) * 512 * MIB, 0.3)
                for slot, one in self.containers.items()
                if slot % GPUS == number
            )
            found[gpu.uuid] = Figures(
                memory_used_bytes=sum(one.memory_bytes or 0 for one in processes),
                utilization_ratio=0.9,
                temperature_celsius=61.0,
                power_watts=300.0 + number,
                power_limit_watts=450.0,
                energy_joules=300.0 * self.now,
                clocks_hertz={"sm": 2.5e9, "memory": 1e10},
                processes=processes,
            )
        return found


def main() -> None:
    """Let the hours pass; print what was there after the second hour, and what at the end."""
    hours = float(sys.argv[1])
    box = Box()
    memory = Path("/dev/shm")  # noqa: S108 - a file system in memory: a day of waiting for a disk tells nothing
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        found = live(box, hours, Path(folder))
    print(json.dumps(found))


def live(box: Box, hours: float, folder: Path) -> dict[str, float]:
    """The exporter's loop, on the box's clock."""

    def clock() -> float:
        return box.now

    accounting = Accounting(
        containers_of=box.containers_of,
        box=lambda: box.facts,
        state=StateFile(folder),
        monotonic=clock,
        wall=lambda: START + box.now,
    )

    def read() -> Mapping[str, Figures]:
        figures = box.figures()
        accounting.observe(figures)
        return figures

    readings = Readings(
        inventory=Sampler("detect", Inventory(lambda: HostFacts(gpus=box.gpus)).read, period_s=30, monotonic=clock),
        figures=(Sampler("nvidia", read, period_s=1, monotonic=clock),),
        box=Sampler("box", lambda: box.facts, period_s=1, monotonic=clock),
        accounts=lambda: accounting.snapshot,
        monotonic=clock,
    )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GpurigCollector(readings.view))
    encoder = Encoder(registry)
    series: dict[int, int] = {}
    resident: dict[int, float] = {}
    blocks: dict[int, int] = {}
    for second in range(int(hours * HOUR_S)):
        box.step()
        for sampler in readings.samplers:
            if second % max(1, int(sampler.period_s)) == 0:
                sampler.sample()
        accounting.publish()
        if second % SCRAPE_S == 0:
            body = encoder.encode(openmetrics=True)
        if (second + 1) % HOUR_S == 0:
            hour = (second + 1) // HOUR_S
            series[hour] = sum(1 for line in body.splitlines() if not line.startswith(b"#"))
            resident[hour], blocks[hour] = rss_mb(), sys.getallocatedblocks()
    first, last = min(2, max(series)), max(series)
    return {
        "growth_24h_mb": resident[last] - resident[first],
        "day_hours": hours,
        "day_jobs": box.jobs,
        "day_rss_mb": resident[last],
        "day_blocks_2h": blocks[first],
        "day_blocks_end": blocks[last],
        "day_series_2h": series[first],
        "day_series_end": series[last],
        "day_series_most": max(series.values()),
    }


def rss_mb() -> float:
    """Resident memory after the garbage is gone, MB of 2^20 bytes."""
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


if __name__ == "__main__":
    main()
