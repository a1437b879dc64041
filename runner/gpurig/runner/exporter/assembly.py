"""Putting the exporter's readers together: what is read how often, and how they tell one another of work."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Literal

from gpurig.provisioning.detect import detect
from gpurig.runner.exporter.devices.amd import AmdSource
from gpurig.runner.exporter.devices.demo import DEMO_FACTS, DemoSource
from gpurig.runner.exporter.devices.figures import Figures
from gpurig.runner.exporter.devices.inventory import Inventory, Known
from gpurig.runner.exporter.devices.nvidia import NvidiaSource
from gpurig.runner.exporter.jobs.demo import demo_accounts, demo_box, demo_xids
from gpurig.runner.exporter.jobs.model import BoxFacts
from gpurig.runner.exporter.pace import Pace, WorkWatch
from gpurig.runner.exporter.readings import Readings
from gpurig.runner.exporter.runner_facts import read_runner_facts
from gpurig.runner.exporter.sampler import Sampler

ExporterBackend = Literal["auto", "cpu", "demo"]

# Cards come and go seldom, and looking for them is dearer than reading them.
_DETECT_PERIOD_S = 30.0


@dataclass(frozen=True)
class ExporterOptions:
    """What an exporter is asked to read.

    Attributes:
        backend: "auto" reads what is there, "cpu" no GPU, "demo" two that do not exist.
        period_s: seconds between two readings of a GPU while something uses one.
        idle_period_s: the same while nothing does.
        keep_finished_s: for how many seconds an ended job keeps its series.
        dcgm_names: show the GPUs' readings under dcgm-exporter's names too.
        root: below which gpurig keeps its files.
        name: the gpurig instance.
    """

    backend: ExporterBackend = "auto"
    period_s: float = 1.0
    idle_period_s: float = 5.0
    keep_finished_s: float = 300.0
    dcgm_names: bool = False
    root: Path = Path("/")
    name: str = "gpurig"


def make_readings(options: ExporterOptions, *, say: Callable[[str], None]) -> Readings:
    """The readers of a backend; nothing is read yet.

    Args:
        options: what to read.
        say: called with one line when a source fails or works again.
    """
    pace = Pace(options.period_s, options.idle_period_s, monotonic=time.monotonic)
    if options.backend == "demo":
        return _demo(options, pace, say)
    facts = partial(read_runner_facts, options.root, options.name)
    box = Sampler("box", _noting_jobs(facts, pace), period_s=options.period_s, say=say)
    if options.backend == "cpu":
        return Readings(inventory=None, figures=(), box=box)
    nvidia, amd = NvidiaSource(), AmdSource()
    inventory = Sampler("detect", Inventory(detect).read, period_s=_DETECT_PERIOD_S, say=say)
    reads: dict[str, Callable[[Known], Mapping[str, Figures]]] = {
        "nvidia": lambda known: nvidia.read(known.require("cuda")),
        "amd": lambda known: amd.read(known.require("rocm")),
    }
    return Readings(inventory=inventory, figures=_figures(inventory, reads, pace, say), box=box)


def _demo(options: ExporterOptions, pace: Pace, say: Callable[[str], None]) -> Readings:
    source, gpus, keep_s = DemoSource(time.time), DEMO_FACTS.gpus, options.keep_finished_s
    inventory = Sampler("detect", Inventory(lambda: DEMO_FACTS).read, period_s=_DETECT_PERIOD_S, say=say)
    facts = lambda: demo_box(time.time(), gpus, keep_s)  # noqa: E731 - the same shape as the real one
    return Readings(
        inventory=inventory,
        figures=_figures(inventory, {"demo": lambda known: source.read(known.present)}, pace, say),
        box=Sampler("box", _noting_jobs(facts, pace), period_s=options.period_s, say=say),
        accounts=lambda: demo_accounts(time.time(), gpus, keep_s),
        xids=lambda: demo_xids(time.time(), gpus),
    )


def _figures(
    inventory: Sampler[Known],
    reads: Mapping[str, Callable[[Known], Mapping[str, Figures]]],
    pace: Pace,
    say: Callable[[str], None],
) -> tuple[Sampler[Mapping[str, Figures]], ...]:
    """One sampler a source, all at the same pace: work on one vendor's card is seen on all."""
    samplers = tuple(
        Sampler(name, _noting_work(inventory, read, pace), period_s=lambda: pace.period_s, say=say)
        for name, read in reads.items()
    )
    for sampler in samplers:
        pace.on_work(sampler.wake)
    return samplers


def _noting_work(
    inventory: Sampler[Known], read: Callable[[Known], Mapping[str, Figures]], pace: Pace
) -> Callable[[], Mapping[str, Figures]]:
    watch = WorkWatch()

    def noting() -> Mapping[str, Figures]:
        known = inventory.value
        figures = read(known) if known is not None else {}
        pace.note(working=watch.shows_work(figures))
        return figures

    return noting


def _noting_jobs(read: Callable[[], BoxFacts | None], pace: Pace) -> Callable[[], BoxFacts | None]:
    def noting() -> BoxFacts | None:
        facts = read()
        pace.note(working=facts is not None and any(one.ended_at is None for one in facts.containers))
        return facts

    return noting


@contextmanager
def running(readings: Readings) -> Iterator[None]:
    """Read in the background; everything was read once, in order, before the body begins."""
    with ExitStack() as stack:
        for sampler in readings.samplers:
            sampler.sample()
        for sampler in readings.samplers:
            sampler.start()
            stack.callback(sampler.stop)
        yield


@contextmanager
def told_to_end() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set."""
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    with ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, end))
        yield ended
