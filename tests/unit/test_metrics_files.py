"""The exporter's web configuration through `up`: demanded, copied, mounted, removed."""

from __future__ import annotations

import shutil
from pathlib import Path

import bcrypt
import pytest
import yaml
from gpurig.common.errors import InputError
from gpurig.provisioning.disk import LocalDisk
from gpurig.provisioning.facts import HostFacts
from gpurig.provisioning.metrics_containers import METRICS_WEB_DIR
from gpurig.runner import workflow
from gpurig.runner.exporter.web.web_config import load_web_config
from gpurig.runner.metrics_files import make_metrics_folders, metrics_url, web_files
from gpurig.runner.taking_down import take_down
from standins.gitlab import certificates
from standins.memory_box import ROOT, MemoryBox
from standins.plans import plan_for

HASH = bcrypt.hashpw(b"opensesame", bcrypt.gensalt(4)).decode()
OPEN = "0.0.0.0:9476"


@pytest.fixture(autouse=True)
def _no_look_at_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpurig.runner.up_steps.check_port", lambda *_, **__: None)
    monkeypatch.setattr("gpurig.runner.up_steps.check_folders", lambda *_: None)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with TLS, users and clients' certificates."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("web")
    certificates.make(folder, "127.0.0.1")
    tls = {"cert_file": "server.crt", "key_file": "server.key", "min_version": "TLS13"}
    clients = {"client_ca_file": "ca.pem", "client_auth_type": "VerifyClientCertIfGiven"}
    document = {
        "tls_server_config": tls | clients,
        "basic_auth_users": {"prometheus": HASH},
        "http_server_config": {"headers": {"X-Frame-Options": "deny"}},
    }
    (folder / "web.yml").write_text(yaml.safe_dump(document))
    return folder / "web.yml"


def test_the_copy_says_what_the_original_says_and_needs_its_own_folder_alone(web: Path, tmp_path: Path) -> None:
    original = load_web_config(web)
    files = web_files(original)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    copy = load_web_config(tmp_path / "web.yml")
    assert (copy.users, copy.headers) == (original.users, original.headers)
    assert copy.tls is not None
    assert original.tls is not None
    for attribute in ("client_auth", "minimum", "maximum"):
        assert getattr(copy.tls, attribute) == getattr(original.tls, attribute)
    assert {path.parent for path in copy.files} == {tmp_path}
    assert list(files)[-1] == "web.yml"


def test_an_exporter_for_other_machines_gets_the_configuration_read_only_and_no_permission_to_do_without(
    web: Path,
) -> None:
    plan = plan_for(HostFacts(), metrics_listen=OPEN, metrics_web_config=web)
    exporter = plan.containers[-1]
    assert exporter.command[-2:] == ("--web-config", f"{METRICS_WEB_DIR}/web.yml")
    mount = exporter.mounts[-1]
    assert (mount.source, mount.target, mount.read_only) == (str(plan.paths.metrics_web), METRICS_WEB_DIR, True)


def test_dcgm_exporters_names_come_with_the_machines_own_name_and_only_where_wanted() -> None:
    command = plan_for(HostFacts(), metrics_dcgm_names=True).containers[-1].command
    assert command[-2] == "--dcgm-names"
    assert command[-1].startswith("--hostname=")
    assert len(command[-1]) > len("--hostname=")
    assert "--dcgm-names" not in plan_for(HostFacts()).containers[-1].command


def test_an_exporter_for_this_machine_alone_may_do_without() -> None:
    exporter = plan_for(HostFacts()).containers[-1]
    assert exporter.command[-1] == "--insecure"
    assert exporter.ports[0].address == "127.0.0.1"
    assert METRICS_WEB_DIR not in {mount.target for mount in exporter.mounts}


@pytest.mark.parametrize("given", [{}, {"metrics_insecure": False}])
def test_up_refuses_to_show_other_machines_the_metrics_unprotected_and_touches_nothing(given: dict[str, bool]) -> None:
    box = MemoryBox(HostFacts())
    with pytest.raises(InputError, match=r"--metrics-listen 0\.0\.0\.0 .*--metrics-web-config is missing") as caught:
        workflow.up(box.run(metrics_listen=OPEN, **given))
    assert "--metrics-insecure" in caught.value.hint
    assert not box.disk.files


def test_up_shows_them_unprotected_where_that_was_said() -> None:
    box = MemoryBox(HostFacts())
    workflow.up(box.run(metrics_listen=OPEN, metrics_insecure=True))
    assert box.disk.files


def test_up_copies_it_once_again_when_renewed_and_down_removes_it(web: Path, tmp_path: Path) -> None:
    own = shutil.copytree(web.parent, tmp_path / "own")
    box = MemoryBox(HostFacts())
    given = {"metrics_listen": OPEN, "metrics_web_config": own / "web.yml"}
    run = box.run(**given)
    workflow.up(run)
    folder = run.paths.metrics_web
    assert {path.name for path in box.disk.files if path.parent == folder} == {
        "web.yml",
        "server.crt",
        "server.key",
        "clients.crt",
    }
    again = box.run(**given)
    workflow.up(again)
    assert again.changes == []
    (own / "renewed").mkdir()
    certificates.make(own / "renewed", "127.0.0.1")
    for name in ("server.crt", "server.key"):
        shutil.copy(own / "renewed" / name, own / name)
    renewed = box.run(**given)
    workflow.up(renewed)
    # The exporter reads it by itself: its container stays.
    assert renewed.changes == ["configure"]
    assert box.disk.files[folder / "server.crt"][0] == (own / "server.crt").read_text()
    assert metrics_url(renewed.settings) == f"https://{OPEN}/metrics"
    take_down(box.world(), name="gpurig", root=ROOT, docker_host=None, unregister=True, drain_s=7, say=lambda *_: None)
    assert not [path for path in box.disk.files if folder in path.parents]


def test_watcher_exporter_and_jobs_meet_in_folders_that_nobody_else_gets_into(tmp_path: Path) -> None:
    box = MemoryBox(HostFacts())
    box.disk = LocalDisk()  # type: ignore[assignment]  # real folders have modes
    run = box.run(root=tmp_path, metrics_listen="127.0.0.1:9476")
    run.plan = plan_for(HostFacts())
    make_metrics_folders(run)
    paths = run.paths
    modes = {path.name: path.stat().st_mode & 0o777 for path in (paths.metrics_data, *paths.metrics_data.iterdir())}
    assert modes == {"metrics": 0o700, "box": 0o755, "accounts": 0o777, "usage": 0o777}
    (paths.usage / "1").mkdir()
    (paths.usage / "1" / "2.json").write_text("{}")
    assert not run.undo.roll_back()
    assert not list(tmp_path.iterdir())


def test_without_metrics_there_are_no_folders_for_them(tmp_path: Path) -> None:
    box = MemoryBox(HostFacts())
    workflow.up(box.run())
    assert box.paths.metrics_data not in box.disk.folders
