from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.models.resolving import Place, Search
from gpurig.evaljobs.engine import Completion, Request, context_size, thread_count
from gpurig.evaljobs.models import find_model, open_model
from gpurig.evaljobs.stages import RunSettings, StageOutcome, check, generate, grade, run_stages
from gpurig.evaljobs.store import CHECKS, GENERATIONS, GRADES, read_records
from gpurig.evaljobs.suites.trials import trials_of
from standins.eval_box import EvalBox
from standins.scripted_engine import ScriptedProvider, by_hash
from standins.tiny_gguf import write_tiny_gguf


@pytest.fixture
def box(tmp_path: Path) -> EvalBox:
    return EvalBox(tmp_path)


def said(settings: RunSettings) -> str:
    return settings.stream.getvalue()  # type: ignore[union-attr]


def test_every_sample_goes_through_every_stage(box: EvalBox) -> None:
    assert run_stages(box.settings()) == 0
    records = read_records(box.out, box.suite())
    names = [f"s{number}" for number in range(5)]
    assert [*records.generations] == [*records.checks] == [*records.grades] == names
    first = records.generations["s0"]
    assert first.finish == "stop"
    assert first.model.name == "writer"
    assert first.packages == {"scripted": "1"}
    assert all(outcome.passed for outcome in records.checks["s0"].outcomes)
    assert 0.0 <= records.grades["s0"].score <= 1.0
    assert sum(records.grades["s0"].probabilities.values()) == pytest.approx(1.0)


def test_one_model_is_in_memory_at_a_time_and_each_is_loaded_once(box: EvalBox) -> None:
    provider = ScriptedProvider()
    run_stages(box.settings(provider))
    assert provider.opened == ["writer", "judge"]
    assert provider.most == 1
    assert provider.in_memory == 0


def test_a_second_run_does_nothing_loads_nothing_and_says_so(box: EvalBox) -> None:
    run_stages(box.settings())
    before = {path.name: path.read_bytes() for path in box.out.iterdir()}
    provider = ScriptedProvider()
    settings = box.settings(provider)
    assert run_stages(settings) == 5
    assert provider.opened == []
    assert said(settings).splitlines() == [
        f"{stage}: all 5 samples done already" for stage in ("generate", "check", "grade")
    ]
    assert {path.name: path.read_bytes() for path in box.out.iterdir()} == before


def test_what_an_earlier_run_did_is_kept_and_counted(box: EvalBox) -> None:
    generate(box.settings(trials=trials_of(box.suite())[:2]))
    provider = ScriptedProvider()
    settings = box.settings(provider)
    assert generate(settings) == StageOutcome(reused=2, done=3, failed=0)
    assert provider.asked == ["s2", "s3", "s4"]
    assert "generate: 2 of 5 samples done already" in said(settings)


def test_the_order_in_which_an_engine_answers_does_not_matter(box: EvalBox) -> None:
    run_stages(box.settings(ScriptedProvider(reverse=True)))
    backwards = read_records(box.out, box.suite())
    run_stages(box.settings(out=box.root / "other"))
    assert read_records(box.root / "other", box.suite()) == backwards
    assert [*backwards.generations] == ["s0", "s1", "s2", "s3", "s4"]


def edit_input(box: EvalBox) -> None:
    box.data["samples"][1]["input"] = "another"


def edit_vars(box: EvalBox) -> None:
    box.data["generator"]["prompt"] = "{{ input }} {{ vars }}:"
    box.data["samples"][1]["vars"] = {"n": 1}


@pytest.mark.parametrize(
    ("edit", "again"),
    [
        (edit_input, ["s1"]),
        (lambda box: box.data["generator"].update(prompt="{{ input }}"), ["s0", "s1", "s2", "s3", "s4"]),
        (lambda box: box.data["generator"].update(stop=["x"]), ["s0", "s1", "s2", "s3", "s4"]),
        (lambda box: box.data["generator"].update(context=64), ["s0", "s1", "s2", "s3", "s4"]),
        (lambda box: box.data["generator"]["sampling"].update(seed=2), ["s0", "s1", "s2", "s3", "s4"]),
        (lambda box: write_tiny_gguf(box.models / "writer.gguf", seed=9), ["s0", "s1", "s2", "s3", "s4"]),
        (lambda box: box.data["samples"][1].update(reference="good"), []),
        (lambda box: box.data["gate"].clear(), []),
        (lambda box: box.data.update(description="other"), []),
        (lambda box: box.data["samples"].reverse(), []),
        (lambda box: box.data["samples"].append({"id": "new", "input": "x"}), ["new"]),
        (lambda box: box.data["samples"].pop(0), []),
    ],
)
def test_exactly_the_samples_that_a_change_concerns_are_generated_again(
    box: EvalBox, edit: Callable[[EvalBox], object], again: list[str]
) -> None:
    generate(box.settings())
    edit(box)
    box.save()
    provider = ScriptedProvider()
    generate(box.settings(provider))
    assert provider.asked == again


@pytest.mark.parametrize(
    ("edit", "checked", "graded"),
    [
        (lambda box: box.data["checks"].append("yaml"), 5, 0),
        (lambda box: box.data["samples"][1].update(checks=["yaml"]), 1, 0),
        (lambda box: box.data["samples"][1].update(reference="good"), 1, 0),
        (lambda box: box.data["grader"].update(prompt="{{ output }}"), 0, 5),
        (lambda box: box.data["grader"].update(verdicts={"good": 1.0, "bad": 0.5}), 0, 5),
        (lambda box: box.data["grader"].update(pass_score=0.9), 0, 0),
        (lambda box: write_tiny_gguf(box.models / "judge.gguf", seed=9), 0, 5),
        (lambda box: box.data["gate"].clear(), 0, 0),
    ],
)
def test_checks_and_grades_are_done_again_where_a_change_concerns_them(
    box: EvalBox, edit: Callable[[EvalBox], object], checked: int, graded: int
) -> None:
    run_stages(box.settings())
    edit(box)
    box.save()
    assert generate(box.settings()).done == 0
    assert check(box.settings()).done == checked
    assert grade(box.settings()).done == graded


def test_going_back_to_an_earlier_version_costs_nothing(box: EvalBox) -> None:
    run_stages(box.settings())
    before = read_records(box.out, box.suite())
    edit_input(box)
    box.save()
    run_stages(box.settings())
    box.data["samples"][1]["input"] = "job 1"
    box.save()
    assert run_stages(box.settings()) == 5
    assert read_records(box.out, box.suite()) == before


def rename_models(box: EvalBox) -> None:
    for name in ("writer", "judge"):
        (box.models / f"{name}.gguf").rename(box.models / f"{name}-2.gguf")
    box.data["generator"]["model"] = "writer-2"
    box.data["grader"]["model"] = "judge-2"


def say_it_otherwise(box: EvalBox) -> None:
    box.data["generator"]["prompt"] = "{{ input | trim }}:"
    box.data["grader"]["prompt"] = "{{ input | trim }}\n{{ output }}\nverdict:"


@pytest.mark.parametrize("edit", [rename_models, say_it_otherwise])
def test_a_change_that_comes_to_the_same_asks_no_model_and_the_records_follow(
    box: EvalBox, edit: Callable[[EvalBox], None]
) -> None:
    run_stages(box.settings())
    edit(box)
    box.save()
    provider = ScriptedProvider()
    assert run_stages(box.settings(provider)) == 5
    assert provider.asked == []
    records = read_records(box.out, box.suite())
    assert len(records.generations) == len(records.checks) == len(records.grades) == 5
    suite = box.suite()
    assert suite.grader is not None
    assert suite.generator is not None
    assert records.generations["s0"].model.name == suite.generator.model
    assert records.grades["s0"].model.name == suite.grader.model
    before = {path.name: path.read_bytes() for path in box.out.iterdir()}
    run_stages(box.settings())
    assert {path.name: path.read_bytes() for path in box.out.iterdir()} == before


def test_a_record_of_another_version_of_the_suite_is_not_taken(box: EvalBox) -> None:
    run_stages(box.settings())
    edit_input(box)
    box.save()
    records = read_records(box.out, box.suite())
    assert "s1" not in records.generations
    assert "s1" not in records.checks
    assert "s1" not in records.grades
    with pytest.raises(InputError, match=r'1 of 5 samples have no generation .* the first is "s1"'):
        check(box.settings())


def too_long(request: Request) -> Completion:
    if request.id == "s2" and not request.choices:
        return Completion(request.id, "", "error", error="the prompt has 9 tokens")
    return by_hash(request)


def test_a_sample_that_fails_is_a_record_and_the_run_goes_on(box: EvalBox) -> None:
    provider = ScriptedProvider(answer=too_long)
    assert generate(box.settings(provider)) == StageOutcome(reused=0, done=5, failed=1)
    assert provider.asked == ["s0", "s1", "s2", "s3", "s4"]
    failed = box.records(GENERATIONS)[3]
    assert (failed["sample"], failed["finish"], failed["error"]) == ("s2", "error", "the prompt has 9 tokens")
    assert check(box.settings()).done == 4
    assert grade(box.settings()).done == 4


def test_a_sample_that_failed_is_not_tried_again_because_it_would_fail_again(box: EvalBox) -> None:
    generate(box.settings(ScriptedProvider(answer=too_long)))
    again = ScriptedProvider()
    assert generate(box.settings(again)) == StageOutcome(reused=5, done=0, failed=1)
    assert again.asked == []


def test_an_engine_that_breaks_loses_nothing_that_was_finished(box: EvalBox) -> None:
    def breaks(request: Request) -> Completion:
        if request.id == "s3":
            raise PrerequisiteError("out of memory")
        return by_hash(request)

    with pytest.raises(PrerequisiteError, match="out of memory"):
        generate(box.settings(ScriptedProvider(answer=breaks)))
    provider = ScriptedProvider()
    assert generate(box.settings(provider)) == StageOutcome(reused=3, done=2, failed=0)
    assert provider.asked == ["s3", "s4"]


def test_stages_after_generate_ask_for_it(box: EvalBox) -> None:
    for stage in (check, grade):
        with pytest.raises(InputError, match="5 of 5 samples have no generation") as caught:
            stage(box.settings())
        assert "gpurig-job generate" in caught.value.hint


def test_a_suite_without_checks_or_grader_has_less_to_do(box: EvalBox) -> None:
    box.data["checks"].clear()
    del box.data["grader"]
    box.save()
    settings = box.settings()
    assert run_stages(settings) == 0
    assert run_stages(box.settings()) == 5
    assert "check: no sample has anything to check" in said(settings)
    assert not (box.out / GRADES).exists()
    assert (box.out / CHECKS).exists()


def test_a_missing_grader_is_said_before_anything_is_generated(box: EvalBox) -> None:
    (box.models / "judge.gguf").unlink()
    with pytest.raises(PrerequisiteError, match='no model "judge"'):
        run_stages(box.settings())
    assert not box.out.exists()


def test_a_template_that_lacks_a_value_is_said_before_a_model_is_loaded(box: EvalBox) -> None:
    box.data["generator"]["prompt"] = "{{ vars.depth }}"
    box.save()
    provider = ScriptedProvider()
    with pytest.raises(InputError, match='sample "s0"'):
        generate(box.settings(provider))
    assert provider.opened == []


def test_models_are_looked_for_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    write_tiny_gguf(second / "m.gguf")
    search, nowhere = Search.of_folders(first, second), Search.of_folders()
    assert find_model("m", search=search, suite_folder=tmp_path).files == (second / "m.gguf",)
    write_tiny_gguf(first / "m.gguf")
    assert find_model("m", search=search, suite_folder=tmp_path).files == (first / "m.gguf",)
    assert find_model("2/m.gguf", search=nowhere, suite_folder=tmp_path).files == (tmp_path / "2" / "m.gguf",)
    assert find_model(str(second / "m.gguf"), search=nowhere, suite_folder=Path("/")).files == (second / "m.gguf",)


def test_a_model_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"looked in .*/x, .*/y$") as caught:
        find_model("m", search=Search.of_folders(tmp_path / "x", tmp_path / "y"), suite_folder=tmp_path)
    assert caught.value.exit_code == 4
    with pytest.raises(InputError, match=r'no model file "\./m\.gguf"') as wrong:
        find_model("./m.gguf", search=Search.of_folders(), suite_folder=tmp_path)
    assert wrong.value.exit_code == 2


def test_the_context_is_the_suites_wish_or_what_the_model_was_trained_for(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", context=300)
    write_tiny_gguf(tmp_path / "long.gguf", context=100_000)
    model = open_model("m", search=Search.of_folders(tmp_path), suite_folder=tmp_path)
    assert context_size(model, None) == 300
    assert context_size(model, 64) == 64
    assert context_size(open_model("long", search=Search.of_folders(tmp_path), suite_folder=tmp_path), None) == 4096


def test_a_tiny_model_gets_one_thread_and_a_wish_is_followed(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "m.gguf")
    tiny = open_model("m", search=Search.of_folders(tmp_path), suite_folder=tmp_path)
    large = dataclasses.replace(tiny, ref=tiny.ref.model_copy(update={"size_bytes": 4 * 1024**3}))
    assert thread_count(tiny, None) == 1
    assert thread_count(large, None) == len(os.sched_getaffinity(0))
    assert thread_count(large, 3) == thread_count(tiny, 3) == 3


def test_a_reused_record_keeps_the_place_its_model_lay_in_when_it_ran(box: EvalBox) -> None:
    generate(box.settings())
    before = box.records("generations.jsonl")
    assert {record["model"]["place"] for record in before if record["record"] == "generation"} == {"given"}
    elsewhere = box.root / "cache"
    box.models.rename(elsewhere)
    generate(box.settings(search=Search((Place("cache", elsewhere),))))
    assert box.records("generations.jsonl") == before


def test_a_file_of_the_same_name_with_other_bytes_is_told_and_recorded(box: EvalBox, tmp_path: Path) -> None:
    name = box.suite().generator.model
    write_tiny_gguf(tmp_path / "later" / f"{name}.gguf", seed=77)
    settings = box.settings(search=Search.of_folders(box.models, tmp_path / "later"))
    generate(settings)
    assert "with other bytes" in settings.stream.getvalue()
    (others,) = {tuple(record["model"]["others"]) for record in box.records("generations.jsonl") if "model" in record}
    assert others == (str(tmp_path / "later" / f"{name}.gguf"),)
