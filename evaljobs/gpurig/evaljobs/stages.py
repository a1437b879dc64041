"""The stages generate, check and grade: each reads files, does what is missing, and appends to its own file."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TextIO, TypeVar

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.gguf import read_gguf
from gpurig.common.models.resolving import Search
from gpurig.common.progress import Progress
from gpurig.common.terminal import harmless
from gpurig.evaljobs.checks import Answer, run_check
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
from gpurig.evaljobs.records import Checked, Generation, Grade, ModelRef, Sampling
from gpurig.evaljobs.store import CHECKS, GENERATIONS, GRADES, StageFile, StageWriter, read_records, read_stage
from gpurig.evaljobs.suites.prompts import generator_prompt, grader_prompt, prompt_sha256
from gpurig.evaljobs.suites.suite import Sample, Suite

R = TypeVar("R", Generation, Checked, Grade)


@dataclass(frozen=True)
class RunSettings:
    """Where and how the stages of one run work.

    Attributes:
        samples: the selected ones of the suite, in its order.
        out: the folder of the record files.
        search: where models are looked for.
        provider: what loads models.
        threads: CPU threads of the engine; by the model's size where None.
        parallel: samples that are answered at the same time, at most; the engine's choice where None.
        exact: one sample after the other.
        stream: where progress goes; standard error where None.
    """

    suite: Suite
    samples: tuple[Sample, ...]
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
        reused: samples that an earlier run had finished.
        done: samples finished now.
        failed: samples of this run whose record carries an error, reused ones included.
    """

    reused: int
    done: int
    failed: int


@dataclass(frozen=True)
class _Work(Generic[R]):
    """One stage's work.

    Attributes:
        keys: every sample's key, in order.
        records: makes the records of the samples given, in any order; nothing is loaded before it is iterated.
        current: an earlier record as the suite says it now: the same answer may be to a model by another name, or to a
            template in other words that come to the same prompt.
        failed: whether a record carries an error.
    """

    label: str
    content: StageFile[R]
    keys: Mapping[str, str]
    records: Callable[[tuple[str, ...]], Iterator[R]]
    current: Callable[[R], R]
    failed: Callable[[R], bool]


def run_stages(settings: RunSettings) -> int:
    """Generate, check and grade, one after the other.

    Returns:
        How many samples an earlier run had finished in every stage that has work.

    Raises:
        InputError: a template asks for what a sample lacks; a damaged model or record file.
        PrerequisiteError: a model, memory or a permission is missing.
    """
    grader = settings.suite.grader
    if grader is not None:
        # That the grader is missing is said before an hour of generating, not after it.
        for file in find_model(grader.model, search=settings.search, suite_folder=settings.suite.folder).files:
            read_gguf(file)
    outcomes = [stage(settings) for stage in (generate, check, grade)]
    return min(outcome.reused for outcome in outcomes if outcome.reused + outcome.done)


def generate(settings: RunSettings) -> StageOutcome:
    """Let the generator answer every sample.

    Raises:
        InputError: a template asks for what a sample lacks; a damaged model or record file.
        PrerequisiteError: a model, memory or a permission is missing.
    """
    spec = settings.suite.generator
    model = _model(spec.model, settings)
    context = context_size(model, spec.context)
    packages = settings.provider.packages
    prompts = {sample.id: generator_prompt(spec, sample, model.gguf) for sample in settings.samples}
    bases = {sample.id: generation_basis(settings.suite, sample) for sample in settings.samples}
    keys = {
        sample: generation_key(
            model=model,
            exact=settings.exact,
            prompt_sha256=prompt_sha256(prompt),
            sampling=spec.sampling,
            stop=spec.stop,
            context=context,
            packages=packages,
        )
        for sample, prompt in prompts.items()
    }

    def records(samples: tuple[str, ...]) -> Iterator[Generation]:
        requests = [Request(sample, prompts[sample], spec.sampling, stop=spec.stop) for sample in samples]
        for completion in _answers(settings, model, context, requests):
            yield Generation(
                sample=completion.id,
                key=keys[completion.id],
                basis=bases[completion.id],
                model=model.ref,
                prompt_sha256=prompt_sha256(prompts[completion.id]),
                sampling=Sampling(**spec.sampling.model_dump()),
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
        return record.model_copy(update={"basis": bases[record.sample], "model": _ref_now(record.model, model.ref)})

    content = read_stage(settings.out / GENERATIONS, Generation)
    return _finish(
        _Work("generate", content, keys, records, current, lambda record: record.finish == "error"), settings
    )


def check(settings: RunSettings) -> StageOutcome:
    """Run the checks over every generation; a sample that has no answer or no checks is passed over.

    Raises:
        InputError: a sample was not generated, or for another version of the suite; a damaged record file.
        PrerequisiteError: a permission is missing.
    """
    generations = _answered(settings)
    packages = _check_packages()
    samples = {sample.id: sample for sample in settings.samples if sample.id in generations}
    samples = {name: sample for name, sample in samples.items() if settings.suite.checks_of(sample)}
    answers = {
        name: Answer(generations[name].output, input=sample.input, reference=sample.reference)
        for name, sample in samples.items()
    }
    bases = {name: check_basis(settings.suite, sample, answers[name].output) for name, sample in samples.items()}
    keys = {name: check_key(basis, packages) for name, basis in bases.items()}

    def records(names: tuple[str, ...]) -> Iterator[Checked]:
        for name in names:
            outcomes = tuple(run_check(spec, answers[name]) for spec in settings.suite.checks_of(samples[name]))
            yield Checked(sample=name, key=keys[name], basis=bases[name], outcomes=outcomes, packages=packages)

    content = read_stage(settings.out / CHECKS, Checked)
    return _finish(_Work("check", content, keys, records, lambda record: record, lambda _: False), settings)


def grade(settings: RunSettings) -> StageOutcome:
    """Let the grader judge every generation; a sample that has no answer is passed over.

    A suite without a grader has nothing to grade: nothing is read or written.

    Raises:
        InputError: a sample was not generated, or for another version of the suite; a damaged model or record file.
        PrerequisiteError: a model, memory or a permission is missing.
    """
    spec = settings.suite.grader
    if spec is None:
        return StageOutcome(0, 0, 0)
    generations = _answered(settings)
    model = _model(spec.model, settings)
    context = context_size(model, spec.context)
    packages = settings.provider.packages
    bases = {
        sample.id: grade_basis(settings.suite, sample, generations[sample.id].output)
        for sample in settings.samples
        if sample.id in generations
    }
    prompts = {
        sample.id: grader_prompt(spec, sample, generations[sample.id].output, model.gguf)
        for sample in settings.samples
        if sample.id in generations
    }
    keys = {
        sample: grade_key(
            model=model,
            exact=settings.exact,
            prompt_sha256=prompt_sha256(prompt),
            verdicts=spec.verdicts,
            context=context,
            packages=packages,
        )
        for sample, prompt in prompts.items()
    }

    def records(samples: tuple[str, ...]) -> Iterator[Grade]:
        requests = [grading_request(sample, prompts[sample], spec.verdicts) for sample in samples]
        for completion in _answers(settings, model, context, requests):
            verdict = judge(completion, spec.verdicts)
            yield Grade(
                sample=completion.id,
                key=keys[completion.id],
                basis=bases[completion.id],
                model=model.ref,
                prompt_sha256=prompt_sha256(prompts[completion.id]),
                verdict=verdict.verdict,
                written=verdict.written,
                score=verdict.score,
                probabilities=dict(verdict.probabilities),
                seconds=completion.seconds,
                error=verdict.error,
                packages=dict(packages),
            )

    def current(record: Grade) -> Grade:
        return record.model_copy(update={"basis": bases[record.sample], "model": _ref_now(record.model, model.ref)})

    content = read_stage(settings.out / GRADES, Grade)
    return _finish(_Work("grade", content, keys, records, current, lambda record: bool(record.error)), settings)


def _finish(work: _Work[R], settings: RunSettings) -> StageOutcome:
    """Append the records that are missing."""
    finished = work.content.finished(work.keys)
    missing = tuple(sample for sample in work.keys if sample not in finished)
    failed = sum(work.failed(record) for record in finished.values())
    stream = settings.stream or sys.stderr
    writer = StageWriter(work.content, work.keys)
    try:
        for record in finished.values():
            if (current := work.current(record)) != record:
                writer.append(current)
        if not work.keys:
            print(f"{work.label}: no sample has anything to {work.label}", file=stream)
        elif not missing:
            print(f"{work.label}: all {len(work.keys)} samples done already", file=stream)
        else:
            if finished:
                print(f"{work.label}: {len(finished)} of {len(work.keys)} samples done already", file=stream)
            with Progress(work.label, len(work.keys), done=len(finished), stream=stream) as progress:
                for record in work.records(missing):
                    writer.append(record)
                    failed += work.failed(record)
                    progress.advance(record.sample)
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
    """The generations of the selected samples that have an answer."""
    generations = read_records(settings.out, settings.suite).generations
    missing = [sample.id for sample in settings.samples if sample.id not in generations]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(settings.samples)} samples have no generation in {settings.out / GENERATIONS} "
            f'for this suite as it is now; the first is "{missing[0]}"',
            hint="run `gpurig-job generate` with the same suite, --out, --only and --limit first",
        )
    chosen = [generations[sample.id] for sample in settings.samples]
    return {record.sample: record for record in chosen if record.finish != "error"}


def _model(name: str, settings: RunSettings) -> ModelFile:
    model = open_model(name, search=settings.search, suite_folder=settings.suite.folder)
    if model.ref.others:
        text = f"{model.path} is used; files of the same name with other bytes: {', '.join(model.ref.others)}"
        print(harmless(text), file=settings.stream or sys.stderr)
    return model


def _ref_now(record: ModelRef, now: ModelRef) -> ModelRef:
    """What a reused record says of its model: its name as the suite has it now, and where it lay when it ran."""
    if record.sha256 != now.sha256:
        return now
    return record.model_copy(update={"name": now.name, "file": now.file})


def _check_packages() -> dict[str, str]:
    """The versions that decide how checks come out: GitLab's schema comes with check-jsonschema."""
    names = ("check-jsonschema", "jsonschema", "pyyaml", "regex")
    try:
        return {name: importlib.metadata.version(name) for name in names}
    except importlib.metadata.PackageNotFoundError as error:
        raise PrerequisiteError(
            f"{error.name} is not installed", hint="install gpurig with its eval extra: pip install gpurig[eval]"
        ) from error
