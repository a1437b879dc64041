"""The committed models, measured again with llama.cpp: they are what their card says."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from demo_models import evaluation, tasks  # noqa: E402 - found through the line above
from gpurig.common.gguf import read_gguf  # noqa: E402
from gpurig.common.models.sources import bundled_folder  # noqa: E402
from gpurig.evaljobs.suites.suite import load_suite  # noqa: E402

SUITE = ROOT / "examples" / "ci-jobs"
NAMES = ("demo-generator.gguf", "demo-grader.gguf")

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def card():
    """The figures of the model card, by the name in its tables' first column."""
    text = (bundled_folder() / "MODEL_CARD.md").read_text(encoding="utf-8")
    return {
        name.strip(): float(value) for name, value in re.findall(r"^\| ([a-z ]+) \| ([0-9.]+) \|$", text, re.MULTILINE)
    }


def test_the_models_are_the_files_that_were_measured():
    lines = (bundled_folder() / "SHA256SUMS").read_text().splitlines()
    assert [line.split()[1] for line in lines] == list(NAMES)
    for line in lines:
        digest, name = line.split()
        assert hashlib.sha256((bundled_folder() / name).read_bytes()).hexdigest() == digest


def test_the_models_are_two_different_small_llamas():
    models = [read_gguf(bundled_folder() / name) for name in NAMES]
    assert [model.metadata["general.architecture"] for model in models] == ["llama", "llama"]
    assert all((bundled_folder() / name).stat().st_size <= 4_000_000 for name in NAMES)
    shapes = {
        tuple(model.of_architecture(key) for key in ("embedding_length", "feed_forward_length")) for model in models
    }
    assert len(shapes) == 2


def test_the_markers_of_the_prompts_are_single_tokens():
    for name in NAMES:
        tokens = read_gguf(bundled_folder() / name).metadata["tokenizer.ggml.tokens"]
        assert {tasks.TASK, tasks.ANSWER, tasks.VERDICT} <= set(tokens)


@pytest.mark.parametrize("name", NAMES)
def test_every_text_comes_back_from_the_tokenizer(name):
    import llama_cpp

    llama = llama_cpp.Llama(str(bundled_folder() / name), vocab_only=True, verbose=False)
    try:
        for text in (" a\n\n\n    - b:  c\t", "Grüße, 日本\n", *(row["output"] for row in calibration())):
            tokens = llama.tokenize(text.encode(), add_bos=False, special=False)
            assert llama.detokenize(tokens) == text.encode()
    finally:
        llama.close()


def test_the_grader_separates_good_from_corrupted_answers(card):
    figures = evaluation.measure_grader(load_suite(SUITE), calibration(), bundled_folder())
    assert figures.rows >= 200
    assert figures.true_negatives >= 0.8
    assert figures.true_positives >= 0.8
    # Other CPUs round differently; a verdict or two may turn.
    assert figures.true_positives == pytest.approx(card["true positives"], abs=0.03)
    assert figures.true_negatives == pytest.approx(card["true negatives"], abs=0.03)
    assert figures.kappa == pytest.approx(card["kappa"], abs=0.05)


def test_the_generator_gets_most_samples_right_and_not_all(card):
    figures = evaluation.measure_suite(load_suite(SUITE), bundled_folder())
    assert figures.checked / figures.samples == pytest.approx(card["every check passes"], abs=0.06)
    assert 0.5 < figures.checked / figures.samples < 1.0


def calibration():
    return evaluation.read_calibration(SUITE / "calibration.jsonl")
