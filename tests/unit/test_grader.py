from __future__ import annotations

import math

import pytest
from gpurig.evaljobs.engine import Completion
from gpurig.evaljobs.grading.verdicts import grading_request, judge, verdict_grammar
from hypothesis import given
from hypothesis import strategies as st

VERDICTS = {"good": 1.0, "partly": 0.5, "bad": 0.0}


def completion(text: str, **logarithms: float) -> Completion:
    choices = {form: -math.inf for verdict in VERDICTS for form in (verdict, f" {verdict}")}
    for name, value in logarithms.items():
        choices[name.replace("_", " ")] = value
    return Completion("a", text, "stop", choices=choices)


def test_the_score_is_the_expectation_of_the_verdicts_values() -> None:
    verdict = judge(completion("good", good=math.log(0.3), partly=math.log(0.2), bad=math.log(0.1)), VERDICTS)
    assert verdict.probabilities == pytest.approx({"good": 0.5, "partly": 1 / 3, "bad": 1 / 6})
    assert verdict.score == pytest.approx(0.5 + 0.5 / 3)
    assert verdict.verdict == "good"


def test_both_forms_of_a_verdict_count() -> None:
    verdict = judge(completion(" good", good=math.log(0.1), _good=math.log(0.3), bad=math.log(0.4)), VERDICTS)
    assert verdict.probabilities["good"] == pytest.approx(0.5)
    assert verdict.written == "good"


def test_the_verdict_is_the_most_probable_and_what_was_written_is_kept() -> None:
    verdict = judge(completion("good", good=-2.0, bad=-1.0), VERDICTS)
    assert (verdict.verdict, verdict.written) == ("bad", "good")


@given(st.lists(st.floats(-2000, 0), min_size=6, max_size=6))
def test_probabilities_add_up_to_one_however_small_they_are(values: list[float]) -> None:
    forms = [form for verdict in VERDICTS for form in (verdict, f" {verdict}")]
    verdict = judge(Completion("a", "bad", "stop", choices=dict(zip(forms, values, strict=True))), VERDICTS)
    assert sum(verdict.probabilities.values()) == pytest.approx(1.0)
    assert 0.0 <= verdict.score <= 1.0


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        (Completion("a", "", "error", error="too long"), "too long"),
        (completion("goo", good=-1.0), "cannot spell"),
        (completion("good"), "probability 0"),
    ],
)
def test_without_a_verdict_there_is_an_error_and_no_score(given_: Completion, says: str) -> None:
    verdict = judge(given_, VERDICTS)
    assert says in verdict.error
    assert (verdict.verdict, verdict.score, verdict.probabilities) == ("", 0.0, {})


def test_the_request_is_greedy_constrained_and_asks_for_every_form() -> None:
    request = grading_request("a", "judge", VERDICTS)
    assert request.sampling.temperature == 0.0
    assert request.choices == ("good", " good", "partly", " partly", "bad", " bad")
    assert request.grammar == 'root ::= " "? ("good" | "partly" | "bad")'


def test_a_verdict_cannot_break_out_of_the_grammar() -> None:
    assert verdict_grammar(('a" | root', "b\\", "c\n")) == 'root ::= " "? ("a\\" | root" | "b\\\\" | "c\\n")'
