"""Whatever GitLab or the network does becomes one error that says what to do."""

from __future__ import annotations

import gitlab
import pytest
import requests
from gpurig.common.errors import InputError, RemoteError
from gpurig.common.gitlab_api import checked_url, connect, translated

URL = "https://gitlab.example.com"

FAILURES: list[tuple[Exception, str, str]] = [
    (gitlab.GitlabAuthenticationError("401 Unauthorized", 401), "answered 401", "--token-file"),
    (gitlab.GitlabCreateError("403 Forbidden", 403), "answered 403", "create_runner"),
    (gitlab.GitlabGetError("404 Project Not Found", 404), "answered 404", "check the URL"),
    (gitlab.GitlabHttpError("oops", 500), "answered 500", "try again"),
    (gitlab.GitlabHttpError("slow down", 429), "answered 429", "wait"),
    (gitlab.GitlabParsingError("no JSON"), "not GitLab's API", "login page"),
    (requests.exceptions.SSLError("self-signed"), "not trusted", "--tls-ca-file"),
    (requests.exceptions.ReadTimeout("slow"), "did not answer within 20 s", "network"),
    (requests.exceptions.ConnectionError("refused"), "cannot reach", "proxy"),
    (requests.exceptions.ChunkedEncodingError("cut"), "broke off", "network"),
    (requests.exceptions.InvalidHeader("bad"), "not HTTP as expected", "login page"),
]


@pytest.mark.parametrize(("failure", "what", "fix"), FAILURES, ids=lambda value: type(value).__name__)
def test_a_failure_says_what_and_what_to_do(failure: Exception, what: str, fix: str) -> None:
    with pytest.raises(RemoteError) as caught, translated("creating the runner", URL):
        raise failure
    assert caught.value.exit_code == 5
    assert caught.value.message.startswith("creating the runner: ")
    assert what in caught.value.message
    assert fix in caught.value.hint


def test_a_long_answer_is_not_repeated_whole() -> None:
    with pytest.raises(RemoteError) as caught, translated("asking", URL):
        raise gitlab.GitlabHttpError("<html>" * 1000, 502)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "url",
    ["gitlab.example.com", "ftp://gitlab.example.com", "https://", "http://[::1", "https://x:99999", "", "https:///x"],
)
def test_a_bad_url_is_bad_input(url: str) -> None:
    with pytest.raises(InputError):
        checked_url(url)


def test_a_url_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(InputError) as caught:
        checked_url("https://user:hunter2@gitlab.example.com")
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_a_client_sends_nothing_until_it_is_used() -> None:
    client = connect(URL + "/", private_token="glpat-x")
    assert client.url == URL
    assert client.timeout == 20.0


def test_a_missing_ca_file_is_named_before_anything_is_sent(tmp_path):
    with pytest.raises(InputError, match=r"no certificate authority's file .*nothing\.pem"):
        connect("https://gitlab.example.com", ca_file=tmp_path / "nothing.pem")


@pytest.mark.parametrize("token", ["glpat-\u20ac", "glpat-a\nglpat-b", "glpat-\x00"])
def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(token):
    with pytest.raises(InputError) as caught:
        connect("https://gitlab.example.com", private_token=token)
    assert "glpat" not in caught.value.message + caught.value.hint
