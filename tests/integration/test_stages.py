"""The stage commands with llama.cpp, as a job runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.command import run_command
from gpurig.evaljobs.__main__ import COMMANDS, cli
from gpurig.evaljobs.records import Generation
from gpurig.evaljobs.store import CHECKS, GENERATIONS, GRADES
from standins.eval_box import EvalBox, timeless
from standins.tiny_gguf import write_tiny_gguf

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

STAGES = ("generate", "check", "grade", "eval", "validate")


@pytest.fixture
def box(tmp_path: Path) -> EvalBox:
    return EvalBox(tmp_path)


def job(*words: object) -> int:
    return run_command(cli, program="gpurig-job", arguments=[str(word) for word in words])


def stage(box: EvalBox, name: str, *more: object, out: Path | None = None) -> int:
    models = ["--models-dir", box.models] if name in {"generate", "grade", "eval"} else []
    return job(name, box.root, "--out", out or box.out, *models, *more)


def test_the_stages_one_by_one_and_eval_write_the_same_records(box: EvalBox, tmp_path: Path) -> None:
    for name in ("generate", "check", "grade", "report"):
        assert stage(box, name) == 0
    assert stage(box, "eval", out=tmp_path / "at-once") == 0
    for name in (GENERATIONS, CHECKS, GRADES):
        assert timeless(tmp_path / "at-once" / name) == timeless(box.out / name)
    assert (box.out / "results.json").exists()


def test_a_gate_that_fails_ends_with_3_and_one_that_passes_with_0(box: EvalBox) -> None:
    assert stage(box, "eval") == 0
    box.data["gate"] = [{"metric": "pass_rate", "min": 1.0}]
    box.save()
    assert stage(box, "eval") == 3


def test_eval_a_second_time_says_that_all_is_done(box: EvalBox, capfd: pytest.CaptureFixture[str]) -> None:
    stage(box, "eval")
    capfd.readouterr()
    assert stage(box, "eval") == 0
    said = capfd.readouterr().err
    assert all(f"{name}: all 5 samples done already" in said for name in ("generate", "check", "grade"))
    assert json.loads((box.out / "results.json").read_text())["reused"] == 5


def test_samples_are_selected_alike_in_every_stage(box: EvalBox) -> None:
    assert stage(box, "eval", "--limit", 2) == 0
    results = json.loads((box.out / "results.json").read_text())
    assert [sample["id"] for sample in results["samples"]] == ["s0", "s1"]
    assert stage(box, "eval", "--only", "s3", "--only", "s0") == 0
    results = json.loads((box.out / "results.json").read_text())
    assert [sample["id"] for sample in results["samples"]] == ["s0", "s3"]


def test_a_prompt_longer_than_the_context_fails_its_sample_alone(box: EvalBox) -> None:
    box.data["generator"]["context"] = 64
    box.data["samples"][1]["input"] = "stage script " * 100
    box.save()
    assert stage(box, "eval") == 0
    results = json.loads((box.out / "results.json").read_text())
    failed = results["samples"][1]
    assert failed["finish"] == "error"
    assert "the context of 64" in failed["error"]
    assert not failed["passed"]
    assert all(sample["finish"] != "error" for sample in results["samples"] if sample["id"] != "s1")


def unknown_check(box: EvalBox) -> None:
    box.data["checks"].append("nope")


def duplicate_id(box: EvalBox) -> None:
    box.data["samples"][1]["id"] = "s0"


def no_samples(box: EvalBox) -> None:
    box.data["samples"].clear()


def wrong_type(box: EvalBox) -> None:
    box.data["generator"]["model"] = 7


def truncated_model(box: EvalBox) -> None:
    path = box.models / "writer.gguf"
    path.write_bytes(path.read_bytes()[:-100])


def truncated_grader(box: EvalBox) -> None:
    path = box.models / "judge.gguf"
    path.write_bytes(path.read_bytes()[:500])


def model_that_llama_cpp_dies_of(box: EvalBox) -> None:
    path = box.models / "writer.gguf"
    path.write_bytes(path.read_bytes().replace(b"<0x0A>", b"<0x0B>"))


def damaged_records(box: EvalBox) -> None:
    box.out.mkdir()
    (box.out / GENERATIONS).write_text("not a record\n")


def missing_model(box: EvalBox) -> None:
    box.data["generator"]["model"] = "nowhere"


def samples_in_a_missing_file(box: EvalBox) -> None:
    box.data["samples"] = "samples.yaml"


@pytest.mark.parametrize(
    ("damage", "code", "says"),
    [
        (unknown_check, 2, 'checks[2]: unknown check "nope"'),
        (duplicate_id, 2, 'samples[1].id: "s0" is there twice'),
        (no_samples, 2, "samples: there are none"),
        (wrong_type, 2, "generator.model: must be text, not 7"),
        (truncated_model, 2, "writer.gguf is damaged: truncated"),
        (truncated_grader, 2, "judge.gguf is damaged"),
        (model_that_llama_cpp_dies_of, 2, "llama.cpp dies of "),
        (damaged_records, 2, "generations.jsonl:1: no record of this stage"),
        (missing_model, 4, 'no model "nowhere"; looked in'),
        (samples_in_a_missing_file, 2, "samples: there is no file"),
    ],
)
def test_bad_input_is_one_line_and_a_hint_and_leaves_nothing(
    box: EvalBox, capfd: pytest.CaptureFixture[str], damage: Any, code: int, says: str
) -> None:
    damage(box)
    box.save()
    before = box.out.exists()
    assert stage(box, "eval") == code
    shown = capfd.readouterr()
    first, second = (line for line in shown.err.splitlines() if not line.startswith("generate: 0/"))
    assert first.startswith("gpurig-job: ")
    assert says in first
    assert second.startswith("  hint: ")
    assert shown.out == ""
    assert box.out.exists() == before


def test_what_a_model_wrote_cannot_drive_the_terminal(box: EvalBox, capfd: pytest.CaptureFixture[str]) -> None:
    stage(box, "generate")
    path = box.out / GENERATIONS
    lines = path.read_text().splitlines()
    for index, line in enumerate(lines):
        data = json.loads(line)
        if data["record"] == "generation":
            hostile = Generation.model_validate(data).model_copy(update={"output": "\x1b[2J\x1b]0;owned\x07\u202ea: ["})
            lines[index] = hostile.model_dump_json()
    path.write_text("\n".join(lines) + "\n")
    for name in ("check", "grade", "report"):
        assert stage(box, name) == 0
    shown = capfd.readouterr()
    assert not {"\x1b", "\x07", "\u202e"} & set(shown.out + shown.err)


@pytest.mark.parametrize("name", STAGES)
def test_every_command_explains_itself_with_an_example(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert job(name, "--help") == 0
    shown = capfd.readouterr().out
    assert f"Example: gpurig-job {name} examples/ci-jobs" in shown
    assert COMMANDS[name].summary in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80


def test_validate_says_what_a_suite_holds(box: EvalBox, capfd: pytest.CaptureFixture[str]) -> None:
    assert job("validate", box.root) == 0
    assert "5 samples, 10 checks" in capfd.readouterr().out


def test_several_generators_and_epochs_are_answered_by_llama_cpp_each_model_loaded_once(
    box: EvalBox, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tiny_gguf(box.models / "other.gguf", seed=7)
    spec = box.data.pop("generator") | {"sampling": {"temperature": 1.0, "max_tokens": 12, "seed": 5}}
    box.data["generators"] = {"one": spec, "two": spec | {"model": "other"}}
    box.data["epochs"] = {"n": 3, "reduce": "pass@2"}
    box.save()
    assert stage(box, "eval") == 0
    written = [Generation.model_validate(line) for line in timeless(box.out / GENERATIONS) if line["record"] != "run"]
    assert len({record.trial for record in written}) == 5 * 2 * 3
    outputs = {(one.sample, one.generator, one.epoch): one.output for one in written}
    # The same prompt at temperature 1: another seed is another answer.
    assert outputs["s0", "one", 1] != outputs["s0", "one", 2]
    results = json.loads((box.out / "results.json").read_text())
    assert [one["name"] for one in results["generators"]] == ["one", "two"]
    capfd.readouterr()
    assert stage(box, "eval") == 0
    assert "generate: all 30 answers done already" in capfd.readouterr().err
    assert stage(box, "eval", "--generator", "two", "--only", "s1") == 0
    results = json.loads((box.out / "results.json").read_text())
    assert [sample["id"] for sample in results["samples"]] == ["s1@two", "s1@two#2", "s1@two#3"]


def test_the_parts_of_a_run_come_to_the_same_answers_as_the_whole(box: EvalBox, tmp_path: Path) -> None:
    assert stage(box, "eval", "--exact") == 0
    whole = {one["id"]: one for one in json.loads((box.out / "results.json").read_text())["samples"]}
    parts: dict[str, Any] = {}
    for part in (1, 2):
        out = tmp_path / f"part-{part}"
        assert stage(box, "eval", "--exact", "--shard", f"{part}/2", out=out) == 0
        results = json.loads((out / "results.json").read_text())
        assert results["shard"] == f"{part}/2"
        parts |= {one["id"]: one for one in results["samples"]}
    assert {name: one["output"] for name, one in parts.items()} == {n: one["output"] for n, one in whole.items()}
