from __future__ import annotations

import unicodedata

from gpurig.evaljobs.report import terminal_summary
from hypothesis import given
from hypothesis import strategies as st
from standins.evalrun import failed_sample, hostile_samples, results


def test_summary_shows_metrics_failures_gate_and_folder():
    text = terminal_summary(results(), "report/demo")
    assert "Samples passed" in text
    assert "23.1 to 88.2 %" in text
    assert "FAILED  pass_rate ≥ 0.75: 0.60" in text
    assert text.endswith("Report: report/demo")


def test_lines_fit_80_columns_and_obey_no_escape():
    text = terminal_summary(results(hostile_samples()), "report")
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert "the 5 worst" in text


@given(st.text(min_size=1), st.text())
def test_any_failure_stays_on_one_line_of_80_columns(name, error):
    text = terminal_summary(results((failed_sample(name, finish="error", error=error),)), "report")
    for line in text.split("\n"):
        assert len(line) <= 80
        assert not [character for character in line if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp"}]
