"""examples/multiple-choice: right letters pass, wrong ones fail, and the letter alone tells nothing."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from gpurig.evaljobs.checks import Answer, run_check
from gpurig.evaljobs.suites.suite import load_suite

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import choice_questions  # noqa: E402 - found through the line above

FOLDER = ROOT / "examples" / "multiple-choice"
SUITE = load_suite(FOLDER)
QUESTIONS = [json.loads(line) for line in (FOLDER / "questions.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_suite_is_valid_without_warnings():
    assert SUITE.warnings == ()
    assert len(SUITE.samples) >= 40


def test_the_data_sets_are_what_the_questions_say():
    for name, text in choice_questions.data_sets().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text


def test_of_four_letters_the_right_one_alone_passes():
    for sample in SUITE.samples:
        passing = [
            letter
            for letter in "ABCD"
            if all(
                run_check(spec, Answer(letter, input=sample.input, reference=sample.reference)).passed
                for spec in SUITE.checks_of(sample)
            )
        ]
        assert passing == [sample.reference]


def test_the_choices_of_a_question_differ_and_the_answers_are_spread_over_the_letters():
    assert all(len(set(question["choices"])) == 4 for question in QUESTIONS)
    counts = Counter(question["answer"] for question in QUESTIONS)
    assert min(counts[place] for place in range(4)) >= len(QUESTIONS) // 8
    assert [sample.reference for sample in SUITE.samples] == ["ABCD"[question["answer"]] for question in QUESTIONS]
