"""HttpGitLab against the tests' GitLab: what it does, and every way in which a server can fail it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from gpurig.common import gitlab_api
from gpurig.common.errors import EXIT_REMOTE, RemoteError
from gpurig.provisioning.runner_spec import RunnerSpec
from gpurig.provisioning.runners import GivenToken, HttpGitLab, RefusedError
from standins.gitlab import DEVELOPER, MAINTAINER, OWNER, GitLab


@pytest.fixture
def server() -> Iterator[GitLab]:
    with GitLab() as running:
        yield running


def spec_for(server: GitLab, target: str, *, kind: Any = "project") -> RunnerSpec:
    return RunnerSpec(
        url=server.url,
        runner_type=kind,
        target=target,
        description="gpurig on ada: CPU [12345678]",
        tags=("gpurig", "cpu"),
        run_untagged=False,
    )


def client(server: GitLab, *scopes: str) -> HttpGitLab:
    token = server.add_token(*(scopes or ("create_runner",)))
    return HttpGitLab(server.url, token=GivenToken(token), ca_file=server.ca_file)


def test_a_narrow_token_makes_a_project_runner_that_lives_and_dies_by_its_own_token(server: GitLab) -> None:
    project = server.add_project("lab/llm")
    gitlab = client(server)
    gitlab.check_token(spec_for(server, str(project.id)))
    made = gitlab.create(spec_for(server, str(project.id)))
    runner = server.runners[0]
    assert (runner.id, runner.token) == (made.id, made.token)
    assert set(runner.tag_list) == {"gpurig", "cpu"}
    assert not runner.run_untagged
    assert gitlab.accepts(made.token)
    gitlab.delete(made.token)
    assert not server.runners
    assert not gitlab.accepts(made.token)
    gitlab.delete(made.token)


def test_no_token_is_ever_part_of_an_address(server: GitLab) -> None:
    project = server.add_project("lab/llm")
    gitlab = client(server)
    made = gitlab.create(spec_for(server, str(project.id)))
    gitlab.accepts(made.token)
    gitlab.delete(made.token)
    assert all(made.token not in str(one.request.path) + str(one.request.query) for one in server.requests)


def test_a_path_is_looked_up_where_the_token_may_and_refused_with_the_way_out_where_not(server: GitLab) -> None:
    server.add_project("lab/llm")
    wide = client(server, "api")
    assert wide.create(spec_for(server, "lab/llm")).id == server.runners[0].id
    with pytest.raises(RefusedError, match="looking up project lab/llm") as caught:
        client(server).create(spec_for(server, "lab/llm"))
    assert "number" in caught.value.hint


def test_group_and_instance_runners_are_made(server: GitLab) -> None:
    group = server.add_group("tools")
    admin = server.add_user("root", admin=True)
    token = server.add_token("create_runner", user=admin)
    client(server).create(spec_for(server, str(group.id), kind="group"))
    HttpGitLab(server.url, token=GivenToken(token)).create(spec_for(server, "", kind="instance"))
    assert sorted(runner.runner_type for runner in server.runners) == ["group_type", "instance_type"]


def test_a_refusal_says_that_nothing_was_made(server: GitLab) -> None:
    project = server.add_project("lab/llm")
    stranger = server.add_user("stranger")
    server.add_member(project, stranger, MAINTAINER - 10)
    token = server.add_token("create_runner", user=stranger)
    with pytest.raises(RefusedError, match="403"):
        HttpGitLab(server.url, token=GivenToken(token)).create(spec_for(server, str(project.id)))
    with pytest.raises(RefusedError, match="project 999"):
        client(server).create(spec_for(server, "999"))
    with pytest.raises(RemoteError, match="401"):
        HttpGitLab(server.url, token=GivenToken("glpat-wrong")).check_token(spec_for(server, str(project.id)))
    assert not server.runners


def refused(gitlab: HttpGitLab, spec: RunnerSpec) -> str:
    """What `up` says before anything is made; "" where the token will do, as far as GitLab tells."""
    try:
        gitlab.check_token(spec)
    except RemoteError as error:
        return f"{error.message} ({error.hint})"
    return ""


@pytest.mark.parametrize(
    ("kind", "level", "message"),
    [
        ("project", MAINTAINER, ""),
        ("project", OWNER, ""),
        ("project", DEVELOPER, "is Developer in the project"),
        ("project", 0, "sees no project"),
        ("group", OWNER, ""),
        ("group", MAINTAINER, "is Maintainer in the group"),
        ("group", 0, "sees no group"),
        ("instance", OWNER, "is no administrator"),
    ],
)
def test_a_role_that_is_too_low_is_told_before_a_runner_is_asked_for(
    server: GitLab, kind: Any, level: int, message: str
) -> None:
    somebody = server.add_user("somebody")
    project = server.add_project("lab/llm")
    if level and kind == "group":
        project.group.members[somebody.id] = level
    elif level:
        server.add_member(project, somebody, level)
    targets = {"project": (str(project.id), "lab/llm"), "group": (str(project.group.id), "lab"), "instance": ("",)}
    wide = HttpGitLab(server.url, token=GivenToken(server.add_token("api", user=somebody)))
    narrow = HttpGitLab(server.url, token=GivenToken(server.add_token("create_runner", user=somebody)))
    for target in targets[kind]:
        spec = spec_for(server, target, kind=kind)
        said = refused(wide, spec)
        assert message in said
        assert bool(message) == bool(said)
        # GitLab itself is the judge of the judgement.
        if target.isdigit() or not target:
            if message:
                with pytest.raises(RefusedError):
                    narrow.create(spec)
            else:
                narrow.create(spec)
        # A token of scope create_runner alone may not ask.
        assert refused(narrow, spec) == ""


def test_a_role_in_the_group_counts_for_its_project_and_an_administrator_may_everything(server: GitLab) -> None:
    project = server.add_project("lab/llm")
    inherits, root = server.add_user("inherits"), server.add_user("root", admin=True)
    project.group.members[inherits.id] = MAINTAINER
    specs = [spec_for(server, str(project.id)), spec_for(server, str(project.group.id), kind="group")]
    heir = HttpGitLab(server.url, token=GivenToken(server.add_token("api", user=inherits)))
    assert refused(heir, specs[0]) == ""
    admin = HttpGitLab(server.url, token=GivenToken(server.add_token("api", user=root)))
    for spec in (*specs, spec_for(server, "", kind="instance")):
        assert refused(admin, spec) == ""


def test_scopes_that_create_no_runner_are_named(server: GitLab) -> None:
    project = server.add_project("lab/llm")
    said = refused(client(server, "read_api", "read_user"), spec_for(server, str(project.id)))
    assert said.startswith("the token's scopes (read_api, read_user) do not allow to create a runner (")


def test_a_lost_answer_is_found_by_its_description_and_deleted(server: GitLab) -> None:
    project = server.add_project("lab/llm")
    gitlab = client(server, "api")
    server.fail("reset", method="POST", path="/api/v4/user/runners", done_first=True, times=1)
    spec = spec_for(server, str(project.id))
    with pytest.raises(RemoteError) as caught:
        gitlab.create(spec)
    assert not isinstance(caught.value, RefusedError)
    found = gitlab.find("project", spec.description)
    assert found == (server.runners[0].id,)
    gitlab.delete_by_id(found[0])
    assert not server.runners
    gitlab.delete_by_id(found[0])
    assert client(server).find("project", spec.description) is None


def test_online_is_what_gitlab_says_or_unknown_where_the_token_may_not_ask(server: GitLab) -> None:
    project = server.add_project("lab/llm")
    made = client(server).create(spec_for(server, str(project.id)))
    assert client(server).online(made.id) is None
    assert client(server, "api").online(made.id) is False


def test_nobody_is_asked_for_a_token_to_learn_what_is_only_good_to_know(server: GitLab) -> None:
    class Nobody:
        def get(self) -> str:
            raise AssertionError("asked")

        def at_hand(self) -> None:
            return None

    gitlab = HttpGitLab(server.url, token=Nobody())
    assert gitlab.online(1) is None
    assert gitlab.find("project", "x") is None
    assert not gitlab.accepts("glrt-x")


def test_a_runner_is_changed_in_place_by_a_wide_token_and_by_no_other(server: GitLab) -> None:
    project = server.add_project("lab/llm")
    spec = replace(spec_for(server, str(project.id)), maximum_timeout=7200, maintenance_note="call Ada")
    made = client(server).create(spec)
    runner = server.runners[0]
    assert (runner.maximum_timeout, runner.maintenance_note, runner.locked) == (7200, "call Ada", False)
    other = replace(
        spec_for(server, str(project.id)),
        tags=("gpurig", "lab"),
        locked=True,
        protected=True,
        paused=True,
        run_untagged=True,
        description="another",
    )
    assert not client(server).change(made.id, other)
    assert set(runner.tag_list) == {"gpurig", "cpu"}
    for token in ("api", "manage_runner"):
        assert client(server, token).change(made.id, other)
    assert set(runner.tag_list) == {"gpurig", "lab"}
    assert (runner.locked, runner.access_level, runner.paused, runner.run_untagged) == (
        True, "ref_protected", True, True,
    )  # fmt: skip
    assert (runner.description, runner.maximum_timeout, runner.maintenance_note) == ("another", None, "")
    assert not client(server, "api").change(made.id + 1, other)


def test_a_runners_token_is_exchanged_by_itself_and_the_old_one_is_worthless(server: GitLab) -> None:
    project = server.add_project("lab/llm")
    gitlab = client(server)
    made = gitlab.create(spec_for(server, str(project.id)))
    server.runners[0].token_expires_at = datetime(2030, 1, 2, tzinfo=UTC)
    new = gitlab.reset_token(made.token)
    assert new is not None
    assert new.value == server.runners[0].token != made.token
    assert new.expires_at == datetime(2030, 1, 2, tzinfo=UTC)
    assert new.value not in repr(new)
    assert not gitlab.accepts(made.token)
    assert gitlab.accepts(new.value)
    assert gitlab.reset_token(made.token) is None
    assert all(new.value not in str(one.request.path) + str(one.request.query) for one in server.requests)


CALLS: dict[str, Any] = {
    "change": lambda gitlab, spec: gitlab.change(1, spec),
    "reset_token": lambda gitlab, _: gitlab.reset_token("glrt-x"),
    "check_token": lambda gitlab, spec: gitlab.check_token(spec),
    "create": lambda gitlab, spec: gitlab.create(spec),
    "accepts": lambda gitlab, _: gitlab.accepts("glrt-x"),
    "delete": lambda gitlab, _: gitlab.delete("glrt-x"),
    "online": lambda gitlab, _: gitlab.online(1),
    "find": lambda gitlab, _: gitlab.find("project", "x"),
    "delete_by_id": lambda gitlab, _: gitlab.delete_by_id(1),
}
FAULTS: dict[str, dict[str, Any]] = {
    "500": {"kind": "status", "status": 500},
    "502 page": {"kind": "status", "status": 502, "body": "<html>Bad Gateway</html>", "content_type": "text/html"},
    "403 page": {"kind": "status", "status": 403, "body": "<html>Blocked</html>", "content_type": "text/html"},
    "not HTTP": {"kind": "not-http"},
    "cut": {"kind": "cut"},
    "reset": {"kind": "reset"},
    "silence": {"kind": "silence"},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_every_call_meets_every_fault_with_one_line_and_a_hint(
    server: GitLab, call: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitlab_api, "TIMEOUT_S", 0.2 if fault == "silence" else 5.0)
    project = server.add_project("lab/llm")
    how = dict(FAULTS[fault])
    server.fail(how.pop("kind"), **how)
    with pytest.raises(RemoteError) as caught:
        CALLS[call](client(server, "api"), spec_for(server, str(project.id)))
    assert caught.value.exit_code == EXIT_REMOTE
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert "<" not in caught.value.message


@pytest.mark.parametrize("call", CALLS)
def test_a_login_page_is_not_taken_for_an_answer(server: GitLab, call: str) -> None:
    project = server.add_project("lab/llm")
    server.fail("garbage")
    with pytest.raises(RemoteError, match=r"not GitLab's API|not HTTP as expected"):
        CALLS[call](client(server, "api"), spec_for(server, str(project.id)))


def test_an_unknown_certificate_authority_is_refused_and_a_named_one_is_trusted() -> None:
    with GitLab(tls=True) as server:
        token, spec = server.add_token("create_runner"), spec_for(server, "1")
        with pytest.raises(RemoteError, match="certificate") as caught:
            HttpGitLab(server.url, token=GivenToken(token)).check_token(spec)
        assert "--tls-ca-file" in caught.value.hint
        HttpGitLab(server.url, token=GivenToken(token), ca_file=server.ca_file).check_token(spec)
