"""The runner as a service of systemd: its unit file, what systemd is asked for, and what `up` and `down` make of it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.process import Finished
from gpurig.provisioning.config_toml import config_document, parse_config
from gpurig.provisioning.containers import RunningJob
from gpurig.provisioning.distribution import Distribution
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.plan_view import plan_document, plan_text
from gpurig.provisioning.runner_binary import RunnerBinary, check_runner_binary, find_runner_binary, version_of
from gpurig.provisioning.service_spec import ServiceSpec, render_unit, same_process, unit_owner, unit_path
from gpurig.provisioning.services import FoundService, Systemd, parse_show
from gpurig.provisioning.state import State
from gpurig.runner import workflow
from gpurig.runner.overview import judge, look_around, overview_document
from gpurig.runner.taking_down import take_down
from gpurig.runner.up_run import UpRun
from hypothesis import given, settings
from hypothesis import strategies as st
from standins.convergence import SYSTEMD, no_machine
from standins.memory_box import ROOT, MemoryBox, two_gpus

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
OLD_HOOK = EngineFacts(
    address="unix:///var/run/docker.sock", version="20.10.24", nvidia_runtime=True, cgroup_driver="systemd"
)


@pytest.fixture(autouse=True)
def _no_machine() -> Any:
    with no_machine():
        yield


def up(box: MemoryBox, **given: Any) -> UpRun:
    run = box.run(**{**SYSTEMD, **given})
    workflow.up(run)
    return run


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
            "ActiveState=active\nSubState=running\nUnitFileState=enabled\nNeedDaemonReload=no\n",
            FoundService("x", "active", "running", enabled=True),
        ),
        (
            "NeedDaemonReload=yes\nActiveState=activating\nSubState=auto-restart\nUnitFileState=disabled\nNew=1\n",
            FoundService("x", "activating", "auto-restart", stale=True),
        ),
        ("ActiveState=inactive\nSubState=dead\nUnitFileState=\n", FoundService("x", "inactive", "dead")),
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
        return [words[:-1] for words in self.calls if words[0] != "show"]


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


def test_a_first_up_makes_the_service_and_no_container_of_the_runner() -> None:
    box = MemoryBox()
    run = up(box, metrics_listen="127.0.0.1:9476")
    assert box.runners_of("gpurig") == [NAME]
    assert {one.name for one in box.engine.containers.values()} == {"gpurig-exporter"}
    # Its image is not needed, and was not pulled.
    assert not any("gitlab-runner" in name for name in box.engine.images)
    assert (box.systemd.enabled, box.systemd.reloads) == ({NAME}, 1)
    text, mode = box.disk.files[unit_path(NAME)]
    assert (unit_owner(text), mode) == (("gpurig", str(ROOT)), 0o644)
    assert run.changes == ["register", "image", "configure", "start", "verify"]
    assert up(box, metrics_listen="127.0.0.1:9476").changes == []
    assert box.systemd.reloads == 1


def test_the_service_reads_the_engine_and_the_certificates_where_they_are_on_the_machine(tmp_path: Path) -> None:
    box = MemoryBox(HostFacts())
    box.engine.described = replace(box.engine.described, address="unix:///run/user/1000/docker.sock")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text("a certificate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpurig.runner.up_steps.check_ca_file", lambda _: None)
        up(box, tls_ca_file=str(ca_file))
    runner = (parse_config(box.disk.read(box.paths.config) or "") or {})["runners"][0]
    assert runner["docker"]["host"] == "unix:///run/user/1000/docker.sock"
    assert runner["tls-ca-file"] == str(box.paths.ca_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpurig.runner.up_steps.check_ca_file", lambda _: None)
        up(box, service="container", tls_ca_file=str(ca_file))
    runner = (parse_config(box.disk.read(box.paths.config) or "") or {})["runners"][0]
    assert "host" not in runner["docker"]
    assert runner["tls-ca-file"] == "/etc/gitlab-runner/certs/gitlab-ca.crt"


def test_jobs_end_before_the_service_is_changed_or_handed_over_and_two_runners_never_run() -> None:
    box = MemoryBox()
    up(box, service="container")
    box.engine.running_jobs = (RunningJob("7", "", "1", "x", "cpu", "build"),)
    up(box)
    assert box.engine.stopped[0] == (NAME, 5)
    up(box, http_proxy="http://proxy.example:3128")
    assert box.systemd.stopped == [(NAME, 5)]
    up(box, http_proxy="http://proxy.example:3128", service="container")
    assert box.systemd.stopped == [(NAME, 5), (NAME, 5)]
    assert box.twice == []
    assert box.runners_of("gpurig") == [NAME]
    assert (box.systemd.processes, box.systemd.enabled) == ({}, set())
    assert box.disk.read(unit_path(NAME)) is None


def test_more_or_less_patience_does_not_cost_a_restart() -> None:
    box = MemoryBox()
    up(box)
    process = box.systemd.processes[NAME]
    run = up(box, wait=60)
    assert run.changes == ["start"]
    assert box.systemd.processes == {NAME: process}
    assert "TimeoutStopSec=60" in box.systemd.loaded[NAME]
    assert State.model_validate_json(box.disk.read(box.paths.state) or "").settings["wait"] == 60


def test_a_crashing_runner_is_stopped_before_its_unit_changes() -> None:
    box = MemoryBox()
    up(box)
    box.systemd.crashing = {NAME}
    box.systemd.on_start = lambda _: box.systemd.crashing.clear()
    up(box, http_proxy="http://proxy.example:3128")
    assert box.systemd.stopped == [(NAME, 5)]
    assert box.systemd.snapshot()["running"] == {NAME: True}


def test_a_reboot_after_any_up_starts_one_runner() -> None:
    box = MemoryBox()
    up(box)
    box.systemd.reboot()
    assert box.runners_of("gpurig") == [NAME]
    up(box, service="container")
    box.systemd.reboot()
    assert box.systemd.processes == {}


@pytest.mark.parametrize("owner", ["a stranger", "another root"])
def test_a_unit_that_is_not_ours_is_left_alone(owner: str) -> None:
    box = MemoryBox()
    text = "[Service]\n" if owner == "a stranger" else render_unit(replace(SPEC, root=Path("/elsewhere")))
    box.disk.write(unit_path(NAME), text, mode=0o644)
    before = box.snapshot()
    with pytest.raises(PrerequisiteError, match="not gpurig's" if owner == "a stranger" else "below /elsewhere"):
        up(box)
    assert box.snapshot() == before
    up(box, service="container")
    assert box.disk.read(unit_path(NAME)) == text


def test_without_systemd_nothing_is_made() -> None:
    box = MemoryBox()
    box.systemd.available = False
    before = box.snapshot()
    with pytest.raises(PrerequisiteError, match="systemd does not run"):
        up(box)
    assert box.snapshot() == before
    # The container asks for no systemd.
    up(box, service="container")


def test_where_a_reload_takes_gpus_away_it_is_told_jobs_end_first_and_the_exporter_gets_its_own_again() -> None:
    box = MemoryBox(two_gpus())
    box.engine.described = OLD_HOOK
    run = up(box, metrics_listen="127.0.0.1:9476")
    assert any("daemon-reload" in note for note in run.notes)
    box.engine.running_jobs = (RunningJob("7", "", "1", "x", "cpu", "build"),)
    box.engine.stopped.clear()
    up(box, metrics_listen="127.0.0.1:9476", wait=60)
    assert box.systemd.stopped == [(NAME, 5)]
    assert box.engine.stopped == [("gpurig-exporter", 10)]
    assert all(one.status == "running" for one in box.engine.containers.values())
    # With CDI nothing of this is needed.
    other = MemoryBox(two_gpus())
    assert up(other).notes == []


def down(box: MemoryBox, **given: Any) -> list[str]:
    said: list[str] = []
    take_down(
        box.world(),
        name="gpurig",
        root=ROOT,
        docker_host=None,
        say=lambda step, text: said.append(f"{step} {text}"),
        **{"unregister": False, **given},
    )
    return said


def test_down_ends_the_service_after_its_jobs_and_up_starts_it_again() -> None:
    box = MemoryBox()
    up(box, wait=77)
    wanted = box.snapshot()
    assert f"stop removed the service {NAME}" in down(box)
    # As long as `up` was told, where nobody says otherwise.
    assert box.systemd.stopped == [(NAME, 77)]
    assert (box.systemd.processes, box.systemd.enabled, box.disk.read(unit_path(NAME))) == ({}, set(), None)
    up(box, wait=77)
    assert box.snapshot() == wanted
    down(box, unregister=True, drain_s=3)
    assert box.systemd.stopped[-1] == (NAME, 3)
    assert (box.gitlab.runners, box.disk.files) == ({}, {})


def test_status_tells_how_the_service_is() -> None:
    box = MemoryBox()
    up(box)

    def look() -> Any:
        return look_around(box.world(), name="gpurig", root=ROOT, docker_host=None)

    judge(look())
    assert overview_document(look())["service"] == {"name": NAME, "status": "active", "enabled": True}
    box.systemd.stop(NAME, wait_s=1)
    with pytest.raises(PrerequisiteError, match=f"service {NAME} is inactive") as caught:
        judge(look())
    assert f"journalctl -u {NAME}" in caught.value.hint
    box.systemd.stop(NAME, wait_s=1)
    up(box, service="container")
    assert overview_document(look())["service"] is None


def test_a_runner_that_gitlab_never_hears_from_is_told_with_the_services_log() -> None:
    box = MemoryBox()
    box.systemd.on_start = lambda _: None
    box.gitlab.may_list = False
    before = box.snapshot()
    with pytest.raises(PrerequisiteError, match=r"its service is active, and said: a line") as caught:
        up(box)
    assert caught.value.hint == f"journalctl -u {NAME}"
    assert box.snapshot() == before


def test_a_dry_run_shows_the_unit_and_touches_nothing() -> None:
    box = MemoryBox()
    before = box.snapshot()
    run = box.run(**SYSTEMD)
    workflow.look(run)
    text = plan_text(run.plan)
    assert f"Service {NAME}.service, {unit_path(NAME)}:" in text
    assert '  ExecStart="/usr/bin/gitlab-runner" "run"' in text
    document = json.loads(json.dumps(plan_document(run.plan)))
    assert document["service"]["version"] == "19.4.0"
    assert document["containers"] == []
    assert document["images"]["runner"] == ""
    assert config_document(run.plan)["runners"][0]["docker"]["container_labels"]["gpurig.instance"] == "gpurig"
    assert box.snapshot() == before


def test_two_instances_have_a_service_each() -> None:
    box = MemoryBox(HostFacts())
    up(box)
    up(box, name="second")
    assert set(box.systemd.processes) == {NAME, "second-runner"}
    assert Paths(root=ROOT, name="second").config != box.paths.config
    down(box, unregister=True)
    assert set(box.systemd.processes) == {"second-runner"}
