from __future__ import annotations

import time

import pytest
from gpurig.common.terminal import harmless
from gpurig.evaljobs.checks import Answer, parse_check, run_check
from gpurig.evaljobs.checks.choice import chosen_letter
from gpurig.evaljobs.records import CheckOutcome
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

PROSE = "The quick brown fox jumps over the lazy dog, and nobody in the village is surprised by it."
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund, und niemand im Dorf wundert sich darüber."


def outcome(check: object, output: str, **facts: object) -> CheckOutcome:
    found = run_check(parse_check(check), Answer(output, **facts))
    assert found.passed == (not found.message)
    assert harmless(found.message) == found.message
    assert len(found.message) <= 500
    return found


@pytest.mark.parametrize(
    ("check", "output"),
    [
        ({"contains": ["one", "two"]}, "two one"),
        ({"contains": {"text": ["one", "nine"], "match": "any"}}, "one two"),
        ({"contains": {"text": ["one", "two", "one"], "match": "ordered"}}, "one two one"),
        ({"contains": {"text": ["STRASSE"], "ignore_case": True}}, "Straße"),
        ({"not-contains": ["one", "two"]}, "three"),
        ({"starts-with": "Yes"}, "\n Yes, of course"),
        ({"starts-with": {"text": ["no", "YES"], "ignore_case": True}}, "yes"),
        ({"starts-with": {"text": "strasse", "ignore_case": True}}, "STRAßE 1"),
        ({"ends-with": ["!", "."]}, "Done.\n"),
        ({"ends-with": {"text": "DONE", "ignore_case": True}}, "it is done"),
        ({"equals": "42"}, " 42\n"),
        ({"equals": {"text": ["four", "4"]}}, "4"),
        ({"equals": {"text": "New York", "normalize": ["case", "spaces"]}}, "new\n york"),
        ({"equals": {"text": "ca va", "normalize": ["accents", "case", "punctuation", "spaces"]}}, "Ça  va ?"),
        ({"equals": {"text": "\u00e9", "normalize": "unicode"}}, "e\u0301"),
        ({"length": {"min": 2, "max": 3, "unit": "words"}}, "two words"),
        ({"length": {"max": 2, "unit": "lines"}}, "one\ntwo\n"),
        ({"length": {"min": 3, "max": 3}}, "  abc "),
        ({"language": "en"}, PROSE),
        ({"language": ["de", "nl"]}, GERMAN),
        ({"language": "de"}, f"{GERMAN}\n```python\nfor line in lines: print('the quick brown fox', line)\n```\n"),
    ],
)
def test_a_right_text_passes(check: object, output: str) -> None:
    assert outcome(check, output).message == ""


@pytest.mark.parametrize(
    ("check", "output", "says"),
    [
        ({"contains": ["one", "two", "six"]}, "one", 'does not contain 2 of 3 texts: "two" or "six"; it is "one"'),
        ({"contains": {"text": ["a1", "b2"], "match": "any"}}, "c", 'does not contain any of "a1" or "b2"; it is "c"'),
        (
            {"contains": {"text": ["one", "two"], "match": "ordered"}},
            "two one",
            'not contain "two" behind "one"; it is',
        ),
        ({"not-contains": ["one", "two"]}, "zero\ntwo", 'the answer contains "two", in line 2'),
        ({"starts-with": "Yes"}, "No, yes", 'does not start with "Yes"; it starts with "No, yes"'),
        ({"ends-with": ["a", "b"]}, "abc", 'does not end with "a" or "b"; it ends with "abc"'),
        ({"equals": "42"}, "It is 42.", 'the answer is not "42"; it is "It is 42."'),
        ({"equals": {}}, "x", "the sample has no reference"),
        ({"length": {"max": 3, "unit": "words"}}, "a b c d", "expected at most 3 words, found 4"),
        ({"length": {"min": 9}}, "short", "expected at least 9 characters, found 5"),
        ({"length": {"max": 9, "unit": "tokens"}}, "short", "does not say how many tokens"),
        ({"language": "en"}, GERMAN, "expected en, found de (confidence"),
        ({"language": "en"}, "1 + 1 = 2", "expected en, found 0 letters: too few"),
        ({"regex": r"\d+"}, "none", '/\\d+/ does not match; the answer is "none"'),
    ],
)
def test_a_wrong_text_fails_with_what_was_expected_and_found(check: object, output: str, says: str) -> None:
    assert says in outcome(check, output).message


def test_several_texts_score_the_share_that_is_there() -> None:
    assert outcome({"contains": ["a", "b", "c", "d"]}, "a c").score == pytest.approx(0.5)
    assert outcome({"contains": {"text": ["a", "b", "c", "d"], "match": "ordered"}}, "a c b").score == pytest.approx(
        0.5
    )
    assert outcome({"contains": "a"}, "a").score is None


def test_equals_takes_the_reference_where_it_names_no_text() -> None:
    assert outcome({"equals": {}}, "Paris", reference="Paris\n").passed
    assert 'is not "Paris"' in outcome({"equals": {}}, "Rome", reference="Paris").message


def test_tokens_are_the_record_s() -> None:
    check = {"length": {"max": 7, "unit": "tokens"}}
    assert outcome(check, "x", completion_tokens=7).figures == {"length_tokens": 7.0}
    assert "expected at most 7 tokens, found 8" in outcome(check, "x", completion_tokens=8).message


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        (" (C). ", "C"),
        ("**D**", "D"),
        ("B) Paris", "B"),
        ("B. Paris", "B"),
        ("B\nbecause", "B"),
        ("A - the first one", "A"),
        ("The answer is C.", "C"),
        ("The correct answer is: (C) Paris", "C"),
        ("Answer: D", "D"),
        ("Die Antwort ist B, weil A nicht geht.", "B"),
        ("A is wrong, B is too. So the answer is C", "C"),
        ("First I thought the answer is A. But the answer is B.", "B"),
        (r"\boxed{D}", "D"),
        (r"so $\boxed{\text{(A)}}$", "A"),
        ("It must be C, I think.", "C"),
        ("I choose C) because it is the capital", "C"),
        ("Paris", "B"),
        ("It is Paris, of course", "B"),
        ("a dog is no city", ""),
        ("A or B", ""),
        ("Rome or Paris", ""),
        ("Parisian", ""),
        ("", ""),
        ("E", ""),
        ("I don't know", ""),
    ],
)
def test_the_chosen_letter_is_found_in_the_ways_models_write_it(text: str, letter: str) -> None:
    assert chosen_letter(text, "ABCD", ("Rome", "Paris", "Bonn", "Wien")) == letter


def test_a_choice_is_held_against_the_answer_or_the_reference() -> None:
    assert outcome({"choice": "B"}, "B) Paris").passed
    assert outcome({"choice": {}}, "The answer is (C).", reference="C").passed
    assert 'expected B, found C in "C)"' in outcome({"choice": "B"}, "C)").message
    assert "expected B, found none, or several" in outcome({"choice": "B"}, "who knows").message
    assert "is none of the letters" in outcome({"choice": {}}, "B", reference="Paris").message


@given(st.text(alphabet="ABCD ().:answerisboxed\\{}\n*", max_size=200))
def test_a_chosen_letter_is_one_of_the_letters(text: str) -> None:
    assert chosen_letter(text, "ABCD") in {"", "A", "B", "C", "D"}


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ({"contains": []}, "at least 1"),
        ({"contains": {"text": ["a"], "weight": -1}}, "must be greater than or equal to 0"),
        ({"length": {}}, "give min, max or both"),
        ({"length": {"min": 3, "max": 2}}, "nothing can pass"),
        ({"length": {"max": 2, "unit": "tokens", "extract": "code-block"}}, "whole answer"),
        ({"language": "english"}, "match"),
        ({"language": "xx"}, 'language "xx" is not known'),
        ({"choice": "E"}, "none of the letters"),
        ({"choice": {"answer": "A", "options": ["one"]}}, "1 texts for 4 letters"),
        ({"regex": "("}, "no valid pattern"),
        ({"equals": {"normalize": ["everything"]}}, "case"),
    ],
)
def test_a_mistake_in_a_check_is_told(check: object, says: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        parse_check(check)
    assert caught.value.context is not None
    assert says in str(caught.value.context["problems"])


HUGE = "ab\x1b[2J</script>\u202e " * 600_000  # 10 MB


@pytest.mark.parametrize(
    "check",
    [
        {"contains": ["nowhere", "never"]},
        {"contains": {"text": ["nowhere", "never"], "ignore_case": True}},
        {"not-contains": "script>"},
        {"starts-with": "x"},
        {"ends-with": {"text": "x", "ignore_case": True}},
        {"equals": {"text": "x", "normalize": ["case", "spaces", "punctuation", "unicode", "accents"]}},
        {"regex": "nowhere"},
        {"regex": {"pattern": "(a+b*)+$c", "match": "full"}},
        {"length": {"max": 3, "unit": "words"}},
        {"language": "de"},
        {"choice": "A"},
        "yaml",
        "json",
        "gitlab-ci",
        "github-workflow",
        {"json-schema": {"schema": {"type": "object"}}},
    ],
)
def test_ten_megabytes_of_hostile_answer_end_in_bounded_time_with_a_harmless_message(check: object) -> None:
    started = time.process_time()
    outcome(check, HUGE)
    assert time.process_time() - started < 20
