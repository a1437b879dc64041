"""What became of a run since its baseline, in words and rows."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from gpurig.evaljobs.findings import Comparison, MetricChange, SampleChange
from gpurig.evaljobs.results import Results

# A change that chance explains once in more than so many comparisons is none.
ALPHA = 0.05
# Lines of two answers that are set side by side: comparing more takes seconds.
_MOST_LINES = 400


@dataclass(frozen=True)
class ChangeRow:
    """A metric since the baseline, as tables show it.

    Attributes:
        verdict: "worse", "better", or "" where chance explains the difference.
    """

    metric: str
    generator: str
    before: str
    after: str
    change: str
    interval: str
    p: str
    n: int
    verdict: Literal["worse", "better", ""]


def change_rows(comparison: Comparison, *, alpha: float = ALPHA) -> list[ChangeRow]:
    """A row for each metric."""
    return [
        ChangeRow(
            metric=change.metric,
            generator=change.generator,
            before=f"{change.before:.3f}",
            after=f"{change.after:.3f}",
            change=f"{change.after - change.before:+.3f}",
            interval="" if change.low is None or change.high is None else f"{change.low:+.3f} … {change.high:+.3f}",
            p="" if change.p_adjusted is None else f"{change.p_adjusted:.2g}",
            n=change.n,
            verdict=_verdict(change, alpha),
        )
        for change in comparison.changes
    ]


def _verdict(change: MetricChange, alpha: float) -> Literal["worse", "better", ""]:
    if change.p_adjusted is None or change.p_adjusted >= alpha:
        return ""
    fell = change.after < change.before
    return "worse" if fell != change.worse else "better"


def is_worse(change: MetricChange, alpha: float) -> bool:
    """Whether it is significantly worse."""
    return _verdict(change, alpha) == "worse"


Moved = tuple[Literal["regressed", "improved", ""], SampleChange | None]


def moved(results: Results) -> dict[str, Moved]:
    """The samples that came out differently, by id."""
    found = results.comparison
    if found is None:
        return {}
    changed: dict[str, Moved] = {change.id: ("regressed", change) for change in found.regressions}
    return changed | {change.id: ("improved", change) for change in found.improvements}


def baseline_text(comparison: Comparison) -> str:
    """Which run it was."""
    ref = comparison.baseline
    parts = [ref.name, ref.started.replace("T", " ").replace("Z", " UTC"), ref.commit_sha[:12]]
    return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Side:
    """A line of two answers side by side.

    Attributes:
        kind: "same", "changed", "gone" (only before) or "new" (only now).
    """

    kind: Literal["same", "changed", "gone", "new"]
    before: str
    after: str


def side_by_side(before: str, after: str) -> tuple[Side, ...]:
    """The lines of two texts, those that belong together beside each other; no more than 400 of each."""
    return tuple(_sides(before.split("\n")[:_MOST_LINES], after.split("\n")[:_MOST_LINES]))


def _sides(before: Sequence[str], after: Sequence[str]) -> Iterator[Side]:
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        for place in range(max(b - a, d - c)):
            left = before[a + place] if a + place < b else None
            right = after[c + place] if c + place < d else None
            if tag == "equal":
                yield Side("same", left or "", right or "")
            elif left is None:
                yield Side("new", "", right or "")
            elif right is None:
                yield Side("gone", left, "")
            else:
                yield Side("changed", left, right)
