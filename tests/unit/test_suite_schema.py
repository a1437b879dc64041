"""docs/suite.schema.json: what the loader takes it takes, and the mistakes that a schema can see it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpurig.common.errors import InputError
from gpurig.evaljobs.checks import CHECKS
from gpurig.evaljobs.suites.schema import schema_text, suite_schema
from gpurig.evaljobs.suites.suite import load_suite
from jsonschema import Draft7Validator

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Draft7Validator(suite_schema())


def good() -> dict[str, Any]:
    """A suite that says nearly everything."""
    return {
        "version": 1,
        "name": "demo",
        "generators": {
            "small": {"model": "m", "prompt": {"name": "p"}, "sampling": {"temperature": 0.5}, "stop": ["x"]},
            "large": {"model": "n", "prompt": "{{ input }}", "context": 512},
            "tuned": {"model": "n", "adapters": ["a.gguf", {"model": "b.gguf", "scale": 0.5}]},
        },
        "epochs": {"n": 3, "reduce": "pass@2"},
        "prompts": {"p": "{{ input }}"},
        "vars": {"lang": "de", "n": 1, "b": True},
        "defaults": {"sample": {"tags": ["all"]}},
        "grader": {"model": "g", "prompt": "{{ output }}", "verdicts": {"good": 1, "bad": 0}},
        "threshold": 0.5,
        "checks": ["yaml", {"contains": "x"}, {"contains": {"text": ["x", "y"], "weight": 2}}, {"gitlab-ci": None}],
        "samples": [
            {"id": "a", "input": "x", "tags": ["t"], "vars": {"n": 2}, "threshold": 0.1, "checks": ["yaml"]},
            {"file": "more.csv", "fields": {"input": "q"}, "tags": ["csv"]},
            "more.jsonl",
        ],
        "gate": [{"metric": "pass_rate", "generator": "small", "min": 0.5}],
    }


def folder(path: Path, data: dict[str, Any]) -> Path:
    (path / "suite.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    (path / "more.csv").write_text("q\nx\n")
    (path / "more.jsonl").write_text('{"id": "j", "input": "x"}\n')
    return path


def test_the_published_schema_is_made_of_the_models_and_the_checks() -> None:
    published = (ROOT / "docs" / "suite.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "run `make docs`"
    Draft7Validator.check_schema(json.loads(published))


@pytest.mark.parametrize("suite", sorted((ROOT / "examples").rglob("suite*.yaml")), ids=lambda path: path.parent.name)
def test_every_example_is_valid(suite: Path) -> None:
    assert [*SCHEMA.iter_errors(yaml.safe_load(suite.read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize("page", ["suites.md", "datasets.md", "prompts.md"])
def test_the_suites_in_the_documentation_are_valid(page: str) -> None:
    blocks = (ROOT / "docs" / page).read_text(encoding="utf-8").split("```yaml\n")[1:]
    parts = [yaml.safe_load(block.split("```")[0]) for block in blocks]
    for part in (part for part in parts if isinstance(part, dict) and set(part) <= set(suite_schema()["properties"])):
        whole = {"include": "rest.yaml", "version": 1, "name": "part"} | part
        assert [*SCHEMA.iter_errors(whole)] == []


def test_a_suite_that_says_nearly_everything_is_taken_by_both(tmp_path: Path) -> None:
    assert [*SCHEMA.iter_errors(good())] == []
    assert len(load_suite(folder(tmp_path, good())).samples) == 3


def test_what_may_come_from_elsewhere_need_not_be_there() -> None:
    assert SCHEMA.is_valid({"version": 1, "name": "x", "include": "all.yaml"})
    one = {"version": 1, "name": "x", "samples": "s.csv"}
    assert SCHEMA.is_valid({**one, "generator": {}, "defaults": {"generator": {"model": "m"}}})
    assert not SCHEMA.is_valid({**one, "generator": {}})


def test_every_check_is_known_and_described() -> None:
    named = suite_schema()["definitions"]["Check"]["anyOf"][1]["properties"]
    assert [*named] == [*CHECKS]
    assert all(one["description"].startswith("Passes where ") for one in named.values())


def test_what_a_key_means_is_told_in_the_editor() -> None:
    definitions = suite_schema()["definitions"]
    assert definitions["Sample"]["properties"]["reference"]["description"].startswith("a good answer")
    assert definitions["GeneratorSpec"]["properties"]["stop"]["description"].startswith("texts that end an answer")


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        here: Any = data
        for part in path[:-1]:
            here = here[part]
        here[path[-1]] = value

    return change


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.pop(key)


MISTAKES = [
    drop("version"),
    drop("name"),
    drop("generators"),
    drop("samples"),
    put("version", value=2),
    put("name", value="a b"),
    put("nmae", value="x"),
    put("generator", value={"model": "m"}),
    put("generators", value={"a b": {"model": "m"}}),
    put("generators", "small", "modle", value="m"),
    put("generators", "small", "sampling", "temperature", value="hot"),
    put("generators", "small", "stop", value="x"),
    put("generators", "small", "prompt", value={"path": "x"}),
    put("epochs", value=0),
    put("epochs", value=1.5),
    put("epochs", "m", value=1),
    put("vars", "lang", value=["x"]),
    put("defaults", "samples", value={}),
    put("grader", "verdicts", value={"good": 2}),
    put("threshold", value=1.5),
    put("checks", value="yaml"),
    put("checks", 0, value="nope"),
    put("checks", 0, value="contains"),
    put("checks", 0, value={"nope": 1}),
    put("checks", 0, value={"contains": 1}),
    put("checks", 0, value={"contains": {"txt": "x"}}),
    put("checks", 0, value={"contains": "x", "regex": "y"}),
    put("samples", value=[]),
    put("samples", 0, "inputs", value="x"),
    put("samples", 0, "tags", value="x"),
    put("samples", 0, "checks", value=["nope"]),
    put("samples", 1, "fields", value={"question": "q"}),
    put("samples", 1, "format", value="xml"),
    put("gate", 0, "metrik", value="x"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_refused_by_the_schema_and_by_the_loader(
    tmp_path: Path, mistake: Callable[[dict[str, Any]], None]
) -> None:
    data = good()
    mistake(data)
    assert not SCHEMA.is_valid(data)
    with pytest.raises(InputError):
        load_suite(folder(tmp_path, data))
