"""Where an image goes, who logs in, and what a registry's refusal means."""

from __future__ import annotations

import pytest
from gpurig.common.errors import ApplianceError, InputError
from gpurig.images.push import Layer, PushReader
from gpurig.images.registry import Login, Place, find_login, find_place, parse_place, push_problem
from hypothesis import given
from hypothesis import strategies as st

SECRET = "planted-9a7e-secret"
JOB = {
    "CI_REGISTRY": "registry.example.com",
    "CI_REGISTRY_IMAGE": "registry.example.com/team/app",
    "CI_REGISTRY_USER": "gitlab-ci-token",
    "CI_REGISTRY_PASSWORD": SECRET,
}


@pytest.mark.parametrize(
    ("text", "host", "path"),
    [
        ("registry.gitlab.com/group/project", "registry.gitlab.com", "group/project"),
        ("registry.example.com:5050/a/b_c/d-e.f", "registry.example.com:5050", "a/b_c/d-e.f"),
        ("localhost/x", "localhost", "x"),
        ("127.0.0.1:5000/", "127.0.0.1:5000", ""),
        ("[::1]:5000/x", "[::1]:5000", "x"),
    ],
)
def test_a_place_is_a_registry_and_a_path(text, host, path):
    assert parse_place(text) == Place(host, path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "group/project",
        "https://registry.example.com/a",
        "registry.example.com/Team/app",
        "a.b/x y",
        "a.b/-x",
        "a.b//x",
    ],
)
def test_what_is_no_place_is_bad_input(text):
    with pytest.raises(InputError):
        parse_place(text)


@given(st.text(max_size=40))
def test_a_place_that_is_taken_gives_a_name_that_begins_with_its_host(text):
    try:
        place = parse_place(text)
    except InputError:
        return
    assert place.name("x").startswith(f"{place.host}/")
    assert place.name("x").isascii()


def test_in_a_job_the_projects_registry_is_the_place_and_the_job_logs_in():
    place = find_place("", JOB)
    assert place == Place("registry.example.com", "team/app")
    assert find_login(place.host, username="", token=None, environment=JOB) == Login("gitlab-ci-token", SECRET)


def test_the_job_token_stands_in_for_the_password():
    job = {"CI_REGISTRY": "r.example:5050", "CI_JOB_TOKEN": SECRET}
    assert find_login("r.example:5050", username="", token=None, environment=job) == Login("gitlab-ci-token", SECRET)


def test_a_jobs_password_goes_to_no_other_registry():
    assert find_login("elsewhere.example", username="", token=None, environment=JOB) is None


def test_a_token_that_was_given_counts_before_the_job():
    assert find_login("registry.example.com", username="me", token=f"{SECRET}\n", environment=JOB) == Login(
        "me", SECRET
    )
    assert find_login("x.example", username="", token="glcbt-1", environment={}).username == "gitlab-ci-token"


@pytest.mark.parametrize("token", ["", "\n", f"{SECRET} and more", f"{SECRET}\nmore", "ü"])
def test_what_is_no_token_is_refused_without_showing_it(token):
    with pytest.raises(InputError) as caught:
        find_login("x.example", username="", token=token, environment={})
    assert SECRET not in caught.value.message + caught.value.hint


def test_outside_of_a_job_nothing_says_where_to_push():
    with pytest.raises(InputError, match="where shall"):
        find_place("", {})


def test_a_login_does_not_show_its_password():
    assert SECRET not in repr(Login("u", SECRET))


@pytest.mark.parametrize(
    ("said", "code", "what"),
    [
        ("unauthorized: authentication required", 5, "does not accept the login"),
        ("unauthorized: HTTP Basic: Access denied", 5, "does not accept the login"),
        ("no basic auth credentials", 5, "does not accept the login"),
        ("denied: requested access to the resource is denied", 5, "does not let this login write to team/app"),
        ("denied: access forbidden", 5, "does not let this login write to team/app"),
        ("error parsing HTTP 403 response body: unexpected end of JSON input", 5, "does not let this login write"),
        (
            "error parsing HTTP 404 response body: invalid character 'p': \"404 page\"",
            5,
            "has no registry for",
        ),
        ("name unknown: repository name not known to registry", 5, "has no registry for team/app"),
        ("error parsing HTTP 413 response body: <html>413 Request Entity Too Large", 5, "a layer of that size"),
        ("toomanyrequests: slow down", 5, "limits the rate"),
        ("received unexpected HTTP status: 502 Bad Gateway", 5, "failed"),
        ('Get "https://h:5050/v2/": http: server gave HTTP response to HTTPS client', 4, "speaks HTTP"),
        (
            'Get "https://h:5050/v2/": tls: failed to verify certificate: x509: certificate signed by unknown',
            4,
            "does not trust the certificate of h:5050",
        ),
        ('Get "https://h:5050/v2/": dial tcp 1.2.3.4:5050: connect: connection refused', 5, "refuses connections"),
        ('Get "https://h:5050/v2/": dial tcp: lookup h: no such host', 5, "there is no host h:5050"),
        ('Get "https://h:5050/v2/": net/http: TLS handshake timeout', 5, "does not answer"),
        ("something \x1b]0;new " + "x" * 500, 5, "something"),
    ],
)
def test_what_the_engine_says_of_a_registry_is_one_line_and_a_hint(said, code, what):
    error = push_problem("h:5050/team/app/x:1", Place("h:5050", "team/app"), said)
    assert isinstance(error, ApplianceError)
    assert what in error.message
    assert error.message.startswith("pushing h:5050/team/app/x:1: ")
    assert len(error.message) < 300
    assert error.hint
    assert error.exit_code == code


EVENTS = [
    {"status": "The push refers to repository [h/x]"},
    {"status": "Preparing", "progressDetail": {}, "id": "aa"},
    {"status": "Preparing", "progressDetail": {}, "id": "bb"},
    {"status": "Waiting", "progressDetail": {}, "id": "bb"},
    {"status": "Layer already exists", "progressDetail": {}, "id": "bb"},
    {"status": "Pushing", "progressDetail": {"current": 512, "total": 2048}, "progress": "[=> ]", "id": "aa"},
    {"status": "Retrying in 5 seconds", "progressDetail": {}, "id": "aa"},
    {"status": "Pushing", "progressDetail": {"current": 2560, "total": 2048}, "progress": "[==]", "id": "aa"},
    {"status": "Pushed", "progressDetail": {}, "id": "aa"},
    {"status": "0123: digest: sha256:cc size: 739"},
    {"progressDetail": {}, "aux": {"Tag": "0123", "Digest": "sha256:cc", "Size": 739}},
]


def test_a_pushs_events_tell_each_layer():
    reader = PushReader()
    states = [layer.state for event in EVENTS if (layer := reader.feed(event))]
    assert states == ["waiting", "waiting", "waiting", "present", "sending", "retrying", "sending", "sent"]
    assert reader.layers == {"aa": Layer("aa", "sent", 2560, 2560), "bb": Layer("bb", "present", 0, 0)}
    assert (reader.digest, reader.error) == ("sha256:cc", "")


def test_a_pushs_error_is_kept_and_harmless():
    reader = PushReader()
    assert reader.feed({"errorDetail": {"message": "denied"}, "error": "denied\x1b[31m: no"}) is None
    assert reader.error == "denied: no"
