"""The stand-in GitLab fails as it is told to, by the right call, and ends without leaving anything open."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import pytest
import requests
from gpurig.common.errors import RemoteError
from gpurig.common.gitlab_api import connect, translated
from gpurig.common.waiting import wait_for
from standins.calls import Api, HandRunner
from standins.gitlab import GitLab, trace_is_whole
from standins.gitlab.faults import Fault, Kind
from standins.runner.client import Client
from standins.runner.config import Entry
from standins.runner.masking import Masker
from standins.runner.trace import Trace


def _version(server: GitLab, token: str) -> requests.Response:
    return requests.get(f"{server.url}/api/v4/version", headers={"PRIVATE-TOKEN": token}, timeout=5)


def test_a_fault_meets_the_calls_it_was_made_for_and_heals(gitlab: GitLab) -> None:
    token = gitlab.add_token("api")
    fault = gitlab.fail("status", method="GET", path="/api/v4/version", status=503, skip=1, times=2)
    gitlab.fail("status", method="POST", status=500)
    assert [_version(gitlab, token).status_code for _ in range(4)] == [200, 503, 503, 200]
    assert fault.met == 2
    assert Api.person(gitlab).call("POST", "user/runners", json={}).status_code == 500
    gitlab.heal()
    assert Api.person(gitlab).call("POST", "user/runners", json={}).status_code == 400


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        ("cut", (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)),
        ("reset", (requests.exceptions.ConnectionError,)),
        ("not-http", (requests.exceptions.ConnectionError,)),
    ],
)
def test_a_broken_connection_is_one_for_the_client(
    gitlab: GitLab, kind: Kind, raised: tuple[type[Exception], ...]
) -> None:
    gitlab.fail(kind)
    with pytest.raises(raised):
        _version(gitlab, gitlab.add_token("api"))


def test_silence_lasts_until_the_client_gives_up_and_ends_with_the_server() -> None:
    with GitLab() as server:
        server.fail("silence")
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.get(f"{server.url}/api/v4/version", timeout=0.2)
        waiting = threading.Thread(target=lambda: _suppressed(server))
        waiting.start()
        assert wait_for(lambda: len(server.requests) == 2, timeout_s=5)
    waiting.join(10)
    assert not waiting.is_alive()


def _suppressed(server: GitLab) -> None:
    with contextlib.suppress(requests.exceptions.RequestException):
        requests.get(f"{server.url}/api/v4/version", timeout=30)


def test_a_lost_answer_leaves_the_work_done_where_that_is_asked(gitlab: GitLab) -> None:
    project = gitlab.add_project("team/app")
    body = {"runner_type": "project_type", "project_id": project.id, "tag_list": ["cpu"]}
    gitlab.fail("reset", path="/api/v4/user/runners", done_first=True, times=1)
    gitlab.fail("reset", path="/api/v4/user/runners", times=1)
    for runners in (1, 1, 2):
        with contextlib.suppress(requests.exceptions.ConnectionError):
            Api.person(gitlab).call("POST", "user/runners", json=body)
        assert len(gitlab.runners) == runners


@pytest.mark.parametrize(
    "arrange",
    [
        lambda server: server.fail("status", method="PATCH", status=500, times=2),
        lambda server: server.fail("reset", method="PATCH", times=1),
        lambda server: server.fail("reset", method="PATCH", times=1, done_first=True),
        lambda server: server.fail("cut", method="PATCH", times=1),
        lambda server: server.fail("status", method="PUT", status=503, times=3),
        lambda server: server.fail("reset", method="PUT", times=1, done_first=True),
    ],
    ids=["500", "reset", "lost-answer", "cut", "final-503", "final-lost-answer"],
)
def test_the_tests_runner_delivers_a_whole_log_through_every_fault(
    gitlab: GitLab, arrange: Callable[[GitLab], Fault]
) -> None:
    project = gitlab.add_project("team/app")
    token = HandRunner.make(gitlab, project.id, "cpu").token
    gitlab.create_pipeline(project, "build: {tags: [cpu], script: [echo]}")
    client = Client(Entry(name="box", url=gitlab.url, token=token), "s_000000000000")
    payload = client.request_job()
    assert payload is not None
    fault = arrange(gitlab)
    trace = Trace(client, payload["id"], payload["token"], masker=Masker([]), limit_bytes=1000, on_abort=lambda: None)
    trace.line("hello world")
    pauses: list[float] = []
    trace.finish("failed", "script_failure", 3, pauses.append)
    job = gitlab.state.jobs[payload["id"]]
    assert (job.log, job.status, job.exit_code) == ("hello world\n", "failed", 3)
    assert trace_is_whole(job)
    assert fault.met >= 1
    assert all(0 < pause <= 30 for pause in pauses)


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (lambda server: server.fail("status", status=500), "GitLab answered 500"),
        (lambda server: server.fail("garbage"), "not GitLab's API"),
        (lambda server: server.fail("reset"), "cannot reach"),
        (
            lambda server: server.fail("status", status=401, body='{"message":"401 Unauthorized"}'),
            "GitLab answered 401",
        ),
    ],
    ids=["500", "garbage", "reset", "401"],
)
def test_our_own_client_turns_each_fault_into_one_line(
    gitlab: GitLab, arrange: Callable[[GitLab], object], said: str
) -> None:
    arrange(gitlab)
    client = connect(gitlab.url, private_token=gitlab.add_token("api"))
    with pytest.raises(RemoteError, match=said), translated("asking", gitlab.url):
        client.runners.get(1)


def test_a_certificate_by_an_unknown_authority_is_refused_and_by_its_file_accepted(tls_gitlab: GitLab) -> None:
    token = tls_gitlab.add_token("api")
    assert tls_gitlab.url.startswith("https://")
    client = connect(tls_gitlab.url, private_token=token)
    with pytest.raises(RemoteError, match="not trusted"), translated("asking", tls_gitlab.url):
        client.http_get("/version")
    trusting = connect(tls_gitlab.url, private_token=token, ca_file=tls_gitlab.ca_file)
    assert trusting.http_get("/version")["version"].startswith("19.")


def test_every_request_is_kept_with_headers_body_and_answer(gitlab: GitLab) -> None:
    token = gitlab.add_token("api")
    _version(gitlab, token)
    (exchange,) = gitlab.requests
    assert exchange.request.headers["private-token"] == token
    assert exchange.response is not None
    assert (exchange.response.status, exchange.template, exchange.fault) == (200, "/api/v4/version", "")


def test_an_unknown_path_is_404_and_a_wrong_method_405_with_gitlabs_words(gitlab: GitLab) -> None:
    api = Api.person(gitlab, "api")
    unknown, wrong = api.call("GET", "no/such/thing"), api.call("PATCH", "version")
    assert (unknown.status_code, unknown.json()) == (404, {"error": "404 Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"error": "405 Not Allowed"})


def test_a_body_that_is_no_json_and_an_id_that_is_no_number_are_400(gitlab: GitLab) -> None:
    api = Api.person(gitlab, "api")
    headers = {"Content-Type": "application/json"}
    assert api.call("POST", "user/runners", data="{", headers=headers).status_code == 400
    assert api.call("GET", "runners/twelve").status_code == 400
    assert api.call("GET", "projects/no%2Fsuch").json() == {"message": "404 Project Not Found"}


def test_the_end_leaves_no_thread_and_no_listener() -> None:
    before = threading.active_count()
    server = GitLab()
    port = int(server.url.rpartition(":")[2])
    server.close()
    server.close()
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
