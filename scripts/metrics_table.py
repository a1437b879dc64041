"""Write the tables of docs/metrics.md from the catalogue (`make docs`); a test holds them together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gpurig.runner.exporter.exposition.catalogue import METRICS
from gpurig.runner.exporter.exposition.dcgm_metrics import DCGM_METRICS
from gpurig.runner.exporter.exposition.metric import Metric

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


def catalogue_table(metrics: Sequence[Metric]) -> str:
    """Every metric with its type, unit, labels, meaning and sources."""
    return table(
        ("name", "type", "unit", "labels", "what", "NVIDIA", "AMD"),
        [
            (f"`{one.name}`", one.kind, one.unit, ", ".join(one.labels), one.text, one.nvidia, one.amd)
            for one in metrics
        ],
    )


def dcgm_table(metrics: Sequence[Metric]) -> str:
    """Every name of dcgm-exporter's with its unit and meaning."""
    return table(("name", "unit", "what"), [(f"`{one.name}`", one.unit, one.text) for one in metrics])


def with_tables(text: str) -> str:
    """The document with its tables as they should be.

    Raises:
        ValueError: the document has lost the marks between which they stand.
    """
    for name, content in (("metrics", catalogue_table(METRICS)), ("dcgm", dcgm_table(DCGM_METRICS))):
        begin, end = f"<!-- {name}: begin (make docs writes this table) -->\n", f"<!-- {name}: end -->\n"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{DOCUMENT.name} lacks the marks of the table {name}")
        text = f"{head}{begin}{content}{end}{tail}"
    return text


def main() -> None:
    """Write them where they differ."""
    old = DOCUMENT.read_text(encoding="utf-8")
    new = with_tables(old)
    if old != new:
        DOCUMENT.write_text(new, encoding="utf-8")
        print(f"wrote the tables of {DOCUMENT.name}")


if __name__ == "__main__":
    main()
