"""Every report says which model file ran, and which of the same name did not; old records stay readable."""

from __future__ import annotations

from gpurig.evaljobs.records import Generation, ModelRef
from gpurig.evaljobs.report import html_report, note_markdown, terminal_summary
from gpurig.evaljobs.results import Results
from standins.evalrun import HOSTILE, results

REF = {"name": "demo-generator", "file": "demo-generator.gguf", "sha256": "a" * 64, "size_bytes": 2_700_000}


def with_model(**changes: object) -> Results:
    return results(generator=ModelRef(**{**REF, "place": "image", "source": "hf:a/b/m.gguf", **changes}))


def test_the_page_says_where_the_file_was_found_and_where_it_came_from() -> None:
    text = html_report(with_model())
    assert "found in: image, from hf:a/b/m.gguf" in text
    assert "not used" not in text


def test_a_file_that_was_passed_over_is_told_in_every_report() -> None:
    run = with_model(others=("/models/demo-generator.gguf",))
    for text in (html_report(run), note_markdown(run), terminal_summary(run, "report")):
        assert "/models/demo-generator.gguf" in text
    for text in (note_markdown(with_model()), terminal_summary(with_model(), "report")):
        assert "other bytes" not in text


def test_a_hostile_path_stays_a_text() -> None:
    run = with_model(others=HOSTILE, source=HOSTILE[0], place=HOSTILE[3])
    assert "\x1b" not in terminal_summary(run, "report") + note_markdown(run) + html_report(run)
    assert html_report(run).count("<script") == html_report(with_model()).count("<script")
    assert [line for line in note_markdown(run).splitlines() if line.startswith(("/", "@"))] == []
    assert max(len(line) for line in terminal_summary(run, "report").splitlines()) <= 80


def test_a_record_from_before_places_were_noted_is_read_and_a_new_one_is_read_by_old_rules() -> None:
    old = ModelRef.model_validate(REF)
    assert (old.place, old.source, old.others) == ("", "", ())
    assert "found in" not in html_report(results(generator=old))
    new = with_model(others=("x",)).generator.model_dump(mode="json")
    # What an older reader knows of it; it leaves the rest out (docs/formats.md).
    assert {name: new[name] for name in REF} == REF
    assert Generation.model_fields["version"].default == 1
