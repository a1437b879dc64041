"""The stages one after the other."""

from __future__ import annotations

from gpurig.common.gguf import read_gguf
from gpurig.evaljobs.grading.calibration import calibration_items
from gpurig.evaljobs.models import find_model
from gpurig.evaljobs.stages.checking import check
from gpurig.evaljobs.stages.generating import generate
from gpurig.evaljobs.stages.grading import grade
from gpurig.evaljobs.stages.stage import RunSettings


def run_stages(settings: RunSettings) -> int:
    """Generate, check and grade, one after the other.

    Returns:
        How many trials an earlier run had finished in every stage that has work.

    Raises:
        InputError: a template asks for what a sample lacks; a damaged model or record file.
        PrerequisiteError: a model, memory or a permission is missing.
    """
    calibration_items(settings.suite)  # what is wrong with them is said before an hour of generating, too
    grader = settings.suite.grader
    if grader is not None:
        # That the grader is missing is said before an hour of generating, not after it.
        for name in (grader.model, *(adapter.model for adapter in grader.adapters)):
            for file in find_model(name, search=settings.search, suite_folder=settings.suite.folder).files:
                read_gguf(file)
    outcomes = [stage(settings) for stage in (generate, check, grade)]
    return min(outcome.reused for outcome in outcomes if outcome.reused + outcome.done)
