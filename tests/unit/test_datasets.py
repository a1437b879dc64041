"""Samples from YAML, JSON Lines and CSV files, and what is wrong with them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.evaljobs.suites.suite import Suite, load_suite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HEAD = "version: 1\nname: demo\ngenerator: {model: writer}\nchecks: [yaml]\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a suite whose samples are as given, and the files by name."""

    def written(samples: str, **files: str | bytes) -> Path:
        for name, content in files.items():
            path = tmp_path / name.replace("_dot_", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        (tmp_path / "suite.yaml").write_text(f"{HEAD}samples: {samples}\n")
        return tmp_path

    return written


def loaded(folder: Path) -> Suite:
    return load_suite(folder)


def problems(folder: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_suite(folder)
    assert caught.value.exit_code == 2
    said = list(caught.value.details) or [caught.value.message]
    return [line.replace(f"{folder}/", "") for line in said]


CSV = 'id,input,tags,reference,lang\na,"one, and\ntwo","x; y",r,de\nb,three,,,en\n'
JSONL = (
    '{"id": "a", "input": "one", "tags": ["x"], "vars": {"n": 1}, "checks": ["yaml"]}\n\n{"id": "b", "input": "two"}\n'
)


def test_json_lines_hold_samples_as_yaml_does(write: Write) -> None:
    suite = loaded(write("data.jsonl", data_dot_jsonl=JSONL))
    assert [(sample.id, sample.input, sample.tags, sample.vars) for sample in suite.samples] == [
        ("a", "one", ("x",), {"n": 1}),
        ("b", "two", (), {}),
    ]
    assert [len(sample.checks) for sample in suite.samples] == [1, 0]


def test_a_csv_files_columns_are_fields_and_the_others_variables(write: Write) -> None:
    suite = loaded(write("data.csv", data_dot_csv=CSV))
    first, second = suite.samples
    assert (first.id, first.input, first.tags, first.reference) == ("a", "one, and\ntwo", ("x", "y"), "r")
    assert (second.id, second.tags, second.reference, second.vars) == ("b", (), "", {"lang": "en"})


def test_fields_say_which_column_is_what(write: Write) -> None:
    entry = "{file: data.csv, fields: {input: Question, reference: Answer, id: Nr, vars: {language: Lang}}}"
    suite = loaded(write(entry, data_dot_csv="Nr,Question,Answer,Lang,Other\n1,q,a,de,x\n"))
    (sample,) = suite.samples
    assert (sample.id, sample.input, sample.reference, sample.vars) == ("1", "q", "a", {"language": "de"})


def test_fields_of_json_lines_take_numbers_for_text(write: Write) -> None:
    entry = "{file: data.jsonl, fields: {input: question, reference: answer}}"
    suite = loaded(write(entry, data_dot_jsonl='{"question": "2+2", "answer": 4, "source": {"x": 1}}\n'))
    assert (suite.samples[0].input, suite.samples[0].reference) == ("2+2", "4")


def test_rows_without_an_id_are_numbered_and_a_warning_says_what_that_costs(write: Write) -> None:
    suite = loaded(write("data.csv", data_dot_csv="input\nq\nr\n"))
    assert [sample.id for sample in suite.samples] == ["data-1", "data-2"]
    assert any("have no ids and are numbered" in str(warning) for warning in suite.warnings)


def test_several_files_and_samples_stand_in_the_order_of_the_list(write: Write) -> None:
    more = "{id: z, input: last}"
    folder = write(
        "\n  - data.csv\n  - {file: more.txt, format: jsonl, tags: [all], vars: {lang: fr, n: 2}, checks: [gitlab-ci]}"
        f"\n  - {more}",
        data_dot_csv=CSV,
        more_dot_txt='{"id": "c", "input": "x", "vars": {"n": 3}, "tags": ["own"]}',
    )
    suite = loaded(folder)
    assert [sample.id for sample in suite.samples] == ["a", "b", "c", "z"]
    third = suite.samples[2]
    assert (third.tags, third.vars) == (("all", "own"), {"lang": "fr", "n": 3})
    assert [check.kind for check in suite.checks_of(third)] == ["yaml", "gitlab-ci"]


def test_a_file_with_a_byte_order_mark_and_windows_line_ends_is_read(write: Write) -> None:
    assert loaded(write("data.csv", data_dot_csv=b"\xef\xbb\xbfid,input\r\na,x\r\n")).samples[0].id == "a"
    assert loaded(write("d.jsonl", d_dot_jsonl=b'\xef\xbb\xbf{"id": "a", "input": "x"}\r\n')).samples[0].id == "a"


def test_a_semicolon_file_needs_its_delimiter_said_and_the_message_says_so(write: Write) -> None:
    content = "id;input\na;x\n"
    (found,) = problems(write("data.csv", data_dot_csv=content))
    assert found == 'data.csv:1: the header is one cell with ";" in it: give delimiter: ";"'
    assert loaded(write('{file: data.csv, delimiter: ";"}', data_dot_csv=content)).samples[0].input == "x"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"id": "a", "input": "x"}\n{"id": "b",', "data.jsonl:2: no JSON: "),
        ('{"id": "a", "input": "x"}\n[1]', "data.jsonl:2: must be an object"),
        ('\n\n{"id": "a", "input": 7}', "data.jsonl:3: samples[0].input: must be text, not 7: put it in quotes"),
        ('{"id": "a", "inputs": "x"}', 'data.jsonl:1: samples[0].inputs: unknown key; did you mean "input"?'),
        ('{"id": "a", "id": "b", "input": "x"}', 'data.jsonl:1: no JSON: the key "id" is there twice'),
        ('{"id": "a", "input": "x", "vars": {"n": NaN}}', "data.jsonl:1: no JSON: NaN is no JSON number"),
        ('{"id": "a", "input": "\\ud800"}', "data.jsonl:1: half of a surrogate pair"),
        ('{"id": "a", "input": ' + "[" * 100_000, "data.jsonl:1: nested too deep"),
        ('{"id": "a", "input": ' + "1" * 5000 + "}", "data.jsonl:1: no JSON: "),
        ("", "data.jsonl:1: there are no samples in it"),
        (b'{"id": "a"}\n\xff', "data.jsonl:2: the text is not in UTF-8"),
        (
            '{"id": "a", "input": "x"}\n{"id": "a", "input": "y"}',
            'data.jsonl:2: samples[1].id: "a" is there twice, first in line 1',
        ),
        ('{"id": "a", "input": "x", "checks": ["nope"]}', 'data.jsonl:1: samples[0].checks[0]: unknown check "nope"'),
    ],
)
def test_what_is_wrong_in_json_lines_names_the_line(write: Write, content: str | bytes, says: str) -> None:
    found = problems(write("data.jsonl", data_dot_jsonl=content))
    assert any(line.startswith(says) for line in found), found


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("id,question\na,x\n", 'data.csv:1: no column "input" (it has: id, question)'),
        ("id,inputs\na,x\n", 'data.csv:1: no column "input"; did you mean "inputs"?'),
        ("id,input\na,x\nb\n", "data.csv:3: 1 cells, but the header has 2"),
        ("id,input\na,x,y\n", "data.csv:2: 3 cells, but the header has 2"),
        ("id,input,\na,x,y\n", "data.csv:1: column 3 of the header has no name"),
        ("id,input,id\na,x,y\n", 'data.csv:1: the header has the column "id" twice'),
        ('id,input\na,"x\ny\n', "data.csv:2: no CSV: "),
        ('id,input\na,"x"y\n', "data.csv:2: no CSV: "),
        ("id,input\n", "data.csv:1: there are no samples in it"),
        ("", "data.csv:1: there are no samples in it"),
        ('id,input\na,"1\n2"\na b,y\n', "data.csv:4: samples[1].id: "),
        ("id,input,bad name\na,x,y\n", "data.csv:2: samples[0].vars.bad name: "),
        (f"id,input\na,{'x' * 200_000}\n", "data.csv:2: no CSV: a cell over 131,072 characters: use JSON Lines"),
    ],
)
def test_what_is_wrong_in_a_csv_file_names_the_line(write: Write, content: str, says: str) -> None:
    found = problems(write("data.csv", data_dot_csv=content))
    assert any(line.startswith(says) for line in found), found


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ("nowhere.csv", "suite.yaml:5: samples: there is no file "),
        ("data.bin", "data.bin does not tell its format"),
        ("{file: data.jsonl, delimiter: ';'}", "samples.delimiter: a jsonl file has none"),
        ("{file: data.jsonl, format: xml}", "samples.format: must be 'yaml', 'jsonl', 'csv' or 'tsv'"),
        ("{file: data.jsonl, field: {}}", 'samples.field: unknown key; did you mean "fields"?'),
        ("{file: data.jsonl, tags: [a b]}", "samples.tags[0]: "),
        ("{file: data.jsonl, fields: {input: q}}", 'data.jsonl:1: samples[0]: "q" is missing'),
        ("{file: data.jsonl, checks: [nope]}", 'suite.yaml:5: samples.checks[0]: unknown check "nope"'),
        ("\n  - {file: 7}", "suite.yaml:6: samples[0].file: must be text, not 7"),
        ("\n  - data.jsonl\n  - [x]", "suite.yaml:7: samples[1]: must be a mapping, not a list"),
    ],
)
def test_what_is_wrong_with_the_entry_that_names_a_file_names_its_line(write: Write, samples: str, says: str) -> None:
    found = problems(write(samples, data_dot_jsonl='{"id": "a", "input": "x"}', data_dot_bin="x"))
    assert any(says in line for line in found), found


def test_a_wrong_value_names_its_column(write: Write) -> None:
    entry = "{file: data.csv, fields: {id: Nr, input: Q}}"
    (found,) = problems(write(entry, data_dot_csv="Nr,Q\n-1,x\n"))
    assert found.startswith('data.csv:2: samples[0].id ("Nr"): ')


def test_problems_of_several_files_are_all_said(write: Write) -> None:
    folder = write("[a.jsonl, b.csv]", a_dot_jsonl='{"id": "a"}', b_dot_csv="id,input\n-,x\n")
    assert [line.split(":")[0] for line in problems(folder)] == ["a.jsonl", "b.csv"]


def test_a_huge_file_is_refused_before_it_is_read(write: Write) -> None:
    folder = write("data.jsonl", data_dot_jsonl="")
    with (folder / "data.jsonl").open("wb") as stream:
        stream.truncate(257 * 1024 * 1024)
    assert "larger than 256 MiB" in problems(folder)[0]


TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=1, max_size=6))
def test_any_text_comes_back_from_every_format(tmp_path: Path, texts: list[str]) -> None:
    rows = [{"id": f"s{index}", "input": text} for index, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8", newline="")
    stream = io.StringIO(newline="")
    table = csv.DictWriter(stream, ["id", "input"], quoting=csv.QUOTE_ALL)
    table.writeheader()
    table.writerows(rows)
    (tmp_path / "a.csv").write_bytes(stream.getvalue().encode())
    for name in ("a.jsonl", "a.csv"):
        (tmp_path / "suite.yaml").write_text(f"{HEAD}samples: {name}\n")
        assert [sample.input for sample in load_suite(tmp_path).samples] == texts


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200) | st.text(alphabet='{}[]":,ab1\\ud\n;\t" ', max_size=80).map(str.encode),
    st.sampled_from(["a.jsonl", "a.csv", "a.tsv", "a.yaml"]),
)
def test_any_file_is_a_data_set_or_problems_never_a_crash(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "suite.yaml").write_text(f"{HEAD}samples: {name}\n")
    assert all("\n" not in line for line in said_of(tmp_path))


def said_of(folder: Path) -> tuple[str, ...]:
    try:
        load_suite(folder)
    except InputError as error:
        return (error.message, *error.details)
    return ()
