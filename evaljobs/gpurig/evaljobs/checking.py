"""What the stage `check` gives to the checks: the answers, and what is computed once for all of them."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurig.common.errors import PrerequisiteError
from gpurig.evaljobs.checks import Answer, CheckSpec
from gpurig.evaljobs.checks.custom import Custom, entry_point
from gpurig.evaljobs.checks.resources import Resources, Vectors
from gpurig.evaljobs.ci_lint import project_lint
from gpurig.evaljobs.engine import EngineProvider, EngineSettings, context_size, thread_count
from gpurig.evaljobs.llama_vocabulary import RequestFault
from gpurig.evaljobs.models import ModelFile
from gpurig.evaljobs.records import Generation
from gpurig.evaljobs.suites.suite import Sample

# Texts that are handed to the model at once: it computes them in groups of its own.
_AT_ONCE = 64


@dataclass(frozen=True)
class Question:
    """An answer and the checks on it."""

    answer: Answer
    specs: tuple[CheckSpec, ...]


def answer_to(sample: Sample, generation: Generation, folder: Path) -> Answer:
    """What the checks see of an answer."""
    return Answer(
        generation.output,
        input=sample.input,
        reference=sample.reference,
        tags=sample.tags,
        vars=sample.vars,
        prompt_tokens=generation.prompt_tokens,
        completion_tokens=generation.completion_tokens,
        seconds=generation.seconds,
        folder=folder,
    )


def model_names(specs: Sequence[CheckSpec]) -> Iterator[str]:
    """The embedding models that these checks want."""
    for spec in specs:
        if spec.check.embeds is not None:
            yield _model(spec)


def check_packages(specs: Sequence[CheckSpec], models: Mapping[str, ModelFile]) -> dict[str, str]:
    """What decides how these checks come out: packages' versions (GitLab's schema is one's), models' hashes.

    Raises:
        PrerequisiteError: a package is not installed.
    """
    versions = {name: _version(name) for name in sorted({name for spec in specs for name in spec.check.packages})}
    for spec in specs:
        if isinstance(spec.parameters, Custom) and (made_by := entry_point(spec.parameters.name).dist):
            versions[made_by.name] = made_by.version
    return versions | {f"model {name}": models[name].ref.sha256 for name in sorted(set(model_names(specs)))}


def prepared(
    questions: Sequence[Question],
    *,
    models: Mapping[str, ModelFile],
    provider: EngineProvider,
    environ: Mapping[str, str],
    threads: int | None = None,
    allowed: frozenset[str] = frozenset(),
) -> Resources:
    """What the checks of these answers need, each embedding model loaded once, one after the other.

    Raises:
        InputError: llama.cpp refuses a model; the job's variables make no sense.
        PrerequisiteError: no memory.
    """
    wanted = _texts(questions)
    vectors = {name: _vectors(models[name], texts, provider, threads) for name, texts in wanted.items()}
    linted = any(spec.kind == "gitlab-ci-lint" for question in questions for spec in question.specs)
    return Resources(linter=project_lint(environ) if linted else None, vectors=vectors, allowed=allowed)


def _texts(questions: Sequence[Question]) -> dict[str, list[str]]:
    """Every text that is to be embedded, by model, each once."""
    wanted: dict[str, dict[str, None]] = {}
    shared: set[str] = set()
    for question in questions:
        for spec in question.specs:
            embeds = spec.check.embeds
            if embeds is None:
                continue
            texts = wanted.setdefault(_model(spec), {})
            texts.update(dict.fromkeys(embeds.texts(question.answer, spec.parameters)))
            # Checks that differ in what is relevant alone share their passages.
            how = repr(spec.parameters.model_copy(update={"relevant": ()}))
            if how not in shared:
                shared.add(how)
                texts.update(dict.fromkeys(embeds.shared(question.answer.folder, spec.parameters)))
    return {model: list(texts) for model, texts in wanted.items()}


def _vectors(model: ModelFile, texts: Sequence[str], provider: EngineProvider, threads: int | None) -> Vectors:
    settings = EngineSettings(context_size(model, None), thread_count(model, threads))
    known: dict[str, Any] = {}
    problems: dict[str, str] = {}
    with provider.open_embedder(model, settings) as embedder:
        for start in range(0, len(texts), _AT_ONCE):
            group = texts[start : start + _AT_ONCE]
            try:
                known |= {text: one.vector for text, one in zip(group, embedder.embed(group), strict=True)}
            except RequestFault:
                # One of them has none: which one, and why, shows alone.
                for text in group:
                    try:
                        known[text] = embedder.embed([text])[0].vector
                    except RequestFault as fault:
                        problems[text] = str(fault)
    return Vectors(known, problems)


def _model(spec: CheckSpec) -> str:
    name: str = spec.parameters.model  # type: ignore[attr-defined]  # what embeds has it
    return name


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise PrerequisiteError(
            f"{package} is not installed", hint="install gpurig with its eval extra: pip install gpurig[eval]"
        ) from error
