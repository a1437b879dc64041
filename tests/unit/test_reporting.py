from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from gpurig.common.command import run_command
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.evaljobs import reporting
from gpurig.evaljobs.__main__ import cli
from gpurig.evaljobs.records import Generation, ModelRef, Sampling
from gpurig.evaljobs.results import read_results
from gpurig.evaljobs.store import RunRecords
from gpurig.evaljobs.suites.selection import Selection
from gpurig.evaljobs.suites.suite import load_suite
from gpurig.evaljobs.suites.trials import select_trials
from gpurig.runner.exporter.jobs.summary import UsageFolder
from standins.gpu_use import GPUS, job_use, used

FILES = ("junit.xml", "metrics.txt", "note.md", "report.html", "results.json")
SUITE = """
version: 1
name: tiny
generator: {model: gen}
samples:
  - {id: one, input: "1"}
  - {id: two, input: "2"}
gate:
  - {metric: pass_rate, min: %s}
"""


@pytest.fixture(autouse=True)
def _no_merge_request(monkeypatch):
    """This very test may run in a merge request's pipeline."""
    monkeypatch.delenv("CI_MERGE_REQUEST_IID", raising=False)


def generation(name: str, **changes) -> Generation:
    fields = {
        "sample": name,
        "key": "k",
        "model": ModelRef(name="gen", file="gen.gguf", sha256="a" * 64, size_bytes=1),
        "prompt_sha256": "p",
        "sampling": Sampling(),
        "output": "answer",
        "finish": "stop",
    }
    return Generation(**fields | changes)


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A suite whose second sample could not be generated; its pass rate is 0.5."""
    records = RunRecords(
        {"one": generation("one"), "two": generation("two", output="", finish="error", error="no room")}, {}, {}
    )
    monkeypatch.setattr(reporting, "read_records", lambda out, suite: records)

    def write(minimum: float) -> Path:
        file = tmp_path / "suite.yaml"
        file.write_text(SUITE % minimum)
        return file

    return write


def report(file: Path, out: Path, capfd) -> tuple[int, str, str]:
    code = run_command(cli, program="gpurig-job", arguments=["report", str(file), "--out", str(out)])
    shown = capfd.readouterr()
    return code, shown.out, shown.err


def test_every_file_is_written_and_the_folder_made(suite, tmp_path):
    results = reporting.run_report(load_suite(suite(0.5)), tmp_path / "a" / "b")
    assert sorted(file.name for file in (tmp_path / "a" / "b").iterdir()) == sorted(FILES)
    assert read_results(tmp_path / "a" / "b" / "results.json") == results


def test_a_parts_gate_decides_nothing_and_its_results_say_which_part_it_is(suite, tmp_path, capfd):
    arguments = ["report", str(suite(0.51)), "--out", str(tmp_path / "report"), "--shard", "2/2"]
    assert run_command(cli, program="gpurig-job", arguments=arguments) == 0
    assert "This is the part 2/2" in capfd.readouterr().out
    results = read_results(tmp_path / "report" / "results.json")
    assert ([sample.id for sample in results.samples], results.shard, results.gate.passed) == (["two"], "2/2", False)


def test_a_gate_that_holds_ends_with_0_and_one_that_does_not_with_3_after_the_files(suite, tmp_path, capfd):
    code, out, err = report(suite(0.5), tmp_path / "report", capfd)
    assert (code, err) == (0, "")
    assert "Gate passed: 1 of 2 samples passed" in out
    (tmp_path / "report" / "results.json").unlink()
    code, out, err = report(suite(0.51), tmp_path / "report", capfd)
    assert code == 3
    assert "pass_rate ≥ 0.51, but it is 0.50" in err
    assert "report.html" in err
    assert not read_results(tmp_path / "report" / "results.json").gate.passed


@pytest.mark.parametrize("broken", FILES)
def test_a_file_that_cannot_be_written_is_an_error_and_leaves_old_results(suite, tmp_path, monkeypatch, broken):
    out = tmp_path / "report"
    reporting.run_report(load_suite(suite(0.5)), out)
    old = (out / "results.json").read_bytes()
    write = reporting.write_atomic

    def fail(path, text):
        if path.name == broken:
            raise PrerequisiteError(f"cannot write {path}: No space left on device", hint="free some disk space")
        write(path, text)

    monkeypatch.setattr(reporting, "write_atomic", fail)
    with pytest.raises(PrerequisiteError, match="No space"):
        reporting.run_report(load_suite(suite(0.9)), out)
    assert (out / "results.json").read_bytes() == old


@pytest.mark.parametrize("maker", ["junit_xml", "metrics_text", "note_markdown", "html_report"])
def test_a_report_that_cannot_be_made_leaves_every_old_file(suite, tmp_path, monkeypatch, maker):
    out = tmp_path / "report"
    reporting.run_report(load_suite(suite(0.5)), out)
    old = {file.name: file.read_bytes() for file in out.iterdir()}

    def fail(results):
        raise InputError("no")

    monkeypatch.setattr(reporting, maker, fail)
    with pytest.raises(InputError):
        reporting.run_report(load_suite(suite(0.9)), out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == old


def test_a_selection_is_reported_alone(suite, tmp_path):
    read = load_suite(suite(0.5))
    results = reporting.run_report(read, tmp_path, trials=select_trials(read, Selection(only=("one",))))
    assert [sample.id for sample in results.samples] == ["one"]
    assert results.metric("pass_rate").value == 1.0


def test_the_ci_job_and_the_start_stand_in_the_results(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("CI_JOB_ID", "7")
    monkeypatch.setenv("CI_JOB_URL", "https://gitlab.example.com/g/p/-/jobs/7")
    started = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
    reporting.run_report(load_suite(suite(0.5)), tmp_path, started=started, reused=1)
    data = json.loads((tmp_path / "results.json").read_text())
    assert (data["schema"], data["started"], data["reused"]) == ("gpurig.results/1", "2026-11-21T02:00:00Z", 1)
    assert data["job"]["id"] == "7"


def test_outside_of_ci_the_job_is_empty():
    assert reporting.job_from_environment({}) == reporting.JobRef()


def test_help_names_the_note_token_variable_and_no_token_option():
    text = CliRunner().invoke(cli, ["report", "--help"]).output
    assert "GPURIG_NOTE_TOKEN" in text
    assert "--note-token " not in text


def test_the_report_takes_the_gpu_use_of_the_folder_it_is_given_and_warns_of_what_it_cannot_use(
    suite, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("CI_JOB_ID", "7")
    monkeypatch.setenv("CI_PROJECT_ID", "1")
    monkeypatch.setenv("CI_PIPELINE_ID", "1")
    usage, out = tmp_path / "usage", tmp_path / "report"
    UsageFolder(usage).write([job_use(used())], GPUS, 0.0, 1.7e9)
    (usage / "1" / "8.json").write_text("\x1b[2J")
    arguments = ["report", str(suite(0.5)), "--out", str(out), "--gpu-use", str(usage)]
    code = run_command(cli, program="gpurig-job", arguments=arguments)
    shown = capfd.readouterr()
    assert code == 0
    assert "GPU: RTX 4090, peak 5.3 of 24.0 GiB, 412 GPU-seconds, 38 kJ" in shown.out
    assert shown.err.startswith(f"gpurig-job: warning: {usage}/1/8.json is passed over: ")
    assert "\x1b" not in shown.err
    assert [job.job_id for job in read_results(out / "results.json").gpu_use] == ["7"]
    assert "5.3 of 24.0 GiB" in (out / "note.md").read_text()
    assert "5.3 GiB" in (out / "report.html").read_text()
    assert "gpu_memory_peak_gib" in (out / "metrics.txt").read_text()
