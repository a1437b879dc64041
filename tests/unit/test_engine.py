"""The engine: what it says of itself, and its errors in our words."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests
from gpurig.common.errors import EXIT_PREREQUISITE, ApplianceError, InputError, PrerequisiteError
from gpurig.provisioning import checks
from gpurig.provisioning.disk import LocalDisk
from gpurig.provisioning.engine import cdi_devices, check_version, connect, engine_facts, translated
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.settings import make_settings

GIVEN = {"url": "https://gitlab.example.com", "runner_type": "project", "target": "42"}


@pytest.mark.parametrize("version", ["20.10.24+dfsg1", "26.1.5", "28.2.2", "29.0.0-rc.1"])
def test_an_engine_that_is_new_enough_is_taken(version: str) -> None:
    check_version({"Version": version, "Components": [{"Name": "Engine"}]})


@pytest.mark.parametrize("version", ["19.03.15", "1.13.1", "", "dev"])
def test_an_old_engine_is_told_its_version_and_the_one_it_needs(version: str) -> None:
    with pytest.raises(PrerequisiteError, match=r"too old: 20\.10 or newer"):
        check_version({"Version": version})


def test_podman_is_told_apart() -> None:
    with pytest.raises(PrerequisiteError, match="Podman"):
        check_version({"Version": "5.2.0", "Components": [{"Name": "Podman Engine"}]})


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:2375", "ssh://box", "npipe:////x", "unix://relative"])
def test_an_engine_elsewhere_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="must be on this machine"):
        connect(address)


def test_no_socket_is_told_with_the_way_to_an_engine(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="there is no socket") as caught:
        connect(f"unix://{tmp_path}/docker.sock")
    assert "--docker-host" in caught.value.hint


def test_a_socket_where_nobody_listens_is_told(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    with pytest.raises(PrerequisiteError, match="does not answer") as caught:
        connect(f"unix://{path}")
    assert "systemctl start docker" in caught.value.hint


def test_a_socket_without_permission_is_told_with_the_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The tests may run as root, whom no socket refuses.
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(PrerequisiteError, match="no permission") as caught:
        connect(f"unix://{tmp_path}/docker.sock")
    assert "usermod -aG docker" in caught.value.hint
    assert caught.value.exit_code == EXIT_PREREQUISITE


def test_an_engine_that_goes_away_in_the_middle_is_told() -> None:
    with pytest.raises(PrerequisiteError, match="starting: the Docker Engine failed"), translated("starting"):
        raise requests.exceptions.ConnectionError("Connection aborted.")


@pytest.mark.parametrize(
    ("explanation", "hint"),
    [
        ("driver failed: Bind for 127.0.0.1:9476 failed: port is already allocated", "--metrics-listen"),
        ("could not select device driver with capabilities: [[gpu]]", "nvidia-container-toolkit"),
        ("manifest unknown", "image's name"),
        ('Get "https://registry-1.docker.io/v2/": dial tcp: no such host', "cannot reach that registry"),
        ("no space left on device", "disk space"),
        ("something else", "journalctl"),
    ],
)
def test_the_engines_errors_come_with_what_to_do(explanation: str, hint: str) -> None:
    with pytest.raises(PrerequisiteError, match="starting: the engine says") as caught, translated("starting"):
        raise docker.errors.APIError("500", explanation=explanation)
    assert hint in caught.value.hint


class Client:
    def __init__(self, info: dict[str, Any]) -> None:
        self._info = info

    def version(self) -> dict[str, Any]:
        return {"Version": "26.1.5", "ApiVersion": "1.45"}

    def info(self) -> dict[str, Any]:
        return self._info


def test_facts_are_read_from_the_engines_own_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "nvidia.yaml").write_text("kind: nvidia.com/gpu\ndevices:\n- name: '0'\n- name: GPU-1\n")
    info = {
        "CDISpecDirs": [str(tmp_path)],
        "Runtimes": {"runc": {}, "nvidia": {}},
        "CgroupDriver": "systemd",
    }
    facts = engine_facts(Client(info), "unix:///run/x.sock")  # type: ignore[arg-type]  # what is used of a client
    assert facts.cdi
    assert facts.cdi_devices == ("nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1")
    assert facts.nvidia_runtime
    assert facts.socket == "/run/x.sock"
    old = engine_facts(Client({"Runtimes": {"runc": {}}}), None)  # type: ignore[arg-type]
    assert not old.cdi
    assert not old.nvidia_runtime


def test_a_spec_that_is_damaged_names_no_device_and_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: [")
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.json").write_text(json.dumps({"kind": "amd.com/gpu", "devices": [{"name": "0"}, "junk", {}]}))
    (tmp_path / "d.txt").write_text("kind: x\n")
    (tmp_path / "e.yaml").write_text("- a list\n")
    (tmp_path / "f.yaml").write_bytes(b"\xff\xfe")
    assert cdi_devices([tmp_path, tmp_path / "absent"]) == ("amd.com/gpu=0",)


def test_a_port_in_use_is_named_with_the_fix_and_a_free_one_passes(
    monkeypatch: pytest.MonkeyPatch, socket_enabled: None
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = make_settings({**GIVEN, "metrics_listen": f"127.0.0.1:{port}"})
        with pytest.raises(PrerequisiteError, match=f"port {port} is in use") as caught:
            checks.check_port(settings, ours=False)
        assert "--metrics-listen" in caught.value.hint
        checks.check_port(settings, ours=True)
    checks.check_port(settings, ours=False)
    checks.check_port(make_settings({**GIVEN, "metrics_listen": "off"}), ours=False)


def test_an_address_of_another_machine_is_bad_input(socket_enabled: None) -> None:
    with pytest.raises(InputError, match="not an address of this machine"):
        checks.check_port(make_settings({**GIVEN, "metrics_listen": "192.0.2.1:9476"}), ours=False)


def test_a_read_only_place_is_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)

    class ReadOnly:
        f_flag = real.f_flag | os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda _: ReadOnly)
    with pytest.raises(PrerequisiteError, match="read-only") as caught:
        checks.check_folders(Paths(root=tmp_path / "new"))
    assert "--root" in caught.value.hint
    assert not (tmp_path / "new").exists()


def test_a_place_without_permission_and_one_below_a_file_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks.check_folders(Paths(root=tmp_path))
    (tmp_path / "etc").write_text("a file")
    with pytest.raises(PrerequisiteError, match="is not a folder"):
        checks.check_folders(Paths(root=tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PrerequisiteError, match="no permission"):
        checks.check_folders(Paths(root=tmp_path / "other"))


def test_a_certificate_file_must_hold_certificates(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    settings = make_settings({**GIVEN, "tls_ca_file": path})
    with pytest.raises(InputError, match="cannot read"):
        checks.check_ca_file(settings)
    path.write_text("no certificate")
    with pytest.raises(InputError, match="holds no certificate"):
        checks.check_ca_file(settings)
    checks.check_ca_file(make_settings(GIVEN))


def test_the_disk_is_locked_for_one_run_at_a_time(tmp_path: Path) -> None:
    disk = LocalDisk()
    with disk.lock(tmp_path), pytest.raises(PrerequisiteError, match="another gpurig"), disk.lock(tmp_path):
        pass
    with disk.lock(tmp_path):
        pass


def test_a_disk_without_locks_keeps_nobody_from_working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with LocalDisk().lock(tmp_path):
        pass


def test_the_disk_makes_what_is_missing_and_removes_only_what_is_empty(tmp_path: Path) -> None:
    disk, deep = LocalDisk(), tmp_path / "a" / "b"
    assert disk.missing(deep) == (deep, deep.parent)
    disk.make_directory(deep, mode=0o700)
    assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    disk.write(deep / "secret", "x", mode=0o600)
    disk.remove_empty(deep)
    assert disk.read(deep / "secret") == "x"
    disk.remove(deep / "secret")
    disk.remove(deep / "secret")
    disk.remove_empty(deep)
    assert disk.missing(deep) == (deep,)
    disk.remove(tmp_path / "a")
    assert disk.read(tmp_path / "a" / "b" / "c") is None


def test_what_the_disk_refuses_is_one_line_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    disk, path = LocalDisk(), tmp_path / "f"
    path.write_text("x")
    for method in ("unlink", "read_text"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, refuse)
            with pytest.raises(ApplianceError, match="Read-only") as caught:
                disk.remove(path) if method == "unlink" else disk.read(path)
            assert caught.value.hint
