"""`gpurig-job score` held against Transformers on the same weights in F32: every log-likelihood within 1e-3."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from gpurig.evaljobs.__main__ import cli
from gpurig.evaljobs.inference.windows import rolling_windows
from standins.reference import Reference
from standins.twin_models import Twins, random_twins, trained_twins

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

QUESTIONS = [
    {"id": "a", "prompt": "<task>Write a job that runs pytest.\n<ci>\n", "choices": ["test:", "test:\n  script:", "x"]},
    {"id": "b", "prompt": "stages: [build, test]\n", "choices": ["build:\n  script: make", "\n", "deploy"]},
    {"id": "c", "prompt": "", "choices": ["a", "b c d", "image: debian"]},
]
TEXT = "stages: [build, test]\n\ntest:\n  image: python:3.12\n  script:\n    - pytest -q\n" * 6
CONTEXT, OVERLAP = 64, 24


@pytest.fixture(scope="module", params=[trained_twins, random_twins])
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    make: Callable[[Path], Twins] = request.param
    return make(tmp_path_factory.mktemp("twins"))


def test_every_log_likelihood_is_that_of_transformers(reference: Reference, twins: Twins, tmp_path: Path) -> None:
    lines = [*QUESTIONS, {"id": "text", "text": TEXT}]
    items, out = tmp_path / "items.jsonl", tmp_path / "out"
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["score", str(items), "--model", str(twins.gguf), "--threads", "1", "--out", str(out)]
    words += ["--context", str(CONTEXT), "--overlap", str(OVERLAP)]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0
    records = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {record["sample"]: record for record in records if record["record"] == "score"}

    # One question of everything: the reference takes seconds to begin.
    texts = [str(question["prompt"]) for question in QUESTIONS]
    texts += [f"{question['prompt']}{choice}" for question in QUESTIONS for choice in question["choices"]]
    *tokens, text = reference.tokens(twins.folder, [*texts, TEXT], tmp_path)
    prompts, sequences = tokens[: len(QUESTIONS)], tokens[len(QUESTIONS) :]
    windows = list(rolling_windows(len(text) - 1, size=CONTEXT, overlap=OVERLAP))
    # BOS stands before the text in `text`.
    pieces = [text[one.begin + 1 : one.end + 1] for one in windows]
    tables = reference.log_probabilities(twins.folder, [*sequences, *pieces], tmp_path)

    for question, prompt in zip(QUESTIONS, prompts, strict=True):
        mine = [sequences.pop(0) for _ in question["choices"]]
        shared = max(1, min(_common(prompt, one) for one in mine))
        for one, scored in zip(mine, found[str(question["id"])]["scored"], strict=True):
            table, places = tables.pop(0), range(shared, len(one))
            expected = sum(table[place - 1][one[place]] for place in places)
            assert scored["logprob"] == pytest.approx(expected, abs=1e-3)
            assert scored["tokens"] == len(places)
            assert scored["greedy"] == all(int(table[place - 1].argmax()) == one[place] for place in places)

    expected = sum(
        table[place - 1][piece[place]]
        for window, piece, table in zip(windows, pieces, tables, strict=True)
        for place in range(window.scored - window.begin, len(piece))
    )
    assert found["text"]["windows"] == len(windows) > 3
    assert found["text"]["scored"][0]["tokens"] == len(text) - 1
    assert found["text"]["scored"][0]["logprob"] == pytest.approx(expected, abs=1e-3 * len(windows))


def _common(one: list[int], other: list[int]) -> int:
    length = min(len(one), len(other))
    return next((place for place in range(length) if one[place] != other[place]), length)
