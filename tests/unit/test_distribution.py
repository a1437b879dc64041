"""Distributions by their os-release, and how one installs on each."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpurig.provisioning.distribution import Command, Distribution, Family, distribution, parse_os_release
from hypothesis import given
from hypothesis import strategies as st

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n'
UBUNTU = 'PRETTY_NAME="Ubuntu 24.04.2 LTS"\nNAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n'
FEDORA = 'NAME="Fedora Linux"\nVERSION="42 (Server Edition)"\nID=fedora\nPRETTY_NAME="Fedora Linux 42 (Server Edition)"'
ARCH = 'NAME="Arch Linux"\nPRETTY_NAME="Arch Linux"\nID=arch\nBUILD_ID=rolling\n'


@pytest.mark.parametrize(
    ("text", "family"),
    [
        (DEBIAN, "debian"),
        (UBUNTU, "ubuntu"),
        (FEDORA, "fedora"),
        (ARCH, "arch"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", "ubuntu"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "fedora"),
        ("ID=endeavouros\nID_LIKE=arch\n", "arch"),
        ("ID=raspbian\nID_LIKE=debian\n", "debian"),
        ("ID=nixos\n", "unknown"),
        ("# ID=debian\n", "unknown"),
        ("", "unknown"),
        ('ID="debian\n', "unknown"),
    ],
)
def test_a_distribution_is_known_by_its_id_or_by_what_it_is_like(text: str, family: Family) -> None:
    assert parse_os_release(text).family == family


def test_a_distribution_is_named_as_it_names_itself() -> None:
    assert parse_os_release(DEBIAN).name == "Debian GNU/Linux 12 (bookworm)"
    assert parse_os_release("ID=void\n").name == "void"
    assert parse_os_release("").name == "an unknown distribution"


def test_the_file_is_read_below_a_root_and_from_its_second_place(tmp_path: Path) -> None:
    assert distribution(tmp_path) == Distribution(systemd=False)
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text(ARCH)
    assert distribution(tmp_path).family == "arch"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(UBUNTU)
    assert distribution(tmp_path).family == "ubuntu"


@pytest.mark.parametrize(
    ("family", "commands"),
    [
        ("debian", ["apt-get update", "apt-get install -y docker.io"]),
        ("ubuntu", ["apt-get update", "apt-get install -y docker.io"]),
        ("fedora", ["dnf install -y moby-engine"]),
        ("arch", ["pacman -S --needed --noconfirm docker"]),
        ("unknown", []),
    ],
)
def test_every_distribution_installs_the_engine_in_its_own_way(family: Family, commands: list[str]) -> None:
    assert [one.text(root=True) for one in Distribution("x", family).install("engine")] == commands


def test_the_driver_of_ubuntu_is_chosen_by_its_own_tool() -> None:
    (command,) = Distribution("x", "ubuntu").install("nvidia-driver", by_hand=True)
    assert command == Command(("ubuntu-drivers", "install"), by_hand=True)


def test_a_service_is_started_by_systemd_where_it_runs_and_else_by_its_script(tmp_path: Path) -> None:
    systemd = Distribution("x", "arch")
    assert systemd.start("docker")[0].argv == ("systemctl", "enable", "--now", "docker")
    assert systemd.restart("docker")[0].argv == ("systemctl", "restart", "docker")
    assert not distribution(tmp_path).systemd
    assert distribution(tmp_path).start("docker")[0].argv == ("service", "docker", "start")
    assert distribution(tmp_path).restart("docker")[0].argv == ("service", "docker", "restart")
    assert distribution(tmp_path).keep_time() == ()
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert distribution(tmp_path).systemd
    assert distribution(tmp_path).keep_time()[0].argv == ("timedatectl", "set-ntp", "true")


def test_a_command_is_shown_as_a_shell_takes_it_with_sudo_for_who_is_not_root() -> None:
    command = Command(("nvidia-ctk", "cdi", "generate", "--output=/a folder/x.yaml"))
    assert command.text(root=True) == "nvidia-ctk cdi generate '--output=/a folder/x.yaml'"
    assert command.text(root=False).startswith("sudo nvidia-ctk ")
    assert Command(("docker", "pull", "x"), as_root=False).text(root=False) == "docker pull x"


@given(st.text())
def test_any_os_release_gives_a_distribution(text: str) -> None:
    assert parse_os_release(text).family in {"debian", "ubuntu", "fedora", "arch", "unknown"}
