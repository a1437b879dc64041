"""Serving the metrics until the exporter is told to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector

from gpurig.provisioning.facts import Gpu
from gpurig.runner.exporter.assembly import ExporterOptions, make_readings, running
from gpurig.runner.exporter.ending import told_to_end
from gpurig.runner.exporter.exposition.collector import GpurigCollector
from gpurig.runner.exporter.exposition.text_format import Encoder
from gpurig.runner.exporter.readings import Readings, stale
from gpurig.runner.exporter.web.server import MetricsServer
from gpurig.runner.exporter.web.web_access import WebAccess


def serve(
    host: str,
    port: int,
    options: ExporterOptions,
    *,
    say: Callable[[str], None],
    web_config: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        host: the IP address to listen on.
        port: its port.
        options: what to read.
        say: called with one line when a source fails or works again.
        web_config: TLS and users; None for plain HTTP.

    Raises:
        PrerequisiteError, InputError: it cannot listen there, or the web configuration cannot be used.
    """
    access = WebAccess(web_config, say=say) if web_config else None
    readings = make_readings(options, say=say)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GpurigCollector(readings.view, dcgm_names=options.dcgm_names))
    ProcessCollector(registry=registry)
    server = MetricsServer(host, port, Encoder(registry).encode, partial(stale, readings), access)
    with ExitStack() as stack:
        stack.callback(server.server_close)
        ended = stack.enter_context(told_to_end())
        # Before anybody can ask: the first scrape is complete.
        stack.enter_context(running(readings))
        server.start()
        stack.callback(server.shutdown)
        say(f"serving {describe(readings)} on {server.url}")
        ended.wait()
        say("ending")


def describe(readings: Readings) -> str:
    """What is served, for people."""
    gpus: tuple[Gpu, ...] = ()
    if readings.inventory is not None and readings.inventory.value is not None:
        gpus = readings.inventory.value.present
    names = Counter(gpu.name or gpu.uuid for gpu in gpus)
    listed = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in names.items())
    return f"{len(gpus)} GPU{'' if len(gpus) == 1 else 's'}" + (f" ({listed})" if listed else "")
