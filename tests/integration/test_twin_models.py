"""The twins that our figures are held against: the same tokens, and the same probabilities to rounding."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from standins.reference import Reference
from standins.twin_models import Twins, random_twins, trained_twins

# Not our own engine, which is what the twins judge.
llama_cpp = pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

_RANDOM = random.Random(5)
TEXTS = [
    "stages: [build, test]\n\ntest:\n  script:\n    - pytest -q",
    "<task>Write a job that runs the tests\n<ci>",
    "  two blanks before,  two inside, two behind  ",
    "Überraschung: naïve café, 東京 🚀 \u200d\t\r\n",
    "a </s> in the middle, and <s> and <unk> too",
    "x",
    "".join(chr(code) for code in range(32, 127)),
    # Letters, blanks and words of the vocabulary at random: merges that compete.
    *("".join(_RANDOM.choices("abcdeinorst -_:\n", k=60)) for _ in range(30)),
    *(" ".join(_RANDOM.choices(["script", "stages", "docker", "rules", "if", "needs:", "-"], k=12)) for _ in range(10)),
]


@pytest.fixture(scope="module", params=[trained_twins, random_twins])
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    make: Callable[[Path], Twins] = request.param
    return make(tmp_path_factory.mktemp("twins"))


def _llama(path: Path) -> Any:
    # llama.cpp's own choice, an F16 cache, is up to 0.06 off on the trained twin.
    cache = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
    return llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, logits_all=True, verbose=False, **cache)


def test_both_twins_have_the_same_tokens_and_probabilities(reference: Reference, twins: Twins, tmp_path: Path) -> None:
    llama = _llama(twins.gguf)
    ours = [llama.tokenize(text.encode(), add_bos=True, special=True) for text in TEXTS]
    assert reference.tokens(twins.folder, TEXTS, tmp_path) == ours

    sequences = [tokens for tokens in ours if len(tokens) <= 256]
    for tokens, theirs in zip(sequences, reference.log_probabilities(twins.folder, sequences, tmp_path), strict=True):
        llama.reset()
        llama.eval(tokens)
        logits = np.array(llama.scores[: len(tokens)], dtype=np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        found = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        assert np.abs(found - theirs).max() < 1e-3
    llama.close()
