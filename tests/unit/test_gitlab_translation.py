from __future__ import annotations

import pytest
from gpurig.evaljobs.checks import Answer, parse_check, run_check
from gpurig.evaljobs.checks.gitlab.translation import matrix_count, plain_name
from gpurig.evaljobs.records import CheckOutcome
from hypothesis import given
from hypothesis import strategies as st

WORKFLOW = """
on: [push]
jobs:
  build:
    runs-on: ubuntu-latest
    steps: [{run: make}]
  unit_tests:
    name: Unit tests (${{ matrix.python }})
    needs: build
    runs-on: ubuntu-latest
    strategy:
      matrix:
        python: ["3.11", "3.12", "3.13"]
        exclude: [{python: "3.11"}]
        include: [{python: "3.13", extra: true}, {python: pypy}]
    steps: [{run: pytest}]
  Deploy-Site:
    needs: [build, unit_tests]
    uses: ./.github/workflows/deploy.yml
"""

GOOD = """
stages: [build, test, deploy]
build:
  stage: build
  script: make
unit-tests:
  stage: test
  parallel:
    matrix: [{PYTHON: ["3.12", "3.13", pypy]}]
  script: pytest
deploy site:
  stage: deploy
  trigger: {include: deploy.yml}
"""


def finding(output: str, check: object = "gitlab-ci-translation", **facts: object) -> CheckOutcome:
    return run_check(parse_check(check), Answer(output, **{"input": f"Translate:\n```yaml\n{WORKFLOW}```\n", **facts}))


@pytest.mark.parametrize(
    "output",
    [
        GOOD,
        f"```yaml\n{GOOD}```",
        GOOD.replace("unit-tests:", "'Unit tests':"),
        # One job for each of the matrix.
        GOOD.replace('  parallel:\n    matrix: [{PYTHON: ["3.12", "3.13", pypy]}]\n', "").replace(
            "unit-tests:\n  stage: test\n  script: pytest\n",
            "".join(f"unit-tests-{one}:\n  stage: test\n  script: pytest\n" for one in ("3.12", "3.13", "pypy")),
        ),
        # Needs instead of stages; the deployment waits for the build through the tests.
        GOOD.replace("stage: test", "needs: [build]").replace("  stage: deploy", "  needs: [unit-tests]"),
    ],
)
def test_a_translation_that_has_every_job_passes(output: str) -> None:
    outcome = finding(output)
    assert (outcome.message, outcome.score) == ("", 1.0)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (
            GOOD.replace("build:\n  stage: build", "compile:\n  stage: build"),
            'the job "build" of the workflow is missing',
        ),
        (GOOD.replace(", pypy", ""), '"unit_tests" runs 3 times in the workflow, and 2 times here'),
        (
            GOOD.replace("stages: [build, test, deploy]", "stages: [test, build, deploy]"),
            '"unit_tests" waits for "build"',
        ),
        (GOOD.replace("  stage: deploy\n", "  needs: []\n  stage: deploy\n"), '"Deploy-Site" waits for "build"'),
        ("just words", "plain text"),
        ("- a\n", "must be a mapping of jobs"),
    ],
)
def test_a_translation_that_lacks_something_says_which_job(output: str, says: str) -> None:
    outcome = finding(output)
    assert says in outcome.message
    assert outcome.score is not None
    assert outcome.score < 1


def test_matrix_and_order_may_be_left_out() -> None:
    check = {"gitlab-ci-translation": {"matrix": False, "order": False}}
    assert finding(GOOD.replace(", pypy", "").replace("stages: [build, test", "stages: [test, build"), check).passed


def test_the_workflow_may_be_a_variable_of_the_sample() -> None:
    assert finding(GOOD, {"gitlab-ci-translation": "workflow"}, vars={"workflow": WORKFLOW}).passed
    assert 'no variable "workflow"' in finding(GOOD, {"gitlab-ci-translation": "workflow"}).message
    assert "cannot be read" in finding(GOOD, input="What is this?").message


@pytest.mark.parametrize(
    ("strategy", "count"),
    [
        (None, 1),
        ({}, 1),
        ({"fail-fast": False}, 1),
        ({"matrix": {"a": [1, 2], "b": [3, 4, 5]}}, 6),
        ({"matrix": {"a": [1, 2], "exclude": [{"a": 1}]}}, 1),
        ({"matrix": {"include": [{"a": 1}, {"a": 2}]}}, 2),
        # The five entries of GitHub's own example: two add to combinations that fit, one to all, two are new.
        (
            {
                "matrix": {
                    "fruit": ["apple", "pear"],
                    "animal": ["cat", "dog"],
                    "include": [
                        {"color": "green"},
                        {"color": "pink", "animal": "cat"},
                        {"fruit": "apple", "shape": "circle"},
                        {"fruit": "banana"},
                        {"fruit": "banana", "animal": "cat"},
                    ],
                }
            },
            6,
        ),
        ({"matrix": "${{ fromJSON(needs.x.outputs.y) }}"}, None),
        ({"matrix": {"a": "${{ fromJSON(x) }}"}}, None),
        ({"matrix": {"a": [0] * 100, "b": [0] * 100}}, None),
    ],
)
def test_a_matrix_is_counted_as_github_does(strategy: object, count: int | None) -> None:
    assert matrix_count(strategy) == count


@given(st.text())
def test_names_are_compared_without_case_and_separators(text: str) -> None:
    assert plain_name(f"-{text} _") == plain_name(text.casefold())
