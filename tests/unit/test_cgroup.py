"""From a process to its container: every recorded form, and a pid that is another process's by now."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path

import pytest
from gpurig.runner.exporter.jobs.cgroup import ContainerFinder, container_id_of_mounts, container_ids
from hypothesis import given
from hypothesis import strategies as st

RECORDED = tomllib.loads((Path(__file__).parents[1] / "fixtures" / "cgroups.toml").read_text())
A, B = "a" * 64, "b" * 64

IDS = st.text("0123456789abcdef", min_size=64, max_size=64)
FORMS = st.sampled_from(
    [
        "/docker/{}",
        "/system.slice/docker-{}.scope",
        "/../{}",
        "/../../../system.slice/docker-{}.scope",
        "/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-{}.scope",
        "/kubepods/burstable/pod8833712d-6e69/{}",
        "/user.slice/user-1000.slice/user@1000.service/libpod-{}.scope",
        "/user.slice/user-1003.slice/user@1003.service/user.slice/docker-{}.scope",
        "/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{}",
    ]
)


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_process_is_in_the_container_that_it_was_in(name: str) -> None:
    text, expected = RECORDED[name]["text"], RECORDED[name]["container"]
    found = container_id_of_mounts(text) if "mountinfo" in name else next(iter(container_ids(text)), None)
    assert (found or "") == expected


@given(container=IDS, form=FORMS, before=st.integers(0, 12), after=st.sampled_from(["", "/init.scope", "/job"]))
def test_a_container_is_found_in_every_form_and_on_every_line(container, form, before, after) -> None:
    lines = [f"{number + 2}:pids:/" for number in range(before)]
    text = "\n".join([*lines, f"1:name=systemd:{form.format(container)}{after}", "0::/", ""])
    assert container_ids(text) == (container,)


@given(outer=IDS, inner=IDS, around=FORMS, within=st.sampled_from(["/docker/{}", "/system.slice/docker-{}.scope"]))
def test_nested_containers_come_innermost_first(outer, inner, around, within) -> None:
    text = f"4:memory:{around.format(outer)}{within.format(inner)}\n1:name=systemd:{around.format(outer)}\n"
    assert container_ids(text) == (inner, outer)


@given(st.text(max_size=300))
def test_no_text_is_too_strange_to_be_read(text: str) -> None:
    assert all(one for one in container_ids(text))
    container_id_of_mounts(text)


@pytest.mark.parametrize(
    "path",
    [
        f"/machine.slice/libpod-conmon-{A}.scope",
        f"/machine.slice/crio-conmon-{A}.scope",
        "/user.slice/run-r0123456789abcdef0123456789abcdef.scope",
        "/process_api/0123456789abcdef0123456789abcdef",
        f"/docker/{A}0",
        f"/docker/{A.upper()}",
        "/kubepods/pod0123456789abcdef0123456789abcdef",
        "/buildkit/y70jq5h2vr3vlmpf7i1ihs5ku",
    ],
)
def test_what_looks_like_a_container_and_is_none_is_none(path: str) -> None:
    assert container_ids(f"0::{path}\n") == ()


def test_the_engine_itself_sees_its_containers_folders_and_is_in_none() -> None:
    mounted = "36 24 0:30 / /var/lib/docker/containers/" + A + "/mounts/shm rw - tmpfs shm rw\n"
    assert container_id_of_mounts(mounted) is None


class Proc:
    """A /proc of files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, pid: int, *, ticks: int, cgroup: str, name: str = "python3", mounts: str = "") -> None:
        folder = self.folder / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "stat").write_text(f"{pid} ({name}) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {ticks} 1 1\n")
        (folder / "cgroup").write_text(cgroup)
        (folder / "mountinfo").write_text(mounts)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def test_a_pid_that_was_given_to_another_process_is_never_the_first_ones(proc: Proc) -> None:
    finder = ContainerFinder(proc.folder)
    proc.start(7, ticks=100, cgroup=f"0::/docker/{A}\n")
    assert finder.containers_of(7) == (A,)
    proc.start(7, ticks=101, cgroup=f"0::/docker/{B}\n")
    assert finder.containers_of(7) == (B,)
    proc.start(7, ticks=102, cgroup="0::/user.slice\n")
    assert finder.containers_of(7) == ()


@pytest.mark.parametrize("name", ["a b", ") S 1 1 (", "((", "x) R 2 3", "\t"])
def test_a_programs_name_does_not_move_its_start_time(proc: Proc, name: str) -> None:
    finder = ContainerFinder(proc.folder)
    proc.start(7, ticks=100, cgroup=f"0::/docker/{A}\n", name=name)
    assert finder.containers_of(7) == (A,)
    proc.start(7, ticks=200, cgroup=f"0::/docker/{B}\n", name=name)
    assert finder.containers_of(7) == (B,)


def test_a_process_that_lives_is_looked_up_once(proc: Proc) -> None:
    finder = ContainerFinder(proc.folder)
    proc.start(7, ticks=100, cgroup=f"0::/docker/{A}\n")
    assert finder.containers_of(7) == (A,)
    (proc.folder / "7" / "cgroup").unlink()
    assert finder.containers_of(7) == (A,)


def test_a_process_that_is_gone_is_in_no_container(proc: Proc) -> None:
    assert ContainerFinder(proc.folder).containers_of(7) == ()
    proc.start(7, ticks=100, cgroup=f"0::/docker/{A}\n")
    (proc.folder / "7" / "stat").write_text("7 (python3\n")
    assert ContainerFinder(proc.folder).containers_of(7) == ()


def test_what_a_job_runs_in_a_container_of_its_own_is_in_the_jobs_too(proc: Proc) -> None:
    proc.start(7, ticks=100, cgroup=f"4:memory:/docker/{A}/docker/{B}\n")
    assert ContainerFinder(proc.folder).containers_of(7) == (B, A)


def test_where_the_path_is_hidden_the_mounts_tell_the_container(proc: Proc) -> None:
    line = f"527 519 254:1 /var/lib/docker/containers/{A}/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n"
    proc.start(7, ticks=100, cgroup="0::/\n", mounts=line)
    assert ContainerFinder(proc.folder).containers_of(7) == (A,)


def test_no_more_processes_are_remembered_than_said(proc: Proc) -> None:
    finder = ContainerFinder(proc.folder, most=3)
    for pid in range(1, 8):
        proc.start(pid, ticks=100, cgroup=f"0::/docker/{A}\n")
        assert finder.containers_of(pid) == (A,)
        (proc.folder / str(pid) / "cgroup").write_text(f"0::/docker/{B}\n")
    assert [finder.containers_of(pid) for pid in (5, 6, 7, 1)] == [(A,), (A,), (A,), (B,)]


def test_a_look_at_a_known_process_costs_little(proc: Proc) -> None:
    """Eight GPUs with eight processes each are looked up every second: 64 looks, far below a millisecond's share."""
    finder = ContainerFinder(proc.folder)
    proc.start(7, ticks=100, cgroup=f"0::/docker/{A}\n")
    finder.containers_of(7)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        finder.containers_of(7)
        times.append(time.perf_counter() - start)
    assert sorted(times)[100] < 0.0005
