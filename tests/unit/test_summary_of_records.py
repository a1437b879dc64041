from __future__ import annotations

from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.evaljobs.checks import parse_check
from gpurig.evaljobs.gate import apply_gate
from gpurig.evaljobs.records import Checked, CheckOutcome, Generation, Grade, ModelRef, Sampling
from gpurig.evaljobs.report.words import reasons
from gpurig.evaljobs.results import Metric, Results, read_results
from gpurig.evaljobs.store import RunRecords
from gpurig.evaljobs.suites.suite import GateRuleSpec, GeneratorSpec, GraderSpec, Sample, Suite
from gpurig.evaljobs.suites.trials import trials_of
from gpurig.evaljobs.summary import RunFacts, summarize
from hypothesis import given
from hypothesis import strategies as st

FACTS = RunFacts(started="2026-11-21T02:00:00Z", finished="2026-11-21T02:00:09Z", reused=1)
GENERATOR = ModelRef(name="gen", file="gen.gguf", sha256="a" * 64, size_bytes=1)
GRADER = ModelRef(name="judge", file="judge.gguf", sha256="b" * 64, size_bytes=1)
IDS = ("one", "two", "three", "four")


def suite(*, ids=IDS, grader=True, gate=(), checks=("yaml", {"contains": "image"})) -> Suite:
    return Suite.model_construct(
        version=1,
        name="ci-jobs",
        description="",
        generator=GeneratorSpec(model="gen"),
        grader=GraderSpec(model="judge", prompt="{{ output }}", verdicts={"good": 1.0, "bad": 0.0}) if grader else None,
        checks=tuple(parse_check(check) for check in checks),
        samples=tuple(Sample(id=name, input=f"write {name}") for name in ids),
        gate=tuple(gate),
        path=Path("suite.yaml"),
        sha256="5" * 64,
    )


def generation(name: str, **changes) -> Generation:
    fields = {
        "sample": name,
        "key": "k",
        "basis": "b",
        "model": GENERATOR,
        "prompt_sha256": "p",
        "sampling": Sampling(),
        "output": "image: x",
        "finish": "stop",
        "completion_tokens": 10,
        "seconds": 0.5,
        "packages": {"llama-cpp-python": "0.3.36"},
    }
    return Generation(**fields | changes)


def checked(name: str, *passed: bool) -> Checked:
    kinds = ("yaml", "contains")
    outcomes = tuple(
        CheckOutcome(check=kind, passed=ok, message="" if ok else "no") for kind, ok in zip(kinds, passed, strict=True)
    )
    return Checked(sample=name, key="k", basis="b", outcomes=outcomes)


def grade(name: str, score: float, **changes) -> Grade:
    fields = {
        "sample": name,
        "key": "k",
        "basis": "b",
        "model": GRADER,
        "prompt_sha256": "p",
        "verdict": "good",
        "score": score,
    }
    return Grade(**fields | changes)


def records(**changes) -> RunRecords:
    """`one` is good, `two` fails a check, `three` gets a bad grade, `four` was not generated."""
    fields = {
        "generations": {
            **{name: generation(name) for name in IDS[:3]},
            "four": generation(
                "four", output="", finish="error", error="context full", completion_tokens=0, seconds=0.0
            ),
        },
        "checks": {"one": checked("one", True, True), "two": checked("two", True, False)}
        | {"three": checked("three", True, True)},
        "grades": {"one": grade("one", 0.9), "two": grade("two", 0.8), "three": grade("three", 0.1, verdict="bad")},
    }
    return RunRecords(**fields | changes)


def run(the_suite: Suite | None = None, the_records: RunRecords | None = None) -> Results:
    the_suite = the_suite or suite()
    return summarize(the_suite, trials_of(the_suite), the_records or records(), FACTS)


def test_a_sample_passes_only_with_an_answer_all_checks_and_a_good_grade():
    assert {sample.id: sample.passed for sample in run().samples} == {
        "one": True,
        "two": False,
        "three": False,
        "four": False,
    }


def test_metrics_count_samples_and_carry_wilson_intervals():
    results = run()
    values = {metric.name: (metric.value, metric.n) for metric in results.metrics}
    assert values == {
        "pass_rate": (0.25, 4),
        "generated_rate": (0.75, 4),
        "check_pass_rate": (0.5, 4),
        "check_pass_rate.yaml": (0.75, 4),
        "check_pass_rate.contains": (0.5, 4),
        "graded_rate": (0.75, 4),
        "grade_mean": (pytest.approx(0.45), 4),
        "grade_pass_rate": (0.5, 4),
        "score_mean": (pytest.approx((2.9 / 3 + 1.8 / 3 + 2.1 / 3) / 4), 4),
        "tokens_per_second": (pytest.approx(20.0), 4),
    }
    assert (results.metric("pass_rate").low, results.metric("pass_rate").high) == pytest.approx(
        (0.0456, 0.6994), abs=1e-4
    )
    assert results.metric("grade_mean").low is None


def test_a_sample_without_an_answer_fails_every_check_it_would_have_had():
    outcomes = run().samples[3].checks
    assert [(outcome.check, outcome.passed) for outcome in outcomes] == [("yaml", False), ("contains", False)]


def test_a_grader_that_failed_on_a_sample_fails_it_and_counts_as_zero():
    results = run(the_records=records(grades=records().grades | {"one": grade("one", 0.9, error="no room")}))
    assert not results.samples[0].passed
    assert results.metric("grade_mean").value == pytest.approx(0.225)


def test_two_checks_of_one_kind_on_a_sample_count_as_one_sample():
    both = Checked(
        sample="one",
        key="k",
        basis="b",
        outcomes=(CheckOutcome(check="contains", passed=True), CheckOutcome(check="contains", passed=False)),
    )
    results = run(suite(ids=("one",)), records(checks={"one": both}))
    assert (results.metric("check_pass_rate.contains").value, results.metric("check_pass_rate.contains").n) == (0.0, 1)


def test_without_a_grader_grades_are_neither_asked_for_nor_shown():
    results = run(suite(grader=False), records(grades={}))
    assert results.samples[2].passed
    assert results.grader is None
    assert not [metric for metric in results.metrics if metric.name.startswith("grade")]


@pytest.mark.parametrize(("stage", "field"), [("generate", "generations"), ("check", "checks"), ("grade", "grades")])
def test_a_missing_record_names_the_sample_and_the_stage_to_run(stage, field):
    kept = dict(getattr(records(), field))
    del kept["two"]
    with pytest.raises(InputError) as caught:
        run(the_records=records(**{field: kept}))
    assert '"two"' in caught.value.message
    assert f"gpurig-job {stage}" in caught.value.hint


def test_records_of_two_models_are_refused():
    other = generation("two", model=GENERATOR.model_copy(update={"sha256": "c" * 64}))
    with pytest.raises(InputError, match="several models"):
        run(the_records=records(generations=records().generations | {"two": other}))


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_an_error_and_never_a_mean(score):
    with pytest.raises(InputError, match="grade_mean"):
        run(the_records=records(grades=records().grades | {"one": grade("one", score)}))


def test_times_too_small_to_divide_by_are_an_error_not_an_endless_speed():
    instant = {name: generation(name, seconds=5e-324) for name in IDS}
    with pytest.raises(InputError, match="tokens_per_second"):
        run(
            the_records=records(
                generations=instant,
                checks={n: checked(n, True, True) for n in IDS},
                grades={n: grade(n, 1.0) for n in IDS},
            )
        )


def test_a_run_in_which_nothing_could_be_generated_has_figures_and_fails_its_gate():
    dead = {
        name: generation(name, output="", finish="error", error="x", completion_tokens=0, seconds=0) for name in IDS
    }
    rules = [GateRuleSpec(metric="pass_rate", min=0.5), GateRuleSpec(metric="grade_mean", min=0.5)]
    results = run(suite(gate=rules), RunRecords(dead, {}, {}))
    assert not results.gate.passed
    assert results.metric("tokens_per_second").value == 0.0
    assert Results.model_validate_json(results.to_json()) == results


def test_results_survive_the_file_and_newer_fields_are_ignored(tmp_path):
    results = run(suite(gate=[GateRuleSpec(metric="pass_rate", min=0.2, max=0.9)]))
    file = tmp_path / "results.json"
    file.write_text(results.to_json().replace('"suite":', '"from_the_future": [1], "suite":', 1))
    assert read_results(file) == results


@pytest.mark.parametrize("content", ["", "{}", "[]", "nonsense", '{"schema": "gpurig.results/2"}'])
def test_a_file_that_is_no_results_file_is_named_with_its_field(tmp_path, content):
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(InputError, match=r"results\.json: "):
        read_results(file)


METRICS = (Metric(name="pass_rate", value=0.8, n=10, low=0.5, high=0.9), Metric(name="grade_mean", value=0.4, n=10))


@pytest.mark.parametrize(
    ("minimum", "maximum", "passes"),
    [(0.8, None, True), (0.81, None, False), (None, 0.8, True), (None, 0.79, False), (0.7, 0.9, True)],
)
def test_gate_limits_are_inclusive(minimum, maximum, passes):
    gate = apply_gate([GateRuleSpec(metric="pass_rate", min=minimum, max=maximum)], METRICS)
    assert gate.passed is passes
    assert gate.rules[0].passed is passes


def test_one_rule_that_fails_fails_the_gate():
    rules = [GateRuleSpec(metric="pass_rate", min=0.5), GateRuleSpec(metric="grade_mean", min=0.5)]
    gate = apply_gate(rules, METRICS)
    assert ([rule.passed for rule in gate.rules], gate.passed) == ([True, False], False)


def test_a_gate_without_rules_passes():
    assert apply_gate([], METRICS).passed


def test_an_unknown_metric_is_an_error_that_names_the_known_ones():
    with pytest.raises(InputError, match="pass_rate, grade_mean"):
        apply_gate([GateRuleSpec(metric="passrate", min=0.5)], METRICS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_metric_that_is_no_number_is_an_error_not_a_verdict(value):
    with pytest.raises(InputError, match="pass_rate"):
        apply_gate([GateRuleSpec(metric="pass_rate", min=0.5)], [Metric(name="pass_rate", value=value, n=1)])


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), min_size=1, max_size=12))
def test_every_share_lies_in_its_interval_and_the_pass_rate_counts_the_passed(outcomes):
    ids = tuple(f"s{index}" for index in range(len(outcomes)))
    made = RunRecords(
        {name: generation(name) for name in ids},
        {name: checked(name, a, b) for name, (a, b, _) in zip(ids, outcomes, strict=True)},
        {name: grade(name, score) for name, (_, _, score) in zip(ids, outcomes, strict=True)},
    )
    results = run(suite(ids=ids), made)
    assert results.metric("pass_rate").value == sum(a and b and s >= 0.5 for a, b, s in outcomes) / len(ids)
    for metric in results.metrics:
        if metric.low is not None:
            assert metric.low <= metric.value <= metric.high


def with_outcomes(*outcomes: CheckOutcome, score: float | None = None, **fields) -> Results:
    """The results of one sample with these outcomes and, where there is one, this grade."""
    sample_fields = {name: fields.pop(name) for name in ("threshold", "pass_score") if name in fields}
    the_suite = suite(grader=score is not None).model_copy(
        update={"samples": (Sample(id="one", input="x", **sample_fields.pop("sample", {}), **sample_fields),), **fields}
    )
    made = RunRecords(
        {"one": generation("one")},
        {"one": Checked(sample="one", key="k", outcomes=outcomes)},
        {} if score is None else {"one": grade("one", score)},
    )
    return run(the_suite, made)


def outcome(score: float | None = None, *, passed: bool = True, weight: float = 1.0, **figures: float) -> CheckOutcome:
    return CheckOutcome(check="yaml", passed=passed, score=score, weight=weight, figures=figures)


def test_the_score_is_the_mean_of_checks_and_grade_by_their_weights():
    results = with_outcomes(outcome(), outcome(passed=False, weight=3), outcome(0.5, weight=2))
    assert results.samples[0].score == pytest.approx((1 + 0 * 3 + 0.5 * 2) / 6)
    graded = with_outcomes(outcome(), outcome(passed=False), score=0.8, grade_weight=2.0)
    assert graded.samples[0].score == pytest.approx((1 + 0 + 2 * 0.8) / 4)
    assert graded.metric("score_mean").value == graded.samples[0].score


def test_without_a_threshold_a_high_score_does_not_pass_what_a_check_fails():
    results = with_outcomes(*[outcome()] * 9, outcome(passed=False))
    assert (results.samples[0].score, results.samples[0].passed) == (0.9, False)


@pytest.mark.parametrize(("threshold", "passes"), [(0.8, True), (0.81, False), (0.0, True), (1.0, False)])
def test_with_a_threshold_the_score_decides_and_the_threshold_itself_is_enough(threshold, passes):
    outcomes = (*[outcome(weight=0.1)] * 4, outcome(passed=False, weight=0.1))
    assert with_outcomes(*outcomes, threshold=threshold).samples[0].passed is passes


def test_a_samples_own_threshold_and_pass_score_go_before_the_suites():
    the_suite = suite(ids=("one", "two")).model_copy(update={"threshold": 0.9})
    own = the_suite.samples[0].model_copy(update={"threshold": 0.4, "pass_score": 0.95})
    the_suite = the_suite.model_copy(update={"samples": (own, the_suite.samples[1])})
    made = RunRecords(
        {name: generation(name) for name in ("one", "two")},
        {name: checked(name, True, False) for name in ("one", "two")},
        {name: grade(name, 0.9) for name in ("one", "two")},
    )
    results = run(the_suite, made)
    assert [(sample.threshold, sample.pass_score, sample.passed) for sample in results.samples] == [
        (0.4, 0.95, True),
        (0.9, 0.5, False),
    ]
    assert results.metric("grade_pass_rate").value == 0.5
    assert [*reasons(results.samples[0], 0.5)] == []
    assert next(reasons(results.samples[1], 0.5)) == "score 0.63 is below 0.9"


def test_a_sample_that_was_not_generated_fails_whatever_the_threshold():
    the_suite = suite(ids=("four",)).model_copy(update={"threshold": 0.0})
    (sample,) = run(the_suite, RunRecords({"four": records().generations["four"]}, {}, {})).samples
    assert (sample.score, sample.passed) == (0.0, False)


def test_weights_of_nothing_give_no_score_and_the_checks_decide():
    (sample,) = with_outcomes(outcome(weight=0), outcome(passed=False, weight=0), threshold=0.5).samples
    assert (sample.score, sample.passed) == (None, False)


def test_what_checks_measure_is_a_metric_over_the_samples_that_have_it():
    results = with_outcomes(outcome(bleu=0.25), outcome(bleu=0.75, words=12))
    assert results.samples[0].figures == {"bleu": 0.5, "words": 12}
    assert (results.metric("figure.bleu").value, results.metric("figure.words").value) == (0.5, 12)


def test_a_run_in_which_nothing_was_generated_is_a_result_with_zeros():
    failed = {
        name: generation(name, output="", finish="error", error="x", seconds=0, completion_tokens=0) for name in IDS
    }
    results = run(suite(gate=[GateRuleSpec(metric="grade_mean", min=0.1)]), RunRecords(failed, {}, {}))
    assert {metric.name: metric.value for metric in results.metrics if metric.value} == {}
    assert (results.gate.passed, results.grader) == (False, None)


def test_a_check_that_was_skipped_counts_in_no_rate_and_no_score() -> None:
    small = suite(ids=("one",), grader=False)
    skipped = CheckOutcome(check="contains", passed=True, message="nobody to ask", skipped=True)
    failed = CheckOutcome(check="yaml", passed=False, message="no")
    record = Checked(sample="one", key="k", basis="b", outcomes=(failed, skipped))
    run = RunRecords(generations={"one": generation("one")}, checks={"one": record}, grades={})
    results = summarize(small, trials_of(small), run, FACTS)
    assert results.metric("check_pass_rate.contains") is None
    assert results.metric("check_pass_rate").value == 0.0
    assert results.samples[0].score == 0.0
