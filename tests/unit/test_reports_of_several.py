"""A run with several generators and epochs in every report: nothing stands twice without saying whose it is."""

from __future__ import annotations

import re

from gpurig.evaljobs.records import ModelRef, Sampling
from gpurig.evaljobs.report.html import html_report
from gpurig.evaljobs.report.junit import junit_xml
from gpurig.evaljobs.report.metrics import metrics_text
from gpurig.evaljobs.report.note import note_markdown
from gpurig.evaljobs.report.terminal import terminal_summary
from gpurig.evaljobs.results import Gate, GateRule, GeneratorRef, Metric, Results
from standins.evalrun import results, sample

NAMES = ("small", "large")


def run() -> Results:
    models = {name: ModelRef(name=f"{name}-model", file="m.gguf", sha256="a" * 64, size_bytes=1) for name in NAMES}
    return results(
        tuple(
            sample(f"lint@{name}{'#2' if epoch == 2 else ''}", sample="lint", generator=name, epoch=epoch)
            for name in NAMES
            for epoch in (1, 2)
        ),
        generator=models["small"],
        generators=tuple(GeneratorRef(name=name, model=models[name], sampling=Sampling()) for name in NAMES),
        epochs=2,
        metrics=tuple(
            Metric(name="pass_rate", generator=name, value=value, n=1, low=0.2, high=1.0)
            for name, value in zip(NAMES, (0.5, 1.0), strict=True)
        ),
        gate=Gate(
            passed=False,
            reason="threshold",
            rules=(GateRule(metric="pass_rate", generator="small", minimum=0.8, value=0.5, passed=False),),
        ),
    )


def test_the_terminal_names_the_generator_of_every_metric_and_rule() -> None:
    text = terminal_summary(run(), "report")
    assert "ci-jobs: 4 answers, generator small small-model, generator large large-model," in text
    assert re.search(r"Samples passed, small +50\.0 %", text)
    assert re.search(r"Samples passed, large +100\.0 %", text)
    assert "pass_rate of small ≥ 0.8" in text
    assert "4 of 4 answers passed" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_metrics_file_has_no_line_twice() -> None:
    lines = metrics_text(run()).splitlines()
    assert len({line.rsplit(" ", 1)[0] for line in lines}) == len(lines)
    assert 'pass_rate{suite="ci-jobs",model="large-model",generator="large"} 1.000' in lines


def test_the_note_names_every_generator_and_model() -> None:
    text = note_markdown(run())
    assert "Generator small `small-model`, generator large `large-model`, grader `demo-grader`." in text
    assert "| Samples passed, large |" in text


def test_the_page_has_a_card_for_every_generator_and_every_model() -> None:
    page = html_report(run())
    assert "Samples passed, small" in page
    assert "Samples passed, large" in page
    assert "Generator large" in page


def test_junit_has_a_case_for_every_answer() -> None:
    assert set(re.findall(r'<testcase [^>]*?\bname="([^"]*)"', junit_xml(run()))) == {
        "lint@small",
        "lint@small#2",
        "lint@large",
        "lint@large#2",
    }
