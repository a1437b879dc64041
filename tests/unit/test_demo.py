from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
from click.testing import CliRunner
from gpurig.common.errors import PrerequisiteError
from gpurig.common.process import Finished
from gpurig.evaljobs import store
from gpurig.runner import demo as the_demo
from gpurig.runner.commands.demo import demo
from standins.evalrun import results


@pytest.fixture
def eval_ends(monkeypatch):
    """Let the eval end with `code`, having written these results, and keep how it was called."""
    calls = []

    def prepare(code: int, run=None):
        def fake(argv, **options):
            calls.append((argv, options))
            out = Path(argv[argv.index("--out") + 1])
            out.mkdir(parents=True, exist_ok=True)
            if run is not None:
                (out / "results.json").write_text(run.to_json())
            return Finished(tuple(argv), code, "", "")

        monkeypatch.setattr(the_demo, "run", fake)
        return calls

    return prepare


def invoke(*arguments: str):
    return CliRunner().invoke(demo, arguments)


@pytest.mark.parametrize("name", ["llama_cpp", "jinja2", "check_jsonschema"])
def test_a_missing_eval_extra_is_named_with_the_fix_before_anything_is_written(monkeypatch, tmp_path, name):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted, *rest: None if wanted == name else found(wanted))
    with pytest.raises(PrerequisiteError) as caught:
        the_demo.run_demo(tmp_path / "report", fresh=True)
    assert name in caught.value.message
    assert "gpurig[eval]" in caught.value.hint
    assert not (tmp_path / "report").exists()


def test_the_eval_runs_as_a_job_would_and_never_posts_a_note(eval_ends, tmp_path):
    calls = eval_ends(0, results())
    outcome = the_demo.run_demo(tmp_path)
    ((argv, options),) = calls
    assert argv[1:4] == ["-m", "gpurig.evaljobs", "eval"]
    assert Path(argv[4]).joinpath("suite.yaml").exists()
    assert argv[argv.index("--note") + 1] == "never"
    assert options == {"timeout_s": None, "passthrough": True}
    assert outcome.results == results()


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 130])
def test_the_evals_exit_code_is_the_demos(eval_ends, tmp_path, code):
    eval_ends(code, results())
    assert invoke("--out", str(tmp_path)).exit_code == code


def test_an_eval_that_did_not_end_shows_no_older_results(eval_ends, tmp_path):
    (tmp_path / "results.json").write_text(results().to_json())
    eval_ends(4)
    assert "report.html" not in invoke("--out", str(tmp_path)).output


def test_a_second_run_says_that_every_sample_was_done(eval_ends, tmp_path):
    eval_ends(0, results(reused=5))
    assert "Every sample was done already" in invoke("--out", str(tmp_path)).output
    eval_ends(0, results(reused=4))
    assert "done already" not in invoke("--out", str(tmp_path)).output


def test_fresh_forgets_the_records_and_nothing_else(eval_ends, tmp_path):
    kept = tmp_path / "mine.txt"
    for file in (kept, *(tmp_path / name for name in the_demo.RECORDS)):
        file.write_text("x")
    eval_ends(0, results())
    assert invoke("--out", str(tmp_path), "--fresh").exit_code == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.txt", "results.json"]


def test_a_record_that_cannot_be_deleted_is_an_error_with_its_path(tmp_path):
    (tmp_path / the_demo.RECORDS[0]).mkdir()
    with pytest.raises(PrerequisiteError, match=r"generations\.jsonl"):
        the_demo.forget(tmp_path)


def test_the_demo_knows_the_record_files_that_the_stages_write():
    assert set(the_demo.RECORDS) == {store.GENERATIONS, store.CHECKS, store.GRADES}


def test_the_runner_reads_nothing_of_evaljobs_but_the_result_schema():
    package = Path(the_demo.__file__).parent
    imported = {
        node.module
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert {name for name in imported if name.startswith("gpurig.evaljobs")} <= {"gpurig.evaljobs.results"}
