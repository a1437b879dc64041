"""The stage grade."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gpurig.evaljobs.engine import context_size
from gpurig.evaljobs.grading.verdicts import grading_request, judge
from gpurig.evaljobs.keys import grade_basis, grade_key
from gpurig.evaljobs.records import Grade
from gpurig.evaljobs.stages.stage import (
    RunSettings,
    StageOutcome,
    StageWork,
    adapted,
    answered_trials,
    answers_to,
    finish,
    ref_now,
    stage_model,
    whose,
)
from gpurig.evaljobs.store import GRADES, read_stage
from gpurig.evaljobs.suites.library import prompt_ref
from gpurig.evaljobs.suites.prompts import grader_prompt, prompt_sha256


def grade(settings: RunSettings) -> StageOutcome:
    """Let the grader judge every generation; one that has no answer is passed over.

    A suite without a grader has nothing to grade: nothing is read or written.

    Raises:
        InputError: a sample was not generated, or for another version of the suite; a damaged model or record file.
        PrerequisiteError: a model, memory or a permission is missing.
    """
    spec = settings.suite.grader
    if spec is None:
        return StageOutcome(0, 0, 0)
    generations = answered_trials(settings)
    model = adapted(stage_model(spec.model, settings), spec.adapters, settings)
    context = context_size(model, spec.context)
    packages = settings.provider.packages
    samples = {trial.id: trial.sample for trial in settings.trials if trial.id in generations}
    bases = {name: grade_basis(settings.suite, sample, generations[name].output) for name, sample in samples.items()}
    prompts = {
        name: grader_prompt(spec, sample, generations[name].output, model.gguf) for name, sample in samples.items()
    }
    keys = {
        name: grade_key(
            model=model,
            exact=settings.exact,
            prompt_sha256=prompt_sha256(prompt),
            verdicts=spec.verdicts,
            context=context,
            packages=packages,
        )
        for name, prompt in prompts.items()
    }

    def records(names: tuple[str, ...]) -> Iterator[Grade]:
        asked = (grading_request(name, prompts[name], spec.verdicts) for name in names)
        requests = [replace(request, adapters=model.ref.adapters) for request in asked]
        for completion in answers_to(settings, model, context, requests):
            verdict = judge(completion, spec.verdicts)
            yield Grade(
                **whose(generations[completion.id]),
                key=keys[completion.id],
                basis=bases[completion.id],
                model=model.ref,
                prompt_sha256=prompt_sha256(prompts[completion.id]),
                template=prompt_ref(spec.prompt),
                verdict=verdict.verdict,
                written=verdict.written,
                score=verdict.score,
                probabilities=dict(verdict.probabilities),
                seconds=completion.seconds,
                error=verdict.error,
                packages=dict(packages),
            )

    def current(record: Grade) -> Grade:
        return record.model_copy(
            update={
                "basis": bases[record.trial],
                "model": ref_now(record.model, model.ref),
                "template": prompt_ref(spec.prompt),
            }
        )

    content = read_stage(settings.out / GRADES, Grade)
    return finish(StageWork("grade", content, keys, records, current, lambda record: bool(record.error)), settings)
