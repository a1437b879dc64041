"""Calibration: how far a grader agrees with people, and what becomes of a run whose grader does not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.errors import InputError
from gpurig.evaljobs import stages
from gpurig.evaljobs.engine import Completion, Request
from gpurig.evaljobs.gate import judged
from gpurig.evaljobs.grading.calibration import CalibrationItem, calibration_items, fitness
from gpurig.evaljobs.grading.corruptions import ATTACKS, CORRUPTIONS, corrupted
from gpurig.evaljobs.records import Grade, ModelRef
from gpurig.evaljobs.report.judges import judge_rows, unfit
from gpurig.evaljobs.report.terminal import terminal_summary
from gpurig.evaljobs.reporting import run_report
from gpurig.evaljobs.results import Gate, GateRule
from gpurig.evaljobs.suites.suite import CalibrationSpec, GraderSpec, Sample
from gpurig.evaljobs.suites.trials import trials_of
from hypothesis import given
from hypothesis import strategies as st
from standins.eval_box import EvalBox, suite_data
from standins.scripted_engine import ScriptedProvider, by_hash

GRADER = GraderSpec(model="judge", prompt="{{ output }}", verdicts={"good": 1.0, "partly": 0.6, "bad": 0.0})
LINES = [
    {"id": f"a{number}", "input": "write", "output": f"answer {number}", "verdict": "good" if number % 2 else "bad"}
    for number in range(20)
]


@pytest.fixture
def box(tmp_path: Path) -> EvalBox:
    data = suite_data()
    data["grader"]["calibration"] = {"file": "people.jsonl", "corruptions": 10, "floors": {"kappa": 0.8}}
    made = EvalBox(tmp_path, data)
    write(made, LINES)
    return made


def write(box: EvalBox, lines: list[dict[str, Any]]) -> None:
    (box.root / "people.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def knows(request: Request) -> Completion:
    """A grader that agrees with people, and finds what is spoilt bad."""
    if not request.choices:
        return by_hash(request)
    text = request.prompt.split("\n", 1)[-1].removesuffix("\nverdict:")
    number = text.removeprefix("answer ")
    good = number.isdigit() and int(number) % 2 == 1
    scores = {choice: 0.0 if (choice.strip() == "good") == good else -9.0 for choice in request.choices}
    return Completion(request.id, "good" if good else "bad", "stop", choices=scores)


def grade(item: CalibrationItem, score: float, error: str = "") -> Grade:
    model = ModelRef(name="judge", file="judge.gguf", sha256="0", size_bytes=1)
    return Grade(
        sample=item.id, key="", model=model, prompt_sha256="", verdict="" if error else "good", score=score, error=error
    )


def items_of(*values: float, corruption: str = "") -> list[CalibrationItem]:
    return [
        CalibrationItem(Sample(id=f"{corruption}i{number}", input=""), "", value, corruption)
        for number, value in enumerate(values)
    ]


def test_a_grader_that_agrees_is_fit_and_one_that_guesses_is_not():
    items = items_of(*[1.0, 0.0] * 50)
    spec = GRADER.model_copy(update={"calibration": CalibrationSpec(file="x", floors={"kappa": 0.6})})
    agrees = fitness(spec, items, {item.id: grade(item, item.value) for item in items})
    assert (agrees.kappa, agrees.true_positive_rate, agrees.true_negative_rate, agrees.fit) == (1.0, 1.0, 1.0, True)
    draw = random.Random(1)
    guesses = fitness(spec, items, {item.id: grade(item, draw.random()) for item in items})
    assert abs(guesses.kappa) < 0.3
    assert not guesses.fit
    assert [(floor.metric, floor.passed) for floor in guesses.floors] == [("kappa", False)]
    assert unfit([guesses]).startswith("the grader is unfit: agreement with people (kappa) ")
    assert unfit([agrees]) == ""


def test_a_grader_that_says_good_to_everything_has_no_agreement_and_no_true_negatives():
    items = items_of(*[1.0] * 90, *[0.0] * 10)
    judge = fitness(GRADER, items, {item.id: grade(item, 1.0) for item in items})
    assert (judge.kappa, judge.true_positive_rate, judge.true_negative_rate) == (0.0, 1.0, 0.0)
    assert judge.disagreements == tuple(item.id for item in items[90:])


def test_a_verdict_that_is_missing_counts_as_the_wrong_one():
    items = items_of(1.0, 1.0, 0.0, 0.0)
    grades = {item.id: grade(item, item.value) for item in items}
    grades["i0"], grades["i3"] = grade(items[0], 0.0, "no verdict"), grade(items[3], 0.0, "no verdict")
    judge = fitness(GRADER, items, grades)
    assert (judge.errors, judge.true_positive_rate, judge.true_negative_rate) == (2, 0.5, 0.5)


def test_spoilt_answers_count_for_their_own_rate_alone():
    items = items_of(1.0, 0.0)
    spoilt = items_of(0.0, 0.0, 0.0, 0.0, corruption="cut")
    spec = GRADER.model_copy(
        update={"calibration": CalibrationSpec(file="x", corruptions=4, floors={"corrupted_rejected_rate": 0.9})}
    )
    grades = {item.id: grade(item, item.value) for item in items}
    grades |= {item.id: grade(item, float(number == 0)) for number, item in enumerate(spoilt)}
    judge = fitness(spec, [*items, *spoilt], grades)
    assert (judge.n, judge.corrupted, judge.kappa, judge.corrupted_rejected_rate) == (2, 4, 1.0, 0.75)
    assert judge.corrupted_passed == ("cuti0",)
    assert not judge.fit


def test_a_floor_on_what_should_be_small_is_a_ceiling():
    items = items_of(1.0, 0.0)
    spec = GRADER.model_copy(update={"calibration": CalibrationSpec(file="x", floors={"calibration_error": 0.2})})
    sure = fitness(spec, items, {item.id: grade(item, item.value) for item in items})
    unsure = fitness(spec, items, {item.id: grade(item, 0.5 + item.value / 10) for item in items})
    assert (sure.calibration_error, sure.fit) == (0.0, True)
    assert (unsure.calibration_error, unsure.fit) == (pytest.approx(0.45), False)
    assert ["≤ 0.2" in row for row in judge_rows(unsure)].count(True) == 1


@given(
    st.sampled_from(sorted(CORRUPTIONS)),
    st.text(max_size=300),
    st.integers(0, 50),
    st.sampled_from(["good", "yes", "10"]),
)
def test_a_corruption_is_another_text_and_the_same_one_every_time(kind, answer, seed, best):
    spoilt = corrupted(kind, "a/1", answer, best=best, seed=seed)
    assert spoilt == corrupted(kind, "a/1", answer, best=best, seed=seed)
    if len(answer.split()) > 3:
        assert spoilt != answer


def test_every_attack_names_the_verdict_that_it_wants():
    assert all("{best}" in attack for attack in ATTACKS)
    wanted = {corrupted("attack", f"a/{number}", "x", best="splendid", seed=1) for number in range(60)}
    assert len(wanted) == len(ATTACKS)
    assert all("splendid" in text for text in wanted)


def test_the_set_is_read_with_people_in_the_suites_words_and_in_plain_ones(box: EvalBox):
    verdicts = {"good": 1.0, "bad": 0.0, "pass": 1.0, "fail": 0.0, True: 1.0, False: 0.0, 0.25: 0.25}
    write(box, [{"id": f"i{number}", "output": "", "verdict": word} for number, word in enumerate(verdicts)])
    items = [item for item in calibration_items(box.suite()) if not item.corruption]
    assert [item.value for item in items] == list(verdicts.values())


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ('{"id": "x", "output": "y"}', "people.jsonl:21: verdict: is missing"),
        (
            '{"id": "x", "output": "y", "verdict": "fine"}',
            'people.jsonl:21: verdict: "fine" is none of good, pass, bad',
        ),
        ('{"id": "x", "output": "y", "verdict": 7}', "people.jsonl:21: verdict: must be from 0 to 1, not 7"),
        ('{"id": "a3", "output": "y", "verdict": 1}', 'people.jsonl:21: id: "a3" is there twice, first in line 4'),
        ('{"id": "../x", "output": "y", "verdict": 1}', "people.jsonl:21: id: "),
        ("{", "people.jsonl:21: "),
        ("[]", "people.jsonl:21: "),
    ],
)
def test_a_wrong_line_is_named(box: EvalBox, line: str, where: str):
    with (box.root / "people.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError) as caught:
        calibration_items(box.suite())
    assert where in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(("verdict", "word"), [("good", "every"), ("bad", "no")])
def test_a_set_with_one_kind_of_answer_tells_nothing(box: EvalBox, verdict: str, word: str):
    write(box, [line | {"verdict": verdict} for line in LINES])
    with pytest.raises(InputError, match=f"{word} answer is good by people's verdicts"):
        calibration_items(box.suite())


def test_a_last_line_without_its_end_counts(box: EvalBox):
    path = box.root / "people.jsonl"
    path.write_text(path.read_text().removesuffix("\n"))
    assert sum(not item.corruption for item in calibration_items(box.suite())) == len(LINES)


def test_a_missing_set_is_said_before_anything_is_generated(box: EvalBox):
    (box.root / "people.jsonl").unlink()
    provider = ScriptedProvider()
    with pytest.raises(InputError, match=r"grader\.calibration: there is no file"):
        stages.run_stages(box.settings(provider))
    assert provider.opened == []


def test_only_grading_and_reporting_need_the_set(box: EvalBox):
    (box.root / "people.jsonl").unlink()
    settings = box.settings(ScriptedProvider())
    stages.generate(settings)
    stages.check(settings)
    with pytest.raises(InputError, match="there is no file"):
        stages.grade(settings)


def test_one_load_of_the_grader_serves_calibration_and_grading_and_nothing_is_done_twice(box: EvalBox):
    provider = ScriptedProvider(knows)
    stages.run_stages(box.settings(provider))
    assert provider.opened == ["writer", "judge"]
    assert len(box.records("calibration.jsonl")) == 1 + 30
    again = ScriptedProvider(knows)
    stages.run_stages(box.settings(again))
    assert again.opened == []


def test_only_an_edited_answer_is_judged_again(box: EvalBox):
    stages.run_stages(box.settings(ScriptedProvider(knows)))
    write(box, [LINES[0] | {"output": "answer 100"}, *LINES[1:]])
    again = ScriptedProvider(knows)
    stages.calibrate(box.settings(again))
    assert again.asked == ["a0"]


def test_an_unfit_grader_fails_the_run_with_that_reason_and_a_fit_one_does_not(box: EvalBox):
    stages.run_stages(box.settings(ScriptedProvider(knows)))
    fit = run_report(box.suite(), box.out, trials=trials_of(box.suite()))
    assert (fit.gate.passed, fit.gate.reason, fit.judges[0].fit) == (True, "", True)
    box.data["grader"]["prompt"] = "another way\n{{ output }}\nverdict:"
    box.save()
    stages.run_stages(box.settings(ScriptedProvider()))
    results = run_report(box.suite(), box.out, trials=trials_of(box.suite()))
    assert (results.gate.passed, results.gate.reason, results.judges[0].fit) == (False, "judge", False)
    shown = terminal_summary(results, "report")
    assert "UNFIT" in shown
    assert "Gate FAILED (unfit grader)" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_the_unfit_judge_comes_before_every_other_reason():
    failed = Gate(passed=False, reason="threshold", rules=(GateRule(metric="pass_rate", value=0, passed=False),))
    items = items_of(1.0, 0.0)
    spec = GRADER.model_copy(update={"calibration": CalibrationSpec(file="x", floors={"kappa": 0.5})})
    bad = fitness(spec, items, {item.id: grade(item, 1 - item.value) for item in items})
    good = fitness(spec, items, {item.id: grade(item, item.value) for item in items})
    assert judged(failed, [bad]).reason == "judge"
    assert judged(failed, [good]) == failed


def test_a_report_without_the_calibration_says_which_stage_is_missing(box: EvalBox):
    stages.run_stages(box.settings(ScriptedProvider(knows)))
    (box.out / "calibration.jsonl").unlink()
    with pytest.raises(InputError, match="has not judged 30 of the 30 answers") as caught:
        run_report(box.suite(), box.out, trials=trials_of(box.suite()))
    assert "gpurig-job calibrate" in str(caught.value.hint)


def test_a_suite_whose_calibration_changes_keeps_its_grades(box: EvalBox):
    stages.run_stages(box.settings(ScriptedProvider(knows)))
    del box.data["grader"]["calibration"]
    box.save()
    again = ScriptedProvider(knows)
    stages.run_stages(box.settings(again))
    assert again.opened == []


def test_the_rate_of_spoilt_answers_needs_some():
    with pytest.raises(ValueError, match="needs corruptions"):
        CalibrationSpec(file="x", floors={"corrupted_rejected_rate": 0.9})
