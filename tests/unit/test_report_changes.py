"""What became of a run since its baseline, and how fit its judges are: in every report."""

from __future__ import annotations

import html
import re

import pytest
from gpurig.evaljobs.findings import MetricChange
from gpurig.evaljobs.report import html_report, note_markdown
from gpurig.evaljobs.report.changes import change_rows, moved, side_by_side
from gpurig.evaljobs.report.note import MAX_CHARACTERS
from gpurig.evaljobs.report.terminal import terminal_summary
from hypothesis import given
from hypothesis import strategies as st
from standins.evalrun import HOSTILE, comparison, failed_sample, judge, results, sample


def test_a_loss_is_told_from_a_gain_and_from_chance():
    assert [row.verdict for row in change_rows(comparison())] == ["worse", "better", ""]


def test_of_what_should_be_small_more_is_worse():
    change = MetricChange(metric="figure.seconds", n=9, before=1, after=2, p=0.001, p_adjusted=0.001, worse=True)
    (row,) = change_rows(comparison().model_copy(update={"changes": (change,)}))
    assert row.verdict == "worse"


def test_the_note_has_the_changes_the_regressions_the_remarks_and_the_judge():
    note = note_markdown(results(comparison=comparison("matrix"), judges=(judge(fit=False),)))
    assert "Since the baseline `main/report, 2026-11-20 02:00:00 UTC, cccccccccccc`:" in note
    assert r"| pass\_rate | 0.900 | 0.600 | -0.300 | -0.450 … -0.150 | 0.003 | :x: worse |" in note
    assert "1 worse: `matrix`" in note
    assert "`few samples`" in note
    assert "kappa 0.20 (0.10 to 0.30), 120 answers" in note
    assert ":x: `the grader is unfit: agreement with people (kappa) 0.200, wanted ≥ 0.6`" in note


def test_without_a_baseline_and_a_judge_nothing_is_said_of_them():
    run = results()
    for text in (note_markdown(run), html_report(run), terminal_summary(run, "report")):
        assert "Since the baseline" not in text
        assert "judged by people" not in text
        assert "kappa" not in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_texts_in_a_comparison_leave_no_report_broken(hostile: str):
    many = tuple(failed_sample(f"s{number}", output=hostile) for number in range(3))
    found = comparison("s0", "s1", text=hostile, remark=hostile)
    found = found.model_copy(update={"baseline": found.baseline.model_copy(update={"name": hostile})})
    run = results(many, comparison=found, judges=(judge(),))
    note = note_markdown(run)
    assert len(note) <= MAX_CHARACTERS
    assert not re.search(r"^/", note, re.MULTILINE)
    assert not re.search(r"^\s*@", note, re.MULTILINE)
    page = html_report(run)
    assert page.count("<script>") == 1
    assert page.count("</script>") == 1
    assert page.count("<img") == 0
    for shown in (page, note, terminal_summary(run, "report")):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", shown)


def test_the_page_sets_the_answer_beside_the_baselines():
    run = results((failed_sample("matrix", output="a\nb\nx"),), comparison=comparison("matrix", text="a\nc\nx\ngone"))
    page = html_report(run)
    assert 'data-change="regressed"' in page
    for part in ("<del>c</del>", "<ins>b</ins>", "<del>gone</del>", '<select id="change">'):
        assert part in page


def test_the_terminal_has_the_changes_in_eighty_columns():
    text = terminal_summary(results(comparison=comparison("matrix"), judges=(judge(fit=False),)), "report")
    assert "Since the baseline main/report" in text
    assert re.search(r"^pass_rate +0\.900 +0\.600 +-0\.300 +0\.003 +worse$", text, re.MULTILINE)
    assert max(len(line) for line in text.splitlines()) <= 80


@given(st.text(alphabet="ab\n", max_size=60), st.text(alphabet="ab\n", max_size=60))
def test_side_by_side_has_every_line_of_both_texts_in_order(before: str, after: str):
    sides = side_by_side(before, after)
    assert [side.before for side in sides if side.kind != "new"] == before.split("\n")
    assert [side.after for side in sides if side.kind != "gone"] == after.split("\n")
    assert all(side.before == side.after for side in sides if side.kind == "same")


def test_endless_answers_are_cut_before_they_are_compared():
    assert len(side_by_side("x\n" * 10_000, "y\n" * 10_000)) == 400


def test_a_sample_that_did_not_move_is_not_marked():
    run = results((sample("a"), failed_sample("b")), comparison=comparison("b"))
    assert moved(run).keys() == {"b"}
    assert html.unescape(html_report(run)).count('data-change="') == 1
