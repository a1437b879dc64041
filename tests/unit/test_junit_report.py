from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from gpurig.evaljobs.report import junit_xml
from gpurig.evaljobs.report.junit import MAX_BYTES
from hypothesis import given
from hypothesis import strategies as st
from standins.evalrun import HOSTILE, failed_sample, hostile_samples, results, sample

# XML 1.0, section 2.2.
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text.encode())  # noqa: S314 - our own file: no entities


def cases(text: str) -> list[ET.Element]:
    return list(parsed(text).iter("testcase"))


def test_every_sample_is_a_case_of_the_suite():
    root = parsed(junit_xml(results()))
    suite = root[0]
    assert (root.tag, suite.tag, suite.get("name")) == ("testsuites", "testsuite", "ci-jobs")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "1", "1")
    assert [case.get("name") for case in suite] == ["lint", "unit-tests", "pages", "matrix", "cache"]
    assert {case.get("classname") for case in suite} == {"ci-jobs"}


def test_a_failure_says_which_checks_failed_and_shows_the_answer():
    failure = cases(junit_xml(results()))[3].find("failure")
    assert "contains: the answer lacks stage: test" in failure.text
    assert "grade: bad, score 0.21 is below 0.5" in failure.text
    assert "pytest -q" in failure.text
    # GitLab reads the element's text and loses its attributes.
    assert failure.attrib == {}


def test_a_sample_that_was_not_generated_is_an_error_not_a_failure():
    case = cases(junit_xml(results()))[4]
    assert case.find("failure") is None
    assert "the context is full" in case.find("error").text


def test_names_that_end_up_alike_stay_apart():
    names = [case.get("name") for case in cases(junit_xml(results((sample("a\x00"), sample("a\\x00"), sample("a")))))]
    assert len(set(names)) == 3


def test_hostile_outputs_forge_neither_cases_nor_attachments():
    text = junit_xml(results(hostile_samples()))
    assert not ILLEGAL.search(text)
    assert len(cases(text)) == len(HOSTILE)
    assert "[[ATTACHMENT|" not in text


@given(st.text())
def test_any_text_gives_legal_xml_with_one_case(text):
    xml = junit_xml(results((failed_sample(text or "x", output=text),)))
    assert not ILLEGAL.search(xml)
    assert len(cases(xml)) == 1


def test_a_lone_surrogate_is_shown_as_its_code():
    xml = junit_xml(results((failed_sample("s").model_copy(update={"output": "\ud800"}),)))
    assert "\\xd800" in xml


def test_the_file_stays_below_gitlabs_limit_and_keeps_every_case(monkeypatch):
    monkeypatch.setattr("gpurig.evaljobs.report.junit.MAX_BYTES", 40_000)
    xml = junit_xml(results(tuple(failed_sample(f"s{index}", output="é" * 5_000) for index in range(60))))
    assert len(xml.encode()) <= 40_000
    assert len(cases(xml)) == 60
    assert all(case.find("failure").text for case in cases(xml))


def test_the_limit_itself_is_below_30_mb():
    assert MAX_BYTES < 30_000_000


@pytest.mark.parametrize("size", [10_000_000])
def test_an_endless_answer_is_cut_with_its_length(size):
    xml = junit_xml(results((failed_sample("long", output="y" * size),)))
    assert len(xml) < 20_000
    assert "10,000,000 characters" in xml
