"""Scoring items with a model: what is missing is computed and appended, as the stages of a suite do it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from gpurig.common.progress import Progress
from gpurig.evaljobs.engine import EngineSettings
from gpurig.evaljobs.inference.engine import InferenceEngine
from gpurig.evaljobs.inference.likelihood import Likelihood, Scored, ScoreRequest
from gpurig.evaljobs.inference.windows import rolling_windows
from gpurig.evaljobs.keys import score_key
from gpurig.evaljobs.llama import LlamaProvider
from gpurig.evaljobs.llama_vocabulary import RequestFault, Vocabulary
from gpurig.evaljobs.models import ModelFile
from gpurig.evaljobs.records import Score, ScoredText
from gpurig.evaljobs.scoring.items import Item
from gpurig.evaljobs.store import StageWriter, read_stage

SCORES = "scores.jsonl"


@dataclass(frozen=True)
class ScoreSettings:
    """How items are scored.

    Attributes:
        model: its header was read.
        engine: how it is loaded.
        overlap: tokens that a later window of a text has before the first that it scores, at least.
        out: the folder of scores.jsonl.
        stream: where progress goes; standard error where None.
    """

    model: ModelFile
    engine: EngineSettings
    overlap: int
    out: Path
    stream: TextIO | None = None


@dataclass(frozen=True)
class _Parts:
    """What an item comes to in requests: one for all choices, one for each window of a text."""

    item: Item
    requests: tuple[ScoreRequest, ...]
    error: str = ""


def score(settings: ScoreSettings, items: Sequence[Item]) -> dict[str, Score]:
    """Every item's record, by its id, in the items' order; what scores.jsonl has already is not computed again.

    Raises:
        InputError: a damaged record file, a model that cannot be loaded.
        PrerequisiteError: no memory, no device; the file cannot be written.
    """
    provider = LlamaProvider()
    packages = dict(provider.packages)
    how = {"context": settings.engine.context, "overlap": settings.overlap, "cache": settings.engine.cache}
    keys = {
        item.id: score_key(
            model=settings.model,
            exact=settings.engine.exact,
            item=item.model_dump(mode="json"),
            how=how,
            packages=packages,
        )
        for item in items
    }
    content = read_stage(settings.out / SCORES, Score)
    found = content.finished(keys)
    missing = [item for item in items if item.id not in found]
    stream = settings.stream or sys.stderr
    writer = StageWriter(content, keys)
    try:
        if found:
            print(f"score: {len(found)} of {len(items)} done already", file=stream)
        if missing:
            with (
                Progress("score", len(items), done=len(found), stream=stream) as progress,
                provider.open(settings.model, settings.engine) as engine,
            ):
                for record in _records(engine, settings, missing):
                    whole = record.model_copy(update={"key": keys[record.sample], "packages": packages})
                    writer.append(whole)
                    found[record.sample] = whole
                    progress.advance(record.sample)
        writer.finish()
    finally:
        writer.close()
    return {item.id: found[item.id] for item in items}


def _records(engine: InferenceEngine, settings: ScoreSettings, items: Sequence[Item]) -> Iterator[Score]:
    """The items' records, each as soon as all of it is known."""
    parts: dict[str, _Parts] = {}
    for item in items:
        try:
            requests = tuple(_requests(item, engine.vocabulary, settings))
        except RequestFault as fault:
            yield _record(settings, item, (), 0.0, error=str(fault))
        else:
            parts[item.id] = _Parts(item, requests)
    known: dict[str, dict[str, Scored]] = {name: {} for name in parts}
    owner = {request.id: name for name, one in parts.items() for request in one.requests}
    for answer in engine.score([request for one in parts.values() for request in one.requests]):
        name = owner[answer.id]
        known[name][answer.id] = answer
        one = parts[name]
        if len(known[name]) == len(one.requests):
            answers = [known[name][request.id] for request in one.requests]
            error = next((answer.error for answer in answers if answer.error), "")
            seconds = sum(answer.seconds for answer in answers)
            likelihoods = [likelihood for answer in answers for likelihood in answer.continuations]
            yield _record(settings, one.item, () if error else likelihoods, seconds, error=error)


def _requests(item: Item, vocabulary: Vocabulary, settings: ScoreSettings) -> Iterator[ScoreRequest]:
    adapters = settings.model.ref.adapters
    if item.text is None:
        prompt = vocabulary.tokens(item.prompt) or [_first(vocabulary)]
        found = vocabulary.continuations(item.prompt, prompt, item.choices, settings.engine.context)
        tokens = [tuple(found.tokens[choice]) for choice in item.choices]
        shared = found.shared
        yield ScoreRequest(item.id, tokens[0][:shared], tuple(one[shared:] for one in tokens), adapters)
        return
    tokens_ = (_first(vocabulary), *vocabulary.tokens(item.text, begin=False))
    size = settings.engine.context
    for number, window in enumerate(
        rolling_windows(len(tokens_) - 1, size=size, overlap=min(settings.overlap, size - 1))
    ):
        # In `tokens_` the one before the text stands first.
        context, continuation = (
            tokens_[window.begin + 1 : window.scored + 1],
            tokens_[window.scored + 1 : window.end + 1],
        )
        yield ScoreRequest(f"{item.id}#{number}", context, (continuation,), adapters)


def _first(vocabulary: Vocabulary) -> int:
    """What a text begins after: BOS, or EOS where the model has no BOS.

    Raises:
        RequestFault: it has neither.
    """
    first = vocabulary.bos if vocabulary.bos >= 0 else vocabulary.eos
    if first < 0:
        raise RequestFault("the model has neither BOS nor EOS: nothing stands before a text's first token")
    return first


def _record(
    settings: ScoreSettings, item: Item, likelihoods: Sequence[Likelihood], seconds: float, *, error: str
) -> Score:
    scored: tuple[ScoredText, ...] = ()
    if likelihoods and item.text is None:
        scored = tuple(_text(choice, one) for choice, one in zip(item.choices, likelihoods, strict=True))
    elif likelihoods:
        whole = Likelihood(
            tuple(value for one in likelihoods for value in one.logprobs), all(one.greedy for one in likelihoods)
        )
        scored = (_text(item.text or "", whole).model_copy(update={"text": ""}),)
    return Score(
        sample=item.id,
        key="",
        model=settings.model.ref,
        kind="choices" if item.text is None else "text",
        scored=scored,
        answer=item.right,
        words=len((item.text or "").split()),
        windows=0 if item.text is None else len(likelihoods),
        seconds=seconds,
        error=error,
    )


def _text(text: str, likelihood: Likelihood) -> ScoredText:
    return ScoredText(
        text=text,
        logprob=likelihood.total,
        tokens=len(likelihood.logprobs),
        bytes=len(text.encode("utf-8", "replace")),
        greedy=likelihood.greedy,
    )
