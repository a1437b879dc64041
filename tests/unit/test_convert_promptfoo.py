"""promptfoo's configuration as a suite: what meets is carried over, what does not is said and kept as a comment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpurig.common.command import run_command
from gpurig.common.errors import InputError
from gpurig.evaljobs.__main__ import cli
from gpurig.evaljobs.checks import parse_check
from gpurig.evaljobs.converting.assertions import Converted, NoCheckError, compact_assertion, convert_assertion
from gpurig.evaljobs.converting.draft import Draft, DraftSample, dump
from gpurig.evaljobs.converting.promptfoo import ConvertOptions, convert_promptfoo
from gpurig.evaljobs.converting.writing import write_draft
from gpurig.evaljobs.suites.source import compose_core
from gpurig.evaljobs.suites.suite import Suite, load_suite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CONFIG = """\
description: Translate
prompts:
  - 'Translate to {{language}}: {{text}}'
  - label: polite
    raw: Please translate {{text}} to {{language}}.
providers:
  - openai:gpt-4o-mini
  - id: ollama:chat:llama3
    label: local
    config: {temperature: 0.3, max_tokens: 50, tools: [x]}
defaultTest:
  vars: {language: French}
  assert:
    - {type: not-icontains, value: as an ai}
    - {type: cost, threshold: 1}
tests:
  - description: Greets the world, 100 %
    vars: {text: Hello world}
    assert:
      - {type: icontains, value: bonjour}
      - type: javascript
        value: output.length > 3
      - {type: contains, value: '{{text}} in {{language}}', weight: 2}
  - vars: {text: [one, two], language: [German, "yes"]}
    threshold: 0.5
evaluateOptions: {repeat: 2, maxConcurrency: 3}
outputPath: out.html
"""


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., tuple[Suite, Draft]]:
    """Converts a configuration and reads the suite that came of it."""

    def converted(text: str = CONFIG, **options: Any) -> tuple[Suite, Draft]:
        (tmp_path / "promptfooconfig.yaml").write_text(text)
        draft = convert_promptfoo(tmp_path / "promptfooconfig.yaml", ConvertOptions(**options))
        write_draft(draft, tmp_path / "out")
        return load_suite(tmp_path / "out"), draft

    return converted


Convert = Callable[..., tuple[Suite, Draft]]


def test_every_provider_with_every_prompt_is_a_generator(convert: Convert) -> None:
    suite, _ = convert()
    assert list(suite.generators) == ["gpt-4o-mini-prompt-1", "gpt-4o-mini-polite", "local-prompt-1", "local-polite"]
    local = suite.generators["local-polite"]
    assert (local.model, local.prompt) == ("llama3", "Please translate {{text}} to {{language}}.")
    assert (local.sampling.temperature, local.sampling.max_tokens) == (0.3, 50)
    assert (suite.epochs.n, suite.description) == (2, "Translate")
    assert [rule.min for rule in suite.gate] == [1.0]


def test_tests_are_samples_and_lists_of_values_every_combination(convert: Convert) -> None:
    suite, _ = convert()
    assert [sample.id for sample in suite.samples] == ["Greets-the-world-100", "test-2", "test-3", "test-4", "test-5"]
    assert suite.samples[0].input == "Hello world"
    assert suite.samples[0].vars == {"language": "French", "text": "Hello world"}
    assert [(one.vars["text"], one.vars["language"]) for one in suite.samples[1:]] == [
        ("one", "German"),
        ("one", "yes"),
        ("two", "German"),
        ("two", "yes"),
    ]
    assert {sample.threshold for sample in suite.samples[1:]} == {0.5}


def test_assertions_are_checks_with_the_variables_in_their_places(convert: Convert) -> None:
    suite, _ = convert()
    assert [check.as_data for check in suite.checks_of(suite.samples[0])] == [
        parse_check(one).as_data
        for one in (
            {"not-contains": {"text": "as an ai", "ignore_case": True}},
            {"contains": {"text": "bonjour", "ignore_case": True}},
            {"contains": {"text": "Hello world in French", "weight": 2}},
        )
    ]


def test_what_is_not_carried_over_is_said_with_line_and_reason_and_kept_as_a_comment(
    convert: Convert, tmp_path: Path
) -> None:
    _, draft = convert()
    said = [str(remark).removeprefix(f"{tmp_path}/promptfooconfig.yaml:") for remark in draft.all_remarks()]
    assert said == [
        '7: providers[0]: changed: the model is now "gpt-4o-mini", a GGUF file: name one that you have',
        '8: providers[1]: changed: the model is now "llama3", a GGUF file: name one that you have',
        "10: providers[1].config.tools: not carried over: a generator has no such setting",
        "15: defaultTest.assert[1]: not carried over: no check means cost",
        "21: tests[0].assert[1]: not carried over: javascript runs code: write it as a check of your own",
        "27: outputPath: not carried over: a suite has no such key",
    ]
    written = (tmp_path / "out" / "suite.yaml").read_text()
    assert "# promptfooconfig.yaml:21: tests[0].assert[1]: not carried over" in written
    assert "#   value: output.length > 3" in written
    assert str(tmp_path) not in written


def test_rubrics_are_the_graders_where_there_is_one_and_every_sample_has_one(convert: Convert, tmp_path: Path) -> None:
    rubric = CONFIG.replace("{type: cost, threshold: 1}", "{type: llm-rubric, value: 'Is it {{language}}?'}")
    suite, draft = convert(rubric, grader_model="judge")
    assert suite.grader is not None
    assert suite.grader.model == "judge"
    assert [sample.vars["rubric"] for sample in suite.samples[:2]] == ["Is it French?", "Is it German?"]
    assert not any("rubric" in remark.reason for remark in draft.all_remarks())
    without = convert_promptfoo(tmp_path / "promptfooconfig.yaml", ConvertOptions())
    assert any("give --grader-model" in str(remark) for remark in without.all_remarks())
    assert all("rubric" not in sample.data.get("vars", {}) for sample in without.samples)


def test_a_model_that_is_given_takes_the_place_of_the_providers(convert: Convert) -> None:
    suite, _ = convert(model="mine")
    assert [spec.model for spec in suite.named_generators.values()] == ["mine", "mine"]


def test_prompts_and_tests_are_read_from_files(convert: Convert, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("First {{q}}\n---\nSecond {{q}}\n")
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{q}}"}]
    (tmp_path / "chat.json").write_text(json.dumps(chat))
    (tmp_path / "t.csv").write_text(
        'q,__expected,__expected2,__description,__threshold,__prefix\n1+1,2,"contains-any: two, zwei",Adds,0.5,x\n'
    )
    (tmp_path / "more.yaml").write_text("- vars: {q: 3}\n  assert: [{type: equals, value: 3}]\n")
    suite, draft = convert(
        "prompts: [file://p.txt, file://chat.json]\nproviders: llama\ntests: [file://t.csv, file://more.yaml]\n"
    )
    generators = suite.generators
    assert [str(spec.prompt) for spec in generators.values()] == ["First {{q}}", "Second {{q}}", "{{q}}"]
    assert [spec.system for spec in generators.values()] == ["", "", "Be brief."]
    first, second = suite.samples
    assert (first.id, first.input, first.threshold) == ("Adds", "1+1", 0.5)
    assert [check.kind for check in first.checks] == ["equals", "contains"]
    assert second.input == "3"
    assert any(str(one).endswith("a prompt is asked as it is") and "t.csv:2:" in str(one) for one in draft.remarks)


def test_scenarios_are_every_row_with_every_test(convert: Convert) -> None:
    suite, _ = convert(
        "prompts: ['{{a}} {{b}}']\nproviders: [llama]\nscenarios:\n"
        "  - config: [{vars: {a: 1}}, {vars: {a: 2}}]\n    tests: [{vars: {b: x}}, {vars: {b: y}}]\n"
    )
    assert [(one.vars["a"], one.vars["b"]) for one in suite.samples] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


CASES: list[tuple[dict[str, Any], Any]] = [
    ({"type": "equals", "value": 4}, {"equals": "4"}),
    ({"type": "contains", "value": "x"}, {"contains": "x"}),
    ({"type": "contains-all", "value": ["x", "y"]}, {"contains": ["x", "y"]}),
    ({"type": "contains-any", "value": ["x", "y"]}, {"contains": {"text": ["x", "y"], "match": "any"}}),
    ({"type": "icontains", "value": "x", "weight": 3}, {"contains": {"text": "x", "ignore_case": True, "weight": 3}}),
    ({"type": "not-contains-any", "value": ["x", "y"]}, {"not-contains": ["x", "y"]}),
    ({"type": "regex", "value": "^a"}, {"regex": "^a"}),
    ({"type": "not-regex", "value": "^a"}, {"regex": {"pattern": "^a", "expect": False}}),
    ({"type": "starts-with", "value": "x"}, {"starts-with": "x"}),
    ({"type": "not-starts-with", "value": "a.b"}, {"regex": {"pattern": r"\Aa\.b", "expect": False}}),
    ({"type": "is-json"}, {"json": {"extract": "whole"}}),
    ({"type": "contains-json"}, "json"),
    ({"type": "latency", "threshold": 1500}, {"latency": 1.5}),
    (
        {"type": "levenshtein", "threshold": 2, "value": "abcdefghij"},
        {"edit-distance": {"threshold": 0.8, "reference": "abcdefghij"}},
    ),
    ({"type": "bleu", "value": "a b"}, {"bleu": {"threshold": 0.5, "reference": "a b"}}),
    ({"type": "rouge-n", "value": "a b", "threshold": 0.6}, {"rouge-l": {"threshold": 0.6, "reference": "a b"}}),
    ({"type": "word-count", "value": {"min": 2, "max": 4}}, {"length": {"min": 2, "max": 4, "unit": "words"}}),
]


@pytest.mark.parametrize(("assertion", "check"), CASES, ids=[case["type"] for case, _ in CASES])
def test_an_assertion_is_the_check_that_means_the_same(assertion: dict[str, Any], check: Any) -> None:
    made = convert_assertion(assertion)
    assert made.check == check
    parse_check(made.check)


@pytest.mark.parametrize(
    "assertion",
    [
        {},
        {"type": 7},
        {"type": "nope"},
        {"type": "javascript", "value": "x"},
        {"type": "not-contains-all", "value": ["x"]},
        {"type": "not-equals", "value": "x"},
        {"type": "latency"},
        {"type": "bleu", "value": "x", "threshold": "high"},
        {"type": "equals", "value": {"a": 1}},
        {"type": "contains", "value": ""},
        {"type": "contains", "value": "file://x.txt"},
        {"type": "regex", "value": "("},
        {"type": "is-json", "value": "no schema"},
        {"type": "word-count", "value": "many"},
        {"type": "not-llm-rubric", "value": "x"},
    ],
)
def test_what_no_check_means_is_said_and_never_guessed(assertion: dict[str, Any]) -> None:
    with pytest.raises(NoCheckError) as caught:
        convert_assertion(assertion)
    assert str(caught.value)


@pytest.mark.parametrize(
    ("cell", "assertion"),
    [
        ("Paris", {"type": "equals", "value": "Paris"}),
        ("Note: this is text", {"type": "equals", "value": "Note: this is text"}),
        ("contains: Paris", {"type": "contains", "value": "Paris"}),
        ("not-icontains: x", {"type": "not-icontains", "value": "x"}),
        ("contains-any: a, b", {"type": "contains-any", "value": ["a", "b"]}),
        ("is-json", {"type": "is-json", "value": ""}),
        ("similar(0.9): x", {"type": "similar", "value": "x", "threshold": 0.9}),
        ("fn: output > 1", {"type": "javascript", "value": "output > 1"}),
        ("grade: is polite", {"type": "llm-rubric", "value": "is polite"}),
    ],
)
def test_a_cell_of_a_table_is_the_assertion_that_promptfoo_reads(cell: str, assertion: dict[str, Any]) -> None:
    assert compact_assertion(cell) == assertion


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1", "no configuration of promptfoo's"),
        ("- x", "no configuration of promptfoo's"),
        ("prompts: ['x']\nproviders: [llama]", "it has no tests that can be carried over"),
        ("prompts: ['x']\nproviders: ['file://p.py']\ntests: [{}]", "no provider of it names a model"),
        ("prompts: [file://x.js]\nproviders: [llama]\ntests: [{}]", "no prompt can be carried over"),
        ("prompts: ['{{ x']\nproviders: [llama]\ntests: [{}]", "no prompt can be carried over"),
        ("prompts: ['{{ id }}']\nproviders: [llama]\ntests: [{}]", 'it names "id", which means something else'),
        ("prompts: ['x']\nproviders: [llama]\ntests: [{vars: {a: {b: 1}}}]", 'its variable "a" is no text'),
        ("prompts: ['x']\nproviders: [llama]\ntests: [{vars: x}]", "its variables stand in another file"),
        ("prompts: ['x']\nproviders: [llama]\ntests: https://x.y/z.csv", "tests are read from YAML"),
        ("prompts: [", ":1: "),
    ],
)
def test_a_configuration_of_which_nothing_can_be_made_is_refused_with_the_reason(
    convert: Convert, text: str, says: str
) -> None:
    with pytest.raises(InputError) as caught:
        convert(text)
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_the_command_writes_a_valid_suite_and_overwrites_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "promptfooconfig.yaml"
    file.write_text(CONFIG)
    words = ["convert", str(file), "-o", str(tmp_path / "out")]
    assert run_command(cli, program="gpurig-job", arguments=words) == 0
    shown = capfd.readouterr()
    assert "5 samples; 4 things were not carried over" in shown.out
    assert f"{file}:21: tests[0].assert[1]: not carried over: javascript" in shown.err
    assert run_command(cli, program="gpurig-job", arguments=words) == 2
    assert "is there and not empty" in capfd.readouterr().err


HOSTILE = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\x00"))


@given(st.dictionaries(HOSTILE, HOSTILE | st.integers() | st.booleans(), max_size=4), st.lists(HOSTILE, max_size=3))
def test_what_is_written_is_read_back_as_it_was(mapping: dict[str, Any], texts: list[str]) -> None:
    data = {"mapping": mapping, "texts": texts}
    assert compose_core(dump(data), lines={}) == data


@given(HOSTILE)
def test_no_description_leaves_its_comment(text: str) -> None:
    draft = Draft(Path("x"), {"version": 1}, [DraftSample({"id": "a"}, description=text)])
    assert yaml.safe_load(draft.suite_text()) == {"version": 1, "samples": [{"id": "a"}]}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(alphabet="ab{}%:/.*- ", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "label", "raw", "config", "vars", "assert", "type", "value", "description", "tests", "a"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    st.fixed_dictionaries(
        {"prompts": ANYTHING, "tests": ANYTHING},
        optional={
            "providers": ANYTHING,
            "defaultTest": ANYTHING,
            "scenarios": ANYTHING,
            "evaluateOptions": ANYTHING,
            "assertionTemplates": ANYTHING,
        },
    )
)
def test_any_configuration_is_a_valid_suite_or_refused_never_a_crash(tmp_path: Path, data: dict[str, Any]) -> None:
    path = tmp_path / "promptfooconfig.yaml"
    path.write_text(yaml.safe_dump(data))
    try:
        draft = convert_promptfoo(path, ConvertOptions())
    except InputError:
        return
    assert draft.suite_text()


def test_an_assertion_without_a_place_for_all_it_says_is_carried_over_with_a_note() -> None:
    made = convert_assertion({"type": "contains", "value": "x", "metric": "m"})
    assert made == Converted(
        {"contains": "x"}, notes=["metric: named metrics are not there; the check's kind names its metric"]
    )
