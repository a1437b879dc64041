"""Results of an eval that nobody ran: for tests of what is made from results."""

from __future__ import annotations

from typing import Any

from gpurig.evaljobs.findings import BaselineRef, Comparison, Floor, JudgeFitness, MetricChange, SampleChange
from gpurig.evaljobs.records import CheckOutcome, ModelRef, Sampling
from gpurig.evaljobs.results import (
    Gate,
    GateRule,
    GpuCardUse,
    JobGpuUse,
    JobRef,
    Metric,
    Results,
    SampleGrade,
    SampleResult,
)

# What a model might write to break out of a report, each aimed at another reader of it.
HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "]]></failure></testcase><testcase name='forged'/>",
    "\x00\x01\x08\x0b\x0c\x1b[2J\x1b]0;owned\x07\x7f\x85\ufffe\uffff",
    "/merge\n/close\n  /approve\n\r/label ~owned",
    "```\n/merge\n```\n~~~\n/merge",
    "@all @root !1 #1 ~bug &1 %1",
    "[[ATTACHMENT|/etc/passwd]]",
    "--> <!-- gpurig:other -->",
    "\u202e\u2066right to left\u2069\u2028\u2029 lines",
    "{{ 7 * 7 }}{% raw %}{{ results.__class__.__mro__ }}",
    "&lt;b&gt;&#x3c;i&#x3e;",
    "| a | b |\n|---|---|\n<details><summary>x",
    "$`\\href{javascript:alert(1)}{x}`$",
    "x" * 30_000,
)


def sample(name: str, **changes: Any) -> SampleResult:
    """A sample that passed, but for `changes`."""
    fields: dict[str, Any] = {
        "id": name,
        "tags": ("generate",),
        "input": f"Write the job {name}.",
        "output": f"{name}:\n  image: python:3.12\n  script:\n    - pytest -q\n",
        "finish": "stop",
        "prompt_tokens": 40,
        "completion_tokens": 30,
        "seconds": 0.25,
        "checks": (CheckOutcome(check="yaml", passed=True), CheckOutcome(check="gitlab-ci", passed=True)),
        "grade": SampleGrade(verdict="good", score=0.93, probabilities={"good": 0.93, "bad": 0.07}),
        "passed": True,
    }
    return SampleResult(**fields | changes)


def failed_sample(name: str, **changes: Any) -> SampleResult:
    """A sample whose last check failed and whose grade is bad, but for `changes`."""
    fields: dict[str, Any] = {
        "tags": ("translate",),
        "checks": (
            CheckOutcome(check="yaml", passed=True),
            CheckOutcome(check="contains", label="stage: test", passed=False, message="the answer lacks stage: test"),
        ),
        "grade": SampleGrade(verdict="bad", score=0.21, probabilities={"good": 0.21, "bad": 0.79}),
        "passed": False,
    }
    return sample(name, **fields | changes)


def hostile_samples() -> tuple[SampleResult, ...]:
    """One failed sample for every hostile text, which stands in every field that a model or a check can fill."""
    return tuple(
        failed_sample(
            f"hostile-{index:02}",
            output=text,
            reference=text,
            checks=(CheckOutcome(check="contains", label=text, passed=False, message=text),),
            grade=SampleGrade(verdict="bad", score=0.1, error=text),
        )
        for index, text in enumerate(HOSTILE)
    )


def gpu_uses(*names: str) -> tuple[JobGpuUse, ...]:
    """A job for each card's name; the first died for want of memory."""
    return tuple(
        JobGpuUse(
            job_id=str(100 + index),
            gpus=(
                GpuCardUse(
                    name=name[:200],
                    memory_total_bytes=24564 * 1024**2,
                    memory_peak_bytes=23 * 1024**3,
                    gpu_seconds=12_400,
                    energy_joules=1_234_567,
                ),
            ),
            oom=() if index else ("gpu",),
        )
        for index, name in enumerate(names)
    )


def comparison(*ids: str, text: str = "before", remark: str = "few samples") -> Comparison:
    """A loss, a gain and what chance explains; the samples `ids` regressed, from the answer `text`."""
    changes = (
        MetricChange(metric="pass_rate", n=40, before=0.9, after=0.6, low=-0.45, high=-0.15, p=0.001, p_adjusted=0.003),
        MetricChange(metric="grade_mean", n=40, before=0.5, after=0.7, low=0.1, high=0.3, p=0.01, p_adjusted=0.02),
        MetricChange(metric="generated_rate", n=40, before=1.0, after=1.0, low=-0.04, high=0.04, p=1.0, p_adjusted=1.0),
    )
    return Comparison(
        baseline=BaselineRef(source="file", name="main/report", started="2026-11-20T02:00:00Z", commit_sha="c" * 40),
        changes=changes,
        regressions=tuple(SampleChange(id=one, was_passed=True, passed=False, was_output=text) for one in ids),
        remarks=(remark,),
    )


def judge(*, fit: bool = True) -> JudgeFitness:
    """A grader that agrees with people, or one that does not."""
    kappa = 0.8 if fit else 0.2
    floors = (Floor(metric="kappa", minimum=0.6, value=kappa, passed=fit),)
    return JudgeFitness(n=120, kappa=kappa, kappa_low=kappa - 0.1, kappa_high=kappa + 0.1, floors=floors, fit=fit)


def results(samples: tuple[SampleResult, ...] | None = None, **changes: Any) -> Results:
    """A run of five samples, three of them passed, but for `changes`."""
    chosen = samples or (
        sample("lint"),
        sample("unit-tests", seconds=0.4, tags=("generate", "python")),
        sample("pages", seconds=0.1),
        failed_sample("matrix"),
        failed_sample("cache", output="", finish="error", error="the context is full", checks=(), grade=None),
    )
    fields: dict[str, Any] = {
        "suite": "ci-jobs",
        "suite_sha256": "5" * 64,
        "description": "GitLab CI jobs from short requests.",
        "started": "2026-11-21T02:00:00Z",
        "finished": "2026-11-21T02:00:09Z",
        "generator": ModelRef(name="demo-generator", file="demo-generator.gguf", sha256="a" * 64, size_bytes=2_700_000),
        "grader": ModelRef(name="demo-grader", file="demo-grader.gguf", sha256="b" * 64, size_bytes=2_700_000),
        "pass_score": 0.5,
        "sampling": Sampling(),
        "packages": {"gpurig": "0.1.0", "llama-cpp-python": "0.3.36"},
        "job": JobRef(),
        "samples": chosen,
        "metrics": (
            Metric(name="pass_rate", value=0.6, n=5, low=0.2307, high=0.8824),
            Metric(name="generated_rate", value=0.8, n=5, low=0.3755, high=0.9638),
            Metric(name="check_pass_rate.gitlab-ci", value=1.0, n=3, low=0.4385, high=1.0),
            Metric(name="grade_mean", value=0.6, n=5),
            Metric(name="tokens_per_second", value=123.456, n=4),
        ),
        "gate": Gate(passed=False, rules=(GateRule(metric="pass_rate", minimum=0.75, value=0.6, passed=False),)),
    }
    return Results(**fields | changes)
