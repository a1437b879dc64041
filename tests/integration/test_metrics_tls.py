"""The exporter with TLS and users: over real connections, and scraped by a real Prometheus."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import ssl
import statistics
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gpurig.common.files import make_directory, write_atomic
from gpurig.common.process import run
from gpurig.common.waiting import wait_for
from gpurig.images.build import ensure_image
from gpurig.provisioning.docker_engine import DockerEngine
from gpurig.provisioning.engine_facts import EngineFacts
from gpurig.provisioning.facts import HostFacts
from gpurig.runner.exporter.image import plan_exporter_image
from gpurig.runner.exporter.web.web_config import load_web_config
from gpurig.runner.metrics_files import web_files
from standins import wired_box
from standins.gitlab import certificates
from standins.metrics_server import PASSWORD, USER, serving_metrics, write_web_config
from standins.prometheus import free_port, running_prometheus

if TYPE_CHECKING:
    import docker


@dataclass(frozen=True)
class Served:
    """A running `gpurig metrics serve` with a web configuration.

    Attributes:
        folder: holds web.yml, ca.pem, server.crt and server.key.
        log: its standard error.
    """

    folder: Path
    port: int
    log: Path

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "ca.pem"))

    def get(self, path: str, *, password: str | None = PASSWORD, context: ssl.SSLContext | None = None) -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context or self.context(), timeout=20)
        try:
            connection.request("GET", path, headers=_basic(password))
            answer = connection.getresponse()
            answer.read()
            if answer.status == 401:
                assert answer.headers["WWW-Authenticate"].startswith("Basic ")
            return answer.status
        finally:
            connection.close()


def _basic(password: str | None, name: str = USER) -> dict[str, str]:
    if password is None:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@contextmanager
def _served(folder: Path, extra: str = "", *, address: str = "0.0.0.0") -> Iterator[Served]:  # noqa: S104 - TLS and users
    web_config = write_web_config(folder, extra)
    log = folder / "exporter.log"
    with serving_metrics(log, "--backend", "demo", "--web-config", str(web_config), address=address) as port:
        yield Served(folder, port, log)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with _served(tmp_path) as one:
        yield one


def test_nothing_is_told_without_the_right_password(served: Served) -> None:
    for path in ("/metrics", "/healthz", "/", "/nothing"):
        assert served.get(path, password=None) == 401
        assert served.get(path, password="wrong") == 401
    assert served.get("/metrics") == 200
    assert served.get("/healthz") == 200
    assert served.get("/nothing") == 404
    said = served.log.read_text()
    assert PASSWORD not in said
    assert "$2b$" not in said


def test_a_client_that_speaks_plain_http_or_trusts_another_authority_or_wants_old_tls_gets_nothing(
    served: Served,
) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as plain:
        plain.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        try:
            while chunk := plain.recv(4096):
                answer += chunk
        except ConnectionResetError:
            pass
    assert b"gpurig_" not in answer
    with pytest.raises(ssl.SSLCertVerificationError):
        served.get("/metrics", context=ssl.create_default_context())
    old = served.context()
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        served.get("/metrics", context=old)
    assert served.get("/metrics") == 200


def test_a_client_that_stops_in_the_handshake_keeps_nobody_waiting(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as silent:
        silent.sendall(b"\x16\x03\x01")
        assert served.get("/metrics") == 200


def test_a_password_that_was_right_once_costs_a_scrape_no_bcrypt(served: Served) -> None:
    context = served.context()
    connection = http.client.HTTPSConnection("127.0.0.1", served.port, context=context, timeout=20)
    took = []
    for _ in range(21):
        began = time.perf_counter()
        connection.request("GET", "/metrics", headers=_basic(PASSWORD))
        answer = connection.getresponse()
        assert (answer.status, b"gpurig_gpu_up" in answer.read()) == (200, True)
        took.append(time.perf_counter() - began)
    connection.close()
    # The first one has its bcrypt.
    assert statistics.median(took[1:]) < took[0] / 3


def test_client_certificates_are_demanded_where_the_configuration_says_so(tmp_path: Path) -> None:
    demanded = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.pem\n"
    clients = tmp_path / "clients"
    clients.mkdir()
    # Certificates by this authority may be servers' only, so the client's signs itself.
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=prometheus", "-keyout", str(clients / "key.pem"), "-out", str(tmp_path / "clients.pem")]
    assert run(command, timeout_s=60).code == 0
    with _served(tmp_path, demanded) as one:
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
            one.get("/metrics")
        known = one.context()
        known.load_cert_chain(tmp_path / "clients.pem", clients / "key.pem")
        assert one.get("/metrics", context=known) == 200


def test_a_renewed_certificate_is_served_without_a_restart(served: Served, tmp_path: Path) -> None:
    assert served.get("/metrics") == 200
    renewed = tmp_path / "renewed"
    renewed.mkdir()
    certificates.make(renewed, "127.0.0.1")
    for name in ("server.key", "server.crt", "ca.pem"):
        shutil.copy(renewed / name, served.folder / name)
    # The new authority's certificate is in ca.pem now, and only the new server's certificate is by it.
    assert served.get("/metrics") == 200
    assert "again" in served.log.read_text()


def test_a_real_prometheus_scrapes_it_with_tls_and_a_password(served: Served) -> None:
    folder = served.folder
    (folder / "password").write_text(PASSWORD)
    (folder / "wrong").write_text("wrong")
    jobs = [
        {
            "job_name": name,
            "scheme": "https",
            "tls_config": {"ca_file": str(folder / "ca.pem")},
            "basic_auth": {"username": USER, "password_file": str(folder / secret)},
            "static_configs": [{"targets": [f"127.0.0.1:{served.port}"]}],
        }
        for name, secret in (("right", "password"), ("wrong", "wrong"))
    ]
    settings = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(json.dumps(settings))
    with running_prometheus(folder / "prometheus.yml", storage=folder / "storage") as prometheus:
        assert wait_for(lambda: prometheus.query('up{job="right"} == 1'), timeout_s=60, interval_s=0.3)
        assert wait_for(lambda: prometheus.query('up{job="wrong"} == 0'), timeout_s=60, interval_s=0.3)
        assert prometheus.query('gpurig_gpu_memory_used_bytes{job="right"}')
        assert not prometheus.query('gpurig_gpu_memory_used_bytes{job="wrong"}')


@pytest.mark.parametrize("listen", ["0.0.0.0:9476", "[::]:9476"])
def test_on_an_address_that_others_reach_it_does_not_start_unprotected(listen: str) -> None:
    done = run([sys.executable, "-m", "gpurig.runner", "metrics", "serve", "--listen", listen], timeout_s=60)
    assert done.code == 2
    assert "--web-config" in done.stderr
    assert "--insecure" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.docker
def test_in_its_container_the_exporter_reads_the_owners_files_as_a_user_of_its_own(
    engine: docker.DockerClient, base_image: str, tmp_path: Path
) -> None:
    image = ensure_image(engine, plan_exporter_image(base_image=base_image), on_line=lambda _: None).tag
    owners = tmp_path / "owners"
    owners.mkdir(mode=0o700)
    web_config = write_web_config(owners)
    (owners / "server.key").chmod(0o600)
    port = free_port()
    # Whatever address others would use, it is the loopback one that is tried here.
    plan = wired_box.plan_of(
        HostFacts(),
        EngineFacts("unix:///x", "26.1"),
        image,
        "gpu",
        tmp_path,
        metrics_listen=f"0.0.0.0:{port}",
        metrics_web_config=web_config,
    )
    before = os.umask(0o077)
    try:
        wired_box.make_metrics_folders(plan)
        make_directory(plan.paths.metrics_web.parent, 0o700)
        make_directory(plan.paths.metrics_web, 0o755)
        for name, text in web_files(load_web_config(web_config)).items():
            write_atomic(plan.paths.metrics_web / name, text, mode=0o644)
    finally:
        os.umask(before)
    adapter = DockerEngine(engine, "unix:///x")
    mark = uuid.uuid4().hex[:8]
    planned = plan.containers[-1]
    assert "--insecure" not in planned.command
    spec = replace(planned, name=f"gpurig-test-{mark}", instance=f"test-{mark}", restart=False)
    made = adapter.create(spec, str(engine.images.get(image).id))
    try:
        adapter.start(made)
        assert wait_for(lambda: "serving" in adapter.logs(made) or adapter.status(made) != "running", timeout_s=60)
        one = Served(owners, port, owners / "none")
        assert one.get("/metrics", password="wrong") == 401
        assert one.get("/metrics") == 200, adapter.logs(made)
        assert engine.containers.get(made).exec_run(["id", "-u"]).output.strip() != b"0"
        seen = json.dumps(engine.containers.get(made).attrs)
        assert "$2b$" not in seen
        assert "PRIVATE KEY" not in seen
    finally:
        adapter.remove(made)
