"""`gpurig-job score` with llama.cpp: the same log-likelihoods as the engine's, whatever the windows are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gpurig.common.errors import InputError
from gpurig.evaljobs.__main__ import cli
from standins.tiny_gguf import write_tiny_gguf

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

QUESTION = {"id": "q", "prompt": "stage: ", "choices": ["test", "build", "deploy and test"], "answer": "build"}
TEXT = "stage build script test image deploy job yes no partly " * 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


def score(folder: Path, model: Path, *lines: dict[str, Any], options: tuple[str, ...] = ()) -> Result:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = ["--out", str(folder / "out")]
    return CliRunner().invoke(cli, ["score", str(path), "--model", str(model), "--threads", "1", *out, *options])


def records(folder: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "out" / "scores.jsonl").read_text().splitlines()]
    return {line["sample"]: line for line in lines if line["record"] == "score"}


def test_choices_and_texts_are_scored_and_told(tmp_path: Path, model: Path) -> None:
    done = score(tmp_path, model, QUESTION, {"id": "t", "text": TEXT}, {"text": "job"})
    assert done.exit_code == 0, done.output
    assert "right by log-likelihood" in done.output
    assert "perplexity, a token" in done.output
    assert max(len(line) for line in done.output.splitlines()) <= 80
    found = records(tmp_path)
    assert [len(found[name]["scored"]) for name in ("q", "t", "line-3")] == [3, 1, 1]
    assert found["q"]["answer"] == 1
    assert all(one["logprob"] < 0 for line in found.values() for one in line["scored"])
    assert found["t"]["scored"][0]["bytes"] == len(TEXT)


def test_a_run_again_computes_only_what_is_missing(tmp_path: Path, model: Path) -> None:
    score(tmp_path, model, QUESTION)
    before = (tmp_path / "out" / "scores.jsonl").read_text()
    again = score(tmp_path, model, QUESTION, {"id": "t", "text": "job"})
    assert "score: 1 of 2 done already" in again.output
    assert (tmp_path / "out" / "scores.jsonl").read_text().startswith(before)
    assert records(tmp_path).keys() == {"q", "t"}


def test_windows_with_much_overlap_come_near_to_the_whole_context_and_without_they_lose(
    tmp_path: Path, model: Path
) -> None:
    found = {}
    for name, options in {
        "whole": ("--context", "512"),
        "overlap": ("--context", "64", "--overlap", "56"),
        "none": ("--context", "64", "--overlap", "0"),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        assert score(folder, model, {"id": "t", "text": TEXT}, options=options).exit_code == 0
        found[name] = records(folder)["t"]
    assert len({one["scored"][0]["tokens"] for one in found.values()}) == 1, "every token once"
    assert [found[name]["windows"] for name in ("whole", "none")] == [1, -(-found["none"]["scored"][0]["tokens"] // 64)]
    assert found["overlap"]["windows"] > found["none"]["windows"]
    near, far = (
        abs(found[name]["scored"][0]["logprob"] - found["whole"]["scored"][0]["logprob"])
        for name in ("overlap", "none")
    )
    assert near < far


def test_json_has_the_figures(tmp_path: Path, model: Path) -> None:
    done = score(tmp_path, model, QUESTION, {"text": "job"}, options=("--json",))
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["schema"] == 1
    assert figures["accuracy"].keys() == {"sum", "token", "byte"}
    assert figures["perplexity"]["tokens"] > 0


def test_a_line_that_does_not_fit_is_an_error_of_its_own(tmp_path: Path, model: Path) -> None:
    done = score(tmp_path, model, QUESTION | {"prompt": TEXT}, {"text": "job"}, options=("--context", "32"))
    assert done.exit_code == 0
    assert "1 of 2 lines could not be scored" in done.output
    alone = score(tmp_path, model, QUESTION | {"prompt": TEXT}, options=("--context", "32"))
    assert isinstance(alone.exception, InputError)
    assert "nothing could be scored" in str(alone.exception)


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--kv", "q9"), '"q9" is no type of KV cache'), (("--context", "64", "--overlap", "64"), "leaves nothing")],
)
def test_wrong_options_are_one_line(tmp_path: Path, model: Path, options: tuple[str, ...], said: str) -> None:
    done = score(tmp_path, model, QUESTION, options=options)
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
