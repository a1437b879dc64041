"""Choosing tokens under a grammar: what is asked about lazily comes to the same as asking about every token."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import llama_cpp
import numpy as np
import pytest
from gpurig.evaljobs import llama_sampling
from gpurig.evaljobs.engine import Shaping
from gpurig.evaljobs.llama_model import load_model, release
from gpurig.evaljobs.llama_sampling import Chain
from gpurig.evaljobs.records import Sampling
from standins.tiny_gguf import vocabulary, write_tiny_gguf

WORDS = ["".join(letters) for letters in itertools.product("abcdefghijklmnopqr", repeat=3)]
GRAMMAR = "root ::= [a-c d]*"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A vocabulary of some thousand tokens."""
    path = write_tiny_gguf(tmp_path_factory.mktemp("model") / "words.gguf", vocabulary_=vocabulary(WORDS))
    llama_cpp.llama_backend_init()
    model = load_model(llama_cpp, path, [], gpu=False)
    yield llama_cpp.llama_model_get_vocab(model)
    release(llama_cpp, model=model, context=None, batch=None)


def chosen(words: Any, sampling: Sampling, grammar: str, logits: np.ndarray) -> list[int | None]:
    chain = Chain(llama_cpp, words, sampling, grammar, Shaping())
    try:
        return [chain.pick(row) for row in logits]
    finally:
        chain.close()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.9, seed=5),
        Sampling(temperature=1.5, top_k=200, top_p=1.0, min_p=0.0, seed=6),
        Sampling(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=7),
        Sampling(temperature=0.9, repeat_penalty=1.3, seed=8),
    ],
)
@pytest.mark.parametrize("spread", [0.0, 0.01, 5.0], ids=["all alike", "much alike", "different"])
def test_asking_lazily_chooses_what_asking_about_all_tokens_does(
    words: Any, monkeypatch: pytest.MonkeyPatch, sampling: Sampling, spread: float
) -> None:
    size = llama_cpp.llama_vocab_n_tokens(words)
    assert size > 5000, "the lazy steps end before the whole vocabulary"
    # Rounded, so that there are equal ones.
    logits = (np.random.default_rng(3).normal(0, spread, (40, size)) * 64).round().astype(np.float32) / 64
    lazily = chosen(words, sampling, GRAMMAR, logits)
    monkeypatch.setattr(llama_sampling, "_ASKED_FIRST", (size + 1,))
    assert lazily == chosen(words, sampling, GRAMMAR, logits)
    assert None not in lazily
    assert len(set(lazily)) > 1 or not spread


def test_the_only_token_that_a_grammar_allows_is_found_however_unlikely(words: Any) -> None:
    texts = [text for text, _, _ in vocabulary(WORDS)]
    logits = np.zeros((1, len(texts)), dtype=np.float32)
    for text, logit in (("a", -100.0), ("ab", -100.0), ("<0x61>", -100.0), ("abc", -50.0)):
        logits[0, texts.index(text)] = logit
    assert chosen(words, Sampling(), 'root ::= "abc"', logits) == [texts.index("abc")]
