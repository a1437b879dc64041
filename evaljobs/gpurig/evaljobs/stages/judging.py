"""What the grade of an answer is made of, be it a generator's or one that people judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpurig.evaljobs.engine import Completion, Request, context_size
from gpurig.evaljobs.grading.verdicts import grading_request, judge
from gpurig.evaljobs.keys import grade_key
from gpurig.evaljobs.models import ModelFile
from gpurig.evaljobs.records import Grade
from gpurig.evaljobs.stages.stage import RunSettings, StageOutcome, StageWork, finish, ref_now
from gpurig.evaljobs.store import StageFile
from gpurig.evaljobs.suites.library import prompt_ref
from gpurig.evaljobs.suites.prompts import grader_prompt, prompt_sha256
from gpurig.evaljobs.suites.suite import GraderSpec, Sample

Ask = Callable[[Sequence[Request]], Iterator[Completion]]


@dataclass(frozen=True)
class Judged:
    """An answer that is to be judged.

    Attributes:
        basis: over everything that the suite says of it.
        whose: the fields of the record that say which answer it is.
    """

    sample: Sample
    output: str
    basis: str
    whose: Mapping[str, Any]


def judge_all(
    settings: RunSettings,
    spec: GraderSpec,
    model: ModelFile,
    answers: Mapping[str, Judged],
    ask: Ask,
    *,
    label: str,
    content: StageFile[Grade],
) -> StageOutcome:
    """Append the grades of `answers` that `content` lacks.

    Raises:
        InputError: a template asks for what a sample lacks. PrerequisiteError: the engine failed; the disk is full.
    """
    packages = settings.provider.packages
    prompts = {name: grader_prompt(spec, answer.sample, answer.output, model.gguf) for name, answer in answers.items()}
    keys = {
        name: grade_key(
            model=model,
            exact=settings.exact,
            prompt_sha256=prompt_sha256(prompt),
            verdicts=spec.verdicts,
            context=context_size(model, spec.context),
            packages=packages,
        )
        for name, prompt in prompts.items()
    }

    def records(names: tuple[str, ...]) -> Iterator[Grade]:
        asked = (grading_request(name, prompts[name], spec.verdicts) for name in names)
        for completion in ask([replace(request, adapters=model.ref.adapters) for request in asked]):
            verdict = judge(completion, spec.verdicts)
            yield Grade(
                **answers[completion.id].whose,
                key=keys[completion.id],
                basis=answers[completion.id].basis,
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
                "basis": answers[record.trial].basis,
                "model": ref_now(record.model, model.ref),
                "template": prompt_ref(spec.prompt),
            }
        )

    return finish(StageWork(label, content, keys, records, current, lambda record: bool(record.error)), settings)
