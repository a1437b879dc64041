from __future__ import annotations

import re

import pytest
from gpurig.evaljobs.report import note_markdown
from gpurig.evaljobs.report.note import MAX_CHARACTERS, marker
from gpurig.evaljobs.results import Gate, JobRef
from hypothesis import given
from hypothesis import strategies as st
from standins.evalrun import HOSTILE, failed_sample, hostile_samples, results, sample

# What GitLab's extractor takes for a command: a line that starts with a slash (carriage returns are deleted first).
COMMAND = re.compile(r"^/", re.MULTILINE)
FENCE = re.compile(r"^\s*(?:`{3,}|~{3,})", re.MULTILINE)


def outside_of_code(text: str) -> str:
    """The note without its fenced blocks and code spans."""
    without_blocks = re.sub(r"^  ```text\n.*?^  ```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", without_blocks)


def test_first_line_is_the_marker_that_finds_the_note():
    assert note_markdown(results()).startswith("<!-- gpurig:ci-jobs -->\n")


def test_verdict_metrics_rules_and_worst_failures_are_there():
    note = note_markdown(results())
    assert "**Gate FAILED: 3 of 5 samples passed.**" in note
    assert "| Samples passed | 60.0 % | 23.1 to 88.2 % | 5 |" in note
    assert "`pass_rate ≥ 0.75` is 0.60" in note
    assert note.index("`cache`") < note.index("`matrix`")


def test_a_run_without_failures_has_no_failures_section():
    note = note_markdown(results((sample("lint"),), gate=Gate(passed=True)))
    assert "<details>" not in note
    assert "No gate" in note


def test_a_job_is_linked_with_its_report_files():
    url = "https://gitlab.example.com/g/p/-/jobs/7"
    note = note_markdown(results(job=JobRef(id="7", url=url, commit_sha="abc1234def")))
    assert f"[job 7]({url})" in note
    assert f"({url}/artifacts/browse)" in note


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://x/) /merge", "https://x/\n/merge", "file:///etc/passwd"]
)
def test_a_job_address_that_is_none_is_left_out(url):
    note = note_markdown(results(job=JobRef(id="7", url=url)))
    assert "[job" not in note
    assert not COMMAND.search(note)


def test_hostile_answers_run_no_command_mention_nobody_and_leave_no_fence():
    for hostile in hostile_samples():
        note = note_markdown(results((hostile,)))
        assert not COMMAND.search(note.replace("\r", ""))
        assert len(FENCE.findall(note)) == 2, hostile.output
        prose = outside_of_code(note)
        assert "@" not in prose
        assert re.findall(r"<(?!/?(?:details|summary|sub)>|!-- gpurig:ci-jobs -->)", prose) == []
        assert "\x1b" not in note


def test_all_hostile_answers_together_stay_readable():
    note = note_markdown(results(hostile_samples()))
    assert f"of {len(HOSTILE)} failures" in note
    assert len(note) < MAX_CHARACTERS


@given(st.text(), st.text(), st.text(min_size=1))
def test_any_text_stays_inside_its_block(output, message, name):
    note = note_markdown(results((failed_sample(name, output=output, finish="error", error=message),)))
    assert not COMMAND.search(note.replace("\r", ""))
    assert len(FENCE.findall(note)) == 2


@given(st.text())
def test_any_suite_name_stays_inside_its_marker_and_its_code(name):
    note = note_markdown(results(suite=name))
    assert re.match(r"<!-- gpurig:[A-Za-z0-9_.-]* -->\n### ", note)
    assert "--" not in marker(name)[4:-3]
    assert not COMMAND.search(note.replace("\r", ""))


def test_a_thousand_long_failures_stay_far_below_gitlabs_limit():
    long = tuple(failed_sample(f"s{index}", output="line\n" * 100_000) for index in range(1000))
    assert len(note_markdown(results(long))) <= MAX_CHARACTERS
