"""What results.json says beyond the run itself: how it compares with a baseline, and how fit its judges are."""

from __future__ import annotations

from typing import Literal

from gpurig.evaljobs.records import Part


class BaselineRef(Part):
    """What the run was compared with.

    Attributes:
        source: "file", "branch" (the target branch's last artifact), "pinned".
        name: the file, the branch, or the pinned job.
        url: where a person finds it; may be empty.
    """

    source: Literal["file", "branch", "pinned"]
    name: str
    url: str = ""
    suite_sha256: str = ""
    started: str = ""
    commit_sha: str = ""


class MetricChange(Part):
    """One metric of this run against the baseline's, over the samples that both have.

    Attributes:
        n: samples compared.
        before, after: the values over these samples alone.
        low, high: the 95 % interval of the difference `after - before`.
        test: how `p` was computed: "mcnemar", "permutation", "bootstrap".
        p: two-sided probability of such a difference by chance; None where nothing can be compared.
        p_adjusted: after Holm's correction over the run's metrics.
        effect: its size in standard deviations of the paired differences; None where there are none.
        detectable: the least loss that these samples would have shown, with 80 % probability; None if unknown.
        worse: whether more is worse of this metric (seconds, joules).
    """

    metric: str
    generator: str = ""
    n: int
    before: float
    after: float
    low: float | None = None
    high: float | None = None
    test: str = ""
    p: float | None = None
    p_adjusted: float | None = None
    effect: float | None = None
    detectable: float | None = None
    worse: bool = False


class SampleChange(Part):
    """A sample that came out differently than in the baseline."""

    id: str
    was_passed: bool
    passed: bool
    was_score: float | None = None
    score: float | None = None
    was_output: str = ""


class Comparison(Part):
    """This run against a baseline, paired by sample.

    Attributes:
        regressions, improvements: the largest first.
        only_here, only_there: samples without a partner, by id.
        remarks: what a reader has to know: another version of the suite, few samples.
    """

    baseline: BaselineRef
    changes: tuple[MetricChange, ...] = ()
    regressions: tuple[SampleChange, ...] = ()
    improvements: tuple[SampleChange, ...] = ()
    only_here: tuple[str, ...] = ()
    only_there: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Floor(Part):
    """What the suite demands of a judge, and what it has."""

    metric: str
    minimum: float | None = None
    maximum: float | None = None
    value: float | None
    passed: bool


class JudgeFitness(Part):
    """How far a grader agrees with people, on its calibration set.

    Attributes:
        n: verdicts compared.
        kappa: Cohen's, with its 95 % interval.
        true_positive_rate, true_negative_rate: of answers that people found good, and bad.
        calibration_error: expected calibration error of its probabilities, 0 ... 1.
        corrupted: good answers that were spoilt on purpose; `corrupted_rejected_rate`: the share that it found bad;
            `corrupted_passed`: the first that it let pass.
        errors: answers to which it could not give a verdict; each counts as a wrong one.
        disagreements: the first answers on which it and people differ.
        fit: every floor is met.
    """

    n: int
    kappa: float
    kappa_low: float | None = None
    kappa_high: float | None = None
    true_positive_rate: float | None = None
    true_negative_rate: float | None = None
    true_positive_low: float | None = None
    true_positive_high: float | None = None
    true_negative_low: float | None = None
    true_negative_high: float | None = None
    calibration_error: float | None = None
    corrupted: int = 0
    corrupted_rejected_rate: float | None = None
    corrupted_passed: tuple[str, ...] = ()
    errors: int = 0
    disagreements: tuple[str, ...] = ()
    floors: tuple[Floor, ...] = ()
    fit: bool
