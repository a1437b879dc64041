"""examples/translation: every pair is valid on both sides, its reference passes the suite, its source does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from gpurig.evaljobs.checks import Answer, parse_check, run_check
from gpurig.evaljobs.suites.suite import load_suite

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import translation_pairs  # noqa: E402 - found through the line above

FOLDER = ROOT / "examples" / "translation"
SUITE = load_suite(FOLDER)
by_id = pytest.mark.parametrize("sample", SUITE.samples, ids=lambda sample: sample.id)


def failures(sample, output, specs):
    answer = Answer(output, input=sample.input, reference=sample.reference or "")
    return [outcome for outcome in (run_check(spec, answer) for spec in specs) if not outcome.passed]


def test_the_suite_is_valid_without_warnings():
    assert SUITE.warnings == ()


def test_the_data_set_is_what_the_pairs_say():
    assert (FOLDER / "samples.jsonl").read_text(encoding="utf-8") == translation_pairs.samples_text()


def test_every_file_belongs_to_a_pair():
    ids = {sample.id for sample in SUITE.samples}
    expected = {f"{name}.{side}.yml" for name in ids for side in ("github", "gitlab")}
    assert {file.name for file in (FOLDER / "pairs").iterdir()} == expected


@by_id
def test_both_sides_follow_their_schemas(sample):
    for check, text in (("github-workflow", sample.input), ("gitlab-ci", sample.reference)):
        assert failures(sample, text, [parse_check(check)]) == []


@by_id
def test_the_reference_passes_every_check_of_the_suite(sample):
    assert failures(sample, sample.reference, SUITE.checks_of(sample)) == []


@by_id
def test_every_job_of_the_reference_has_an_image_or_triggers_a_pipeline(sample):
    spec = parse_check({"gitlab-ci-semantics": {"aspects": ["images"]}})
    assert failures(sample, sample.reference, [spec]) == []


@by_id
def test_the_untranslated_workflow_fails_the_suite_and_the_samples_own_checks(sample):
    assert failures(sample, sample.input, SUITE.checks)
    assert failures(sample, sample.input, sample.checks)
