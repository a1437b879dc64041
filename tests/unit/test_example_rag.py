"""examples/rag: the document that is named answers the question, and the question does not."""

from __future__ import annotations

import sys
from pathlib import Path

from gpurig.evaljobs.checks import Answer, run_check
from gpurig.evaljobs.suites.suite import load_suite

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import rag_questions  # noqa: E402 - found through the line above

FOLDER = ROOT / "examples" / "rag"
SUITE = load_suite(FOLDER)


def test_the_suite_is_valid_without_warnings():
    assert SUITE.warnings == ()
    assert len(SUITE.samples) == 20


def test_the_data_set_is_what_the_questions_say():
    assert (FOLDER / "samples.jsonl").read_text(encoding="utf-8") == rag_questions.samples_text()


def test_the_named_document_holds_the_answer_and_the_question_does_not():
    for sample in SUITE.samples:
        assert run_check(sample.checks[0], Answer(sample.vars["document"])).passed, sample.id
        assert not run_check(sample.checks[0], Answer(sample.input)).passed, sample.id


def test_every_document_answers_a_question():
    assert {sample.vars["relevant"] for sample in SUITE.samples} == {file.name for file in FOLDER.glob("documents/*")}
