from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from gpurig.evaljobs.report import html_report
from gpurig.evaljobs.results import JobRef
from hypothesis import given, settings
from hypothesis import strategies as st
from standins.evalrun import HOSTILE, failed_sample, hostile_samples, results, sample

VOID = {"meta", "input", "br", "rect", "line", "text", "link", "img"}


class Page(HTMLParser):
    """The page's elements, and the texts by element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID or tag == "text":
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data


def shape(page: Page) -> list[str]:
    return [tag for tag, _ in page.elements]


def test_one_file_asks_for_nothing_from_anywhere():
    text = html_report(results(job=JobRef(id="7", url="https://gitlab.example.com/g/p/-/jobs/7")))
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base"}
        assert "src" not in attributes
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text


def test_policy_allows_exactly_the_pages_own_style_and_script():
    page = Page(html_report(results()))
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    for tag in ("style", "script"):
        (content,) = page.texts[tag]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_hostile_texts_add_no_element_and_no_control_character():
    harmless = tuple(
        failed_sample(s.id, output="x", reference="x", checks=s.checks, grade=s.grade) for s in hostile_samples()
    )
    text = html_report(results(hostile_samples()))
    assert shape(Page(text)) == shape(Page(html_report(results(harmless))))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "49" not in Page(text).texts["pre"]


def test_an_answer_is_shown_as_it_is_written():
    (answer,) = [text for text in HOSTILE if text.startswith("&lt;")]
    pre = Page(html_report(results((failed_sample("x", output=answer),)))).texts["pre"]
    assert answer in pre


@settings(max_examples=30)
@given(st.text(), st.text(min_size=1))
def test_any_text_keeps_the_pages_shape(output, tag):
    page = Page(html_report(results((sample("s", output=output, tags=(tag,)),))))
    assert shape(page) == shape(Page(html_report(results((sample("s", output="x", tags=("t",)),)))))


def test_an_endless_answer_is_cut_and_says_so():
    text = html_report(results((failed_sample("long", output="y" * 10_000_000),)))
    assert len(text) < 200_000
    assert "10,000,000 characters in all" in text


def test_a_job_address_that_is_no_web_address_is_no_link():
    page = Page(html_report(results(job=JobRef(id="7", url="javascript:alert(1)"))))
    assert {a["href"] for tag, a in page.elements if tag == "a"} == {"#samples"}


def test_page_has_landmarks_one_heading_and_labelled_fields():
    page = Page(html_report(results()))
    tags = shape(page)
    assert {"header", "main", "footer"} <= set(tags)
    assert tags.count("h1") == 1
    assert next(a for tag, a in page.elements if tag == "html")["lang"] == "en"
    for tag, attributes in page.elements:
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    # Every field lies in its label.
    labelled = re.findall(r"<label[^>]*><span>\w+</span><(?:input|select)", html_report(results()))
    assert len(labelled) == tags.count("input") + tags.count("select")


def test_suite_without_grades_or_times_has_no_empty_charts():
    bare = results((sample("one", grade=None, seconds=0.0),), grader=None, pass_score=None, metrics=())
    assert "histogram" not in html_report(bare).split("</style>")[1]
