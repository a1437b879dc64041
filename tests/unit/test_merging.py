"""Parts of a run put together are the run that was never divided."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gpurig.common.errors import GateFailedError, InputError
from gpurig.evaljobs import stages
from gpurig.evaljobs.__main__ import cli
from gpurig.evaljobs.reporting import run_report
from gpurig.evaljobs.results import Results, read_results
from gpurig.evaljobs.suites.selection import Selection, Shard
from gpurig.evaljobs.suites.trials import select_trials, trials_of
from standins.eval_box import EvalBox, suite_data
from standins.scripted_engine import ScriptedProvider

PARTS = 3


@pytest.fixture
def box(tmp_path: Path) -> EvalBox:
    data = suite_data(8)
    data["epochs"] = 2
    data["grader"]["calibration"] = {"file": "people.jsonl"}
    lines = [{"id": f"a{n}", "output": f"x{n}", "verdict": "good" if n % 2 else "bad"} for n in range(6)]
    (tmp_path / "people.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return EvalBox(tmp_path, data)


def part(box: EvalBox, index: int, total: int = PARTS) -> Path:
    shard = Shard(index, total)
    out, suite = box.root / f"part-{index}-of-{total}", box.suite()
    trials = select_trials(suite, Selection(shard=shard))
    settings = box.settings(ScriptedProvider(), trials=trials, out=out)
    stages.run_stages(settings)
    run_report(suite, out, trials=trials, shard=shard)
    return out


def merge(box: EvalBox, *parts: Path) -> Result:
    words = ["merge", str(box.root), *map(str, parts), "--out", str(box.out), "--note", "never"]
    return CliRunner().invoke(cli, words)


def without_times(results: Results) -> dict[str, Any]:
    data = results.model_dump(mode="json")
    for name in ("started", "finished", "reused"):
        del data[name]
    return data


def test_the_merged_run_is_the_one_that_was_never_divided(box: EvalBox) -> None:
    parts = [part(box, index) for index in (2, 3, 1)]
    done = merge(box, *parts)
    assert done.exit_code == 0, done.output
    merged = read_results(box.out / "results.json")
    whole = box.root / "whole"
    stages.run_stages(box.settings(ScriptedProvider(), out=whole))
    expected = run_report(box.suite(), whole, trials=trials_of(box.suite()))
    assert without_times(merged) == without_times(expected)
    assert merged.shard == ""
    assert merged.started == min(read_results(one / "results.json").started for one in parts)
    for name in ("generations.jsonl", "checks.jsonl", "grades.jsonl", "calibration.jsonl"):
        ours, theirs = (
            {
                line["sample"] + str(line.get("epoch")): line
                for line in map(json.loads, (folder / name).read_text().splitlines())
                if line["record"] != "run"
            }
            for folder in (box.out, whole)
        )
        assert ours == theirs


def test_merging_again_changes_no_record(box: EvalBox) -> None:
    parts = [part(box, index) for index in (1, 2, 3)]
    merge(box, *parts)
    before = (box.out / "generations.jsonl").read_text()
    assert merge(box, *parts).exit_code == 0
    assert (box.out / "generations.jsonl").read_text() == before


def test_the_gate_is_judged_on_the_whole(box: EvalBox) -> None:
    box.data["gate"] = [{"metric": "pass_rate", "min": 1.0}]
    box.save()
    failed = merge(box, *(part(box, index) for index in (1, 2, 3)))
    assert isinstance(failed.exception, GateFailedError)


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ((1, 3), "the part 2 of 3 is missing"),
        ((2,), "the parts 1, 3 of 3 are missing"),
        ((1, 1), "are both the part 1/3"),
    ],
)
def test_parts_that_are_missing_or_there_twice_are_named(box: EvalBox, which: tuple[int, ...], said: str) -> None:
    folders = [part(box, index) for index in dict.fromkeys(which)]
    if len(set(which)) < len(which):
        folders.append(Path(shutil.copytree(folders[0], box.root / "copy")))
    done = merge(box, *folders)
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
    assert not (box.out / "results.json").exists()


def test_what_does_not_belong_together_is_refused(box: EvalBox) -> None:
    one, other = part(box, 1), part(box, 2, total=2)
    assert "is a part of" in str(merge(box, one, other).exception)
    whole = box.root / "whole"
    stages.run_stages(box.settings(ScriptedProvider(), out=whole))
    run_report(box.suite(), whole, trials=trials_of(box.suite()))
    assert "is a whole run" in str(merge(box, whole).exception)
    box.data["name"] = "another"
    box.save()
    assert "is of another suite" in str(merge(box, one).exception)
    words = ["merge", str(box.root), str(one), "--shard", "1/2", "--out", str(box.out)]
    assert "leave it out" in str(getattr(CliRunner().invoke(cli, words).exception, "hint", ""))


def test_an_answer_in_two_parts_is_refused(box: EvalBox) -> None:
    parts = [part(box, index) for index in (1, 2, 3)]
    shutil.copy(parts[0] / "generations.jsonl", parts[1] / "generations.jsonl")
    done = merge(box, *parts)
    assert isinstance(done.exception, InputError)
    assert "is in" in str(done.exception)
