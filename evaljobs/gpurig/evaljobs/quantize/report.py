"""The report of a quantization or comparison: one JSON object (docs/formats.md), and a table of it."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from gpurig.common.terminal import harmless, table
from gpurig.evaljobs.quantize.figures import Estimate, Figures
from gpurig.evaljobs.quantize.settings import Comparing

SCHEMA = "gpurig.quantize/1"
_MIB = 2**20


@dataclass(frozen=True)
class ModelRow:
    """A model file of the report.

    Attributes:
        name: its quantization, for example "Q4_K_M".
        file: its name.
        bits_per_weight: of all its tensors.
        types: how many tensors of each type.
        fallbacks: tensors that could not get the wanted type.
        figures: against the reference; None where it was not compared, or predicts nothing.
        problem: why it cannot be used; "" where it can.
    """

    name: str
    file: str
    sha256: str
    size_bytes: int
    bits_per_weight: float
    types: dict[str, int]
    fallbacks: tuple[str, ...] = ()
    figures: Figures | None = None
    problem: str = ""


@dataclass(frozen=True)
class UsedText:
    """The text of a comparison, and how it was read.

    Attributes:
        tokens: how many were scored.
    """

    name: str
    sha256: str
    chunks: int
    context: int
    tokens: int


@dataclass(frozen=True)
class UsedImatrix:
    """The importance matrix of a quantization.

    Attributes:
        unseen_experts: experts that no token was sent to.
    """

    file: str
    sha256: str
    datasets: tuple[str, ...]
    chunks: int
    unseen_experts: int


@dataclass(frozen=True)
class Report:
    """What a run made and found.

    Attributes:
        source: the model that was quantized, or that others are compared with.
        limits: of the gate.
        failed: what is outside of them, a line each.
    """

    source: ModelRow
    models: tuple[ModelRow, ...]
    text: UsedText | None
    imatrix: UsedImatrix | None
    packages: dict[str, str]
    limits: dict[str, float | None]
    failed: tuple[str, ...]

    def to_json(self) -> str:
        """As one JSON object."""
        values = {"schema": SCHEMA, **asdict(self), "passed": not self.failed}
        return json.dumps(_finite(values), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no infinity: null is a figure that no number can hold."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(one) for key, one in value.items()}
        case list() | tuple():
            return [_finite(one) for one in value]
        case _:
            return value


def gate(models: tuple[ModelRow, ...], comparing: Comparing) -> tuple[str, ...]:
    """What is outside of the limits; a model that predicts nothing always is."""
    failed = []
    for model in models:
        if model.problem:
            failed.append(f"{model.name}: {model.problem}")
        if model.figures is None:
            continue
        divergence, limit = model.figures.divergence.mean.value, comparing.max_divergence
        if limit is not None and not divergence <= limit:
            failed.append(f"{model.name}: mean KLD {divergence:.6f} is above {limit:g}")
        ratio, limit = model.figures.perplexity_ratio.value, comparing.max_perplexity_ratio
        if limit is not None and not ratio <= limit:
            failed.append(f"{model.name}: perplexity ratio {ratio:.4f} is above {limit:g}")
    return tuple(failed)


def as_text(report: Report) -> str:
    """The report for a person, at most 80 columns wide."""
    compared = report.text is not None
    header = ["model", "MiB", "bits"]
    header += ["KLD", "±", "99 %", "max", "top-1 %", "ppl ratio"] if compared else ["sha256"]
    rows = [_row(row, compared=compared, source=row is report.source) for row in (report.source, *report.models)]
    lines = [table(header, rows)]
    if report.text is not None:
        text = report.text
        lines += ["", f"{text.tokens} tokens of {harmless(text.name)} scored, {text.chunks} chunks of {text.context}"]
        base = next((model.figures.reference_perplexity for model in report.models if model.figures), None)
        if base is not None:
            lines.append(
                f"perplexity of the reference: {_number(base.value)} ({_number(base.low)} to {_number(base.high)})"
            )
    if report.imatrix is not None:
        unseen = f"; {report.imatrix.unseen_experts} experts got no token" if report.imatrix.unseen_experts else ""
        lines.append(f"importance matrix: {harmless(report.imatrix.file)}, {report.imatrix.chunks} chunks{unseen}")
    for row in report.models:
        if row.fallbacks:
            total = sum(row.types.values())
            mixture = ", ".join(f"{count} {name}" for name, count in sorted(row.types.items(), key=lambda one: -one[1]))
            lines += textwrap.wrap(
                f"{row.name}: {len(row.fallbacks)} of {total} tensors have rows that its type cannot divide, and got "
                f"another one: {mixture}",
                80,
                subsequent_indent="  ",
            )
        if row.problem:
            lines.append(f"{row.name}: {row.problem}")
    return "\n".join(lines)


def _row(row: ModelRow, *, compared: bool, source: bool) -> list[str]:
    cells = [row.name, f"{row.size_bytes / _MIB:.1f}", f"{row.bits_per_weight:.2f}"]
    if not compared:
        return [*cells, row.sha256[:16]]
    if row.figures is None:
        return [*cells, *(["reference"] if source else ["-"]), "", "", "", "", ""]
    found = row.figures
    divergence = found.divergence
    return [
        *cells,
        _small(divergence.mean.value),
        _small(_reach(divergence.mean)),
        _small(divergence.p99),
        _small(divergence.maximum),
        f"{100 * found.same_top.value:.2f}",
        _number(found.perplexity_ratio.value),
    ]


def _reach(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2


def _small(value: float) -> str:
    return f"{max(value, 0.0):.5f}" if value < 10 else f"{value:.2f}"


def _number(value: float) -> str:
    if value < 1000:
        return f"{value:.4f}"
    return f"{value:.0f}" if value < 1e6 else f"{value:.3g}"
