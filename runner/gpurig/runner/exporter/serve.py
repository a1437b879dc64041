"""Putting the exporter together and running it until it is told to end."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector

from gpurig.provisioning.detect import detect
from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.devices.amd import AmdSource
from gpurig.runner.exporter.devices.demo import DEMO_FACTS, DemoSource
from gpurig.runner.exporter.devices.figures import Figures
from gpurig.runner.exporter.devices.inventory import Inventory, Known
from gpurig.runner.exporter.devices.nvidia import NvidiaSource
from gpurig.runner.exporter.exposition.collector import STALE_AFTER_S, GpurigCollector, Samplers
from gpurig.runner.exporter.runner_facts import read_runner_facts
from gpurig.runner.exporter.sampler import Sampler
from gpurig.runner.exporter.web.server import MetricsServer
from gpurig.runner.exporter.web.web_access import WebAccess

ExporterBackend = Literal["auto", "cpu", "demo"]

# Cards come and go seldom, and looking for them is dearer than reading them.
_DETECT_PERIOD_S = 30.0
_RUNNER_PERIOD_S = 30.0


def make_samplers(
    backend: ExporterBackend, *, period_s: float, root: Path, name: str, say: Callable[[str], None]
) -> Samplers:
    """The samplers of a backend; nothing is read yet.

    Args:
        backend: "auto" reads what is there, "cpu" no GPU, "demo" two that do not exist.
        period_s: seconds between two readings of a GPU.
        root: below which gpurig keeps its files.
        name: the gpurig instance.
        say: called with one line when a source fails or works again.
    """
    runner = Sampler("runner", lambda: read_runner_facts(root, name), period_s=_RUNNER_PERIOD_S, say=say)
    if backend == "cpu":
        return Samplers(inventory=None, figures=(), runner=runner)
    demo = backend == "demo"
    inventory = Sampler(
        "detect", Inventory(lambda: DEMO_FACTS if demo else detect()).read, period_s=_DETECT_PERIOD_S, say=say
    )
    reads: dict[str, Callable[[Known], Mapping[str, Figures]]]
    if demo:
        source = DemoSource(time.time)
        reads = {"demo": lambda known: source.read(known.present)}
    else:
        nvidia, amd = NvidiaSource(), AmdSource()
        reads = {
            "nvidia": lambda known: nvidia.read(known.require("cuda")),
            "amd": lambda known: amd.read(known.require("rocm")),
        }
    figures = tuple(
        Sampler(one, partial(_read_known, inventory, read), period_s=period_s, say=say) for one, read in reads.items()
    )
    return Samplers(inventory=inventory, figures=figures, runner=runner)


def _read_known(inventory: Sampler[Known], read: Callable[[Known], Mapping[str, Figures]]) -> Mapping[str, Figures]:
    known = inventory.value
    return read(known) if known is not None else {}


def serve(  # noqa: D417 - the rest is make_samplers'
    host: str,
    port: int,
    *,
    backend: ExporterBackend,
    period_s: float,
    root: Path,
    name: str,
    say: Callable[[str], None],
    web_config: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        host, port: where to listen.
        web_config: TLS and users; None for plain HTTP.

    Raises:
        PrerequisiteError, InputError: it cannot listen there, or the web configuration cannot be used.
    """
    access = WebAccess(web_config, say=say) if web_config else None
    samplers = make_samplers(backend, period_s=period_s, root=root, name=name, say=say)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GpurigCollector(samplers))
    ProcessCollector(registry=registry)
    server = MetricsServer(host, port, registry, partial(stale, samplers), access)
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    with ExitStack() as stack:
        stack.callback(server.server_close)
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, end))
        # In this order, and once before anybody can ask: the first scrape is complete.
        for sampler in samplers.every:
            sampler.sample()
        for sampler in samplers.every:
            sampler.start()
            stack.callback(sampler.stop)
        server.start()
        stack.callback(server.shutdown)
        say(f"serving {describe(samplers)} on {server.url}")
        ended.wait()
        say("ending")


def describe(samplers: Samplers) -> str:
    """What is served, for people."""
    gpus: tuple[Gpu, ...] = ()
    if samplers.inventory is not None and samplers.inventory.value is not None:
        gpus = samplers.inventory.value.present
    names = Counter(gpu.name or gpu.uuid for gpu in gpus)
    listed = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in names.items())
    return f"{len(gpus)} GPU{'' if len(gpus) == 1 else 's'}" + (f" ({listed})" if listed else "")


def stale(samplers: Samplers, *, monotonic: Callable[[], float] = time.monotonic) -> list[str]:
    """The collectors that hang: no attempt ended for three periods and 30 seconds. One that fails does not hang."""
    now = monotonic()
    return [
        sampler.name
        for sampler in samplers.every
        if (tried := sampler.latest.tried_at) is None or now - tried > 3 * sampler.period_s + STALE_AFTER_S
    ]
