"""The generated data behind the bundled models: every answer is what GitLab takes, and what is held out stays out."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from demo_models import corruptions, examples, form, github, gitlab, suite_builder, tasks  # noqa: E402 - found through the line above
from demo_models.pipelines import HARD, TRAINING, random_pipeline  # noqa: E402
from demo_models.realistic import realistic_pipeline  # noqa: E402

seeds = st.integers(0, 2**32)


def _schema(name):
    import check_jsonschema
    import jsonschema

    folder = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor"
    schema = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return jsonschema.validators.validator_for(schema)(schema)


@pytest.fixture(scope="module")
def gitlab_schema():
    return _schema("gitlab-ci")


@pytest.fixture(scope="module")
def github_schema():
    return _schema("github-workflows")


def pipelines(seed):
    rng = random.Random(seed)
    for kind in ("write", "translate"):
        yield random_pipeline(rng, kind, TRAINING)
        yield random_pipeline(rng, kind, HARD)
        yield realistic_pipeline(rng, kind, 1 + seed % 3, seed % 4)


@settings(max_examples=60)
@given(seeds)
def test_every_reference_is_valid_under_gitlabs_schema(gitlab_schema, seed):
    for pipeline in pipelines(seed):
        gitlab_schema.validate(yaml.safe_load(gitlab.render(pipeline)))


@settings(max_examples=60)
@given(seeds)
def test_every_workflow_is_valid_under_githubs_schema(github_schema, seed):
    for pipeline in pipelines(seed):
        # YAML 1.1 reads `on` as true.
        workflow = {
            ("on" if key is True else key): value for key, value in yaml.safe_load(github.render(pipeline)).items()
        }
        github_schema.validate(workflow)


@given(seeds)
def test_a_reference_says_what_the_pipeline_says(seed):
    for pipeline in pipelines(seed):
        read = yaml.safe_load(gitlab.render(pipeline))
        for job in pipeline.jobs:
            there = read[job.name]
            assert there["image"] == job.image
            assert there["script"] == list(gitlab.script_of(job))
            assert there.get("stage", "") == job.stage
            assert [str(value) for value in there.get("variables", {}).values()] == [
                value for _, value in job.variables
            ]
            assert there.get("services", []) == list(job.services)
            assert there.get("needs", []) == list(job.needs)
            assert there.get("tags", []) == [job.tag] * bool(job.tag)
            assert there.get("artifacts", {"paths": []})["paths"] == list(job.artifacts)


@given(seeds)
def test_a_workflow_says_what_the_pipeline_says(seed):
    for pipeline in pipelines(seed):
        read = yaml.safe_load(github.render(pipeline))["jobs"]
        assert list(read) == [job.name for job in pipeline.jobs]
        for job in pipeline.jobs:
            there = read[job.name]
            assert there["container"] == job.image
            axis = f"${{{{ matrix.{job.matrix.name} }}}}" if job.matrix else ""
            assert [step["run"] for step in there["steps"] if "run" in step] == [
                line.replace("{axis}", axis) for line in job.script
            ]
            assert there.get("needs", []) == list(job.needs)


@given(seeds)
def test_a_task_in_english_names_everything_that_the_answer_holds(seed):
    rng = random.Random(seed)
    task = tasks.make_task(rng, "write")
    for job in task.pipeline.jobs:
        expected = [job.name, job.stage, job.image, job.tag, job.branch, *gitlab.script_of(job), *job.services]
        expected += [*job.artifacts, *job.needs, *(f"{name}={value}" for name, value in job.variables)]
        expected += [job.cache.key, job.cache.path] if job.cache else []
        expected += list(job.matrix.values) if job.matrix else []
        assert [text for text in expected if text not in task.text] == []


@given(seeds)
def test_the_same_seed_makes_the_same_task(seed):
    assert tasks.make_task(random.Random(seed)) == tasks.make_task(random.Random(seed))


@given(seeds)
def test_a_corrupted_answer_does_not_mean_what_the_right_one_means(seed):
    rng = random.Random(seed)
    task = tasks.make_task(rng)
    answer, why = corruptions.corrupt(task, rng)
    assert not corruptions.same_meaning(answer, task.reference)
    assert why in corruptions.CORRUPTIONS


def test_every_corruption_happens():
    rng = random.Random(1)
    seen = {corruptions.corrupt(tasks.make_task(rng), rng)[1] for _ in range(2000)}
    assert seen == set(corruptions.CORRUPTIONS)


def test_suite_calibration_and_development_set_share_no_task():
    sets = (
        [one.task for one in suite_builder.suite_tasks()],
        suite_builder.calibration_tasks(),
        suite_builder.development_tasks(),
    )
    digests = [task.pipeline.digest for tasks_of_set in sets for task in tasks_of_set]
    assert len(set(digests)) == len(digests) == sum(len(tasks_of_set) for tasks_of_set in sets)


def test_the_development_set_shares_no_answer_with_the_calibration_set():
    answers = {row["output"] for row in suite_builder.calibration_rows()}
    assert not answers & {row["output"] for row in suite_builder.development_rows()}


@settings(max_examples=40)
@given(seeds, st.integers(1, 3))
def test_a_spoilt_answer_keeps_more_than_one_line(seed, faults):
    rng = random.Random(seed)
    assert "\n" in form.spoil_often(tasks.make_task(rng).reference, rng, faults)


@settings(max_examples=40)
@given(seeds, st.integers(1, 3))
@example(34968, 3)
def test_without_its_faulty_places_a_wrong_answer_is_part_of_the_right_one(seed, faults):
    rng = random.Random(seed)
    right = list(tasks.make_task(rng).reference)
    wrong = list(form.spoil_often("".join(right), rng, faults))
    places = form.fault_places(right, wrong)
    assert list(places) == sorted(set(places))
    assert bool(places) == (right != wrong)
    rest = iter(right)
    assert all(letter in rest for at, letter in enumerate(wrong) if at not in places)


@pytest.mark.parametrize(
    ("wrong", "places"),
    [("abxde", (2,)), ("abde", (2,)), ("ababcde", (2, 3)), ("abcd", (3,)), ("xxabcde", (0, 1)), ("abcde", ())],
)
def test_the_second_of_two_equal_parts_is_the_faulty_one(wrong, places):
    assert form.fault_places("abcde", wrong) == places


def test_a_held_out_pipeline_never_becomes_a_training_example():
    class Letters:
        def encode(self, text):
            return [ord(letter) for letter in text[:100]]

        def bos_id(self):
            return 1

        def eos_id(self):
            return 2

    first = tasks.make_task(random.Random(5))
    open_source = examples.GeneratorSource(Letters(), frozenset())
    closed_source = examples.GeneratorSource(Letters(), frozenset({first.pipeline.digest}))
    assert open_source(random.Random(5), 1.0) != closed_source(random.Random(5), 1.0)


def test_training_holds_out_the_suite_and_both_sets_of_graded_answers():
    held_out = suite_builder.held_out()
    assert all(one.task.pipeline.digest in held_out for one in suite_builder.suite_tasks())
    assert all(task.pipeline.digest in held_out for task in suite_builder.calibration_tasks())
    assert all(task.pipeline.digest in held_out for task in suite_builder.development_tasks())


def test_the_committed_files_are_what_the_seeds_make():
    folder = ROOT / "examples" / "ci-jobs"
    assert yaml.safe_load((folder / "samples.yaml").read_text()) == suite_builder.samples()
    rows = [json.loads(line) for line in (folder / "calibration.jsonl").read_text().splitlines()]
    assert rows == suite_builder.calibration_rows()


def test_the_suite_asks_in_the_words_of_the_training_data():
    from gpurig.evaljobs.suites.suite import load_suite
    from gpurig.evaljobs.suites.template import render

    suite = load_suite(ROOT / "examples" / "ci-jobs")
    values = {"input": "a task", "output": "an answer\n"}
    assert render(suite.generator.prompt, values, what="") == tasks.generator_prompt("a task")
    assert render(suite.grader.prompt, values, what="") == tasks.grader_prompt("an answer\n")
    assert suite.grader.verdicts == {tasks.GOOD: 1.0, tasks.BAD: 0.0}


def test_every_reference_of_the_suite_passes_all_its_checks():
    from gpurig.evaljobs.checks import Answer, run_check
    from gpurig.evaljobs.suites.suite import load_suite

    suite = load_suite(ROOT / "examples" / "ci-jobs")
    for sample in suite.samples:
        answer = Answer(sample.reference, input=sample.input, reference=sample.reference)
        assert [outcome for spec in suite.checks_of(sample) if not (outcome := run_check(spec, answer)).passed] == []


def test_a_broken_answer_mostly_fails_the_checks_of_its_sample():
    from gpurig.evaljobs.checks import Answer, run_check
    from gpurig.evaljobs.suites.suite import load_suite

    suite = load_suite(ROOT / "examples" / "ci-jobs")
    rng = random.Random(3)
    caught = total = 0
    for one, sample in zip(suite_builder.suite_tasks(), suite.samples, strict=True):
        for _ in range(5):
            answer = Answer(corruptions.corrupt(one.task, rng)[0])
            total += 1
            caught += any(not run_check(spec, answer).passed for spec in suite.checks_of(sample))
    assert caught >= 0.9 * total
