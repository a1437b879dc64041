"""Scores are those that the metrics' own sources publish; each value's source stands beside it."""

from __future__ import annotations

import math
import time

import pytest
from gpurig.evaljobs.checks import Answer, parse_check, run_check
from gpurig.evaljobs.records import CheckOutcome
from hypothesis import given
from hypothesis import strategies as st

CZECH = (
    "Co nás nejvíc trápí, protože lékaři si vybírají, kdo bude žít a kdo zemře.",
    "Nejvíce smutní jsme z toho, že musíme rozhodovat o tom, kdo bude žít a kdo zemře.",
)
FOX = ("The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog")


def outcome(check: object, output: str, reference: str) -> CheckOutcome:
    return run_check(parse_check(check), Answer(output, reference=reference))


@pytest.mark.parametrize(
    ("check", "output", "reference", "score"),
    [
        # sacrebleu's test_bleu.py: effective order
        ("bleu", "test", "a test", 0.3678794411714425),
        ("bleu", "a test", "a test", 1.0),
        # Papineni 2002's example (2 of 7 words), by hand with sacrebleu's exponential smoothing for 0 of 6, 5 and 4.
        (
            "bleu",
            "the the the the the the the",
            "the cat is on the mat",
            (2 / 7 * 1 / 12 * 1 / 20 * 1 / 32) ** 0.25,
        ),
        # sacrebleu's test_chrf.py: sentence level
        ("chrf", *CZECH, 0.3914078509),
        ("chrf", "a b c", "abc", 1.0),
        ("chrf", "aa", "ab", 0.25),
        # The example of rouge-score's README; the values follow from its five common words of 8 and 9.
        ("rouge-l", *FOX, 2 * 5 / (8 + 9)),
        # rouge-score's rouge_scorer_test.py
        ("rouge-l", "testing", "testing one two", 0.5),
        # rapidfuzz's documentation of Levenshtein.normalized_similarity
        ("edit-distance", "lewenstein", "levenshtein", 0.81818181818181),
        ({"edit-distance": {"unit": "words"}}, "a b c d", "a x c d", 0.75),
    ],
)
def test_a_score_is_the_published_one(check: object, output: str, reference: str, score: float) -> None:
    found = outcome(check, output, reference)
    assert found.score == pytest.approx(score, abs=1e-6)
    assert list(found.figures.values()) == [found.score]
    assert found.passed


def test_the_threshold_decides_and_the_message_says_how_far() -> None:
    assert outcome({"bleu": 0.3}, "test", "a test").passed
    failed = outcome({"bleu": 0.5}, "test", "a test")
    assert failed.message == 'expected bleu of at least 0.5, found 0.368 for "test"'


def test_the_best_of_several_references_counts() -> None:
    check = {"edit-distance": {"reference": ["kitten", "sitting"], "threshold": 0.9}}
    assert outcome(check, "sitting", "unused").score == 1.0
    assert outcome({"chrf": {"reference": ["x", "sitting"]}}, "sitting", "").score == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["bleu", "chrf", "rouge-l", "edit-distance"])
def test_what_cannot_be_compared_is_told(kind: str) -> None:
    assert "the sample has no reference" in outcome(kind, "x", " ").message
    started = time.process_time()
    assert "at most 100000 are compared" in outcome(kind, "x y" * 4_000_000, "x").message
    assert outcome(kind, "ab c " * 19_000, "c ab " * 20_000).score is not None
    assert time.process_time() - started < 20


@given(st.sampled_from(["bleu", "chrf", "rouge-l", "edit-distance"]), st.text(max_size=60), st.text(max_size=60))
def test_a_score_is_a_share_and_the_same_text_has_all_of_it(kind: str, one: str, other: str) -> None:
    score = outcome(kind, one, other).score
    assert score is not None
    assert math.isfinite(score)
    assert 0 <= score <= 1
    if one.strip() and kind == "edit-distance":
        assert outcome(kind, one, one).score == 1.0
