"""metrics.txt: GitLab's metrics report.

One `name{label="value"} value` a line. GitLab cuts a line at `#`, splits it as a shell would, and compares values as
strings: so no `#`, no space and no quote inside of a label, and rounded values, or noise shows as a change.
"""

from __future__ import annotations

import re

from gpurig.evaljobs.report.gpu_use import run_use
from gpurig.evaljobs.results import Results

_CHECK = "check_pass_rate."


def metrics_text(results: Results) -> str:
    """The file's text: every metric, three decimals for shares and grades, whole numbers from 10 on; the GPU use."""
    models = {one.name: one.model.name for one in results.generators}
    lines = [
        f"{_name(metric.name, results, metric.generator, models.get(metric.generator))} {_value(metric.value)}\n"
        for metric in results.metrics
    ]
    return "".join([*lines, *_gpu_use(results)])


def _gpu_use(results: Results) -> list[str]:
    """Two digits: no two runs take the same time, and what differs by chance would show as a change."""
    use = run_use(results)
    if use is None:
        return []
    figures = {
        "gpu_memory_peak_gib": None if use.memory_peak_bytes is None else use.memory_peak_bytes / 1024**3,
        "gpu_seconds": use.gpu_seconds,
        "gpu_energy_kilojoules": None if use.energy_joules is None else use.energy_joules / 1000,
    }
    return [f"{_name(name, results)} {_two_digits(value)}\n" for name, value in figures.items() if value is not None]


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):.10f}".rstrip("0").rstrip(".")


def _name(name: str, results: Results, generator: str = "", model: str | None = None) -> str:
    labels = {"suite": results.suite, "model": model or results.generator.name}
    if generator:
        labels |= {"generator": generator}
    if name.startswith(_CHECK):
        labels = {"check": name.removeprefix(_CHECK)} | labels
        name = _CHECK.rstrip(".")
    inside = ",".join(f'{key}="{_label(value)}"' for key, value in labels.items())
    return f"{re.sub(r'[^A-Za-z0-9_:]', '_', name)}{{{inside}}}"


def _label(value: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.:/+-]", "_", value)


def _value(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.3f}"
