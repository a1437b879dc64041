"""A suite out of several files: includes, variables, defaults; what wins, and where problems are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpurig.common.command import run_command
from gpurig.common.errors import InputError
from gpurig.evaljobs.__main__ import cli
from gpurig.evaljobs.suites.suite import Suite, load_suite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MAIN = """\
version: 1
name: demo
include: {include}
generator: {{model: writer}}
vars: {{lang: de, level: 1}}
checks: [yaml]
samples:
  - {{id: own, input: x, vars: {{level: 2}}}}
gate:
  - {{metric: pass_rate, min: 0.5}}
"""


def write(folder: Path, include: str, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "suite.yaml").write_text(MAIN.format(include=include))
    return folder


def problems(folder: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_suite(folder)
    return [line.replace(f"{folder}/", "") for line in caught.value.details or (caught.value.message,)]


def kinds(suite: Suite) -> list[str]:
    return [check.kind for check in suite.checks]


def test_lists_are_joined_in_order_and_the_suites_own_come_last(tmp_path: Path) -> None:
    suite = load_suite(
        write(
            tmp_path,
            "[a.yaml, b.yaml]",
            a_dot_yaml="checks: [gitlab-ci]\nsamples: [{id: a, input: x}]\ngate: [{metric: generated_rate, min: 1}]",
            b_dot_yaml="checks: [{contains: x}]\nsamples: [{id: b, input: x}]",
        )
    )
    assert kinds(suite) == ["gitlab-ci", "contains", "yaml"]
    assert [sample.id for sample in suite.samples] == ["a", "b", "own"]
    assert [rule.metric for rule in suite.gate] == ["generated_rate", "pass_rate"]


def test_of_a_key_that_stands_in_several_files_the_suites_own_wins_and_then_the_last(tmp_path: Path) -> None:
    suite = load_suite(
        write(
            tmp_path,
            "[a.yaml, b.yaml]",
            a_dot_yaml="vars: {lang: a, one: a, two: a}\nepochs: 2\ngenerator: {model: other}",
            b_dot_yaml="vars: {lang: b, two: b}\nepochs: 3",
        )
    )
    assert suite.vars == {"lang": "de", "one": "a", "two": "b", "level": 1}
    assert suite.epochs.n == 3
    assert suite.named_generators[""].model == "writer"


def test_an_included_file_may_include_others_relative_to_itself_and_each_counts_once(tmp_path: Path) -> None:
    suite = load_suite(
        write(
            tmp_path,
            "[sub/a.yaml, sub/b.yaml]",
            sub__a_dot_yaml="include: ../common.yaml\nchecks: [gitlab-ci]",
            sub__b_dot_yaml="include: ../common.yaml\nsamples: [data.csv]",
            sub__data_dot_csv="id,input\ncsv,x\n",
            common_dot_yaml="checks: [{contains: x}]",
        )
    )
    assert kinds(suite) == ["contains", "gitlab-ci", "yaml"]
    assert [sample.id for sample in suite.samples] == ["csv", "own"]


def test_a_samples_own_variables_win_over_the_suites(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, "[]"))
    assert suite.samples[0].vars == {"lang": "de", "level": 2}


def test_the_hash_does_not_tell_one_file_from_several(tmp_path: Path) -> None:
    one = write(tmp_path / "one", "[]", x_dot_yaml="")
    several = write(tmp_path / "two", "checks.yaml", checks_dot_yaml="checks: [yaml]")
    text = (several / "suite.yaml").read_text().replace("checks: [yaml]\n", "")
    (several / "suite.yaml").write_text(text)
    assert load_suite(one).sha256 == load_suite(several).sha256


@pytest.mark.parametrize(
    ("include", "says"),
    [
        ("nowhere.yaml", "suite.yaml:3: include: there is no file "),
        ("[a.yaml, 7]", "suite.yaml:3: include[1]: must be a file's name"),
        ("{a: b}", "suite.yaml:3: include: must be a file's name, or a list of them"),
        ("../outside.yaml", "suite.yaml:3: include: ../outside.yaml lies outside of the suite's folder"),
        ("link.yaml", "suite.yaml:3: include: link.yaml lies outside of the suite's folder"),
        ("/etc/hostname", "suite.yaml:3: include: /etc/hostname lies outside of the suite's folder"),
        ("suite.yaml", "include: files include each other in a circle: suite.yaml → suite.yaml"),
        ("ring.yaml", "pong.yaml:1: include: files include each other in a circle: ring.yaml → pong.yaml → ring.yaml"),
        ("list.yaml", "list.yaml:1: must be a mapping, as a suite is"),
        ("broken.yaml", "broken.yaml:2: "),
        ("named.yaml", "named.yaml:2: name: belongs to the suite's own file; named.yaml is included by another"),
        ("wrong.yaml", 'wrong.yaml:3: checks[1]: unknown check "nope"'),
        ("unknown.yaml", "unknown.yaml:1: chekcs: unknown key"),
        ("twice.yaml", 'suite.yaml:8: samples[0].id: "own" is there twice, first in '),
    ],
)
def test_what_is_wrong_with_an_include_names_the_file_that_says_it(tmp_path: Path, include: str, says: str) -> None:
    (tmp_path / "outside.yaml").write_text("checks: [yaml]")
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    write(
        folder,
        include,
        a_dot_yaml="{}",
        ring_dot_yaml="include: [pong.yaml]",
        pong_dot_yaml="include: ring.yaml",
        list_dot_yaml="- x",
        broken_dot_yaml="a: 1\nb: [",
        named_dot_yaml="vars: {}\nname: x",
        wrong_dot_yaml="checks:\n- yaml\n- nope",
        unknown_dot_yaml="chekcs: []",
        twice_dot_yaml="samples: [{id: own, input: x}]",
    )
    found = problems(folder)
    assert any(says in line for line in found), found


def suite_of(folder: Path, text: str) -> Suite:
    (folder / "suite.yaml").write_text(f"version: 1\nname: demo\nsamples: [{{id: a, input: x, tags: [own]}}]\n{text}")
    return load_suite(folder)


SHARED = """\
defaults:
  generator:
    model: writer
    prompt: "{{ input }}"
    sampling: {temperature: 0.5, seed: 3}
  sample: {tags: [all], reference: none}
"""


def test_generators_share_the_defaults_and_their_own_keys_win(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, SHARED + "generators: {one: {}, two: {model: other, sampling: {seed: 4}}}\n")
    one, two = suite.generators.values()
    assert (one.model, one.prompt, one.sampling.seed, one.sampling.temperature) == ("writer", "{{ input }}", 3, 0.5)
    assert (two.model, two.prompt, two.sampling.seed, two.sampling.temperature) == ("other", "{{ input }}", 4, 0.5)


def test_samples_have_the_default_tags_beside_their_own_and_the_reference_where_they_have_none(tmp_path: Path) -> None:
    (sample,) = suite_of(tmp_path, SHARED + "generator: {model: m}\n").samples
    assert (sample.tags, sample.reference) == (("all", "own"), "none")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("{{ input }}", "{{ inptu }}"), "suite.yaml:7: defaults.generator.prompt: the template names"),
        (("seed: 3", "seed: x"), "suite.yaml:8: defaults.generator.sampling.seed: must be a whole number"),
        (
            ("model: writer", "modle: writer"),
            'suite.yaml:6: defaults.generator.modle: unknown key; did you mean "model"?',
        ),
        (("sample:", "samples:"), 'suite.yaml:9: defaults.samples: unknown key; did you mean "sample"?'),
        (("tags: [all]", "tags: all"), "suite.yaml:9: defaults.sample.tags: must be a list"),
    ],
)
def test_a_mistake_in_the_defaults_is_told_there_and_once(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    with pytest.raises(InputError) as caught:
        suite_of(tmp_path, SHARED.replace(*change) + "generators: {one: {model: a}, two: {model: b}}\n")
    said = [line for line in caught.value.details or (caught.value.message,) if says.split(": ", 1)[1] in line]
    assert len(said) == 1
    assert says in said[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("generator: {model: m}\nepochs: 3\ngate: [{metric: pass_rate, min: 0}]\nchecks: [yaml]", "temperature is 0"),
        ("generator: {model: m}\nchecks: [yaml]", "there is no gate: every run passes"),
        ("generator: {model: m}\ngate: [{metric: pass_rate, min: 0}]", "neither checks nor a grader"),
    ],
)
def test_what_is_probably_not_meant_is_a_warning_and_no_mistake(tmp_path: Path, text: str, says: str) -> None:
    (warning,) = suite_of(tmp_path, text).warnings
    assert says in warning.message
    assert str(warning).startswith(f"{tmp_path}/suite.yaml:")


VARS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9), max_size=4)
PARTS = st.lists(st.tuples(st.lists(st.sampled_from(["yaml", "json"]), max_size=3), VARS), min_size=1, max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(PARTS, st.data())
def test_a_suite_in_pieces_is_the_suite_in_one(
    tmp_path: Path, parts: list[tuple[list[str], dict[str, int]]], data: st.DataObject
) -> None:
    """However it is cut and nested: lists are joined in order, and of a key the last piece wins."""
    head = {"version": 1, "name": "demo", "generator": {"model": "m"}}
    pieces = [
        {"checks": checks, "vars": values, "samples": [{"id": f"s{number}", "input": "x"}]}
        for number, (checks, values) in enumerate(parts)
    ]
    whole = {
        "checks": [check for checks, _ in parts for check in checks],
        "vars": {name: value for _, values in parts for name, value in values.items()},
        "samples": [sample for piece in pieces for sample in piece["samples"]],
    }
    one, several = tmp_path / "one", tmp_path / "several"
    for folder in (one, several):
        folder.mkdir(exist_ok=True)
    (one / "suite.yaml").write_text(yaml.safe_dump({**head, **whole}))
    # Each piece is included by the suite itself, or by the piece after it.
    waiting: list[str] = []
    for number, piece in enumerate(pieces[:-1]):
        name = f"p{number}.yaml"
        nested = waiting if data.draw(st.booleans()) else []
        (several / name).write_text(yaml.safe_dump({**piece, "include": list(nested)}))
        waiting = [name] if nested is waiting and waiting else [*waiting, name]
    (several / "suite.yaml").write_text(yaml.safe_dump({**head, **pieces[-1], "include": waiting}))
    assert load_suite(one).sha256 == load_suite(several).sha256


def validated(folder: Path, capfd: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = run_command(cli, program="gpurig-job", arguments=["validate", str(folder), "--json"])
    return code, json.loads(capfd.readouterr().out)


def test_a_machine_gets_every_problem_with_file_line_and_field(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    many = "\n".join(f"  - {{id: s{number}, inputs: x}}" for number in range(30))
    (tmp_path / "suite.yaml").write_text(f"version: 1\nname: demo\ngenerator: {{model: m}}\nsamples:\n{many}\n")
    code, said = validated(tmp_path, capfd)
    assert (code, said["valid"], said["warnings"]) == (2, False, [])
    assert len(said["problems"]) == 60
    first = said["problems"][0]
    assert (first["file"], first["line"], first["field"]) == (f"{tmp_path}/suite.yaml", 5, "samples[0].input")
    assert first["message"] == "is missing"


@pytest.mark.parametrize(("text", "line"), [("a: [", 1), ("x: 1\nx: 2", 2), ("- x", 1)])
def test_a_machine_is_told_of_a_file_that_is_no_suite_at_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, line: int
) -> None:
    (tmp_path / "suite.yaml").write_text(text)
    code, said = validated(tmp_path, capfd)
    assert (code, [one["line"] for one in said["problems"]]) == (2, [line])
    code, said = validated(tmp_path / "nowhere", capfd)
    assert (code, said["problems"][0]["file"]) == (2, f"{tmp_path}/nowhere")


def test_a_machine_gets_the_warnings_of_a_valid_suite(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    suite_of(tmp_path, "generator: {model: m}\nchecks: [yaml]")
    code, said = validated(tmp_path, capfd)
    assert (code, said["valid"], said["problems"]) == (0, True, [])
    assert [one["message"] for one in said["warnings"]] == ["there is no gate: every run passes"]
