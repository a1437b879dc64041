"""What the stages have in common: settings in, what is missing done and appended, an outcome."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TextIO, TypeVar

from gpurig.common.errors import InputError
from gpurig.common.models.resolving import Search
from gpurig.common.progress import Progress
from gpurig.common.terminal import harmless
from gpurig.evaljobs.adapters import open_adapter, with_adapters
from gpurig.evaljobs.engine import (
    Completion,
    Engine,
    EngineProvider,
    EngineSettings,
    PrefixSettings,
    Request,
    answered_with_probe,
    thread_count,
)
from gpurig.evaljobs.models import ModelFile, open_model
from gpurig.evaljobs.records import Checked, Generation, Grade, ModelRef, TrialRecord
from gpurig.evaljobs.store import GENERATIONS, StageFile, StageWriter, read_records
from gpurig.evaljobs.suites.suite import AdapterSpec, Suite
from gpurig.evaljobs.suites.trials import Trial

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
        prefixes: where prompts' beginnings are kept between runs; nowhere where None.
        stream: where progress goes; standard error where None.
        environ: the job's variables, for checks that ask its GitLab.
        allowed: checks of installed packages that may run.
    """

    suite: Suite
    trials: tuple[Trial, ...]
    out: Path
    search: Search
    provider: EngineProvider
    threads: int | None = None
    parallel: int | None = None
    exact: bool = False
    prefixes: PrefixSettings | None = None
    stream: TextIO | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()


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
class StageWork(Generic[R]):
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


def finish(work: StageWork[R], settings: RunSettings) -> StageOutcome:
    """Append the records that are missing."""
    finished = work.content.finished(work.keys)
    missing = tuple(name for name in work.keys if name not in finished)
    failed = sum(work.failed(record) for record in finished.values())
    stream = settings.stream or sys.stderr
    what = things(settings)
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
                    tokens = record.completion_tokens if isinstance(record, Generation) else 0
                    progress.advance(record.trial, tokens=tokens)
        writer.finish()
    finally:
        writer.close()
    return StageOutcome(len(finished), len(missing), failed)


def answers_to(
    settings: RunSettings, model: ModelFile, context: int, requests: Sequence[Request]
) -> Iterator[Completion]:
    """Load the model, answer the requests, free the model."""
    with loaded_when_asked(settings, model, context) as ask:
        yield from ask(requests)


@contextlib.contextmanager
def loaded_when_asked(
    settings: RunSettings, model: ModelFile, context: int
) -> Iterator[Callable[[Sequence[Request]], Iterator[Completion]]]:
    """What answers requests with a model that is loaded at the first of them, once; leaving frees it."""
    how = EngineSettings(
        context,
        thread_count(model, settings.threads),
        parallel=settings.parallel,
        exact=settings.exact,
        prefixes=settings.prefixes,
    )
    with contextlib.ExitStack() as stack:
        engines: list[Engine] = []

        def ask(requests: Sequence[Request]) -> Iterator[Completion]:
            if not engines:
                engines.append(stack.enter_context(settings.provider.open(model, how)))
            return answered_with_probe(engines[0], requests)

        yield ask


def answered_trials(settings: RunSettings) -> dict[str, Generation]:
    """The generations of the selected trials that have an answer."""
    generations = read_records(settings.out, settings.suite).generations
    missing = [trial.id for trial in settings.trials if trial.id not in generations]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(settings.trials)} {things(settings)} have no generation in "
            f'{settings.out / GENERATIONS} for this suite as it is now; the first is "{missing[0]}"',
            hint="run `gpurig-job generate` with the same suite, --out and selection first",
        )
    chosen = [generations[trial.id] for trial in settings.trials]
    return {record.trial: record for record in chosen if record.finish != "error"}


def whose(record: TrialRecord) -> dict[str, Any]:
    """The fields of a record about the same trial."""
    return {"sample": record.sample, "generator": record.generator, "epoch": record.epoch}


def things(settings: RunSettings) -> str:
    """What a person calls the trials: samples, where each has one answer."""
    return "samples" if all(trial.id == trial.sample.id for trial in settings.trials) else "answers"


def stage_model(name: str, settings: RunSettings) -> ModelFile:
    model = open_model(name, search=settings.search, suite_folder=settings.suite.folder)
    if model.ref.others:
        text = f"{model.path} is used; files of the same name with other bytes: {', '.join(model.ref.others)}"
        print(harmless(text), file=settings.stream or sys.stderr)
    return model


def adapted(model: ModelFile, adapters: Sequence[AdapterSpec], settings: RunSettings) -> ModelFile:
    folder = settings.suite.folder
    files = [open_adapter(one.model, one.scale, search=settings.search, suite_folder=folder) for one in adapters]
    return with_adapters(model, files) if files else model


def ref_now(record: ModelRef, now: ModelRef) -> ModelRef:
    """What a reused record says of its model: its name as the suite has it now, and where it lay when it ran."""
    if record.sha256 != now.sha256:
        return now
    return record.model_copy(update={"name": now.name, "file": now.file, "adapters": now.adapters})
