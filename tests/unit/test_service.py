"""The runner's unit file, gitlab-runner's program, and what systemd is asked for."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.process import Finished
from gpurig.provisioning.distribution import Distribution
from gpurig.provisioning.runner_binary import RunnerBinary, check_runner_binary, find_runner_binary, version_of
from gpurig.provisioning.service_spec import ServiceSpec, render_unit, same_process, unit_owner
from gpurig.provisioning.services import FoundService, Systemd, parse_show
from hypothesis import given, settings
from hypothesis import strategies as st

NAME = "gpurig-runner"
SPEC = ServiceSpec(
    name=NAME,
    instance="gpurig",
    root=Path("/"),
    binary=Path("/usr/bin/gitlab-runner"),
    version="19.4.0",
    config=Path("/etc/gpurig/config.toml"),
    folders=(Path("/etc/gpurig"), Path("/var/lib/gpurig")),
    working_dir=Path("/var/lib/gpurig"),
)


def keys(text: str, section: str) -> dict[str, str]:
    lines = text.partition(f"[{section}]\n")[2].partition("\n\n")[0].splitlines()
    return dict(line.partition("=")[::2] for line in lines)


def test_the_unit_runs_gitlab_runner_on_our_config_and_ends_it_after_its_jobs() -> None:
    service = keys(render_unit(SPEC), "Service")
    assert shlex.split(service["ExecStart"]) == [
        *("/usr/bin/gitlab-runner", "run", "--config", "/etc/gpurig/config.toml"),
        *("--working-directory", "/var/lib/gpurig"),
    ]
    assert (service["KillSignal"], service["KillMode"], service["TimeoutStopSec"]) == ("SIGQUIT", "mixed", "3600")
    assert (service["ProtectSystem"], service["ReadWritePaths"]) == ("strict", '"/etc/gpurig" "/var/lib/gpurig"')
    # 0 would be: wait for ever.
    assert keys(render_unit(replace(SPEC, stop_s=0)), "Service")["TimeoutStopSec"] == "1"


def test_what_lies_in_the_machines_tmp_is_seen_by_the_service() -> None:
    assert "PrivateTmp" in keys(render_unit(SPEC), "Service")
    assert "PrivateTmp" not in keys(render_unit(replace(SPEC, socket="/tmp/docker.sock")), "Service")
    assert "PrivateTmp" not in keys(render_unit(replace(SPEC, folders=(Path("/var/tmp/x"),))), "Service")


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40))
@settings(max_examples=200)
def test_any_path_and_proxy_reaches_the_process_as_it_is(word: str) -> None:
    spec = replace(SPEC, config=Path("/") / "x" / word.replace("/", "_"), environment=(("HTTP_PROXY", word),))
    service = keys(render_unit(spec), "Service")
    expanded = service["ExecStart"].replace("%%", "%").replace("$$", "$")
    assert shlex.split(expanded)[3] == str(spec.config)
    assert shlex.split(service["Environment"].replace("%%", "%")) == [f"HTTP_PROXY={word}"]
    assert "$" not in service["ExecStart"].replace("$$", "")
    assert "%" not in render_unit(spec).replace("%%", "")


@pytest.mark.parametrize("name", ["root", "binary", "config"])
def test_a_path_cannot_add_a_line_to_the_unit(name: str) -> None:
    with pytest.raises(InputError, match="no unit file can"):
        render_unit(replace(SPEC, **{name: Path("/x\nExecStartPre=/bin/sh")}))  # type: ignore[arg-type]  # three paths


def test_a_unit_tells_whose_it_is() -> None:
    assert unit_owner(render_unit(replace(SPEC, root=Path("/100%")))) == ("gpurig", "/100%")
    for stranger in ("", "[Service]\nExecStart=/bin/true\n", "# gpurig\n[X-Gpurig]\n"):
        assert unit_owner(stranger) is None


def test_only_the_time_to_stop_leaves_the_process_the_same() -> None:
    text = render_unit(SPEC)
    assert same_process(text, replace(SPEC, stop_s=60))
    assert not same_process(text, replace(SPEC, version="19.5.0"))
    assert not same_process(text, replace(SPEC, environment=(("HTTP_PROXY", "http://x"),)))
    assert not same_process(text.replace("Restart=always", "Restart=no"), SPEC)
    assert not same_process("", SPEC)


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("Version:      19.4.0\nGit revision: abc\nOS/Arch:      linux/amd64\n", "19.4.0"),
        ("Version:      18.0.0~pre.12.gabcdef01\n", "18.0.0~pre.12.gabcdef01"),
        ("Version:      development version\n", ""),
        ("Version:      19.4.0; rm -rf\n", ""),
        ("\x1b[31mno runner\n", ""),
    ],
)
def test_the_version_is_read_and_nothing_else(printed: str, version: str) -> None:
    assert version_of(printed) == version


def test_a_program_that_does_not_know_our_keys_is_refused_and_one_without_version_is_not() -> None:
    path = Path("/usr/bin/gitlab-runner")
    with pytest.raises(PrerequisiteError, match=r"is gitlab-runner 16\.5\.0, and 16\.6 or newer is needed"):
        check_runner_binary(RunnerBinary(path, "16.5.0"))
    for version in ("16.6.0", "19.4.0", ""):
        check_runner_binary(RunnerBinary(path, version))


@pytest.mark.parametrize(
    ("family", "command"),
    [
        ("debian", "apt-get install -y gitlab-runner"),
        ("ubuntu", "apt-get install -y gitlab-runner"),
        ("fedora", "dnf install -y gitlab-runner"),
        ("arch", "pacman -S --needed --noconfirm gitlab-runner"),
    ],
)
def test_a_program_that_is_missing_is_told_with_the_distributions_command(
    family: Any, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError) as caught:
        find_runner_binary(None, where=lambda: Distribution("X", family))
    assert command in caught.value.hint
    assert "docs.gitlab.com/runner/install" in caught.value.hint
    with pytest.raises(InputError, match="is no program"):
        find_runner_binary(tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "ActiveState=active\nSubState=running\nNeedDaemonReload=no\n",
            FoundService("x", "active", "running"),
        ),
        (
            "NeedDaemonReload=yes\nActiveState=activating\nSubState=auto-restart\nNew=1\n",
            FoundService("x", "activating", "auto-restart", stale=True),
        ),
        ("ActiveState=inactive\nSubState=dead\n", FoundService("x", "inactive", "dead")),
        ("", FoundService("x", "inactive")),
    ],
)
def test_what_systemctl_shows_is_read(text: str, found: FoundService) -> None:
    assert parse_show("x", text) == found


class Systemctl:
    """Answers systemctl's calls: a service whose process ends so many looks after it was asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, looks: int | None, state: str = "active") -> None:
        self.calls: list[tuple[str, ...]] = []
        self.state, self._looks = state, looks
        monkeypatch.setattr("gpurig.provisioning.services.run", self._run)

    def _run(self, argv: tuple[str, ...], *, timeout_s: float) -> Finished:
        words = tuple(word for word in argv[1:] if word not in {"--", "--no-pager", "--no-ask-password"})
        self.calls.append(words)
        if words[0] == "show":
            if self.state == "stopping" and self._looks is not None:
                self._looks -= 1
                self.state = "auto-restart" if self._looks < 0 else self.state
            status = {"stopping": "active", "auto-restart": "activating"}.get(self.state, self.state)
            return Finished(argv, 0, f"ActiveState={status}\nSubState={self.state}\n", "")
        if words[0] == "kill":
            self.state = "failed" if "--signal=SIGKILL" in words else "stopping"
        if words[0] == "stop" and self.state == "auto-restart":
            self.state = "inactive"
        return Finished(argv, 0, "", "")

    @property
    def did(self) -> list[tuple[str, ...]]:
        return [words[:-1] for words in self.calls if words[0] not in {"show", "is-enabled"}]


class Ticking:
    """A clock on which waiting takes no time."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_service_ends_after_its_jobs_and_is_not_started_again_by_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = Systemctl(monkeypatch, looks=3)
    Systemd(clock=Ticking()).stop("x", wait_s=60)
    assert systemctl.did == [("kill", "--kill-who=main", "--signal=SIGQUIT"), ("stop", "--no-block")]


def test_a_service_that_does_not_end_in_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, systemctl = Ticking(), Systemctl(monkeypatch, looks=None)
    Systemd(clock=clock).stop("x", wait_s=60)
    # Killed, it would be "failed" for ever, also without its file.
    assert systemctl.did[1:] == [("stop", "--no-block"), ("kill", "--signal=SIGKILL"), ("reset-failed",)]
    assert 60 <= clock.now < 62


def test_a_service_that_does_not_run_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = Systemctl(monkeypatch, looks=0, state="failed")
    Systemd(clock=Ticking()).stop("x", wait_s=60)
    assert systemctl.did == []


def test_what_systemd_refuses_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(argv: tuple[str, ...], *, timeout_s: float) -> Finished:
        return Finished(argv, 1, "", "Failed to start x.service: Unit x.service not found.\n")

    monkeypatch.setattr("gpurig.provisioning.services.run", run)
    with pytest.raises(PrerequisiteError, match=r"systemctl start x\.service: Failed to start"):
        Systemd().start("x")
    with pytest.raises(PrerequisiteError, match="systemd does not run this machine"):
        Systemd(booted=tmp_path / "none").check()
