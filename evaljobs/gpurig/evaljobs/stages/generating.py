"""The stage generate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gpurig.evaljobs.adapters import loaded_once
from gpurig.evaljobs.engine import Request, context_size
from gpurig.evaljobs.keys import generation_basis, generation_key
from gpurig.evaljobs.models import ModelFile
from gpurig.evaljobs.records import Generation, Sampling
from gpurig.evaljobs.stages.stage import (
    RunSettings,
    StageOutcome,
    StageWork,
    adapted,
    answers_to,
    finish,
    ref_now,
    stage_model,
)
from gpurig.evaljobs.store import GENERATIONS, read_stage
from gpurig.evaljobs.suites.library import prompt_ref
from gpurig.evaljobs.suites.prompts import generator_prompt, prompt_sha256
from gpurig.evaljobs.suites.suite import GeneratorSpec
from gpurig.evaljobs.suites.trials import Trial, sampling_of


@dataclass(frozen=True)
class _Question:
    """A trial and everything that decides its answer."""

    trial: Trial
    spec: GeneratorSpec
    model: ModelFile
    context: int
    prompt: str
    sampling: Sampling
    basis: str


def generate(settings: RunSettings) -> StageOutcome:
    """Let the generators answer every trial, one model after the other, each loaded once.

    Raises:
        InputError: a template asks for what a sample lacks; a damaged model or record file.
        PrerequisiteError: a model, memory or a permission is missing.
    """
    packages = settings.provider.packages
    questions = {question.trial.id: question for question in _questions(settings)}
    keys = {
        name: generation_key(
            model=question.model,
            exact=settings.exact,
            prompt_sha256=prompt_sha256(question.prompt),
            sampling=question.sampling,
            stop=question.spec.stop,
            context=question.context,
            packages=packages,
        )
        for name, question in questions.items()
    }

    def records(names: tuple[str, ...]) -> Iterator[Generation]:
        # Generators that differ in what they ask alone, or in their adapters, share the model in memory.
        loads: dict[tuple[str, int], list[_Question]] = {}
        for name in names:
            question = questions[name]
            loads.setdefault((question.model.ref.sha256, question.context), []).append(question)
        for together in loads.values():
            yield from answered(together)

    def answered(together: list[_Question]) -> Iterator[Generation]:
        requests = [
            Request(one.trial.id, one.prompt, one.sampling, stop=one.spec.stop, adapters=one.model.ref.adapters)
            for one in together
        ]
        model = loaded_once(one.model for one in together)
        for completion in answers_to(settings, model, together[0].context, requests):
            question = questions[completion.id]
            yield Generation(
                sample=question.trial.sample.id,
                generator=question.trial.generator,
                epoch=question.trial.epoch,
                key=keys[completion.id],
                basis=question.basis,
                model=question.model.ref,
                prompt_sha256=prompt_sha256(question.prompt),
                template=prompt_ref(question.spec.prompt),
                sampling=question.sampling,
                output=completion.text,
                finish=completion.finish,
                error=completion.error,
                prompt_tokens=completion.prompt_tokens,
                completion_tokens=completion.completion_tokens,
                seconds=completion.seconds,
                parallel=completion.parallel,
                exact=completion.exact,
                packages=dict(packages),
            )

    def current(record: Generation) -> Generation:
        question = questions[record.trial]
        return record.model_copy(
            update={
                "basis": question.basis,
                "model": ref_now(record.model, question.model.ref),
                "template": prompt_ref(question.spec.prompt),
            }
        )

    content = read_stage(settings.out / GENERATIONS, Generation)
    return finish(
        StageWork("generate", content, keys, records, current, lambda record: record.finish == "error"), settings
    )


def _questions(settings: RunSettings) -> Iterator[_Question]:
    """What every trial asks; the epochs of a sample ask the same with another seed."""
    specs = settings.suite.named_generators
    bases: dict[str, ModelFile] = {}
    models: dict[str, ModelFile] = {}
    asked: dict[tuple[str, str], tuple[str, str]] = {}
    for trial in settings.trials:
        spec = specs[trial.generator]
        if trial.generator not in models:
            bases[spec.model] = bases.get(spec.model) or stage_model(spec.model, settings)
            models[trial.generator] = adapted(bases[spec.model], spec.adapters, settings)
        model = models[trial.generator]
        same = trial.sample.id, trial.generator
        if same not in asked:
            prompt = generator_prompt(spec, trial.sample, model.gguf)
            asked[same] = prompt, generation_basis(spec, trial.sample)
        prompt, basis = asked[same]
        sampling = Sampling(**sampling_of(spec, trial.epoch).model_dump())
        yield _Question(trial, spec, model, context_size(model, spec.context), prompt, sampling, basis)
