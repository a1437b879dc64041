from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from gpurig.common.errors import InputError
from gpurig.evaljobs.suites import source
from gpurig.evaljobs.suites.source import YamlProblemError, compose
from gpurig.evaljobs.suites.suite import load_suite
from hypothesis import given
from hypothesis import strategies as st

GOOD = """\
version: 1
name: demo
generator:
  model: demo-generator
  prompt: "### {{ input }}"
  stop: ["\\n###"]
  sampling: {temperature: 0, max_tokens: 64}
grader:
  model: demo-grader
  prompt: |
    {{ input }}
    {{ output }}
  verdicts: {yes: 1, no: 0}
checks:
  - gitlab-ci
  - contains: "stage: test"
samples:
  - id: a
    input: hello
  - id: b
    input: there
    reference: x
    tags: [one]
    vars: {depth: 2, on: true}
    checks:
      - regex: {pattern: "^a", ignore_case: true}
gate:
  - {metric: pass_rate, min: 0.5}
"""


def write(folder: Path, text: str, name: str = "suite.yaml") -> Path:
    (folder / name).write_text(text)
    return folder


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_suite(write(folder, text))
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return list(caught.value.details) or [caught.value.message]


def test_a_suite_is_read_as_written(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, GOOD))
    assert suite.name == "demo"
    assert suite.generator is not None
    assert suite.generator.stop == ("\n###",)
    assert suite.generator.sampling.max_tokens == 64
    assert suite.grader is not None
    assert suite.grader.verdicts == {"yes": 1.0, "no": 0.0}
    assert [sample.id for sample in suite.samples] == ["a", "b"]
    assert [spec.kind for spec in suite.checks_of(suite.samples[1])] == ["gitlab-ci", "contains", "regex"]
    assert suite.samples[1].vars == {"depth": 2, "on": True}
    assert suite.gate[0].min == 0.5
    assert suite.folder == tmp_path


def test_the_suite_in_the_documentation_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "suites.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    assert load_suite(write(tmp_path, example)).name == "ci-jobs"


def test_a_suite_is_found_by_folder_and_by_file(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    assert load_suite(tmp_path) == load_suite(tmp_path / "suite.yaml")


def test_a_suite_cannot_be_changed(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, GOOD))
    with pytest.raises(ValueError, match="frozen"):
        suite.name = "other"  # type: ignore[misc]


def test_samples_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "samples.yaml").write_text("- {id: a, input: x}\n- {id: b, input: y}\n")
    head = GOOD[: GOOD.index("samples:")]
    suite = load_suite(write(tmp_path, f"{head}samples: samples.yaml\n"))
    assert [sample.input for sample in suite.samples] == ["x", "y"]


def test_problems_of_a_samples_file_name_that_file_and_its_lines(tmp_path: Path) -> None:
    (tmp_path / "samples.yaml").write_text("- {id: a, input: x}\n- id: a\n  input: 7\n")
    found = problems(tmp_path, f"{GOOD[: GOOD.index('samples:')]}samples: samples.yaml\n")
    assert found == [
        f'{tmp_path}/samples.yaml:2: samples[1].id: "a" is there twice, first in line 1: ids must differ',
        f"{tmp_path}/samples.yaml:3: samples[1].input: must be text, not 7: put it in quotes",
    ]


def test_the_hash_is_of_the_content_not_of_the_writing(tmp_path: Path) -> None:
    first = load_suite(write(tmp_path, GOOD)).sha256
    assert load_suite(write(tmp_path, "# a comment\n" + GOOD.replace("[one]", "\n      - one"))).sha256 == first
    assert load_suite(write(tmp_path, GOOD.replace("hello", "hullo"))).sha256 != first
    assert load_suite(write(tmp_path, GOOD.replace("min: 0.5", "min: 0.6"))).sha256 != first


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "field", "says"),
    [
        ("version: 1", "version: 2", "version", "must be 1, not 2"),
        ("name: demo", "name: [demo]", "name", "must be text, not a list"),
        ("name: demo", "name: demo suite", "name", "letters, digits"),
        ("  model: demo-generator", "  model: 7", "generator.model", "must be text, not 7: put it in quotes"),
        ("  model: demo-generator", "  modle: x", "generator.modle", 'unknown key; did you mean "model"?'),
        ('stop: ["\\n###"]', "stop: x", "generator.stop", 'must be a list, not the text "x"'),
        ('stop: ["\\n###"]', "context: 1.5", "generator.context", "must be a whole number, not 1.5"),
        ("temperature: 0", "temperature: hot", "generator.sampling.temperature", "must be a number"),
        ("temperature: 0", "temperature: -1", "generator.sampling.temperature", "must be at least 0.0, not -1"),
        ("temperature: 0", "top_k: true", "generator.sampling.top_k", "must be a whole number, not true"),
        ('"### {{ input }}"', '"### {{ inputt }}"', "generator.prompt", 'did you mean "input"?'),
        ('"### {{ input }}"', '"### {{ output }}"', "generator.prompt", 'names "output"'),
        ('"### {{ input }}"', '"### {{ input }"', "generator.prompt", "line 1 of the template: unexpected '}'"),
        ('"### {{ input }}"', '"{{ input | nope }}"', "generator.prompt", "No filter named 'nope'"),
        ("{yes: 1, no: 0}", "{yes: 1}", "grader", "at least two are needed"),
        ("{yes: 1, no: 0}", "{yes: 1, no: 2}", "grader.verdicts.no", "must be at most 1.0, not 2"),
        ("{yes: 1, no: 0}", "{good: 1, good enough: 0}", "grader", "cannot be told apart"),
        ("- gitlab-ci", "- gitlab_ci", "checks[0]", 'unknown check "gitlab_ci"; did you mean "gitlab-ci"?'),
        ("- gitlab-ci", "- gitlab-ci: 3", "checks[0].gitlab-ci", "takes parameters by name (weight, extract)"),
        ("- gitlab-ci", "- [gitlab-ci]", "checks[0]", "must be a check's name"),
        ("- gitlab-ci", "- {yaml: , gitlab-ci: }", "checks[0]", "one check an entry, not 2"),
        ("- gitlab-ci", "- contains", "checks[0].contains.text", "is missing"),
        ('- contains: "stage: test"', "- contains: 12", "checks[1].contains.text", "must be text, not the number 12"),
        ('"^a"', '"(a"', "samples[1].checks[0].regex.pattern", "no valid pattern: missing )"),
        ("ignore_case", "ignorecase", "samples[1].checks[0].regex.ignorecase", "unknown parameter (known: "),
        ("    input: hello", "    inputs: hello", "samples[0].inputs", 'unknown key; did you mean "input"?'),
        ("tags: [one]", "tags: one", "samples[1].tags", 'must be a list, not the text "one"'),
        ("depth: 2", "depth: [2]", "samples[1].vars.depth", "must be text, a number, true or false"),
        ("- id: b", "- id: a", "samples[1].id", '"a" is there twice, first in line 18'),
        ("metric: pass_rate", "metric: pas_rate", "gate[0].metric", 'did you mean "pass_rate"?'),
        (", min: 0.5", "", "gate[0]", "give min, max or both"),
        ("min: 0.5", "min: 2, max: 1", "gate[0]", "nothing can pass"),
        ("metric: pass_rate", "metric: check_pass_rate.yaml", "gate[0].metric", "unknown metric"),
    ],
)
def test_every_mistake_names_file_line_and_field_and_what_would_be_right(
    tmp_path: Path, old: str, new: str, field: str, says: str
) -> None:
    assert GOOD.count(old) >= 1
    at = line_of(GOOD, old)
    found = [line for line in problems(tmp_path, GOOD.replace(old, new, 1)) if f" {field}: " in line]
    assert len(found) == 1
    # A check over several fields stands at the line of their parent.
    assert any(found[0].startswith(f"{tmp_path}/suite.yaml:{line}: ") for line in (at, 8 if field == "grader" else at))
    assert says in found[0]


def test_all_mistakes_are_said_at_once_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = GOOD.replace("version: 1", "version: x").replace("- gitlab-ci", "- nope").replace("input: hello", "input: 1")
    found = problems(tmp_path, text)
    lines = [int(line.split(":")[1]) for line in found]
    assert len(found) == 3
    assert lines == sorted(lines)


@pytest.mark.parametrize("samples", ["samples: []", "samples:", ""])
def test_a_suite_without_samples_is_refused(tmp_path: Path, samples: str) -> None:
    head, tail = GOOD[: GOOD.index("samples:")], GOOD[GOOD.index("gate:") :]
    assert any(" samples: " in line for line in problems(tmp_path, f"{head}{samples}\n{tail}"))


def test_a_grade_rule_needs_a_grader(tmp_path: Path) -> None:
    start, end = GOOD.index("grader:"), GOOD.index("checks:")
    text = (GOOD[:start] + GOOD[end:]).replace("metric: pass_rate", "metric: grade_mean")
    (found,) = problems(tmp_path, text)
    assert "needs a grader" in found


def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, GOOD.replace("    input: hello", "    input: hello\n    input: other"))
    assert ":20: " in found
    assert "key 'input' is there twice, first in line 19" in found


def test_an_alias_bomb_ends_quickly_with_an_error(tmp_path: Path) -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    (found,) = problems(tmp_path, f"a0: &a0 [x]\n{levels}")
    assert "more than 1000000 values, its aliases written out" in found


@pytest.mark.parametrize("text", ["a: &a [*a]", "[" * 5000, "{a: " * 5000, "- " * 5000 + "a"])
def test_endless_or_very_deep_yaml_is_an_error(tmp_path: Path, text: str) -> None:
    (found,) = problems(tmp_path, text)
    assert "nested deeper than 64 levels" in found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "suite.yaml:1: "),
        ("x: 1\ny: !!python/object:os.system ls", "suite.yaml:2: "),
        ("x: 1\ny: !mine ls", "unknown tag !mine"),
        ("a: 1\n---\nb: 2", "suite.yaml:2: "),
        ("- 1", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: \x07", "special characters are not allowed"),
        ("!!bool 7: 1", "suite.yaml:"),
        ('x: "a\\ud800"', r"suite.yaml:1: a\ud800 is no text and no number"),
        ("x: 1\ny: 1e999", "suite.yaml:2: 1e999 is no text and no number"),
        ("x: !!float .nan", "suite.yaml:1: .nan is no text and no number"),
        ("x: !!binary aGk=", "suite.yaml:1: aGk= is no text and no number"),
    ],
)
def test_text_that_is_no_suite_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (found,) = problems(tmp_path, text)
    assert says in found
    assert "\n" not in found


def test_a_missing_suite_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no suite at .*/suite\.yaml"):
        load_suite(tmp_path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "suite.yaml").open("wb") as stream:
        stream.truncate(17 * 1024 * 1024)
    with pytest.raises(InputError, match="larger than 16 MiB"):
        load_suite(tmp_path)


def test_yes_no_and_dates_are_text_in_a_suite(tmp_path: Path) -> None:
    text = GOOD.replace("input: hello", "input: yes").replace("input: there", "input: 2026-01-01")
    assert [sample.input for sample in load_suite(write(tmp_path, text)).samples] == ["yes", "2026-01-01"]


def problem_of(text: str) -> YamlProblemError | None:
    try:
        compose(text)
    except YamlProblemError as problem:
        return problem
    return None


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.text(alphabet="-:{}[]&*!<| \n\"'a0?#%@,"))
def test_any_text_is_yaml_or_a_problem_never_a_crash(text: str) -> None:
    problem = problem_of(text)
    assert problem is None or (problem.reason and "\n" not in problem.reason)


@given(
    st.sampled_from(["bool", "int", "float", "null", "binary", "timestamp", "set", "omap", "pairs", "str", "merge"]),
    st.text(alphabet="ab01:._-+xn[]{}, ", max_size=12),
)
def test_any_value_under_any_tag_is_read_or_a_problem(tag: str, value: str) -> None:
    problem = problem_of(f"a: !!{tag} {value}\n")
    assert problem is None or problem.reason


def read_by(text: str, *, fast: bool) -> object:
    """The data, or the problem's class."""
    with pytest.MonkeyPatch.context() as patch:
        if not fast:
            patch.setattr(source, "_composed_fast", lambda _: None)
        try:
            return source.compose_core(text, plain=True)
        except YamlProblemError:
            return YamlProblemError


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML was built without libyaml")
@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="!"))
    | st.text(alphabet="-:{}[]&*<| \n\"'a0?#%@,>~.\t\\")
)
def test_libyaml_reads_all_that_pyyaml_reads_and_the_same(text: str) -> None:
    """It reads a little more: a tab behind a value, as YAML allows. To it a lone `!` is an empty text."""
    slow = read_by(text, fast=False)
    assert slow is YamlProblemError or read_by(text, fast=True) == slow
