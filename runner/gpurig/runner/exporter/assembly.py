"""Putting the exporter's readers together: what is read how often, and how they tell one another of work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpurig.common.errors import ApplianceError
from gpurig.provisioning.detect import detect
from gpurig.provisioning.facts import Gpu
from gpurig.provisioning.paths import Paths
from gpurig.runner.exporter.devices.amd import AmdSource
from gpurig.runner.exporter.devices.demo import DEMO_FACTS, DemoSource
from gpurig.runner.exporter.devices.figures import Figures, SourceError
from gpurig.runner.exporter.devices.inventory import Inventory, Known
from gpurig.runner.exporter.devices.nvidia import NvidiaSource
from gpurig.runner.exporter.devices.nvml_session import NvmlSession
from gpurig.runner.exporter.devices.xid_watch import XidWatch
from gpurig.runner.exporter.jobs.accounting import LONGEST_GAP_S, Accounting
from gpurig.runner.exporter.jobs.box_file import BoxReader
from gpurig.runner.exporter.jobs.box_watch import BoxWatch
from gpurig.runner.exporter.jobs.cgroup import ContainerFinder
from gpurig.runner.exporter.jobs.demo import demo_accounts, demo_box, demo_xids
from gpurig.runner.exporter.jobs.ledger import Limits
from gpurig.runner.exporter.jobs.model import BoxFacts
from gpurig.runner.exporter.jobs.state_file import StateFile
from gpurig.runner.exporter.jobs.summary import UsageFolder
from gpurig.runner.exporter.pace import Pace, WorkWatch
from gpurig.runner.exporter.readings import Readings
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
        hostname: what those call the machine.
        root: below which gpurig keeps its files.
        name: the gpurig instance.
        socket: the engine's, whose jobs are followed; None to follow none.
        box_facts: the file that a watcher of its own writes; it is asked instead of the engine and the box's files.
        state_dir: where counters outlive the exporter; None to begin at 0 every time.
        usage_dir: where jobs find what they used; None for nowhere.
    """

    backend: ExporterBackend = "auto"
    period_s: float = 1.0
    idle_period_s: float = 5.0
    keep_finished_s: float = 300.0
    dcgm_names: bool = False
    hostname: str = ""
    root: Path = Path("/")
    name: str = "gpurig"
    socket: Path | None = None
    box_facts: Path | None = None
    state_dir: Path | None = None
    usage_dir: Path | None = None


def make_readings(options: ExporterOptions, *, say: Callable[[str], None]) -> Readings:
    """The readers of a backend; nothing is read yet.

    Args:
        options: what to read.
        say: called with one line when a source fails or works again.
    """
    pace = Pace(options.period_s, options.idle_period_s, monotonic=time.monotonic)
    if options.backend == "demo":
        return _demo(options, pace, say)
    watched = None if options.box_facts else BoxWatch(options.socket, Paths(options.root, options.name), say=say)
    facts = watched.facts if watched else BoxReader(options.box_facts or Path()).read
    box = Sampler("box", _noting_jobs(facts, pace), period_s=options.period_s, say=say)
    inventory = None
    if options.backend == "auto":
        inventory = Sampler("detect", Inventory(detect).read, period_s=_DETECT_PERIOD_S, say=say)
    accounting = _accounting(options, box, inventory, say)
    nvml = NvmlSession()
    nvidia, amd = NvidiaSource(nvml), AmdSource(say=say)
    xids = XidWatch(nvml, lambda: _known_gpus(inventory), say=say)
    reads: dict[str, Callable[[Known], Mapping[str, Figures]]] = {
        "nvidia": lambda known: nvidia.read(known.require("cuda")),
        "amd": lambda known: amd.read(known.require("rocm")),
    }
    observed = {name: _observed(read, accounting) for name, read in reads.items()}
    return Readings(
        inventory=inventory,
        figures=_figures(inventory, observed, pace, say) if inventory else (),
        box=box,
        jobs=Sampler("jobs", _publishing(accounting), period_s=options.period_s, say=say),
        accounts=lambda: accounting.snapshot,
        xids=lambda: xids.latest,
        drivers=lambda: (nvidia.driver,) if nvidia.driver else (),
        background=(*((watched,) if watched else ()), *((xids,) if inventory else ())),
        close=accounting.close,
        hostname=options.hostname,
    )


def _known_gpus(inventory: Sampler[Known] | None) -> tuple[Gpu, ...]:
    known = inventory.value if inventory else None
    return tuple(one.gpu for one in known.gpus) if known else ()


def _accounting(
    options: ExporterOptions,
    box: Sampler[BoxFacts | None],
    inventory: Sampler[Known] | None,
    say: Callable[[str], None],
) -> Accounting:
    return Accounting(
        containers_of=ContainerFinder().containers_of,
        box=lambda: box.value,
        gpus=lambda: {gpu.uuid: gpu for gpu in _known_gpus(inventory)},
        limits=Limits(keep_finished_s=options.keep_finished_s),
        longest_gap_s=max(LONGEST_GAP_S, 3 * options.period_s, 3 * options.idle_period_s),
        state=StateFile(options.state_dir) if options.state_dir else None,
        usage=UsageFolder(options.usage_dir) if options.usage_dir else None,
        say=say,
    )


def _observed(
    read: Callable[[Known], Mapping[str, Figures]], accounting: Accounting
) -> Callable[[Known], Mapping[str, Figures]]:
    def observed(known: Known) -> Mapping[str, Figures]:
        figures = read(known)
        accounting.observe(figures)
        return figures

    return observed


def _publishing(accounting: Accounting) -> Callable[[], None]:
    def publish() -> None:
        try:
            accounting.publish()
        except ApplianceError as error:
            raise SourceError(error.message) from error

    return publish


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
        hostname=options.hostname,
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
        stack.callback(readings.close)
        for one in readings.background:
            one.start()
            stack.callback(one.stop)
        for sampler in readings.samplers:
            sampler.sample()
        for sampler in readings.samplers:
            sampler.start()
            stack.callback(sampler.stop)
        yield
