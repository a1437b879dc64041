"""The figures of the model card, measured on the committed files by the code that a job runs."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.models.resolving import Search
from gpurig.evaljobs.engine import EngineSettings, context_size
from gpurig.evaljobs.grading.verdicts import grading_request, judge
from gpurig.evaljobs.llama import LlamaProvider
from gpurig.evaljobs.models import open_model
from gpurig.evaljobs.stages import RunSettings, check, generate, grade
from gpurig.evaljobs.statistics.agreement import cohen_kappa
from gpurig.evaljobs.statistics.calibration import truth_rates
from gpurig.evaljobs.store import read_records
from gpurig.evaljobs.suites.prompts import grader_prompt
from gpurig.evaljobs.suites.suite import Sample, Suite
from gpurig.evaljobs.suites.trials import trials_of

# More threads than free cores make models of this size slower by orders of magnitude.
THREADS = 1


@dataclass(frozen=True)
class GraderFigures:
    """How well a grader tells right answers from wrong ones.

    Attributes:
        true_positives, true_negatives: shares of the right answers it calls good, of the wrong ones it calls bad.
        kappa: Cohen's, agreement beyond chance.
        missed: wrong answers called good, by what is wrong with them, as (missed, all).
    """

    rows: int
    true_positives: float
    true_negatives: float
    kappa: float
    missed: dict[str, tuple[int, int]]
    seconds: float


@dataclass(frozen=True)
class SuiteFigures:
    """One run of the suite.

    Attributes:
        passed: every check passed and the grade suffices.
        checked: every check passed.
        exact: the answer is the reference, byte for byte.
        agreed: the grader's verdict is what the checks say.
    """

    samples: int
    passed: int
    checked: int
    exact: int
    agreed: int
    failures: tuple[str, ...]
    seconds: float


def read_calibration(path: Path) -> list[dict[str, str]]:
    """The rows of calibration.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def measure_grader(suite: Suite, rows: Sequence[dict[str, str]], models: Path) -> GraderFigures:
    """Grade the rows as the suite grades answers.

    Raises:
        ValueError: the suite has no grader, a row got no verdict, or all rows are good or all bad.
    """
    spec = suite.grader
    if spec is None:
        raise ValueError("the suite has no grader")
    model = open_model(spec.model, search=Search.of_folders(models), suite_folder=suite.folder)
    started = time.monotonic()
    requests = []
    for row in rows:
        sample = Sample(id=row["id"], input=row["input"])
        requests.append(
            grading_request(row["id"], grader_prompt(spec, sample, row["output"], model.gguf), spec.verdicts)
        )
    settings = EngineSettings(context_size(model, spec.context), THREADS)
    scores: dict[str, float] = {}
    with LlamaProvider().open(model, settings) as engine:
        for completion in engine.run(requests):
            verdict = judge(completion, spec.verdicts)
            if verdict.error:
                raise ValueError(f"{completion.id}: {verdict.error}")
            scores[completion.id] = verdict.score
    pairs = [(row["verdict"] == "good", scores[row["id"]] >= spec.pass_score) for row in rows]
    all_kinds = Counter(row["why"] for row in rows if row["why"])
    missed = Counter(row["why"] for row, (right, said) in zip(rows, pairs, strict=True) if said and not right)
    rates, kappa = truth_rates(pairs), cohen_kappa(pairs)
    positives, negatives = rates.true_positive.value, rates.true_negative.value
    if kappa is None or positives is None or negatives is None:
        raise ValueError("the rows need good and bad answers")
    return GraderFigures(
        rows=len(rows),
        true_positives=positives,
        true_negatives=negatives,
        kappa=kappa.value,
        missed={why: (missed[why], count) for why, count in sorted(all_kinds.items())},
        seconds=time.monotonic() - started,
    )


def measure_suite(suite: Suite, models: Path) -> SuiteFigures:
    """Generate, check and grade every sample."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        settings = RunSettings(
            suite=suite,
            trials=trials_of(suite),
            out=Path(folder),
            search=Search.of_folders(models),
            provider=LlamaProvider(),
            threads=THREADS,
            stream=io.StringIO(),
        )
        generate(settings)
        check(settings)
        grade(settings)
        records = read_records(Path(folder), suite)
    seconds = time.monotonic() - started
    passing = suite.grader.pass_score if suite.grader else 0.0
    passed = checked = exact = agreed = 0
    failures = []
    for sample in suite.samples:
        output = records.generations[sample.id].output
        wrong = [outcome for outcome in records.checks[sample.id].outcomes if not outcome.passed]
        said = records.grades[sample.id].score >= passing
        checked += not wrong
        passed += said and not wrong
        exact += output == sample.reference
        agreed += said == (not wrong)
        if wrong or not said:
            what = "; ".join(outcome.message for outcome in wrong) or "only the grader says no"
            failures.append(f"{sample.id} (score {records.grades[sample.id].score:.2f}): {what}")
    return SuiteFigures(len(suite.samples), passed, checked, exact, agreed, tuple(failures), seconds)
