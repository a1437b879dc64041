"""Geometry of the charts: figures in, positions out; the template draws them as SVG, so they need no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpurig.common.terminal import harmless
from gpurig.evaljobs.report.words import amount, interval, percent, title
from gpurig.evaljobs.results import Metric, Results
from gpurig.evaljobs.statistics.intervals import wilson_interval


@dataclass(frozen=True)
class Bar:
    """A share as a horizontal bar with its interval; positions are in 0 … 1 of the plot's width."""

    label: str
    value: float
    low: float
    high: float
    text: str
    detail: str


@dataclass(frozen=True)
class Bin:
    """A column of a histogram; `height` is in 0 … 1 of the highest."""

    label: str
    count: int
    height: float
    detail: str


@dataclass(frozen=True)
class Histogram:
    """Columns from `first` to `last`, with an optional mark at `mark`, 0 … 1 of the width."""

    bins: tuple[Bin, ...]
    ticks: tuple[str, ...]
    highest: int
    mark: float | None = None
    mark_text: str = ""


def rate_bars(results: Results) -> tuple[Bar, ...]:
    """Every proportion among the metrics."""
    return tuple(bar for metric in results.metrics if (bar := _bar(metric)) is not None)


def _bar(metric: Metric) -> Bar | None:
    if metric.low is None or metric.high is None:
        return None
    detail = f"{title(metric)}: {amount(metric)}, 95 % interval {interval(metric)}, {metric.n} samples"
    return Bar(title(metric), metric.value, metric.low, metric.high, percent(metric.value), detail)


def tag_bars(results: Results, most: int = 12) -> tuple[Bar, ...]:
    """Samples passed by tag, in the order in which the suite brings them up; empty for fewer than two tags."""
    tags = list(dict.fromkeys(tag for sample in results.samples for tag in sample.tags))
    if len(tags) < 2:
        return ()
    bars = []
    for tag in tags[:most]:
        tagged = [sample for sample in results.samples if tag in sample.tags]
        passed = sum(sample.passed for sample in tagged)
        low, high = wilson_interval(passed, len(tagged))
        share = passed / len(tagged)
        detail = f"{tag}: {passed} of {len(tagged)} passed, 95 % interval {100 * low:.1f} to {100 * high:.1f} %"
        bars.append(Bar(harmless(tag), share, low, high, percent(share), harmless(detail)))
    return tuple(bars)


def grade_histogram(results: Results, bins: int = 10) -> Histogram | None:
    """The grader's scores, 0 … 1; None where nothing was graded."""
    scores = [sample.grade.score for sample in results.samples if sample.grade and not sample.grade.error]
    if not scores:
        return None
    mark = results.pass_score
    return _histogram(
        scores,
        top=1.0,
        bins=bins,
        unit="",
        ticks=("0", "0.25", "0.5", "0.75", "1"),
        mark=mark,
        mark_text=f"passes from {mark:g}" if mark is not None else "",
    )


def seconds_histogram(results: Results, bins: int = 16) -> Histogram | None:
    """Seconds per generated sample; None where nothing was generated."""
    seconds = [sample.seconds for sample in results.samples if sample.finish != "error"]
    top = _round_up(max(seconds, default=0.0))
    if top <= 0:
        return None
    return _histogram(seconds, top=top, bins=bins, unit=" s", ticks=tuple(f"{top * part / 4:.3g}" for part in range(5)))


def _round_up(value: float) -> float:
    """The least of 1, 2, 4, 8 times a power of ten that is not below `value`; 0 for nothing positive."""
    if value <= 0:
        return 0.0
    power = 10.0**-9
    while power * 10 < value:
        power *= 10
    return next(power * step for step in (1, 2, 4, 8, 10) if power * step >= value)


def _histogram(
    values: Sequence[float],
    *,
    top: float,
    bins: int,
    unit: str,
    ticks: tuple[str, ...],
    mark: float | None = None,
    mark_text: str = "",
) -> Histogram:
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int(value / top * bins)))] += 1
    highest = max(counts)
    columns = []
    for index, count in enumerate(counts):
        label = f"{top * index / bins:.3g} to {top * (index + 1) / bins:.3g}{unit}"
        noun = "sample" if count == 1 else "samples"
        columns.append(Bin(label, count, count / highest, f"{label}: {count} {noun}"))
    return Histogram(tuple(columns), ticks, highest, mark, mark_text)
