from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.evaljobs.checks import Answer, parse_check, run_check
from gpurig.evaljobs.checks.documents import MAX_DEPTH, read_json
from gpurig.evaljobs.suites.suite import load_suite
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

WORKFLOW = """
name: test
on:
  push:
    branches: [main]
jobs:
  unit:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        python: ["3.11", "3.12"]
    steps:
      - uses: actions/checkout@v4
      - run: pytest
"""

SCHEMA = {
    "type": "object",
    "required": ["name", "port"],
    "properties": {"name": {"type": "string"}, "port": {"type": "integer", "minimum": 1}},
    "additionalProperties": False,
}


def message(check: object, output: str, folder: Path = Path()) -> str:
    outcome = run_check(parse_check(check), Answer(output, folder=folder))
    assert outcome.passed == (not outcome.message)
    assert "\n" not in outcome.message
    return outcome.message


@pytest.mark.parametrize(
    ("check", "output"),
    [
        ("json", '{"a": [1, 2.5, null, true]}'),
        ("json", "Here:\n```json\n[1]\n```\n"),
        ("json", "3"),
        ({"json": {"type": "object"}}, "{}"),
        ({"json": {"type": "array"}}, "[]"),
        ({"json-schema": {"schema": SCHEMA}}, '{"name": "x", "port": 80}'),
        ({"json-schema": {"schema": SCHEMA, "format": "yaml"}}, "name: on\nport: 80\n"),
        ("github-workflow", WORKFLOW),
        ("github-workflow", f"```yaml\n{WORKFLOW}```"),
    ],
)
def test_a_right_document_passes(check: object, output: str) -> None:
    assert message(check, output) == ""


@pytest.mark.parametrize(
    ("check", "output", "says"),
    [
        ("json", "", "the answer is empty"),
        ("json", "{'a': 1}", "no valid JSON in line 1, column 2"),
        ("json", '{"a": NaN}', "NaN is no JSON number"),
        ("json", '{"a": -Infinity}', "-Infinity is no JSON number"),
        ("json", '{"a": 1, "a": 2}', 'key "a" is there twice'),
        ("json", "[" * 100_000, "nested deeper than 64 levels"),
        ("json", "[" * 70 + "]" * 70, "nested deeper than 64 levels"),
        ("json", "[" + "1," * 30_000 + "1]", "more than 20000 values"),
        ("json", "1" * 5000, "no valid JSON"),
        ("json", "[1] and more", "Extra data"),
        ({"json": {"type": "object"}}, "[1]", "expected a JSON object, found an array"),
        ({"json": {"type": "array"}}, "null", "expected a JSON array, found null"),
        ({"json-schema": {"schema": SCHEMA}}, '{"name": "x"}', "the top: 'port' is a required property"),
        ({"json-schema": {"schema": SCHEMA}}, '{"name": 3, "port": 80}', "name: 3 is not of type 'string'"),
        ({"json-schema": {"schema": SCHEMA}}, "no JSON", "no valid JSON in line 1"),
        ({"json-schema": {"schema": {"$ref": "https://example.invalid/x"}}}, "{}", "refers to what is not in it"),
        ({"json-schema": {"schema": {"$ref": "#"}}}, "{}", "without end"),
        ({"json-schema": {"schema": {"pattern": "^(.*?,){20}P"}}}, json.dumps("1," * 40), "took longer than 1 s"),
        ("github-workflow", "- a\n", "must be a mapping"),
        ("github-workflow", "on: push\n", "'jobs' is a required property"),
        ("github-workflow", WORKFLOW.replace("runs-on", "runs_on"), "jobs.unit"),
        ("github-workflow", WORKFLOW.replace("push:", "pushed:"), "pushed"),
        ("github-workflow", "just text", "plain text"),
    ],
)
def test_a_wrong_document_fails_and_says_where(check: object, output: str, says: str) -> None:
    assert says in message(check, output)


def test_a_schema_may_be_a_file_beside_the_suite(tmp_path: Path) -> None:
    (tmp_path / "port.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "port.yaml").write_text("type: object\nrequired: [port]\n")
    assert message({"json-schema": "port.json"}, '{"name": "x", "port": 1}', tmp_path) == ""
    assert "'port' is a required property" in message({"json-schema": "port.yaml"}, "{}", tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "missing.json"),
        ("[]", "must be a mapping"),
        ("{", "no valid YAML"),
        ('{"type": "thing"}', "no valid JSON schema: type"),
    ],
)
def test_a_schema_file_that_is_none_is_told_before_the_run(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "missing.json").write_text(content)
    spec = parse_check({"json-schema": "missing.json"})
    assert says in spec.parameters.problem(tmp_path)


def test_an_inline_schema_that_is_none_is_a_mistake_in_the_suite() -> None:
    with pytest.raises(PydanticCustomError) as caught:
        parse_check({"json-schema": {"schema": {"type": "thing"}}})
    assert "no valid JSON schema: type" in str(caught.value.context)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_json_writes_is_read_again(value: object) -> None:
    read = read_json(json.dumps(value))
    assert (read.problem, read.data) == ("", value)


@given(st.integers(0, 200))
def test_depth_is_bounded_whatever_the_parser_bears(depth: int) -> None:
    assert bool(read_json("[" * depth + "1" + "]" * depth).problem) == (depth >= MAX_DEPTH)


def test_a_workflow_of_the_greatest_size_ends_in_bounded_time() -> None:
    steps = "".join(f"      - run: echo {number}\n" for number in range(4000))
    started = time.process_time()
    message("github-workflow", WORKFLOW.replace("      - run: pytest\n", steps))
    message("gitlab-ci", "".join(f"job{number}:\n  script: [make]\n" for number in range(4000)))
    assert time.process_time() - started < 60


def test_a_suite_whose_schema_is_missing_is_no_suite(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(
        "version: 1\nname: x\ngenerator: {model: m}\nsamples:\n  - id: a\n    input: b\n    checks:\n"
        "      - json-schema: nowhere.json\n"
    )
    with pytest.raises(InputError, match=r"suite.yaml:8: samples\[0\].checks\[0\].json-schema: .*nowhere.json"):
        load_suite(tmp_path)
