"""A run against a baseline: pairs by sample, changes, demands of the gate, and how often they are wrong."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from gpurig.common.errors import GateFailedError, InputError
from gpurig.evaljobs import stages
from gpurig.evaljobs.__main__ import cli
from gpurig.evaljobs.comparing.baseline import read_baseline
from gpurig.evaljobs.comparing.compare import compare, paired
from gpurig.evaljobs.comparing.demands import with_relative
from gpurig.evaljobs.comparing.values import sample_values
from gpurig.evaljobs.engine import Completion, Request
from gpurig.evaljobs.findings import BaselineRef
from gpurig.evaljobs.reporting import run_report
from gpurig.evaljobs.results import Gate, Metric, Results, SampleResult
from gpurig.evaljobs.suites.suite import GateRuleSpec
from gpurig.evaljobs.suites.trials import trials_of
from hypothesis import given
from hypothesis import strategies as st
from standins.ab_runs import NO_REGRESSION, claimed_power, failing_rate
from standins.eval_box import EvalBox, suite_data
from standins.evalrun import results, sample
from standins.scripted_engine import ScriptedProvider

HERE = BaselineRef(source="file", name="before")


def run(*passed: bool, **changes: Any) -> Results:
    made = tuple(
        sample(f"s{number}").model_copy(update={"passed": one, "score": None}) for number, one in enumerate(passed)
    )
    return results(made, **changes)


def gate(rule: GateRuleSpec, then: Results | None, now: Results) -> Gate:
    metric = Metric(name="pass_rate", value=0.5, n=1)
    return with_relative(Gate(passed=True), [rule], [metric], None if then is None else paired(now, then))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_a_metric_is_the_mean_of_its_values(pairs: list[tuple[bool, bool]]) -> None:
    now = run(*(after for _, after in pairs))
    values = sample_values(now, "")["pass_rate"]
    assert sum(values.values()) / len(values) == pytest.approx(sum(after for _, after in pairs) / len(pairs))
    found = compare(now, run(*(before for before, _ in pairs)), HERE)
    change = found.changes[0]
    assert (change.metric, change.n, change.test) == ("pass_rate", len(pairs), "mcnemar")
    assert change.after - change.before == pytest.approx(sum(b - a for a, b in pairs) / len(pairs))
    assert len(found.regressions) == sum(before and not after for before, after in pairs)
    assert len(found.improvements) == sum(after and not before for before, after in pairs)


@pytest.mark.parametrize("epochs", [None, {"n": 3, "reduce": "pass@2"}])
def test_every_metric_of_a_real_run_is_the_mean_of_its_sample_values(tmp_path: Path, epochs: Any) -> None:
    data = suite_data(9)
    if epochs:
        data["epochs"] = epochs
    box = EvalBox(tmp_path, data)
    stages.run_stages(box.settings(ScriptedProvider()))
    found = run_report(box.suite(), box.out, trials=trials_of(box.suite()))
    values = sample_values(found, "")
    told = {metric.name: metric.value for metric in found.metrics}
    assert values.keys() == told.keys() - {"tokens_per_second"}
    for name, of_samples in values.items():
        assert sum(of_samples.values()) / len(of_samples) == pytest.approx(told[name]), name


def test_samples_that_ask_something_else_or_have_no_partner_are_left_out_and_told() -> None:
    then = run(True, True, True, True)
    edited = then.samples[1].model_copy(update={"input": "another question"})
    new = sample("new").model_copy(update={"passed": False})
    now = then.model_copy(update={"samples": (then.samples[0], edited, new), "suite_sha256": "other"})
    found = compare(now, then, HERE)
    assert found.changes[0].n == 1
    assert (found.only_here, found.only_there) == (("new",), ("s2", "s3"))
    told = " | ".join(found.remarks)
    assert "1 sample with another question" in told
    assert "the suite has changed since the baseline" in told


def test_runs_without_a_common_sample_compare_nothing_and_say_so() -> None:
    now = run(True).model_copy(update={"samples": (sample("other"),)})
    found = compare(now, run(True), HERE)
    assert found.changes == ()
    assert any("nothing can be compared" in remark for remark in found.remarks)


def test_generators_are_paired_by_name_and_single_ones_whatever_they_are_called() -> None:
    def named(result: Results, name: str) -> Results:
        return result.model_copy(
            update={"samples": tuple(one.model_copy(update={"generator": name}) for one in result.samples)}
        )

    one, other = run(True, False), run(False, False)
    assert compare(named(one, "a"), named(other, "b"), HERE).changes[0].n == 2
    both = one.model_copy(update={"samples": named(one, "a").samples + named(one, "b").samples})
    found = compare(both, named(other, "a"), HERE)
    assert {change.generator for change in found.changes} == {"a"}
    assert any("no generator b" in remark for remark in found.remarks)


def test_the_worst_regression_comes_first() -> None:
    def scored(*values: float) -> Results:
        made: tuple[SampleResult, ...] = tuple(
            sample(f"s{number}").model_copy(update={"passed": value >= 0.5, "score": value, "output": f"was {value}"})
            for number, value in enumerate(values)
        )
        return results(made)

    found = compare(scored(0.4, 0.9, 0.1), scored(0.6, 0.95, 0.9), HERE)
    assert [change.id for change in found.regressions] == ["s2", "s0", "s1"]
    assert found.regressions[0].was_output == "was 0.9"


def test_a_clear_loss_fails_and_noise_and_a_gain_pass() -> None:
    good, bad = run(*[True] * 40), run(*[True] * 25, *[False] * 15)
    failed = gate(NO_REGRESSION, good, bad)
    assert (failed.passed, failed.reason) == (False, "regression")
    assert failed.rules[0].p is not None
    assert failed.rules[0].p < 0.001
    assert "-37.5 points since the baseline (40 samples)" in failed.rules[0].reason
    assert gate(NO_REGRESSION, bad, good).passed
    assert gate(NO_REGRESSION, good, run(*[True] * 38, *[False] * 2)).passed


@pytest.mark.parametrize(("missing", "passed"), [("pass", True), ("fail", False)])
def test_without_a_baseline_the_rule_comes_to_what_the_suite_says(missing: Any, passed: bool) -> None:
    found = gate(NO_REGRESSION.model_copy(update={"missing_baseline": missing}), None, run(True))
    assert found.passed == passed
    assert found.rules[0].reason == "there is no baseline to compare with"


def test_non_inferiority_has_to_be_shown() -> None:
    rule = GateRuleSpec(metric="pass_rate", margin=0.1)
    few, many = run(*[True] * 8, *[False] * 2), run(*[True] * 240, *[False] * 60)
    assert not gate(rule, few, few).passed, "ten samples show nothing"
    assert "cannot be ruled out" in gate(rule, few, few).rules[0].reason
    assert gate(rule, many, many).passed


def test_a_metric_that_the_baseline_lacks_is_said_so() -> None:
    metric = Metric(name="check_pass_rate.yaml", value=0.5, n=1)
    rule = GateRuleSpec(metric="check_pass_rate.yaml", no_regression=True, missing_baseline="fail")
    found = with_relative(Gate(passed=True), [rule], [metric], {})
    assert (found.passed, found.rules[0].reason) == (False, "the baseline has no check_pass_rate.yaml")


def test_of_what_should_be_small_the_reason_has_its_own_sign_and_unit() -> None:
    metric = Metric(name="figure.seconds", value=3.0, n=30)
    rule = GateRuleSpec(metric="figure.seconds", no_regression=True)
    pairs = {("", "figure.seconds"): [(1.0, 3.0 + number / 100) for number in range(30)]}
    found = with_relative(Gate(passed=True), [rule], [metric], pairs)
    assert not found.passed
    assert found.rules[0].reason.startswith("+2.15 of it since the baseline (30 samples)")


def test_a_few_scores_that_did_not_move_show_no_non_inferiority() -> None:
    rule, metric = GateRuleSpec(metric="grade_mean", margin=0.1), [Metric(name="grade_mean", value=0.5, n=1)]
    for count, passed in ((5, False), (100, True)):
        pairs = {("", "grade_mean"): [(0.5, 0.5)] * count}
        assert with_relative(Gate(passed=True), [rule], metric, pairs).passed == passed


def test_a_metric_of_the_whole_run_has_no_relative_rule() -> None:
    with pytest.raises(ValueError, match="no value of each sample"):
        GateRuleSpec(metric="tokens_per_second", no_regression=True)


@pytest.mark.parametrize(
    "fields",
    [{}, {"no_regression": True, "min": 0.5}, {"no_regression": True, "margin": 0.1}, {"margin": 0.1, "max": 1.0}],
)
def test_a_rule_is_of_one_kind(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give min"):
        GateRuleSpec(metric="pass_rate", **fields)


@pytest.mark.parametrize("changing", [0.05, 0.2, 0.4])
def test_a_run_that_is_no_worse_fails_at_most_one_time_in_twenty(changing: float) -> None:
    rate = failing_rate(2000, 100, lost=changing / 2, gained=changing / 2, seed=7)
    assert rate <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


def test_a_loss_of_ten_points_on_a_hundred_samples_is_found_with_the_power_that_is_claimed() -> None:
    claimed = claimed_power(100, lost=0.15, gained=0.05)
    found = failing_rate(2000, 100, lost=0.15, gained=0.05, seed=8)
    # Three standard errors of 2,000 draws.
    assert found == pytest.approx(claimed, abs=3 * (claimed * (1 - claimed) / 2000) ** 0.5)


def box_with(tmp_path: Path, gate_rules: list[dict[str, Any]]) -> EvalBox:
    data = suite_data(30)
    data["gate"] = gate_rules
    del data["grader"]
    return EvalBox(tmp_path, data)


def broken(request: Request) -> Completion:
    return Completion(request.id, "no CI at all", "stop", prompt_tokens=3, completion_tokens=5, seconds=0.5)


def test_a_run_is_compared_with_its_baseline_and_fails_where_it_lost(tmp_path: Path) -> None:
    box = box_with(tmp_path, [{"metric": "pass_rate", "no_regression": True}])
    stages.run_stages(box.settings(ScriptedProvider()))
    first = run_report(box.suite(), box.out, trials=trials_of(box.suite()))
    assert first.gate.passed
    assert first.gate.rules[0].reason == "there is no baseline to compare with"
    kept = tmp_path / "kept"
    box.out.rename(kept)
    stages.run_stages(box.settings(ScriptedProvider(broken)))
    second = run_report(box.suite(), box.out, trials=trials_of(box.suite()), baseline=read_baseline(kept))
    assert (second.gate.passed, second.gate.reason) == (False, "regression")
    assert second.comparison is not None
    assert len(second.comparison.regressions) == 30
    again = run_report(box.suite(), box.out, trials=trials_of(box.suite()), baseline=read_baseline(box.out))
    assert again.gate.passed
    done = CliRunner().invoke(cli, ["compare", str(kept), str(box.out)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "WORSE" in done.output
    assert "30 samples worse, the first 5:" in done.output
    failed = CliRunner().invoke(cli, ["compare", str(kept), str(box.out), "--fail-on-regression"])
    assert isinstance(failed.exception, GateFailedError)


def test_a_baseline_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, text in (("none", None), ("empty", ""), ("other", '{"schema": "gpurig.results/9"}'), ("list", "[]")):
        path = tmp_path / f"{name}.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(InputError) as caught:
            read_baseline(path)
        assert "\n" not in str(caught.value)
    part = tmp_path / "part.json"
    part.write_text(run(True, shard="1/2").to_json())
    with pytest.raises(InputError, match="is the part 1/2 of a run"):
        read_baseline(part)


def test_hostile_ids_and_remarks_reach_no_terminal(tmp_path: Path) -> None:
    evil = "x\x1b[31m"
    for name, passed in (("a", True), ("b", False)):
        one = sample("s0").model_copy(update={"id": evil, "sample": evil, "passed": passed})
        (tmp_path / f"{name}.json").write_text(results((one,), suite="suite\x1b[2J" + name).to_json())
    done = CliRunner().invoke(cli, ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output


def test_two_equal_runs_differ_in_nothing() -> None:
    draw = random.Random(3)
    one = run(*(draw.random() < 0.5 for _ in range(50)))
    found = compare(one, one, HERE)
    assert all((change.after, change.p, change.p_adjusted) == (change.before, 1.0, 1.0) for change in found.changes)
    assert (found.regressions, found.improvements, found.only_here, found.only_there) == ((), (), (), ())
