"""A day on a fake clock, with hundreds of jobs of hundreds of projects: nothing grows, and everything is counted."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import pytest
from gpurig.runner.exporter.jobs.ledger import Limits
from gpurig.runner.exporter.jobs.state_file import FILE_NAME, StateFile
from gpurig.runner.exporter.jobs.summary import UsageFolder
from standins.accounting import Box, gpu, key

GPUS = [f"gpu-{number}" for number in range(8)]
PERIOD_S = 60.0
HOUR = round(3600 / PERIOD_S)


def deep_bytes(root: object) -> int:
    """Memory of an object and of all that it holds, but code."""
    seen: set[int] = set()
    left, total = [root], 0
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, type) or callable(one):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        if isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, tuple | list | AbstractSet):
            left += list(one)
        else:
            left += [getattr(one, name) for name in getattr(type(one), "__slots__", ()) if hasattr(one, name)]
            left += list(getattr(one, "__dict__", {}).values())
    return total


class Day:
    """Jobs begin one after another, each on one or two GPUs for up to ten minutes; old files are of no matter here."""

    def __init__(self, box: Box) -> None:
        self.box, self.rng = box, random.Random(1)
        self.begun = 0
        self.running: dict[int, tuple[float, tuple[str, ...]]] = {}
        self.ended: dict[int, float] = {}
        self.joules = dict.fromkeys(GPUS, 0.0)
        self.busy_s = 0.0

    def step(self) -> None:
        box, now = self.box, self.box.passed
        for _ in range(self.rng.choice([0, 1, 2])):
            self.begun += 1
            name = box.start(self.begun, key(self.begun, project=self.rng.randrange(300)), tell=False)
            box.pids[self.begun] = name
            self.running[self.begun] = (
                now + self.rng.uniform(60, 600),
                tuple(self.rng.sample(GPUS, self.rng.choice([1, 1, 2]))),
            )
        for number in [one for one, (end, _) in self.running.items() if end <= now]:
            box.end(number)
            del self.running[number]
            self.ended[number] = now
        for number in [one for one, end in self.ended.items() if end < now - 600]:
            box.forget(number)
            del self.ended[number]
        box.tell()
        figures = {}
        for uuid in GPUS:
            here = [(number, 2) for number, (_, on) in self.running.items() if uuid in on]
            self.joules[uuid] += (300 if here else 20) * PERIOD_S
            # The driver is loaded anew at noon.
            counter = self.joules[uuid] if now < 43_200 else self.joules[uuid] % 1e6
            figures[uuid] = gpu(*here, busy=1.0 if here else 0.0, joules=counter)
            self.busy_s += PERIOD_S if here else 0
        box.passed += PERIOD_S
        box.accounting.observe(figures)
        box.accounting.publish()


def test_a_day_with_hundreds_of_jobs_grows_neither_memory_nor_series_nor_the_state_file(tmp_path, monkeypatch):
    # A day of waiting for the disk is what this test can do without.
    monkeypatch.setattr("gpurig.common.files.os.fsync", lambda _descriptor: None)
    limits = Limits(projects=100)
    box = Box(
        limits=limits,
        longest_gap_s=PERIOD_S,
        state=StateFile(tmp_path / "state"),
        usage=UsageFolder(tmp_path / "usage"),
    )
    day = Day(box)
    sizes, series, lengths = [], [], []
    for _ in range(24):
        for _ in range(HOUR):
            day.step()
            series.append(sum(len(job.uses) for job in box.accounting.snapshot.jobs))
        sizes.append(deep_bytes(box.accounting))
        lengths.append((tmp_path / "state" / FILE_NAME).stat().st_size)
    assert day.begun > 1_000
    # After some hours every project was seen and the number of jobs at a time is what it stays.
    assert max(sizes[12:]) < 1.1 * max(sizes[6:12]), sizes
    assert max(sizes) < 1_000_000
    assert max(lengths) < 300_000
    assert max(series) <= 60
    snapshot = box.accounting.snapshot
    assert len(snapshot.projects) == limits.projects + 1
    assert sum(one.jobs for one in snapshot.projects) == pytest.approx(day.begun, abs=3)
    assert sum(one.gpu_seconds for one in snapshot.projects) == pytest.approx(day.busy_s, rel=0.02)
    box.accounting.close()
