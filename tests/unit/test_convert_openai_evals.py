"""Samples of OpenAI evals as a suite."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from gpurig.common.command import run_command
from gpurig.common.errors import InputError
from gpurig.evaljobs.__main__ import cli
from gpurig.evaljobs.checks import parse_check, run_check
from gpurig.evaljobs.checks.subject import Answer
from gpurig.evaljobs.converting.draft import Draft
from gpurig.evaljobs.converting.openai_evals import convert_openai_evals
from gpurig.evaljobs.converting.writing import write_draft
from gpurig.evaljobs.suites.suite import Suite, load_suite

Kind = Literal["match", "includes", "fuzzy_match"]
Convert = Callable[..., tuple[Suite, Draft]]

SYSTEM = {"role": "system", "content": "Answer in one word."}


def row(ideal: Any = "Paris", *messages: dict[str, str], **more: Any) -> dict[str, Any]:
    asked = {"role": "user", "content": "Capital of France?"}
    return {"input": [SYSTEM, *messages, asked], "ideal": ideal, **more}


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    def converted(*rows: dict[str, Any], kind: Kind = "match") -> tuple[Suite, Draft]:
        (tmp_path / "capitals.jsonl").write_text("\n".join(map(json.dumps, rows)))
        draft = convert_openai_evals(tmp_path / "capitals.jsonl", model="m", kind=kind)
        write_draft(draft, tmp_path / "out")
        return load_suite(tmp_path / "out"), draft

    return converted


def test_a_system_message_that_all_samples_share_is_the_generators(convert: Convert) -> None:
    suite, draft = convert(row(), row("Rome"))
    assert suite.generator is not None
    assert (suite.name, suite.generator.model, suite.generator.system) == ("capitals", "m", "Answer in one word.")
    assert [(one.id, one.input, one.reference) for one in suite.samples] == [
        ("sample-1", "Capital of France?", "Paris"),
        ("sample-2", "Capital of France?", "Rome"),
    ]
    assert draft.all_remarks() == []


def test_a_dialogue_becomes_one_text_and_that_is_said(convert: Convert) -> None:
    shots = (
        {"role": "system", "name": "example_user", "content": "Capital of Italy?"},
        {"role": "system", "name": "example_assistant", "content": "Rome"},
    )
    suite, draft = convert(row("Paris", *shots))
    assert suite.samples[0].input == ("User: Capital of Italy?\nAssistant: Rome\nUser: Capital of France?\nAssistant:")
    (remark,) = draft.all_remarks()
    assert (remark.line, remark.changed, remark.reason) == (1, True, "the dialogue became one text")


def test_different_system_messages_stay_in_the_texts(convert: Convert) -> None:
    other = row()
    other["input"] = [{"role": "system", "content": "Be long."}, other["input"][1]]
    suite, _ = convert(row(), other)
    assert suite.generator is not None
    assert suite.generator.system == ""
    assert suite.samples[1].input == "System: Be long.\nUser: Capital of France?\nAssistant:"


@pytest.mark.parametrize(
    ("kind", "ideal", "good", "bad"),
    [
        ("match", "Paris", "Paris, of course", "It is Paris"),
        ("match", ["Paris", "paris"], "paris", "It is Paris"),
        ("includes", "Paris", "It is Paris", "It is Rome"),
        ("includes", ["Paris", "Lutetia"], "Lutetia!", "paris"),
        ("fuzzy_match", ["Paris", "Lutetia"], "it is PARIS", "Rome"),
    ],
)
def test_every_class_is_the_check_that_means_it(convert: Convert, kind: Kind, ideal: Any, good: str, bad: str) -> None:
    suite, _ = convert(row(ideal), kind=kind)
    (check,) = suite.samples[0].checks
    assert run_check(check, Answer(good)).passed
    assert not run_check(check, Answer(bad)).passed


def test_what_fuzzy_match_does_beyond_is_said(convert: Convert) -> None:
    _, draft = convert(row(), kind="fuzzy_match")
    assert "without punctuation and articles" in draft.all_remarks()[0].reason


def test_a_text_and_what_else_a_sample_has_are_carried_over_or_named(convert: Convert) -> None:
    suite, draft = convert({"input": "1+1=", "ideal": "2", "difficulty": 1})
    assert suite.samples[0].input == "1+1="
    (remark,) = draft.all_remarks()
    assert str(remark).endswith("capitals.jsonl:1: [0].difficulty: not carried over: a sample has no such key")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"input": "x"}, "ideal is no text and no list of texts"),
        ({"input": "x", "ideal": []}, "ideal is no text and no list of texts"),
        ({"input": "x", "ideal": [1]}, "ideal is no text and no list of texts"),
        ({"input": "", "ideal": "x"}, "input is no text and no list of messages with texts"),
        ({"input": [1], "ideal": "x"}, "input is no text and no list of messages with texts"),
        ({"input": [{"role": "user", "content": ["image"]}], "ideal": "x"}, "input is no text and no list of messages"),
        ({"ideal": "x"}, "input is no text and no list of messages"),
    ],
)
def test_a_sample_of_which_nothing_can_be_made_is_named_and_the_others_go_on(
    convert: Convert, tmp_path: Path, bad: dict[str, Any], says: str
) -> None:
    suite, draft = convert(row(), bad)
    assert len(suite.samples) == 1
    (remark,) = [one for one in draft.all_remarks() if not one.changed]
    assert (remark.line, says in remark.reason) == (2, True)
    (tmp_path / "only.jsonl").write_text(json.dumps(bad))
    with pytest.raises(InputError, match="no sample of it can be carried over"):
        convert_openai_evals(tmp_path / "only.jsonl", model="m", kind="match")


def test_the_command_asks_for_the_model_and_names_a_broken_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "capitals.jsonl"
    file.write_text(json.dumps(row()) + "\n{")
    words = ["convert", str(file), "-o", str(tmp_path / "out")]
    assert run_command(cli, program="gpurig-job", arguments=words) == 2
    assert "give one: --model NAME" in capfd.readouterr().err
    assert run_command(cli, program="gpurig-job", arguments=[*words, "--model", "m"]) == 2
    assert "capitals.jsonl:2: no JSON" in capfd.readouterr().err
    file.write_text(json.dumps(row()))
    assert run_command(cli, program="gpurig-job", arguments=[*words, "--model", "m", "--class", "includes"]) == 0
    assert parse_check({"contains": "Paris"}).as_data == load_suite(tmp_path / "out").samples[0].checks[0].as_data
