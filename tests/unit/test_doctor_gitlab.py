"""The way to GitLab, its version, the clocks and the tokens, judged from answers as values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from gpurig.provisioning.distribution import Distribution
from gpurig.provisioning.doctor import Finding, exit_code
from gpurig.provisioning.doctor.exchange import Answer, Trouble, parse_object, skew_of
from gpurig.provisioning.doctor.server import judge, judge_clock, judge_version
from gpurig.provisioning.doctor.user_token import judge as judge_token
from gpurig.provisioning.doctor.user_token import judge_runners
from gpurig.provisioning.state import Registration
from hypothesis import given
from hypothesis import strategies as st
from standins.doctor_box import TOKEN, URL, VERSION, FixedBox

TODAY = date(2026, 1, 2)
NOW = datetime(2026, 1, 2, 3, tzinfo=UTC)


def named(answer: Answer) -> dict[str, Finding]:
    return {one.name: one for one in judge(answer)}


@pytest.mark.parametrize(
    ("trouble", "statuses"),
    [
        ("", ("ok", "ok", "ok")),
        ("dns", ("failed", "skipped", "skipped")),
        ("proxy", ("skipped", "skipped", "failed")),
        ("refused", ("ok", "skipped", "failed")),
        ("timeout", ("ok", "skipped", "failed")),
        ("tls", ("ok", "failed", "skipped")),
        ("ca-file", ("skipped", "failed", "skipped")),
        ("not-http", ("ok", "ok", "failed")),
    ],
)
def test_each_trouble_is_told_once_and_what_lies_behind_it_is_skipped(
    trouble: Trouble, statuses: tuple[str, ...]
) -> None:
    answer = VERSION if not trouble else Answer(URL, trouble, "why")
    found = named(answer)
    assert tuple(found[name].status for name in ("gitlab dns", "gitlab tls", "gitlab")) == statuses
    assert exit_code(found.values()) == (5 if trouble else 0)
    assert all(one.hint for one in found.values() if one.status == "failed")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (10, "has expired"),
        (9, "not valid yet"),
        (18, "authority that is not known"),
        (19, "authority that is not known"),
        (20, "authority that is not known"),
        (62, "another name than gitlab.example.com"),
        (64, "another name"),
        (23, "is refused: why"),
        (0, "no TLS connection"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_told_apart(code: int, words: str) -> None:
    finding = named(Answer(URL, "tls", "why", tls_code=code))["gitlab tls"]
    assert words in finding.message
    assert finding.commands[0].argv == ("openssl", "s_client", "-connect", "gitlab.example.com:443", "-brief")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(URL, status=500), "answered 500"),
        (Answer(URL, status=502, document={}), "answered 502"),
        (Answer(URL, status=200), "not as GitLab's API"),
        (Answer(URL, status=404, document={"error": "404"}), "not as GitLab's API"),
        (Answer(URL, status=302, location="https://other.example/users/sign_in"), "redirects to https://other.example"),
        (Answer(URL, status=301, location="/x"), "redirects to another place"),
    ],
)
def test_an_answer_that_is_not_gitlabs_is_told(answer: Answer, words: str) -> None:
    finding = named(answer)["gitlab"]
    assert finding.status == "failed"
    assert words in finding.message


def test_an_unknown_token_is_the_tokens_failure_and_not_the_servers() -> None:
    assert named(Answer(URL, status=401, document={"message": "401 Unauthorized"}))["gitlab"].status == "ok"


@pytest.mark.parametrize(
    ("url", "status"),
    [("http://gitlab.example.com", "warning"), ("http://127.0.0.1:8080", "skipped"), ("http://localhost", "skipped")],
)
def test_plain_http_is_a_warning_unless_it_stays_on_the_machine(url: str, status: str) -> None:
    assert named(replace(VERSION, url=url))["gitlab tls"].status == status


@pytest.mark.parametrize(
    ("status", "version", "expected"),
    [
        (200, "19.4.0-ee", "ok"),
        (200, "16.0.0", "ok"),
        (200, "15.11.13", "failed"),
        (200, "", "skipped"),
        (200, "unknown", "skipped"),
        (401, "", "skipped"),
        (403, "", "skipped"),
        (500, "", "skipped"),
    ],
)
def test_a_version_that_cannot_be_asked_is_never_fine(status: int, version: str, expected: str) -> None:
    document = {"version": version} if version else {}
    (finding,) = judge_version(Answer(URL, status=status, document=document))
    assert finding.status == expected
    assert finding.needed == "16.0 or newer"


@pytest.mark.parametrize(
    ("skew_s", "status", "words"),
    [
        (0.0, "ok", "agrees"),
        (-30.0, "ok", "agrees"),
        (31.0, "warning", "31 s ahead of"),
        (-299.0, "warning", "5 min behind"),
        (301.0, "failed", "5 min ahead of"),
        (-86400.0 * 400, "failed", "400 days behind"),
        (None, "skipped", "sent no date"),
    ],
)
def test_a_clock_is_held_against_gitlabs(skew_s: float | None, status: str, words: str) -> None:
    (finding,) = judge_clock(replace(VERSION, skew_s=skew_s), Distribution("x", "arch"))
    assert finding.status == status
    assert words in finding.message
    assert finding.area == "box"
    assert bool(finding.commands) == (status in {"warning", "failed"})


def token(**document: Any) -> dict[str, Finding]:
    assert TOKEN.document is not None
    return {one.name: one for one in judge_token(replace(TOKEN, document={**TOKEN.document, **document}), TODAY)}


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"scopes": ["create_runner"]}, "ok"),
        ({"scopes": ["api"]}, "ok"),
        ({"scopes": ["read_api", "read_user"]}, "failed"),
        ({"scopes": []}, "failed"),
        ({"revoked": True}, "failed"),
        ({"active": False}, "failed"),
        ({"scopes": ["granular"]}, "skipped"),
        ({"scopes": "api"}, "skipped"),
    ],
)
def test_a_token_is_judged_by_its_scopes(document: dict[str, Any], status: str) -> None:
    assert token(**document)["token"].status == status


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [
        (TODAY + timedelta(days=31), "ok", "31 days left"),
        (TODAY + timedelta(days=30), "warning", "expires in 30 days"),
        (TODAY + timedelta(days=1), "warning", "expires in 1 day;"),
        (TODAY, "failed", "expired on 2026-01-02"),
        (None, "ok", "never expires"),
        ("soon", "skipped", "no date"),
    ],
)
def test_a_token_that_ends_soon_is_a_warning_with_the_days_left(
    end: date | str | None, status: str, words: str
) -> None:
    text = end.isoformat() if isinstance(end, date) else end
    finding = token(expires_at=text)["token expiry"]
    assert finding.status == status
    assert words in finding.message


@pytest.mark.parametrize(
    ("status", "document", "expected", "words"),
    [
        (401, {"error": "invalid_token", "error_description": "Token is expired. You can…"}, "failed", "has expired"),
        (401, {"error_description": "Token was revoked. You have to…"}, "failed", "was revoked"),
        (401, {"message": "401 Unauthorized"}, "failed", "does not know the token"),
        (403, {"error": "insufficient_scope"}, "skipped", "does not let this token ask"),
        (404, {"message": "404 Not Found"}, "skipped", "nothing about this kind"),
        (500, None, "skipped", "did not answer"),
    ],
)
def test_what_gitlab_answers_instead_is_told_and_never_fine(
    status: int, document: dict[str, Any] | None, expected: str, words: str
) -> None:
    first, second = judge_token(Answer(URL, status=status, document=document), TODAY)
    assert (first.status, second.status) == (expected, "skipped")
    assert words in first.message


def test_without_url_or_token_the_checks_say_what_to_give() -> None:
    nowhere = FixedBox().examine(url="")
    for name in ("gitlab dns", "gitlab tls", "gitlab", "token", "token expiry"):
        assert (nowhere[name].status, nowhere[name].message) == (
            "skipped",
            "nobody said which GitLab: give --url",
        )
    anonymous = FixedBox(version=Answer(URL, status=401, document={"message": "401"}, skew_s=0.0))
    nobody = anonymous.examine(has_token=False)
    assert "--token-file" in nobody["gitlab version"].message
    assert "--token-file" in nobody["token"].hint
    assert nobody["clock"].status == nobody["gitlab"].status == "ok"
    assert "token" not in anonymous.asked


def test_a_gitlab_that_fails_is_not_asked_about_the_token() -> None:
    box = FixedBox(version=Answer(URL, "timeout"))
    assert box.examine()["token"].message == "GitLab was not reached"
    assert "token" not in box.asked


def registration(number: int, days: float | None) -> Registration:
    return Registration(
        key=f"gpu:{number}",
        spec="x",
        url=URL,
        id=number,
        token="glrt-secret",
        description="d",
        tags=(),
        obtained_at=NOW,
        expires_at=None if days is None else NOW + timedelta(days=days),
    )


@pytest.mark.parametrize(
    ("days", "status"),
    [([], "skipped"), ([None], "ok"), ([None, 90], "ok"), ([90, 2], "warning"), ([-1, 90], "failed")],
)
def test_the_runners_own_tokens_are_watched(days: list[float | None], status: str) -> None:
    (finding,) = judge_runners([registration(number, one) for number, one in enumerate(days, start=7)], NOW)
    assert finding.status == status
    assert "secret" not in repr(finding)


def test_a_time_without_a_zone_is_utc() -> None:
    one = registration(7, 2)
    assert one.expires_at is not None
    naive = one.model_copy(update={"expires_at": one.expires_at.replace(tzinfo=None)})
    assert judge_runners([naive, registration(8, 90)], NOW)[0].status == "warning"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
KEYS = st.sampled_from(["version", "scopes", "expires_at", "revoked", "active", "granular_scopes", "error_description"])


@given(
    st.sampled_from([200, 204, 301, 302, 400, 401, 403, 404, 418, 429, 500, 503]),
    st.text() | st.from_regex(r"https?://[\[a-z:@]*\S*"),
    st.none() | st.dictionaries(KEYS, JSON),
    st.none() | st.floats(min_value=-1e12, max_value=1e12),
)
def test_any_answer_of_a_server_is_judged(
    status: int, location: str, document: dict[str, Any] | None, skew_s: float | None
) -> None:
    answer = Answer(URL, status=status, location=location, document=document, skew_s=skew_s)
    found = [
        *judge(answer),
        *judge_version(answer),
        *judge_clock(answer, Distribution()),
        *judge_token(answer, TODAY),
    ]
    assert all(one.message for one in found)


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ \S*"))
def test_any_date_header_is_read_or_passed_over(header: str) -> None:
    skew = skew_of(header, NOW, NOW)
    assert skew is None or isinstance(skew, float)


def test_a_date_is_read_to_half_a_second() -> None:
    assert skew_of("Fri, 02 Jan 2026 03:00:00 GMT", NOW, NOW + timedelta(seconds=1)) == 0.0
    assert skew_of("Fri, 02 Jan 2026 02:00:00 GMT", NOW, NOW) == 3599.5


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"[" * 100_000, b"1" * 10_000, b'"x"'])
def test_a_body_that_is_no_object_is_none(body: bytes) -> None:
    assert parse_object(body) is None


def test_a_redirect_is_told_without_what_it_carries() -> None:
    finding = named(Answer(URL, status=302, location="https://ada:secret@sso.example/login?token=secret"))["gitlab"]
    assert "redirects to https://sso.example" in finding.message
    assert "secret" not in repr(finding)
