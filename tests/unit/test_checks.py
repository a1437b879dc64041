from __future__ import annotations

import time

import pytest
from gpurig.common.terminal import harmless
from gpurig.evaljobs.checks import CHECKS, Answer, parse_check, run_check
from gpurig.evaljobs.checks.subject import extract
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

JOB = "unit-test:\n  stage: test\n  script:\n    - pytest\n"


def message(check: object, output: str) -> str:
    outcome = run_check(parse_check(check), Answer(output))
    assert outcome.passed == (not outcome.message)
    return outcome.message


@pytest.mark.parametrize(
    ("check", "output"),
    [
        ({"contains": "stage: test"}, JOB),
        ({"contains": {"text": "STAGE", "ignore_case": True}}, JOB),
        ({"not-contains": "only:"}, JOB),
        ({"regex": r"stage:\s+test"}, JOB),
        ({"regex": {"pattern": "unit.*pytest", "dot_all": True, "match": "full"}}, JOB),
        ({"regex": {"pattern": "^  STAGE", "multiline": True, "ignore_case": True}}, JOB),
        ({"regex": {"pattern": "deploy", "expect": False}}, JOB),
        ("yaml", JOB),
        ("yaml", "- a\n- b\n"),
        ("gitlab-ci", JOB),
        ("gitlab-ci", f"Here it is:\n\n```yaml\n{JOB}```\nEnjoy!"),
        ("gitlab-ci", f"~~~~\n{JOB}~~~~~\n"),
        ("gitlab-ci", f"```yaml\n{JOB}"),
        ("gitlab-ci", ".base:\n  script: [make]\njob:\n  script:\n    - !reference [.base, script]\n    - echo\n"),
        ("gitlab-ci", ".a: &a\n  image: x\njob:\n  <<: *a\n  script: echo\n"),
        ("gitlab-ci", "variables:\n  DAY: 2026-01-01\njob:\n  script: echo\n"),
    ],
)
def test_a_right_answer_passes(check: object, output: str) -> None:
    assert message(check, output) == ""


@pytest.mark.parametrize(
    ("check", "output", "says"),
    [
        ({"contains": "deploy"}, JOB, 'the answer does not contain "deploy"'),
        ({"contains": "STAGE"}, JOB, 'does not contain "STAGE"'),
        ({"not-contains": "pytest"}, JOB, 'the answer contains "pytest"'),
        ({"regex": "^stage"}, JOB, "/^stage/ does not match"),
        ({"regex": {"pattern": "stage", "expect": False}}, JOB, '/stage/ matches "stage", which it must not'),
        ({"regex": {"pattern": "unit-test", "match": "full"}}, JOB, "does not match"),
        ("yaml", "a: [1", "no valid YAML in line 1"),
        ("yaml", "Sure, I can help.", "plain text"),
        ("yaml", "", "the answer is empty"),
        ("yaml", "a: 1\na: 2\n", "key 'a' is there twice, first in line 1"),
        ("gitlab-ci", "- a\n", "must be a mapping of jobs"),
        ("gitlab-ci", "job:\n  script: 3\n", "job.script: 3 "),
        ("gitlab-ci", f"{JOB}  artifacts: all\n", "unit-test.artifacts: 'all' is not of type 'object'"),
        ("gitlab-ci", f"{JOB}  when: sometimes\n", "unit-test.when: 'sometimes' is not one of"),
        ({"gitlab-ci": {"extract": "whole"}}, f"```yaml\n{JOB}```\n", "no valid YAML in line 1"),
        ("gitlab-ci", f"{JOB}x: !!python/object:os.system ls\n", "no valid YAML in line 5"),
        ("gitlab-ci", "a: &a [*a]\n", "nested deeper"),
        ("gitlab-ci", "x: " + "[" * 3000, "nested deeper"),
        ("gitlab-ci", "\x1b[2J: x", "special characters are not allowed"),
        ("yaml", "a: 1\n" * 100_000, "more than 262144"),
    ],
)
def test_a_wrong_answer_fails_and_says_why_in_one_line(check: object, output: str, says: str) -> None:
    found = message(check, output)
    assert says in found
    assert "\n" not in found
    assert len(found) < 500


def test_an_alias_bomb_in_an_answer_ends_quickly() -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    started = time.process_time()
    assert "more than 20000 values" in message("gitlab-ci", f"a0: &a0 [x]\n{levels}")
    assert time.process_time() - started < 5


def test_a_tower_of_merges_of_nothing_ends_quickly() -> None:
    levels = "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 30)}]}}\n" for n in range(1, 12))
    started = time.process_time()
    assert "more than 20000 values" in message("gitlab-ci", f"a0: &a0 {{}}\n{levels}")
    assert time.process_time() - started < 5


def test_a_mapping_of_many_keys_ends_quickly() -> None:
    started = time.process_time()
    assert message("yaml", "".join(f"k{number}: \n" for number in range(9000))) == ""
    assert time.process_time() - started < 10


def test_own_keys_win_over_merged_ones_and_earlier_merges_over_later() -> None:
    from gpurig.evaljobs.suites.source import compose

    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {z: 3, <<: [*a, *b]}\n"
    assert compose(text)["c"] == {"x": 1, "y": 1, "z": 3}


def test_a_catastrophic_pattern_is_stopped_and_named() -> None:
    started = time.process_time()
    found = message({"regex": "^(.*?,){20}P"}, ",".join(str(number) for number in range(40)))
    assert "took longer than 2 s" in found
    assert time.process_time() - started < 10


def test_a_check_is_named_by_what_it_looks_for() -> None:
    assert run_check(parse_check({"contains": "stage"}), Answer(JOB)).label == "stage"
    assert run_check(parse_check("yaml"), Answer(JOB)).label == ""


@pytest.mark.parametrize("entry", [None, 3, [], {}, {"a": 1, "b": 2}, "nope", {"nope": 1}, {"regex": None}])
def test_what_names_no_check_is_a_problem(entry: object) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        parse_check(entry)
    assert caught.value.context is not None
    assert caught.value.context["problems"]


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("a\n```yaml\nx: 1\n```\nb\n```\ny: 2\n```", "x: 1"),
        ("````\n```\ninner\n```\n````", "```\ninner\n```"),
        ("~~~\n```\n~~~", "```"),
        ("no fence", "no fence"),
        ("```\nopen", "open"),
        ("    ```\nindented four is no fence", "    ```\nindented four is no fence"),
        ("", ""),
    ],
)
def test_the_first_fenced_block_is_the_code(output: str, code: str) -> None:
    assert extract(output, "code-block") == code


SMALLEST = {
    "contains": "a",
    "not-contains": "a",
    "starts-with": "a",
    "ends-with": "a",
    "equals": "a",
    "regex": "a+",
    "length": {"max": 5},
    "language": "en",
    "choice": "A",
    "tokens": 5,
    "embedding-similarity": "m",
    "custom": "nobody",
    "retrieval": {"model": "m", "folder": "docs", "relevant": "a"},
    "json-schema": {"schema": {"type": "object"}},
}


@given(
    st.text(alphabet=st.characters(codec="utf-8")) | st.text(alphabet="`~ \na:[]{}&*!-<\"'"),
    st.sampled_from([name for name in CHECKS if name != "custom"]),
)
def test_any_answer_has_an_outcome(output: str, name: str) -> None:
    value = SMALLEST.get(name)
    outcome = run_check(parse_check({name: value} if value else name), Answer(output))
    assert outcome.passed == (not outcome.message)
    assert harmless(outcome.message) == outcome.message
