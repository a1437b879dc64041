"""How fit the graders are, in words."""

from __future__ import annotations

from collections.abc import Sequence

from gpurig.evaljobs.findings import Floor, JudgeFitness

_NAMES = {
    "kappa": "agreement with people (kappa)",
    "true_positive_rate": "good answers found good",
    "true_negative_rate": "bad answers found bad",
    "corrupted_rejected_rate": "spoilt answers found bad",
    "calibration_error": "calibration error",
}


def judge_rows(judge: JudgeFitness) -> list[list[str]]:
    """A row for each measure: its name, value, 95 % interval, floor, and whether it is met."""
    floors = {floor.metric: floor for floor in judge.floors}
    intervals = {
        "kappa": (judge.kappa_low, judge.kappa_high),
        "true_positive_rate": (judge.true_positive_low, judge.true_positive_high),
        "true_negative_rate": (judge.true_negative_low, judge.true_negative_high),
    }
    rows = []
    for metric, name in _NAMES.items():
        value = getattr(judge, metric)
        if value is None and metric not in floors:
            continue
        low, high = intervals.get(metric, (None, None))
        interval = "" if low is None or high is None else f"{low:.2f} … {high:.2f}"
        floor = floors.get(metric)
        met = "" if floor is None else ("ok" if floor.passed else "UNFIT")
        rows.append([name, _number(value), interval, "" if floor is None else _demand(floor), met])
    return rows


def unfit(judges: Sequence[JudgeFitness]) -> str:
    """Why a run's judges are not fit, in one line; "" where they are."""
    said = [
        f"{_NAMES.get(floor.metric, floor.metric)} {_number(floor.value)}, wanted {_demand(floor)}"
        for judge in judges
        for floor in judge.floors
        if not floor.passed
    ]
    return f"the grader is unfit: {'; '.join(said)}" if said else ""


def _demand(floor: Floor) -> str:
    return f"≥ {floor.minimum:g}" if floor.minimum is not None else f"≤ {floor.maximum:g}"


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"
