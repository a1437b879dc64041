"""Calibration: how far a grader agrees with people, on answers that people judged."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.evaljobs.findings import Floor, JudgeFitness
from gpurig.evaljobs.grading.corruptions import CORRUPTIONS, corrupted
from gpurig.evaljobs.records import Grade
from gpurig.evaljobs.statistics.agreement import cohen_kappa
from gpurig.evaljobs.statistics.calibration import expected_calibration_error, truth_rates
from gpurig.evaljobs.suites.fields import Name, SampleId, Scalar
from gpurig.evaljobs.suites.suite import CalibrationSpec, GraderSpec, Sample, Suite
from gpurig.evaljobs.suites.wording import in_words

# What people say where they do not use the suite's own verdicts.
_WORDS = {"good": 1.0, "pass": 1.0, "bad": 0.0, "fail": 0.0}
# Of these floors a judge must stay below.
_AT_MOST = frozenset({"calibration_error"})
_MOST_DISAGREEMENTS = 50


class _Line(BaseModel):
    """A line of a calibration set; what is not named here is for people (`why`)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: SampleId
    input: str = ""
    output: str
    verdict: str | bool | float
    reference: str = ""
    tags: tuple[Name, ...] = ()
    vars: dict[Name, Scalar] = Field(default_factory=dict)


@dataclass(frozen=True)
class CalibrationItem:
    """An answer that a person judged.

    Attributes:
        sample: what was asked.
        value: the person's verdict, 0 … 1.
        corruption: how a good answer was spoilt; "" for one that was not.
    """

    sample: Sample
    output: str
    value: float
    corruption: str = ""

    @property
    def id(self) -> str:
        """Its name."""
        return self.sample.id


def calibration_items(suite: Suite) -> tuple[CalibrationItem, ...]:
    """What the suite's grader is calibrated on, corruptions of the good answers last; none where it is not.

    Raises:
        InputError: no such file, a line that is none (file, line and field are named), an id twice, or all answers good
            or all bad. PrerequisiteError: no permission.
    """
    grader = suite.grader
    if grader is None or grader.calibration is None:
        return ()
    path = suite.folder / grader.calibration.file
    if not path.is_file():
        raise InputError(
            f"{suite.path}: grader.calibration: there is no file {path}",
            hint="the path is relative to the suite's folder",
        )
    items = tuple(_read(path, grader))
    good = [item for item in items if item.value >= grader.pass_score]
    if not good or len(good) == len(items):
        raise InputError(
            f"{path}: {'no' if not good else 'every'} answer is good by people's verdicts: agreement cannot be told",
            hint="add answers of the other kind; 50 of each make intervals that say something",
        )
    return (*items, *_spoilt(good, grader, grader.calibration))


def _read(path: Path, grader: GraderSpec) -> Iterator[CalibrationItem]:
    first: dict[str, int] = {}
    for number, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            line = _Line.model_validate_json(text, strict=True)
        except ValidationError as error:
            field, message = _told(error, text)
            raise InputError(
                f"{path}:{number}: {f'{field}: ' if field else ''}{message}",
                hint="a line is a JSON object with id, input, output and verdict (docs/graders.md)",
            ) from error
        if line.id in first:
            raise InputError(
                f'{path}:{number}: id: "{line.id}" is there twice, first in line {first[line.id]}',
                hint="ids must differ",
            )
        first[line.id] = number
        sample = Sample(id=line.id, input=line.input, reference=line.reference, tags=line.tags, vars=line.vars)
        yield CalibrationItem(sample, line.output, _value(line.verdict, grader, f"{path}:{number}"))


def _told(error: ValidationError, text: str) -> tuple[str, str]:
    """The field that is wrong first, and what would be right; "" where the line is no JSON object."""
    entry = error.errors()[0]
    if not entry["loc"]:
        return "", "no JSON object"
    where, message = next(iter(in_words(entry, json.loads(text), _Line)), (entry["loc"], entry["msg"]))
    # Which of a verdict's kinds pydantic tried is nobody's business.
    return ".".join(str(part) for part in where[:2] if part not in {"str", "bool", "float"}), message


def _value(verdict: str | bool | float, grader: GraderSpec, where: str) -> float:  # noqa: FBT001 - a JSON value
    if isinstance(verdict, str):
        known = {**_WORDS, **grader.verdicts}
        if verdict not in known:
            raise InputError(
                f'{where}: verdict: "{verdict}" is none of {", ".join(known)}',
                hint="use one of the grader's verdicts, good, bad, true, false, or a number from 0 to 1",
            )
        return known[verdict]
    if not 0 <= verdict <= 1:
        raise InputError(f"{where}: verdict: must be from 0 to 1, not {verdict:g}", hint="1 is the best")
    return float(verdict)


def _spoilt(good: Sequence[CalibrationItem], grader: GraderSpec, spec: CalibrationSpec) -> Iterator[CalibrationItem]:
    best = max(grader.verdicts, key=lambda verdict: grader.verdicts[verdict])
    kinds = itertools.cycle(CORRUPTIONS)
    for number in range(spec.corruptions):
        item, kind = good[number % len(good)], next(kinds)
        output = corrupted(kind, f"{item.id}/{number}", item.output, best=best, seed=spec.seed)
        name = f"corrupted/{number}/{kind}/{item.id}"[:200]
        yield CalibrationItem(item.sample.model_copy(update={"id": name}), output, 0.0, kind)


def fitness(grader: GraderSpec, items: Sequence[CalibrationItem], grades: Mapping[str, Grade]) -> JudgeFitness:
    """How fit a grader is by its grades of `items`, which are not empty; pure.

    A verdict that the grader could not give counts as the wrong one. Corrupted answers count for their own rate alone:
    they would raise the agreement as far as one likes.
    """
    own = [item for item in items if not item.corruption]
    truth = {item.id: item.value >= grader.pass_score for item in items}

    def said(item: CalibrationItem) -> bool:
        grade = grades[item.id]
        return not truth[item.id] if grade.error else grade.score >= grader.pass_score

    pairs = [(truth[item.id], said(item)) for item in own]
    kappa = cohen_kappa(pairs)
    if kappa is None:
        raise AssertionError("a calibration set has good and bad answers")
    rates = truth_rates(pairs)
    spoilt = [item for item in items if item.corruption]
    measured: dict[str, float | None] = {
        "kappa": kappa.value,
        "true_positive_rate": rates.true_positive.value,
        "true_negative_rate": rates.true_negative.value,
        "calibration_error": expected_calibration_error(
            [(grades[item.id].score, truth[item.id]) for item in own if not grades[item.id].error]
        ),
        "corrupted_rejected_rate": sum(not said(item) for item in spoilt) / len(spoilt) if spoilt else None,
    }
    floors = tuple(_floor(name, limit, measured[name]) for name, limit in _floors(grader))
    return JudgeFitness(
        n=len(own),
        kappa_low=kappa.low,
        kappa_high=kappa.high,
        kappa=kappa.value,
        true_positive_rate=measured["true_positive_rate"],
        true_negative_rate=measured["true_negative_rate"],
        calibration_error=measured["calibration_error"],
        corrupted_rejected_rate=measured["corrupted_rejected_rate"],
        true_positive_low=rates.true_positive.low,
        true_positive_high=rates.true_positive.high,
        true_negative_low=rates.true_negative.low,
        true_negative_high=rates.true_negative.high,
        corrupted=len(spoilt),
        corrupted_passed=tuple(item.id for item in spoilt if said(item))[:_MOST_DISAGREEMENTS],
        errors=sum(bool(grades[item.id].error) for item in items),
        disagreements=tuple(item.id for item in own if said(item) != truth[item.id])[:_MOST_DISAGREEMENTS],
        floors=floors,
        fit=all(floor.passed for floor in floors),
    )


def _floors(grader: GraderSpec) -> list[tuple[str, float]]:
    return list(grader.calibration.floors.items()) if grader.calibration else []


def _floor(name: str, limit: float, value: float | None) -> Floor:
    if name in _AT_MOST:
        return Floor(metric=name, maximum=limit, value=value, passed=value is not None and value <= limit)
    return Floor(metric=name, minimum=limit, value=value, passed=value is not None and value >= limit)
