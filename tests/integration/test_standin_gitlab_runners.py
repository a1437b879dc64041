"""The stand-in GitLab answers runner calls as GitLab does (loopback only)."""

from __future__ import annotations

import datetime as dt

import gitlab as python_gitlab
import pytest
import requests
from standins.gitlab import DEVELOPER, GitLab

_TAGS = ["cpu", "gpurig"]


def _create(server: GitLab, token: str, **values: object) -> requests.Response:
    project = server.state.project_at("team/app") or server.add_project("team/app")
    body = {"runner_type": "project_type", "project_id": project.id, "tag_list": _TAGS, **values}
    return requests.post(f"{server.url}/api/v4/user/runners", json=body, headers={"PRIVATE-TOKEN": token}, timeout=10)


def test_the_create_runner_scope_alone_creates_a_runner_and_reads_nothing_else(gitlab: GitLab) -> None:
    token = gitlab.add_token("create_runner")
    answer = _create(gitlab, token, run_untagged=False, description="box", maximum_timeout=3600)
    assert answer.status_code == 201
    (runner,) = gitlab.runners
    assert answer.json() == {"id": runner.id, "token": runner.token, "token_expires_at": None}
    assert runner.token.startswith("glrt-t3_")
    assert (runner.tag_list, runner.run_untagged, runner.description) == (_TAGS, False, "box")
    read = requests.get(f"{gitlab.url}/api/v4/runners/{runner.id}", headers={"PRIVATE-TOKEN": token}, timeout=10)
    assert (read.status_code, read.json()["error"]) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"runner_type": "shared"}, "runner_type does not have a valid value"),
        ({"project_id": None}, "project_id is missing"),
        ({"project_id": 999999}, "400 Bad request - Missing/invalid scope"),
        ({"tag_list": [], "run_untagged": False}, "Tags list can not be empty when runner is not allowed"),
        ({"maximum_timeout": 599}, "Maximum timeout needs to be at least 10 minutes"),
        ({"tag_list": [f"t{number}" for number in range(51)]}, "Too many tags specified"),
        ({"paused": "perhaps"}, "paused is invalid"),
    ],
)
def test_a_value_that_gitlab_refuses_is_answered_400_and_makes_no_runner(
    gitlab: GitLab, values: dict[str, object], said: str
) -> None:
    answer = _create(gitlab, gitlab.add_token(), **values)
    assert answer.status_code == 400
    assert said in answer.text
    assert gitlab.runners == []


def test_a_token_that_is_wrong_expired_revoked_or_too_narrow_is_refused(gitlab: GitLab) -> None:
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    expectations = {
        "glpat-nothing": (401, "401 Unauthorized"),
        gitlab.add_token("api", expires_at=yesterday): (401, "Token is expired"),
        gitlab.add_token("api", revoked=True): (401, "Token was revoked"),
        gitlab.add_token("read_api"): (403, "insufficient_scope"),
    }
    for token, (status, said) in expectations.items():
        answer = _create(gitlab, token)
        assert answer.status_code == status
        assert said in answer.text
    assert gitlab.runners == []


def test_a_developer_may_not_create_a_project_runner_nor_an_owner_an_instance_runner(gitlab: GitLab) -> None:
    developer = gitlab.add_user("developer")
    gitlab.add_member(gitlab.add_project("team/app"), developer, DEVELOPER)
    for answer in (
        _create(gitlab, gitlab.add_token(user=developer)),
        _create(gitlab, gitlab.add_token(), runner_type="instance_type"),
    ):
        assert answer.status_code == 403
        assert "Insufficient permissions" in answer.json()["message"]
    administrator = gitlab.add_token(user=gitlab.add_user("root", admin=True))
    assert _create(gitlab, administrator, runner_type="instance_type").json()["token"].startswith("glrt-t1_")


def test_a_runner_verifies_itself_resets_its_token_and_deletes_itself_by_that_token(gitlab: GitLab) -> None:
    base = f"{gitlab.url}/api/v4/runners"
    first = _create(gitlab, gitlab.add_token()).json()["token"]
    verified = requests.post(
        f"{base}/verify",
        json={"token": first, "system_id": "s_0", "info": {"version": "19.4.0", "platform": "linux"}},
        timeout=10,
    )
    assert verified.status_code == 200
    assert gitlab.runners[0].managers["s_0"].version == "19.4.0"
    assert gitlab.runners[0].status == "online"
    second = requests.post(f"{base}/reset_authentication_token", json={"token": first}, timeout=10)
    assert second.status_code == 201
    assert requests.post(f"{base}/verify", json={"token": first}, timeout=10).status_code == 403
    token = second.json()["token"]
    assert requests.delete(f"{base}/managers", json={"token": token, "system_id": "s_0"}, timeout=10).status_code == 204
    assert requests.delete(f"{base}/managers", json={"token": token, "system_id": "s_0"}, timeout=10).status_code == 404
    assert requests.delete(base, params={"token": token}, timeout=10).status_code == 204
    assert gitlab.runners == []
    assert requests.delete(base, params={"token": token}, timeout=10).status_code == 403


def test_registration_tokens_are_refused_as_since_gitlab_17(gitlab: GitLab) -> None:
    answer = requests.post(f"{gitlab.url}/api/v4/runners", json={"token": "GR1348941x"}, timeout=10)
    assert (answer.status_code, answer.json()["reason"]) == (410, "runner_registration_disallowed")


def test_python_gitlab_lists_pages_changes_and_deletes_runners(gitlab: GitLab) -> None:
    token = gitlab.add_token("api")
    for number in range(45):
        _create(gitlab, token, description=f"box {number}", tag_list=["cpu", f"n{number}"])
    client = python_gitlab.Gitlab(gitlab.url, private_token=token)
    client.auth()
    project = client.projects.get("team/app")
    assert len(project.runners.list(get_all=True)) == 45
    (found,) = client.runners.list(tag_list=["n7"], get_all=True)
    runner = client.runners.get(found.id)
    assert (runner.description, runner.tag_list, runner.status) == ("box 7", ["cpu", "n7"], "never_contacted")
    runner.tag_list = ["rocm"]
    runner.paused = True
    runner.save()
    assert gitlab.state.runners[runner.id].tag_list == ["rocm"]
    assert [item.id for item in client.runners.list(paused=True, get_all=True)] == [runner.id]
    runner.delete()
    assert runner.id not in gitlab.state.runners
    with pytest.raises(python_gitlab.GitlabGetError, match="404 Runner Not Found"):
        client.runners.get(runner.id)
    assert client.personal_access_tokens.get("self").scopes == ["api"]
    assert client.version()[0].startswith("19.")
