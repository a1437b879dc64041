"""`gpurig demo` as a user runs it: the bundled models, llama.cpp, and the report."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from gpurig.common.process import Finished, run
from gpurig.evaljobs.results import read_results

pytestmark = pytest.mark.models
FILES = {"results.json", "junit.xml", "metrics.txt", "note.md", "report.html"}


def demo(out: Path, *arguments: str) -> Finished:
    return run([sys.executable, "-m", "gpurig.runner", "demo", "--out", str(out), *arguments], timeout_s=600)


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Path, Finished]:
    out = tmp_path_factory.mktemp("demo") / "report"
    return out, demo(out)


def test_the_demo_passes_its_gate_and_writes_every_report(first):
    out, done = first
    assert done.code == 0, done.stderr
    assert {file.name for file in out.iterdir()} >= FILES
    results = read_results(out / "results.json")
    assert results.gate.passed
    assert len(results.samples) >= 24
    # A generator that gets everything right would show nothing of the checks.
    assert 0.6 <= results.metric("pass_rate").value < 1.0
    assert results.generator.sha256 != results.grader.sha256


def test_the_demo_ends_with_a_table_the_verdict_and_the_folder(first):
    out, done = first
    assert "Samples passed" in done.stdout
    assert f"samples passed\nReport: {out}" in done.stdout
    assert str(out) in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if str(out) not in line) <= 80


def test_the_reports_agree_with_each_other(first):
    out, _ = first
    results = read_results(out / "results.json")
    failed = [sample.id for sample in results.samples if not sample.passed]
    suite = ET.fromstring((out / "junit.xml").read_bytes())[0]  # noqa: S314 - our own file: no entities
    assert [case.get("name") for case in suite if len(case)] == failed
    rate = results.metric("pass_rate").value
    assert f'pass_rate{{suite="ci-jobs",model="demo-generator"}} {rate:.3f}' in (out / "metrics.txt").read_text()
    passed = len(results.samples) - len(failed)
    assert f"{passed} of {len(results.samples)} samples passed" in (out / "note.md").read_text()
    assert f"{passed} of {len(results.samples)} passed" in (out / "report.html").read_text()


def test_a_second_run_finds_every_sample_done_and_changes_no_answer(first):
    out, earlier = first
    before = read_results(out / "results.json")
    records = {file.name: file.read_bytes() for file in out.glob("*.jsonl")}
    done = demo(out)
    assert done.code == earlier.code
    assert "Every sample was done already" in done.stdout
    after = read_results(out / "results.json")
    assert (after.samples, after.metrics, after.gate) == (before.samples, before.metrics, before.gate)
    assert after.reused == len(after.samples)
    assert {file.name: file.read_bytes() for file in out.glob("*.jsonl")} == records


def test_a_folder_that_cannot_be_written_is_one_line_and_exit_4(tmp_path):
    (tmp_path / "file").write_text("")
    done = demo(tmp_path / "file" / "report")
    assert done.code == 4
    assert "Traceback" not in done.stderr
    assert "hint:" in done.stderr
