"""metrics.txt: GitLab's metrics report.

One `name{label="value"} value` a line. GitLab cuts a line at `#`, splits it as a shell would, and compares values as
strings: so no `#`, no space and no quote inside of a label, and rounded values, or noise shows as a change.
"""

from __future__ import annotations

import re

from gpurig.evaljobs.results import Metric, Results

_CHECK = "check_pass_rate."


def metrics_text(results: Results) -> str:
    """The file's text: every metric, three decimals for shares and grades, whole numbers from 10 on."""
    return "".join(f"{_name(metric, results)} {_value(metric.value)}\n" for metric in results.metrics)


def _name(metric: Metric, results: Results) -> str:
    labels = {"suite": results.suite, "model": results.generator.name}
    name = metric.name
    if name.startswith(_CHECK):
        labels = {"check": name.removeprefix(_CHECK)} | labels
        name = _CHECK.rstrip(".")
    inside = ",".join(f'{key}="{_label(value)}"' for key, value in labels.items())
    return f"{re.sub(r'[^A-Za-z0-9_:]', '_', name)}{{{inside}}}"


def _label(value: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.:/+-]", "_", value)


def _value(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.3f}"
