"""Log-likelihoods by the engine, held against one token after the other in a context of their own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpurig.common.models.resolving import Search
from gpurig.evaljobs.engine import EngineSettings
from gpurig.evaljobs.inference import engine as module
from gpurig.evaljobs.inference.context import Context
from gpurig.evaljobs.inference.engine import InferenceEngine
from gpurig.evaljobs.inference.likelihood import Likelihood, ScoreRequest
from gpurig.evaljobs.inference.works import Step
from gpurig.evaljobs.llama_model import load_model, release
from gpurig.evaljobs.memory import CACHE_TYPES
from gpurig.evaljobs.models import open_model
from standins.tiny_gguf import vocabulary, write_tiny_gguf
from standins.tiny_shapes import tiny_shapes, write_random

llama_cpp = pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

CONTEXT = 256


@pytest.fixture(scope="module", params=["llama", *tiny_shapes()])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "model.gguf"
    if request.param == "llama":
        return write_tiny_gguf(place)
    return write_random(place, tiny_shapes()[request.param])


@pytest.fixture
def engine(path: Path) -> Iterator[InferenceEngine]:
    model = open_model(str(path), search=Search.of_folders(), suite_folder=Path())
    engine = InferenceEngine(model, EngineSettings(context=CONTEXT, threads=1, cache="f32"))
    yield engine
    engine.close()


def requests(engine: InferenceEngine, count: int = 12) -> list[ScoreRequest]:
    """Contexts that begin alike, some the same; continuations of one token, of several, and beginnings of others."""
    draw = random.Random(4)
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(engine._model))

    def some(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, size) for _ in range(draw.randint(least, most)))

    stem, made = some(20, 20), []
    for number in range(count):
        context = made[-1].context if number % 3 == 1 else (*stem, *some(1, 9))
        long = some(6, 9)
        made.append(ScoreRequest(f"r{number}", context, (some(1, 1), long, long[:4], (*long[:4], 5), ())))
    return made


def one_by_one(path: Path, request: ScoreRequest) -> list[list[float]]:
    """Each continuation's log-probabilities, one token a call, in float64."""
    found = []
    for continuation in request.continuations:
        model = load_model(llama_cpp, path, [], gpu=False)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_threads = CONTEXT, 1
        # A cache in f16, and flash attention, round by some thousandths.
        options.type_k = options.type_v = CACHE_TYPES["f32"]
        options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = llama_cpp.llama_init_from_model(model, options)
        size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        values: list[float] = []
        for place, token in enumerate([*request.context, *continuation]):
            if place >= len(request.context):
                row = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (size,)).astype(np.float64)
                values.append(float(row[token] - np.log(np.exp(row - row.max()).sum()) - row.max()))
            batch = llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(token), 1)
            assert llama_cpp.llama_decode(context, batch) == 0
        release(llama_cpp, model=model, context=context, batch=None)
        found.append(values)
    return found


@pytest.mark.parametrize("exact", [False, True])
def test_together_they_are_what_each_is_one_token_after_the_other(
    path: Path, engine: InferenceEngine, exact: bool
) -> None:
    asked = requests(engine)
    found = {one.id: one for one in engine.score(asked, exact=exact)}
    assert found.keys() == {one.id for one in asked}
    for request in asked[:4]:
        for values, likelihood in zip(one_by_one(path, request), found[request.id].continuations, strict=True):
            assert likelihood.logprobs == pytest.approx(values, abs=1e-3)


def test_exact_ones_are_the_same_to_the_bit_in_every_order(engine: InferenceEngine) -> None:
    asked = requests(engine)
    one = {answer.id: answer.continuations for answer in engine.score(asked, exact=True)}
    for other in (asked[::-1], asked[3:5]):
        for answer in engine.score(other, exact=True):
            assert answer.continuations == one[answer.id]


def test_the_greedy_continuation_is_told_from_others(engine: InferenceEngine) -> None:
    context = (5, 6, 7)
    written: list[int] = []
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(engine._model))
    for _ in range(4):
        asked = [ScoreRequest("next", context, tuple((*written, token) for token in range(size)))]
        (answer,) = engine.score(asked)
        written.append(max(range(size), key=lambda token: answer.continuations[token].total))
    other = [*written[:-1], (written[-1] + 1) % size]
    (answer,) = engine.score([ScoreRequest("greedy", context, (tuple(written), tuple(other), tuple(written[:1])))])
    assert [one.greedy for one in answer.continuations] == [True, False, True]


def test_a_long_continuation_comes_in_pieces_and_to_the_same(
    engine: InferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(5)
    long = tuple(draw.randrange(3, 200) for _ in range(180))
    asked = [ScoreRequest("long", (1, 2), (long,)), ScoreRequest("same", (1, 2), (long, long[:3]))]
    whole = {one.id: one.continuations for one in engine.score(asked)}
    monkeypatch.setattr(module, "_MOST_LOGITS_BYTES", 1)
    monkeypatch.setattr(module, "_LEAST_BATCH", 16)
    scored: list[int] = []
    compute = Context.compute

    def counted(self: Context, step: Step) -> Any:
        scored.append(sum(row.scored for row in step.rows))
        return compute(self, step)

    monkeypatch.setattr(Context, "compute", counted)
    pieces = {one.id: one.continuations for one in engine.score(asked)}
    assert max(scored) <= 16, "the logits of a step are bounded"
    assert sum(scored) >= 180
    for name, likelihoods in whole.items():
        for one, other in zip(likelihoods, pieces[name], strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)


def test_what_does_not_fit_is_an_error_of_its_request(engine: InferenceEngine) -> None:
    asked = [
        ScoreRequest("long", (1,) * 200, ((2,) * 100,)),
        ScoreRequest("nothing", (), ((2,),)),
        ScoreRequest("fits", (1,) * 200, ((2,) * 57,)),
    ]
    found = {one.id: one for one in engine.score(asked)}
    assert found["long"].error == "the context and its continuation have 300 tokens, the model's context 256"
    assert found["nothing"].error == "the context is empty: a model needs one token to begin with"
    assert len(found["fits"].continuations[0].logprobs) == 57


def test_a_question_is_computed_once_for_its_choices_and_a_beginning_once_for_its_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_gguf(tmp_path / "model.gguf", vocabulary_=vocabulary())
    model = open_model(str(path), search=Search.of_folders(), suite_folder=Path())
    engine = InferenceEngine(model, EngineSettings(context=CONTEXT, threads=1))
    fed: list[tuple[str, int]] = []
    compute = Context.compute

    def counted(self: Context, step: Step) -> Any:
        fed.extend((row.kind, len(row.tokens)) for row in step.rows)
        return compute(self, step)

    monkeypatch.setattr(Context, "compute", counted)
    stem = tuple(range(3, 103))
    # As lm-evaluation-harness asks: one request for every choice.
    asked = [
        ScoreRequest(f"{question}-{choice}", (*stem, 110 + question, 7), ((9, 20 + choice), (30 + choice,)))
        for question in range(8)
        for choice in range(4)
    ]
    found = list(engine.score(asked))
    engine.close()
    assert len(found) == 32
    assert all(isinstance(one, Likelihood) for answer in found for one in answer.continuations)
    assert sum(count for kind, count in fed if kind == "prompt") == 100 + 8 * 2
    assert sum(count for kind, count in fed if kind == "branch") == 8, "the same token is fed once for all choices"
