"""Several generators and epochs: what is asked, what is kept, and what the answers of a sample come to."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.errors import InputError
from gpurig.evaljobs.engine import Completion, Request
from gpurig.evaljobs.gate import apply_gate
from gpurig.evaljobs.records import Generation
from gpurig.evaljobs.results import Metric, Results
from gpurig.evaljobs.stages import StageOutcome, generate, run_stages
from gpurig.evaljobs.statistics.reducers import Reducer, parse_reducer
from gpurig.evaljobs.store import CHECKS, GENERATIONS, GRADES, read_records, read_stage
from gpurig.evaljobs.suites.selection import Selection
from gpurig.evaljobs.suites.suite import GateRuleSpec, load_suite
from gpurig.evaljobs.suites.trials import select_trials, trials_of
from gpurig.evaljobs.summary import RunFacts, summarize
from hypothesis import given
from hypothesis import strategies as st
from standins.eval_box import EvalBox
from standins.scripted_engine import ScriptedProvider, by_hash
from standins.tiny_gguf import write_tiny_gguf

FACTS = RunFacts(started="2026-11-21T02:00:00Z", finished="2026-11-21T02:00:09Z")


@pytest.fixture
def box(tmp_path: Path) -> EvalBox:
    """Two samples, the generators small and large, three epochs."""
    box = EvalBox(tmp_path)
    write_tiny_gguf(box.models / "giant.gguf", seed=3)
    spec = box.data.pop("generator")
    box.data |= {
        "generators": {"small": spec, "large": {**spec, "model": "giant"}},
        "epochs": 3,
        "samples": box.data["samples"][:2],
    }
    box.save()
    return box


def results_of(box: EvalBox, provider: ScriptedProvider | None = None) -> Results:
    run_stages(box.settings(provider))
    suite = box.suite()
    return summarize(suite, trials_of(suite), read_records(box.out, suite), FACTS)


def test_every_sample_is_asked_of_every_generator_in_every_epoch(box: EvalBox) -> None:
    provider = ScriptedProvider()
    assert run_stages(box.settings(provider)) == 0
    names = [
        f"{sample}@{generator}{epoch}"
        for sample in ("s0", "s1")
        for generator in ("small", "large")
        for epoch in ("", "#2", "#3")
    ]
    records = read_records(box.out, box.suite())
    assert [*records.generations] == [*records.checks] == [*records.grades] == names
    last = records.generations["s1@large#3"]
    assert (last.sample, last.generator, last.epoch, last.model.name) == ("s1", "large", 3, "giant")


def test_each_model_is_loaded_once_one_after_the_other(box: EvalBox) -> None:
    provider = ScriptedProvider()
    run_stages(box.settings(provider))
    assert provider.opened == ["writer", "giant", "judge"]
    assert provider.most == 1


def test_generators_of_one_file_share_its_load_unless_their_contexts_differ(box: EvalBox) -> None:
    box.data["generators"]["large"] = {**box.data["generators"]["small"], "prompt": "Please: {{ input }}"}
    box.save()
    provider = ScriptedProvider()
    assert generate(box.settings(provider)).done == 12
    assert provider.opened == ["writer"]
    box.data["generators"]["large"]["context"] = 64
    box.save()
    assert generate(box.settings(provider)) == StageOutcome(reused=6, done=6, failed=0)
    assert provider.opened == ["writer", "writer"]


def test_an_epochs_seed_is_the_suites_and_its_number_and_stands_in_key_and_record(box: EvalBox) -> None:
    for spec in box.data["generators"].values():
        spec["sampling"] = {"temperature": 1, "seed": 7, "max_tokens": 12}
    box.save()
    seeds: dict[str, int] = {}

    def note(request: Request) -> Completion:
        seeds[request.id] = request.sampling.seed
        return by_hash(request)

    generate(box.settings(ScriptedProvider(answer=note)))
    assert [seeds[f"s0@small{epoch}"] for epoch in ("", "#2", "#3")] == [7, 8, 9]
    written = read_stage(box.out / GENERATIONS, Generation).finished()
    assert [written[f"s0@small{epoch}"].sampling.seed for epoch in ("", "#2", "#3")] == [7, 8, 9]
    assert len({record.key for record in written.values() if record.sample == "s0"}) == 6


def test_more_epochs_keep_those_that_are_there(box: EvalBox) -> None:
    run_stages(box.settings())
    box.data["epochs"] = {"n": 5, "reduce": "pass@2"}
    box.save()
    provider = ScriptedProvider()
    assert generate(box.settings(provider)) == StageOutcome(reused=12, done=8, failed=0)
    assert all(name.endswith(("#4", "#5")) for name in provider.asked)


def test_a_generator_that_broke_down_does_not_cost_the_others_answers(box: EvalBox) -> None:
    def breaks(request: Request) -> Completion:
        if "@large" in request.id:
            raise InputError("the second model broke down")
        return by_hash(request)

    with pytest.raises(InputError, match="broke down"):
        generate(box.settings(ScriptedProvider(answer=breaks)))
    again = ScriptedProvider()
    assert generate(box.settings(again)) == StageOutcome(reused=6, done=6, failed=0)
    assert again.opened == ["giant"]


def test_one_generator_and_one_epoch_keep_the_keys_of_before(tmp_path: Path) -> None:
    """What gpurig wrote before there were trials (commit f0f27b4) counts still."""
    box = EvalBox(tmp_path)
    box.data["samples"][1].update(vars={"n": 1}, tags=["a"], reference="r", checks=["yaml"])
    box.save()
    run_stages(box.settings())
    assert box.suite().sha256 == "5ea2ac9934b16493c5aeec4cb14a7e349d95f58b90e932856740bd96f8493227"
    generated = box.records(GENERATIONS)[2]
    assert generated["key"] == "592c7665ec73d4535e0294b6a91abe5429d4620ad242a45cdc10787074fcff0f"
    assert generated["basis"] == "9e237b79c786383f62b539346b35732e4890d2b3871eda4bb5df554ce3c51f97"
    assert box.records(GRADES)[2]["basis"] == "45e09e84de5f11494d505367ab2037ea0b37c0f153b9017a27cc1e7f2eead00c"


def test_records_without_generator_and_epoch_are_of_the_only_one_and_the_first(tmp_path: Path) -> None:
    box = EvalBox(tmp_path)
    run_stages(box.settings())
    for name in (GENERATIONS, CHECKS, GRADES):
        path = box.out / name
        path.write_text(path.read_text().replace('"generator":"","epoch":1,', ""))
        assert "epoch" not in path.read_text()
    provider = ScriptedProvider()
    assert run_stages(box.settings(provider)) == 5
    assert provider.asked == []


def test_every_generator_has_its_own_metrics_over_the_samples_not_the_epochs(box: EvalBox) -> None:
    results = results_of(box)
    assert [one.name for one in results.generators] == ["small", "large"]
    assert [one.model.name for one in results.generators] == ["writer", "giant"]
    assert (results.generator.name, results.epochs, results.reduce) == ("writer", 3, "mean")
    for generator in ("small", "large"):
        metric = results.metric("pass_rate", generator)
        assert metric is not None
        assert metric.n == 2
    assert results.metric("pass_rate") is None
    assert [sample.id for sample in results.samples[:2]] == ["s0@small", "s0@small#2"]
    assert {sample.of for sample in results.samples} == {"s0", "s1"}


def answers_good_in(*names: str) -> ScriptedProvider:
    def answer(request: Request) -> Completion:
        if request.choices:
            return by_hash(request)
        text = "job:\n  script: echo\n" if request.id in names else "no"
        return Completion(request.id, text, "stop", seconds=0.5)

    return ScriptedProvider(answer=answer)


@pytest.mark.parametrize(
    ("reduce", "value", "binary"),
    [
        ("mean", (2 / 3 + 1 / 3) / 2, False),
        ("pass@2", (1 + 2 / 3) / 2, False),
        ("pass@3", 1.0, True),
        ("pass^2", (1 / 3 + 0) / 2, False),
        ("pass^3", 0.0, True),
        ("at-least-2", 0.5, True),
    ],
)
def test_the_suites_reducer_makes_one_value_of_a_samples_epochs(
    box: EvalBox, reduce: str, value: float, binary: bool
) -> None:
    box.data["epochs"] = {"n": 3, "reduce": reduce}
    del box.data["grader"]
    box.save()
    results = results_of(box, answers_good_in("s0@small", "s0@small#3", "s1@small#2"))
    for name in ("pass_rate", "check_pass_rate", "check_pass_rate.contains"):
        metric = results.metric(name, "small")
        assert metric is not None
        assert metric.value == pytest.approx(value)
        # Wilson's interval is for values that are 0 or 1; the mean of three epochs is neither.
        assert (metric.low is not None) is binary
    generated = results.metric("generated_rate", "small")
    assert generated is not None
    assert generated.value == 1.0


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.integers(1, 7))
def test_pass_at_k_and_pass_all_k_are_the_shares_of_all_draws_of_k(outcomes: list[bool], k: int) -> None:
    if k > len(outcomes):
        for kind in ("pass@", "pass^", "at-least-"):
            with pytest.raises(ValueError, match="outcomes"):
                parse_reducer(f"{kind}{k}").reduce(outcomes)
        return
    draws = [*itertools.combinations(outcomes, k)]
    assert parse_reducer(f"pass@{k}").reduce(outcomes) == pytest.approx(sum(map(any, draws)) / len(draws))
    assert parse_reducer(f"pass^{k}").reduce(outcomes) == pytest.approx(sum(map(all, draws)) / len(draws))
    assert parse_reducer(f"at-least-{k}").reduce(outcomes) == (sum(outcomes) >= k)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.randoms())
def test_reducers_lie_in_0_to_1_and_do_not_care_for_order(outcomes: list[bool], random: Any) -> None:
    mixed = random.sample(outcomes, len(outcomes))
    for k in range(1, len(outcomes) + 1):
        values = [parse_reducer(f"{kind}{k}").reduce(outcomes) for kind in ("pass@", "pass^", "at-least-")]
        assert values == [parse_reducer(f"{kind}{k}").reduce(mixed) for kind in ("pass@", "pass^", "at-least-")]
        assert all(0.0 <= value <= 1.0 for value in values)
    mean = Reducer().reduce(outcomes)
    assert math.isclose(parse_reducer("pass@1").reduce(outcomes), mean)
    assert math.isclose(parse_reducer("pass^1").reduce(outcomes), mean)


@pytest.mark.parametrize("text", ["", "pass@k", "pass@0", "pass@1.5", "pass@-1", "max", "pass@", "at-least", "Mean"])
def test_what_is_no_reducer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no reducer"):
        parse_reducer(text)


@pytest.mark.parametrize("text", ["mean", "pass@3", "pass^12", "at-least-2"])
def test_a_reducer_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_reducer(text)) == text


def test_trials_are_selected_by_sample_in_the_suites_order(box: EvalBox) -> None:
    suite = box.suite()
    assert [trial.id for trial in select_trials(suite, Selection(only=("s1",)))][:2] == ["s1@small", "s1@small#2"]
    assert {trial.sample.id for trial in select_trials(suite, Selection(limit=1))} == {"s0"}
    with pytest.raises(InputError, match='no sample "nope"'):
        select_trials(suite, Selection(only=("nope",)))


def test_a_run_of_one_generator_is_judged_by_the_rules_about_it(box: EvalBox) -> None:
    box.data["gate"] = [
        {"metric": "pass_rate", "generator": "small", "min": 0},
        {"metric": "pass_rate", "generator": "large", "min": 0},
        {"metric": "generated_rate", "min": 1},
    ]
    box.save()
    suite = box.suite()
    trials = select_trials(suite, Selection(generators=("large",)))
    run_stages(box.settings(trials=trials))
    results = summarize(suite, trials, read_records(box.out, suite), FACTS)
    assert [(rule.metric, rule.generator) for rule in results.gate.rules] == [
        ("pass_rate", "large"),
        ("generated_rate", "large"),
    ]


METRICS = tuple(
    Metric(name=name, generator=generator, value=value, n=10)
    for name, generator, value in (("pass_rate", "small", 0.6), ("pass_rate", "large", 0.9), ("speed", "large", 3.0))
)


def test_a_rule_without_a_generator_is_held_against_every_one() -> None:
    gate = apply_gate([GateRuleSpec(metric="pass_rate", min=0.8)], METRICS)
    assert [(rule.generator, rule.passed) for rule in gate.rules] == [("small", False), ("large", True)]
    assert not gate.passed


def test_a_rule_of_a_generator_is_held_against_that_one_alone() -> None:
    gate = apply_gate([GateRuleSpec(metric="pass_rate", generator="large", min=0.8)], METRICS)
    assert [(rule.generator, rule.passed) for rule in gate.rules] == [("large", True)]


def test_a_metric_that_one_generator_lacks_is_an_error_not_a_pass() -> None:
    with pytest.raises(InputError, match="did not measure"):
        apply_gate([GateRuleSpec(metric="speed", min=0.8)], METRICS)
    with pytest.raises(InputError, match='of the generator "tiny"'):
        apply_gate([GateRuleSpec(metric="pass_rate", generator="tiny", min=0.8)], METRICS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"generator": {"model": "writer"}}, "generators: give generator or generators, not both"),
        ({"generators": {}}, "generator: is missing: say which model answers"),
        ({"generators": {"a b": {"model": "writer"}}}, "must be letters, digits"),
        ({"generators": {"a": {"modle": "writer"}}}, 'generators.a.modle: unknown key; did you mean "model"?'),
        ({"generators": ["writer"]}, "generators: must be a mapping, not a list"),
        ({"epochs": 0}, "epochs: must be at least 1, not 0"),
        ({"epochs": True}, "epochs: must be a whole number, or a mapping"),
        ({"epochs": {"n": 1.5}}, "epochs.n: must be a whole number, not 1.5"),
        ({"epochs": {"n": 3, "reduce": "max"}}, 'epochs.reduce: "max" is no reducer'),
        ({"epochs": {"n": 3, "reduce": "pass@4"}}, 'epochs: reduce: "pass@4" needs at least 4 epochs, and n is 3'),
        ({"epochs": {"reduce": "mean", "m": 1}}, "epochs.m: unknown key"),
        ({"gate": [{"metric": "pass_rate", "generator": "larg", "min": 0}]}, 'generator "larg"; did you mean "large"?'),
        (
            {"generators": {"a": {"model": "writer", "sampling": {"seed": 2**32 - 2}}}},
            "generators.a.sampling.seed: the seeds of 3 epochs must all be under 4294967296",
        ),
    ],
)
def test_a_mistake_in_generators_or_epochs_is_named(box: EvalBox, change: dict[str, Any], says: str) -> None:
    box.data |= change
    box.save()
    with pytest.raises(InputError) as caught:
        load_suite(box.root)
    assert says in str([caught.value.message, *caught.value.details])
