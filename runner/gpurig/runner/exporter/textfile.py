"""Metrics as a file for the textfile collector of Prometheus' node_exporter, which then serves them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from gpurig.common.errors import ApplianceError, InputError
from gpurig.common.files import write_atomic
from gpurig.runner.exporter.assembly import ExporterOptions, make_readings, running
from gpurig.runner.exporter.ending import told_to_end
from gpurig.runner.exporter.exposition.collector import GpurigCollector
from gpurig.runner.exporter.exposition.text_format import Encoder

# node_exporter's collector takes no other files, and runs as a user of its own.
_ENDING = ".prom"
_MODE = 0o644


def write_textfile(
    output: Path, options: ExporterOptions, *, write_period_s: float | None, say: Callable[[str], None]
) -> None:
    """Write the metrics to a file, once or until SIGTERM or SIGINT; then the file is removed, because it would lie.

    The metrics of the exporter's own process are left out: node_exporter has its own of those names.

    Args:
        output: the file, replaced as a whole each time.
        options: what to read.
        write_period_s: seconds between two writings; None to write once, and leave the file.
        say: called with one line when a source or a writing fails or works again.

    Raises:
        InputError: node_exporter would not read a file of that name.
        PrerequisiteError: the first writing failed.
    """
    if output.suffix != _ENDING:
        raise InputError(
            f"node_exporter reads no {output.name}: its files end in {_ENDING}",
            hint=f"name it {output.with_suffix(_ENDING).name}",
        )
    readings = make_readings(options, say=say)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(GpurigCollector(readings.view, dcgm_names=options.dcgm_names))
    encoder = Encoder(registry)

    def write() -> None:
        write_atomic(output, encoder.encode(openmetrics=False), mode=_MODE)

    if write_period_s is None:
        with running(readings):
            write()
        return
    with ExitStack() as stack:
        ended = stack.enter_context(told_to_end())
        stack.enter_context(running(readings))
        write()
        stack.callback(partial(output.unlink, missing_ok=True))
        say(f"writing {output} every {write_period_s:g} s")
        _write_until(ended, write, write_period_s, say)
        say("ending")


def _write_until(
    ended: threading.Event, write: Callable[[], None], period_s: float, say: Callable[[str], None]
) -> None:
    failed = ""
    while not ended.wait(period_s):
        try:
            write()
        except ApplianceError as error:
            # A full disk becomes free again; the file's age is what node_exporter's users alert on meanwhile.
            if error.message != failed:
                failed = error.message
                say(failed)
        else:
            if failed:
                say("writing works again")
            failed = ""
