"""`gpurig doctor` against a GitLab over real HTTP and TLS: every way in which it can be wrong, told apart."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gpurig.common.command import run_command
from gpurig.provisioning.doctor.exchange import Answer, ask
from gpurig.provisioning.doctor.server import judge
from gpurig.runner.__main__ import cli
from standins.gitlab import DEVELOPER, MAINTAINER, GitLab

NOBODY = "unix:///nowhere/docker.sock"


def doctor(gitlab: GitLab, tmp_path: Path, *options: str, token: str = "") -> tuple[Result, dict[str, dict[str, Any]]]:
    """The command's result and its checks by name; no engine, so that GitLab's part stands alone."""
    arguments = ["doctor", "--json", "--root", str(tmp_path), "--docker-host", NOBODY, "--url", gitlab.url, *options]
    environment: Mapping[str, str | None] = {"GPURIG_TOKEN": token or None}
    result = CliRunner().invoke(cli, arguments, env=environment, standalone_mode=False)
    assert result.exception is None, result.output
    if token:
        assert token not in result.output
    return result, {one["name"]: one for one in json.loads(result.stdout)["checks"]}


def verdict(checks: Mapping[str, Mapping[str, Any]], name: str) -> tuple[str, str]:
    return checks[name]["status"], checks[name]["message"]


def test_a_narrow_token_creates_runners_and_what_it_may_not_ask_is_skipped(gitlab: GitLab, tmp_path: Path) -> None:
    end = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=200)
    _, checks = doctor(gitlab, tmp_path, token=gitlab.add_token("create_runner", expires_at=end))
    for name in ("gitlab dns", "gitlab", "clock", "token", "token expiry"):
        assert checks[name]["status"] == "ok", checks[name]
    assert checks["token"]["found"] == "create_runner"
    assert verdict(checks, "gitlab version")[0] == "skipped"
    assert "read_user" in checks["gitlab version"]["message"]


def test_the_role_of_the_tokens_owner_is_judged_where_the_token_may_ask(gitlab: GitLab, tmp_path: Path) -> None:
    project = gitlab.add_project("lab/llm")
    ada, bob = gitlab.add_user("ada"), gitlab.add_user("bob")
    gitlab.add_member(project, ada, MAINTAINER)
    gitlab.add_member(project, bob, DEVELOPER)
    where = ("--project", "lab/llm")
    _, checks = doctor(gitlab, tmp_path, *where, token=gitlab.add_token("api", user=ada))
    assert (checks["token role"]["status"], checks["token role"]["found"]) == ("ok", "Maintainer")
    result, checks = doctor(gitlab, tmp_path, *where, token=gitlab.add_token("api", user=bob))
    assert verdict(checks, "token role") == (
        "failed",
        "the token's owner is Developer in the project lab/llm, and a runner takes Maintainer",
    )
    assert (checks["token role"]["area"], bool(checks["token role"]["hint"])) == ("gitlab", True)
    # The engine is missing as well, which is this box's.
    assert result.return_value == 4
    _, checks = doctor(gitlab, tmp_path, "--instance", token=gitlab.add_token("api", user=ada))
    assert checks["token role"]["status"] == "failed"
    _, checks = doctor(gitlab, tmp_path, "--group", "lab", token=gitlab.add_token("api"))
    assert (checks["token role"]["status"], checks["token role"]["found"]) == ("ok", "Owner")
    _, checks = doctor(gitlab, tmp_path, *where, token=gitlab.add_token("create_runner", user=bob))
    assert verdict(checks, "token role") == ("skipped", "a token of this scope may not ask for its owner's role")
    _, checks = doctor(gitlab, tmp_path, token=gitlab.add_token("api", user=ada))
    assert "--project" in checks["token role"]["message"]
    _, checks = doctor(gitlab, tmp_path, *where, token=gitlab.add_token("api", user=ada, revoked=True))
    assert verdict(checks, "token role") == ("skipped", "GitLab refuses the token")


def test_a_wide_token_shows_the_version(gitlab: GitLab, tmp_path: Path) -> None:
    _, checks = doctor(gitlab, tmp_path, token=gitlab.add_token("api"))
    assert checks["gitlab version"]["status"] == "ok"
    assert checks["gitlab version"]["found"].startswith("19.")


def test_a_token_without_the_scope_one_that_expired_and_one_that_was_revoked(gitlab: GitLab, tmp_path: Path) -> None:
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    cases = {
        gitlab.add_token("read_api"): "do not allow to create a runner",
        gitlab.add_token("create_runner", expires_at=yesterday): "the token has expired",
        gitlab.add_token("create_runner", revoked=True): "the token was revoked",
        "glpat-xxxxxxxxxxxxxxxxxxxx": "does not know the token",
    }
    for token, words in cases.items():
        _, checks = doctor(gitlab, tmp_path, token=token)
        assert checks["token"]["status"] == "failed"
        assert words in checks["token"]["message"]
        assert checks["gitlab"]["status"] == "ok", "the server is not to blame"


def test_a_token_that_ends_next_week_is_a_warning_with_the_days(gitlab: GitLab, tmp_path: Path) -> None:
    end = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=7)
    _, checks = doctor(gitlab, tmp_path, token=gitlab.add_token("create_runner", expires_at=end))
    status, message = verdict(checks, "token expiry")
    assert status == "warning"
    assert "in 7 days" in message or "in 6 days" in message


def test_a_token_of_the_wrong_kind_is_refused_before_anything_is_asked(
    gitlab: GitLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPURIG_TOKEN", "glrt-0123456789abcdefghij")
    assert run_command(cli, program="gpurig", arguments=["doctor", "--url", gitlab.url]) == 2
    assert "glrt-0123456789" not in capsys.readouterr().err
    assert gitlab.requests == []


def test_an_unknown_authority_is_told_and_its_file_mends_it(tls_gitlab: GitLab, tmp_path: Path) -> None:
    token = tls_gitlab.add_token("create_runner")
    _, checks = doctor(tls_gitlab, tmp_path, token=token)
    assert checks["gitlab tls"]["status"] == "failed"
    assert "authority that is not known" in checks["gitlab tls"]["message"]
    assert "--tls-ca-file" in checks["gitlab tls"]["hint"]
    assert {checks[name]["status"] for name in ("gitlab", "gitlab version", "token", "clock")} == {"skipped"}
    _, checks = doctor(tls_gitlab, tmp_path, "--tls-ca-file", str(tls_gitlab.ca_file), token=token)
    assert {checks[name]["status"] for name in ("gitlab tls", "gitlab", "token", "ca file")} == {"ok"}


def test_an_expired_certificate_and_one_for_another_name_are_told_apart(tmp_path: Path) -> None:
    for wrong, words in (
        ({"certificate_days": -1}, "has expired"),
        ({"certificate_for": "other.example"}, "for another name than 127.0.0.1"),
    ):
        with GitLab(tls=True, **wrong) as server:  # type: ignore[arg-type]  # one keyword of either type
            _, checks = doctor(server, tmp_path, "--tls-ca-file", str(server.ca_file))
            assert checks["gitlab tls"]["status"] == "failed"
            assert words in checks["gitlab tls"]["message"]


def test_a_ca_file_that_is_none_or_not_there(tls_gitlab: GitLab, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for path, words in ((text, "holds no certificate"), (tmp_path / "absent.pem", "cannot read")):
        result, checks = doctor(tls_gitlab, tmp_path, "--tls-ca-file", str(path))
        assert result.return_value == 4
        assert checks["ca file"]["status"] == "failed"
        assert words in checks["ca file"]["message"]
        assert checks["gitlab tls"]["status"] == "failed"


@pytest.mark.parametrize(
    ("ahead_s", "status", "words"), [(0, "ok", "agrees"), (90, "warning", "behind"), (-4000, "failed", "ahead of")]
)
def test_a_clock_that_is_off_is_measured(gitlab: GitLab, tmp_path: Path, ahead_s: int, status: str, words: str) -> None:
    gitlab.set_clock(ahead_s)
    _, checks = doctor(gitlab, tmp_path)
    assert checks["clock"]["status"] == status
    assert words in checks["clock"]["message"]


def failed(answer: Answer) -> list[tuple[str, str]]:
    return [(one.name, one.message) for one in judge(answer) if one.status == "failed"]


@pytest.mark.parametrize(
    ("kind", "how", "words"),
    [
        ("status", {"status": 500}, "answered 500"),
        ("status", {"status": 503, "body": "<html>down</html>", "content_type": "text/html"}, "answered 503"),
        ("status", {"status": 302, "body": ""}, "redirects to"),
        ("garbage", {}, "not as GitLab's API"),
        ("not-http", {}, "sent no HTTP answer"),
        ("cut", {}, "sent no HTTP answer"),
        ("reset", {}, "127.0.0.1"),
        ("silence", {}, "did not answer in time"),
    ],
)
def test_every_fault_of_a_server_is_one_finding(gitlab: GitLab, kind: Any, how: dict[str, Any], words: str) -> None:
    gitlab.fail(kind, **how)
    answer = ask(gitlab.url, "/version", token="glpat-x", ca_file=None, timeout_s=0.5)
    found = failed(answer)
    assert [name for name, _ in found] == ["gitlab"], found
    assert words in found[0][1]


def test_a_server_that_is_not_there_a_name_that_is_none_and_a_proxy_that_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with GitLab() as server:
        url = server.url
    assert "cannot be reached (Connection refused)" in failed(ask(url, "/version", token=None, ca_file=None))[0][1]
    for name in ("http://gitlab.invalid", "http://" + "a" * 70 + ".example", "http://a..b"):
        assert [one for one, _ in failed(ask(name, "/version", token=None, ca_file=None))] == ["gitlab dns"], name
    monkeypatch.setenv("http_proxy", url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    (name, message) = failed(ask("http://gitlab.example.com", "/version", token=None, ca_file=None))[0]
    assert (name, message) == ("gitlab", "the HTTP proxy does not let us through")


def test_https_spoken_to_a_port_of_http(gitlab: GitLab) -> None:
    url = gitlab.url.replace("http:", "https:")
    ((name, message),) = failed(ask(url, "/version", token=None, ca_file=None))
    assert name == "gitlab tls"
    assert "no TLS connection" in message


def test_a_password_in_netrc_goes_to_nobody(gitlab: GitLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password hunter22\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    doctor(gitlab, tmp_path, token=gitlab.add_token("create_runner"))
    assert gitlab.requests
    assert all("authorization" not in one.request.headers for one in gitlab.requests)
