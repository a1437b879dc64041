"""The stage grade, and the calibration of the grader, which comes first."""

from __future__ import annotations

from collections.abc import Sequence

from gpurig.common.errors import InputError
from gpurig.evaljobs.engine import context_size
from gpurig.evaljobs.grading.calibration import CalibrationItem, calibration_items
from gpurig.evaljobs.keys import grade_basis
from gpurig.evaljobs.models import ModelFile
from gpurig.evaljobs.records import Grade
from gpurig.evaljobs.stages.judging import Ask, Judged, judge_all
from gpurig.evaljobs.stages.stage import (
    RunSettings,
    StageOutcome,
    adapted,
    answered_trials,
    loaded_when_asked,
    stage_model,
    whose,
)
from gpurig.evaljobs.store import CALIBRATION, GRADES, read_stage
from gpurig.evaljobs.suites.suite import GraderSpec


def grade(settings: RunSettings) -> StageOutcome:
    """Let the grader judge every generation; one that has no answer is passed over.

    A suite without a grader has nothing to grade: nothing is read or written. A grader that has a calibration set
    judges that first.

    Raises:
        InputError: a sample was not generated, or for another version of the suite; a damaged model or record file; a
            wrong calibration set.
        PrerequisiteError: a model, memory or a permission is missing.
    """
    suite, spec = settings.suite, settings.suite.grader
    if spec is None:
        return StageOutcome(0, 0, 0)
    generations, items = answered_trials(settings), calibration_items(suite)
    samples = {trial.id: trial.sample for trial in settings.trials if trial.id in generations}
    answers = {
        name: Judged(
            sample,
            generations[name].output,
            grade_basis(suite, sample, generations[name].output),
            whose(generations[name]),
        )
        for name, sample in samples.items()
    }
    model = _grader(spec, settings)
    with loaded_when_asked(settings, model, context_size(model, spec.context)) as ask:
        if items:
            _calibrated(settings, spec, model, items, ask)
        content = read_stage(settings.out / GRADES, Grade)
        return judge_all(settings, spec, model, answers, ask, label="grade", content=content)


def calibrate(settings: RunSettings) -> StageOutcome:
    """Let the grader judge what people judged.

    Raises:
        InputError: the suite has no grader or no calibration set; the set is wrong; a damaged model or record file.
        PrerequisiteError: a model, memory or a permission is missing.
    """
    spec = settings.suite.grader
    if spec is None or spec.calibration is None:
        raise InputError(
            f"{settings.suite.path}: the suite has no {'grader' if spec is None else 'grader.calibration'}",
            hint="docs/graders.md says how a grader is calibrated",
        )
    items = calibration_items(settings.suite)
    model = _grader(spec, settings)
    with loaded_when_asked(settings, model, context_size(model, spec.context)) as ask:
        return _calibrated(settings, spec, model, items, ask)


def _grader(spec: GraderSpec, settings: RunSettings) -> ModelFile:
    return adapted(stage_model(spec.model, settings), spec.adapters, settings)


def _calibrated(
    settings: RunSettings, spec: GraderSpec, model: ModelFile, items: Sequence[CalibrationItem], ask: Ask
) -> StageOutcome:
    answers = {
        item.id: Judged(
            item.sample, item.output, grade_basis(settings.suite, item.sample, item.output), {"sample": item.id}
        )
        for item in items
    }
    content = read_stage(settings.out / CALIBRATION, Grade)
    return judge_all(settings, spec, model, answers, ask, label="calibrate", content=content)
