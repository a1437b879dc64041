"""The report's files: each a pure function from the results to the text of one format."""

from __future__ import annotations

from gpurig.evaljobs.report.html import html_report
from gpurig.evaljobs.report.junit import junit_xml
from gpurig.evaljobs.report.metrics import metrics_text
from gpurig.evaljobs.report.note import note_markdown
from gpurig.evaljobs.report.terminal import terminal_summary

__all__ = ["html_report", "junit_xml", "metrics_text", "note_markdown", "terminal_summary"]
