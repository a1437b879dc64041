"""The stages generate, check and grade: each reads files, does what is missing, and appends to its own file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from gpurig.common.errors import InputError
from gpurig.common.gguf import read_gguf
from gpurig.common.models.resolving import Search
from gpurig.common.progress import Progress
from gpurig.common.terminal import harmless
from gpurig.evaljobs.adapters import loaded_once, open_adapter, with_adapters
from gpurig.evaljobs.checking import answer_to, check_packages
from gpurig.evaljobs.checks import run_check
from gpurig.evaljobs.engine import (
    Completion,
    EngineProvider,
    EngineSettings,
    Request,
    answered_with_probe,
    context_size,
    thread_count,
)
from gpurig.evaljobs.grading.verdicts import grading_request, judge
from gpurig.evaljobs.keys import check_basis, check_key, generation_basis, generation_key, grade_basis, grade_key
from gpurig.evaljobs.models import ModelFile, find_model, open_model
from gpurig.evaljobs.records import Checked, Generation, Grade, ModelRef, Sampling, TrialRecord
from gpurig.evaljobs.store import CHECKS, GENERATIONS, GRADES, StageFile, StageWriter, read_records, read_stage
from gpurig.evaljobs.suites.library import prompt_ref
from gpurig.evaljobs.suites.prompts import generator_prompt, grader_prompt, prompt_sha256
from gpurig.evaljobs.suites.suite import AdapterSpec, GeneratorSpec, Suite
from gpurig.evaljobs.suites.trials import Trial, sampling_of

R = TypeVar("R", Generation, Checked, Grade)


@dataclass(frozen=True)
class RunSettings:
    """Where and how the stages of one run work.

    Attributes:
        trials: the selected ones of the suite, in its order.
        out: the folder of the record files.
        search: where models are looked for.
        provider: what loads models.
        threads: CPU threads of the engine; by the model's size where None.
        parallel: trials that are answered at the same time, at most; the engine's choice where None.
        exact: one trial after the other.
        stream: where progress goes; standard error where None.
    """

    suite: Suite
    trials: tuple[Trial, ...]
    out: Path
    search: Search
    provider: EngineProvider
    threads: int | None = None
    parallel: int | None = None
    exact: bool = False
    stream: TextIO | None = None


@dataclass(frozen=True)
class StageOutcome:
    """What a stage did.

    Attributes:
        reused: trials that an earlier run had finished.
        done: trials finished now.
        failed: trials of this run whose record carries an error, reused ones included.
    """

    reused: int
    done: int
    failed: int


@dataclass(frozen=True)
class _Work(Generic[R]):
    """One stage's work.

    Attributes:
        keys: every trial's key, in order.
        records: makes the records of the trials given, in any order; nothing is loaded before it is iterated.
        current: an earlier record as the suite says it now: the same answer may be to a model by another name, or to a
            template in other words that come to the same prompt.
        failed: whether a record carries an error.
        dear: a record takes so long to make that the disk is waited for after each.
    """

    label: str
    content: StageFile[R]
    keys: Mapping[str, str]
    records: Callable[[tuple[str, ...]], Iterator[R]]
    current: Callable[[R], R]
    failed: Callable[[R], bool]
    dear: bool = True


def run_stages(settings: RunSettings) -> int:
    """Generate, check and grade, one after the other.

    Returns:
        How many trials an earlier run had finished in every stage that has work.

    Raises:
        InputError: a template asks for what a sample lacks; a damaged model or record file.
        PrerequisiteError: a model, memory or a permission is missing.
    """
    grader = settings.suite.grader
    if grader is not None:
        # That the grader is missing is said before an hour of generating, not after it.
        for name in (grader.model, *(adapter.model for adapter in grader.adapters)):
            for file in find_model(name, search=settings.search, suite_folder=settings.suite.folder).files:
                read_gguf(file)
    outcomes = [stage(settings) for stage in (generate, check, grade)]
    return min(outcome.reused for outcome in outcomes if outcome.reused + outcome.done)


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
        for completion in _answers(settings, model, together[0].context, requests):
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
                "model": _ref_now(record.model, question.model.ref),
                "template": prompt_ref(question.spec.prompt),
            }
        )

    content = read_stage(settings.out / GENERATIONS, Generation)
    return _finish(
        _Work("generate", content, keys, records, current, lambda record: record.finish == "error"), settings
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
            bases[spec.model] = bases.get(spec.model) or _model(spec.model, settings)
            models[trial.generator] = _adapted(bases[spec.model], spec.adapters, settings)
        model = models[trial.generator]
        same = trial.sample.id, trial.generator
        if same not in asked:
            prompt = generator_prompt(spec, trial.sample, model.gguf)
            asked[same] = prompt, generation_basis(spec, trial.sample)
        prompt, basis = asked[same]
        sampling = Sampling(**sampling_of(spec, trial.epoch).model_dump())
        yield _Question(trial, spec, model, context_size(model, spec.context), prompt, sampling, basis)


def check(settings: RunSettings) -> StageOutcome:
    """Run the checks over every generation; one that has no answer or no checks is passed over.

    Raises:
        InputError: a sample was not generated, or for another version of the suite; a damaged record file.
        PrerequisiteError: a permission is missing.
    """
    generations = _answered(settings)
    samples = {trial.id: trial.sample for trial in settings.trials if trial.id in generations}
    specs = {name: settings.suite.checks_of(sample) for name, sample in samples.items()}
    samples = {name: sample for name, sample in samples.items() if specs[name]}
    packages = {name: check_packages(specs[name]) for name in samples}
    bases = {name: check_basis(settings.suite, sample, generations[name]) for name, sample in samples.items()}
    keys = {name: check_key(basis, packages[name]) for name, basis in bases.items()}

    def records(names: tuple[str, ...]) -> Iterator[Checked]:
        for name in names:
            answer = answer_to(samples[name], generations[name], settings.suite.folder)
            yield Checked(
                **_whose(generations[name]),
                key=keys[name],
                basis=bases[name],
                outcomes=tuple(run_check(spec, answer) for spec in specs[name]),
                packages=packages[name],
            )

    content = read_stage(settings.out / CHECKS, Checked)
    return _finish(_Work("check", content, keys, records, lambda record: record, lambda _: False, dear=False), settings)


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
    generations = _answered(settings)
    model = _adapted(_model(spec.model, settings), spec.adapters, settings)
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
        for completion in _answers(settings, model, context, requests):
            verdict = judge(completion, spec.verdicts)
            yield Grade(
                **_whose(generations[completion.id]),
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
                "model": _ref_now(record.model, model.ref),
                "template": prompt_ref(spec.prompt),
            }
        )

    content = read_stage(settings.out / GRADES, Grade)
    return _finish(_Work("grade", content, keys, records, current, lambda record: bool(record.error)), settings)


def _finish(work: _Work[R], settings: RunSettings) -> StageOutcome:
    """Append the records that are missing."""
    finished = work.content.finished(work.keys)
    missing = tuple(name for name in work.keys if name not in finished)
    failed = sum(work.failed(record) for record in finished.values())
    stream = settings.stream or sys.stderr
    what = _things(settings)
    writer = StageWriter(work.content, work.keys, sync=work.dear)
    try:
        for record in finished.values():
            if (current := work.current(record)) != record:
                writer.append(current)
        if not work.keys:
            print(f"{work.label}: no sample has anything to {work.label}", file=stream)
        elif not missing:
            print(f"{work.label}: all {len(work.keys)} {what} done already", file=stream)
        else:
            if finished:
                print(f"{work.label}: {len(finished)} of {len(work.keys)} {what} done already", file=stream)
            with Progress(work.label, len(work.keys), done=len(finished), stream=stream) as progress:
                for record in work.records(missing):
                    writer.append(record)
                    failed += work.failed(record)
                    progress.advance(record.trial)
        writer.finish()
    finally:
        writer.close()
    return StageOutcome(len(finished), len(missing), failed)


def _answers(
    settings: RunSettings, model: ModelFile, context: int, requests: Sequence[Request]
) -> Iterator[Completion]:
    """Load the model, answer the requests, free the model."""
    how = EngineSettings(context, thread_count(model, settings.threads), settings.parallel, settings.exact)
    with settings.provider.open(model, how) as engine:
        yield from answered_with_probe(engine, requests)


def _answered(settings: RunSettings) -> dict[str, Generation]:
    """The generations of the selected trials that have an answer."""
    generations = read_records(settings.out, settings.suite).generations
    missing = [trial.id for trial in settings.trials if trial.id not in generations]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(settings.trials)} {_things(settings)} have no generation in "
            f'{settings.out / GENERATIONS} for this suite as it is now; the first is "{missing[0]}"',
            hint="run `gpurig-job generate` with the same suite, --out and selection first",
        )
    chosen = [generations[trial.id] for trial in settings.trials]
    return {record.trial: record for record in chosen if record.finish != "error"}


def _whose(record: TrialRecord) -> dict[str, Any]:
    """The fields of a record about the same trial."""
    return {"sample": record.sample, "generator": record.generator, "epoch": record.epoch}


def _things(settings: RunSettings) -> str:
    """What a person calls the trials: samples, where each has one answer."""
    return "samples" if all(trial.id == trial.sample.id for trial in settings.trials) else "answers"


def _model(name: str, settings: RunSettings) -> ModelFile:
    model = open_model(name, search=settings.search, suite_folder=settings.suite.folder)
    if model.ref.others:
        text = f"{model.path} is used; files of the same name with other bytes: {', '.join(model.ref.others)}"
        print(harmless(text), file=settings.stream or sys.stderr)
    return model


def _adapted(model: ModelFile, adapters: Sequence[AdapterSpec], settings: RunSettings) -> ModelFile:
    folder = settings.suite.folder
    files = [open_adapter(one.model, one.scale, search=settings.search, suite_folder=folder) for one in adapters]
    return with_adapters(model, files) if files else model


def _ref_now(record: ModelRef, now: ModelRef) -> ModelRef:
    """What a reused record says of its model: its name as the suite has it now, and where it lay when it ran."""
    if record.sha256 != now.sha256:
        return now
    return record.model_copy(update={"name": now.name, "file": now.file, "adapters": now.adapters})
