"""The exporter as a process: over HTTP, under promtool, scraped by a real Prometheus, over NVIDIA's real binding."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess  # noqa: TID251 - programs that run beside the test, and are signalled
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gpurig.common.process import run
from gpurig.common.waiting import wait_for
from gpurig.runner.exporter.jobs.box_file import BoxWriter
from gpurig.runner.exporter.jobs.model import BoxFacts
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from standins.missing import missing
from standins.nvml import FakeNvml
from standins.prometheus import running_prometheus, tool

GPU_A, GPU_B = (f"GPU-{letter * 8}-0000-4000-8000-000000000000" for letter in "ab")
CARD = {
    "uuid": GPU_A,
    "name": "NVIDIA GeForce RTX 4090",
    "pci": "00000000:01:00.0",
    "compute": "8.9",
    "memory_total": 24564 * 1024**2,
    "memory_used": 5 * 1024**3,
    "utilization_gpu": 75,
    "temperature": 61,
    "power_mw": 201500,
    "power_limit_mw": 450000,
}
BARE = {**CARD, "uuid": GPU_B, "pci": "00000000:02:00.0"}
for _name in ("utilization_gpu", "temperature", "power_mw", "power_limit_mw"):
    del BARE[_name]
HOST = {"driver": "580.95.05", "nvml": "13.580.95.05", "cuda": 13000}


def _free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    with socket.socket(family) as probe:
        probe.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Exporter:
    """A running `gpurig metrics serve`."""

    def __init__(self, *arguments: str, host: str = "127.0.0.1", env: dict[str, str] | None = None):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bracketed = f"[{host}]" if ":" in host else host
        self.port = _free_port(family)
        self.base = f"http://{bracketed}:{self.port}"
        command = [sys.executable, "-m", "gpurig.runner", "metrics", "serve", "--listen", f"{bracketed}:{self.port}"]
        self.process = subprocess.Popen(
            [*command, "--period", "0.05", *arguments], stderr=subprocess.PIPE, text=True, env=env
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        self.lines.extend(line.rstrip("\n") for line in self.process.stderr)

    def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        """Status, content type and text."""
        request = urllib.request.Request(self.base + path, headers=headers)  # noqa: S310 - our own server
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read().decode()

    def series(self) -> dict[str, dict[str, float]]:
        """Values by metric and by the first of the labels uuid, collector, reason; only gpurig's own."""
        found: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(self.get("/metrics")[2]):
            for one in family.samples:
                label = one.labels.get("uuid") or one.labels.get("collector") or ""
                found.setdefault(one.name, {})[label] = one.value
        return found

    def until(self, condition: Callable[[dict[str, dict[str, float]]], bool]) -> dict[str, dict[str, float]]:
        """The series once they fulfil `condition`."""
        last: dict[str, dict[str, float]] = {}

        def look() -> bool:
            nonlocal last
            last = self.series()
            return condition(last)

        assert wait_for(look, timeout_s=20), f"{last}\n{self.lines}"
        return last

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(10)
        self._reader.join(10)
        return code


@contextmanager
def _exporter(*arguments: str, host: str = "127.0.0.1", env: dict[str, str] | None = None) -> Iterator[Exporter]:
    one = Exporter(*arguments, host=host, env=env)
    try:
        ready = wait_for(
            lambda: any("serving" in line for line in one.lines) or one.process.poll() is not None, timeout_s=30
        )
        assert ready, one.lines
        assert one.process.poll() is None, one.lines
        yield one
    finally:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)
        one.process.stderr.close()


@pytest.fixture
def demo() -> Iterator[Exporter]:
    with _exporter("--backend", "demo") as exporter:
        yield exporter


def test_the_first_scrape_is_complete(demo):
    series = demo.series()
    assert len(series["gpurig_gpu_power_watts"]) == 2
    assert series["gpurig_collector_success"] == {"detect": 1, "demo": 1, "box": 1}


@pytest.mark.parametrize("backend", ["demo", "auto", "cpu"])
def test_a_scrape_passes_promtool(backend):
    promtool = tool("promtool")
    with _exporter("--backend", backend) as exporter:
        text = exporter.get("/metrics")[2]
    done = run([promtool, "check", "metrics"], timeout_s=30, stdin=text)
    assert (done.code, done.stdout, done.stderr) == (0, "", "")


def test_promtool_would_find_a_fault(demo):
    promtool = tool("promtool")
    text = demo.get("/metrics")[2].replace("# TYPE gpurig_gpu_up gauge", "# TYPE gpurig_gpu_up counter")
    assert run([promtool, "check", "metrics"], timeout_s=30, stdin=text).code != 0


def test_a_real_prometheus_scrapes_it_and_answers_queries(demo, tmp_path):
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: gpurig, static_configs: [{{targets: ['127.0.0.1:{demo.port}']}}]}}]\n",
        encoding="utf-8",
    )
    with running_prometheus(config, storage=tmp_path / "storage") as prometheus:
        assert wait_for(lambda: prometheus.query('up{job="gpurig"} == 1'), timeout_s=60, interval_s=0.3)
        joined = prometheus.query("gpurig_gpu_memory_used_bytes * on(uuid) group_left(name) gpurig_gpu_info")
    assert {one["metric"]["name"] for one in joined} == {"NVIDIA GeForce RTX 4090", "AMD Radeon RX 7900 XTX"}
    assert all(float(one["value"][1]) > 0 for one in joined)


def test_openmetrics_is_spoken_to_who_asks_for_it(demo):
    status, content_type, text = demo.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_a_scraper_that_takes_gzip_gets_the_same_in_a_fraction(demo):
    request = urllib.request.Request(demo.base + "/metrics", headers={"Accept-Encoding": "gzip"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        body = answer.read()
        assert answer.headers["Content-Encoding"] == "gzip"
        assert int(answer.headers["Content-Length"]) == len(body)
    text = gzip.decompress(body).decode()
    assert "gpurig_gpu_power_watts{" in text
    assert len(body) < len(text) / 4


def test_health_and_index_and_nothing_else(demo):
    assert demo.get("/healthz")[::2] == (200, "ok\n")
    assert demo.get("/")[0] == 200
    assert demo.get("/metrics?x=1")[0] == 200
    assert demo.get("/etc/passwd")[0] == 404


def test_only_reading_is_possible(demo):
    request = urllib.request.Request(demo.base + "/metrics", data=b"x", method="POST")  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)  # noqa: S310
    with caught.value as answer:
        assert answer.code == 501


def test_a_client_that_sends_garbage_or_leaves_does_no_harm(demo):
    for payload in (b"\x00\xff\x16\x03\x01garbage\r\n\r\n", b"GET /metrics HTTP/1.1\r\n", b"GET " + b"a" * 70_000):
        with socket.create_connection(("127.0.0.1", demo.port), timeout=10) as client:
            client.sendall(payload)
    assert demo.get("/metrics")[0] == 200
    assert demo.end() == 0
    assert [line for line in demo.lines if "Traceback" in line] == []


def test_ipv6():
    try:
        _free_port(socket.AF_INET6)
    except OSError:
        missing("this machine has no IPv6 loopback", "GPURIG_REQUIRE_IPV6")
    with _exporter("--backend", "demo", host="::1") as exporter:
        assert exporter.get("/metrics")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_frees_the_port(demo, number):
    assert demo.end(number) == 0
    assert demo.lines[-1] == "gpurig: ending"
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", demo.port))


def _refused(*arguments: str) -> tuple[int, str]:
    done = run([sys.executable, "-m", "gpurig.runner", "metrics", "serve", *arguments], timeout_s=60)
    assert "Traceback" not in done.stderr
    return done.code, done.stderr


def test_a_port_in_use_is_a_missing_prerequisite_with_a_hint(demo):
    code, text = _refused("--listen", f"127.0.0.1:{demo.port}")
    assert code == 4
    assert f"something listens on 127.0.0.1:{demo.port} already" in text
    assert "hint:" in text


@pytest.mark.parametrize(
    "listen", ["", "9476", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "localhost:1", "off", "192.0.2.1:9476"]
)
def test_an_address_that_is_none_of_this_machines_is_bad_input(listen):
    assert _refused("--listen", listen)[0] == 2


def test_nvidia_cards_are_read_through_nvidias_own_binding(fake_nvml: FakeNvml):
    fake_nvml.set({**HOST, "gpu": [CARD, BARE]})
    with _exporter(env=fake_nvml.environment()) as exporter:
        series = exporter.until(lambda now: len(now["gpurig_gpu_up"]) == 2)
        assert series["gpurig_gpu_memory_used_bytes"] == {GPU_A: 5 * 1024**3, GPU_B: 5 * 1024**3}
        assert series["gpurig_gpu_utilization_ratio"] == {GPU_A: 0.75}
        assert series["gpurig_gpu_temperature_celsius"] == {GPU_A: 61}
        assert series["gpurig_gpu_power_watts"] == {GPU_A: 201.5}
        assert series["gpurig_gpu_power_limit_watts"] == {GPU_A: 450}
        assert series["gpurig_gpu_vram_class_bytes"] == {GPU_A: 24 * 1024**3, GPU_B: 24 * 1024**3}


def test_a_card_that_falls_off_the_bus_is_down_and_comes_back_without_a_restart(fake_nvml: FakeNvml):
    fake_nvml.set({**HOST, "gpu": [CARD, BARE]})
    with _exporter(env=fake_nvml.environment()) as exporter:
        exporter.until(lambda now: now["gpurig_gpu_up"] == {GPU_A: 1, GPU_B: 1})
        fake_nvml.set({**HOST, "gpu": [{**CARD, "error": "* GPU_IS_LOST"}, BARE]})
        series = exporter.until(lambda now: now["gpurig_gpu_up"] == {GPU_A: 0, GPU_B: 1})
        assert series["gpurig_gpu_memory_used_bytes"] == {GPU_B: 5 * 1024**3}
        assert series["gpurig_collector_success"]["nvidia"] == 1
        fake_nvml.set({**HOST, "gpu": [CARD, BARE]})
        exporter.until(lambda now: now["gpurig_gpu_up"] == {GPU_A: 1, GPU_B: 1})


def test_xid_errors_are_counted_also_of_a_card_that_is_lost_and_returns(fake_nvml: FakeNvml, tmp_path: Path):
    host, card, log = {**HOST, "log": tmp_path / "calls"}, {**CARD, "events": 8}, tmp_path / "calls"

    def calls(function: str) -> int:
        return log.read_text().split().count(function)

    fake_nvml.set({**host, "gpu": [card, BARE]})
    with _exporter(env=fake_nvml.environment()) as exporter:
        assert wait_for(lambda: calls("nvmlDeviceRegisterEvents") == 1, timeout_s=20)
        fake_nvml.set({**host, "gpu": [{**card, "xid": ["1 31"]}, BARE]})
        exporter.until(lambda now: now.get("gpurig_gpu_xid_errors_total") == {GPU_A: 1})
        fake_nvml.set({**host, "gpu": [{**card, "xid": ["1 31", "2 31"], "error": ["* GPU_IS_LOST"]}, BARE]})
        exporter.until(lambda now: now.get("gpurig_gpu_xid_errors_total") == {GPU_A: 2})
        exporter.until(lambda now: now["gpurig_gpu_up"] == {GPU_A: 0, GPU_B: 1})
        # NVML answers at once while the card is lost: that must not be a loop.
        assert calls("nvmlEventSetWait_v2") < 50
        registered = calls("nvmlDeviceRegisterEvents")
        fake_nvml.set({**host, "gpu": [{**card, "xid": ["1 31", "2 31"]}, BARE]})
        assert wait_for(lambda: calls("nvmlDeviceRegisterEvents") > registered, timeout_s=60)
        fake_nvml.set({**host, "gpu": [{**card, "xid": ["1 31", "2 31", "3 31"]}, BARE]})
        exporter.until(lambda now: now.get("gpurig_gpu_xid_errors_total") == {GPU_A: 3})
        series = exporter.until(lambda now: now["gpurig_gpu_up"] == {GPU_A: 1, GPU_B: 1})
        assert series["gpurig_driver_info"] == {"": 1}


def test_a_driver_that_is_reloaded_is_found_again_without_a_restart(fake_nvml: FakeNvml):
    fake_nvml.set({**HOST, "gpu": [CARD]})
    with _exporter(env=fake_nvml.environment()) as exporter:
        exporter.until(lambda now: now["gpurig_collector_success"]["nvidia"] == 1)
        fake_nvml.state.unlink()
        series = exporter.until(lambda now: now["gpurig_collector_success"]["nvidia"] == 0)
        assert series["gpurig_collector_success"]["amd"] == 1
        assert series["gpurig_gpu_info"] == {GPU_A: 1}
        fake_nvml.set({**HOST, "gpu": [CARD]})
        exporter.until(lambda now: now["gpurig_collector_success"]["nvidia"] == 1)
        exporter.end()
    said = [line for line in exporter.lines if "collector nvidia" in line]
    assert len(said) == 2, said


def test_a_slow_driver_does_not_slow_a_scrape(fake_nvml: FakeNvml):
    fake_nvml.set({**HOST, "gpu": [{**CARD, "delay_us": "nvmlDeviceGetMemoryInfo_v2 300000"}]})
    with _exporter(env=fake_nvml.environment()) as exporter:
        series = exporter.until(lambda now: now["gpurig_collector_duration_seconds"]["nvidia"] >= 0.3)
        assert series["gpurig_gpu_memory_used_bytes"] == {GPU_A: 5 * 1024**3}
        # Twenty scrapes that waited for the driver would take six seconds.
        clock = run(
            [sys.executable, "-c", _TIME_SCRAPES, exporter.base], timeout_s=60, env={**os.environ, "no_proxy": "*"}
        )
        assert float(clock.stdout) < 3, clock


_TIME_SCRAPES = """
import sys, time, urllib.request
start = time.monotonic()
for _ in range(20):
    urllib.request.urlopen(sys.argv[1] + "/metrics", timeout=10).read()
print(time.monotonic() - start)
"""


def test_runner_facts_come_from_the_state_file_and_its_tokens_do_not(tmp_path: Path):
    path = tmp_path / "etc/gpurig/state.json"
    path.parent.mkdir(parents=True)
    entry = {
        "key": "cpu",
        "spec": "x",
        "url": "https://gitlab.example",
        "id": 7,
        "token": "glrt-planted-secret",
        "description": "box",
        "tags": ["gpurig", "cpu"],
        "obtained_at": "2026-01-01T00:00:00Z",
        "expires_at": "2027-01-01T00:00:00Z",
    }
    path.write_text(json.dumps({"version": 1, "registrations": [entry]}), encoding="utf-8")
    with _exporter("--backend", "cpu", "--root", str(tmp_path)) as exporter:
        text = exporter.get("/metrics")[2]
        exporter.end()
    assert 'gpurig_runner_info{runner_id="7",description="box",tags="gpurig,cpu"} 1.0' in text
    assert "glrt-planted-secret" not in text + "\n".join(exporter.lines)


def test_a_file_for_node_exporter_is_written_again_and_again_passes_promtool_and_goes_away(tmp_path: Path):
    promtool = tool("promtool")
    output = tmp_path / "gpurig.prom"
    command = [sys.executable, "-m", "gpurig.runner", "metrics", "textfile", "--output", str(output)]
    process = subprocess.Popen([*command, "--backend", "demo", "--every", "1"], stderr=subprocess.PIPE, text=True)
    try:
        assert wait_for(output.exists, timeout_s=30)
        first = output.stat().st_ino
        done = run([promtool, "check", "metrics"], timeout_s=30, stdin=output.read_text(encoding="utf-8"))
        assert (done.code, done.stdout, done.stderr) == (0, "", "")
        assert wait_for(lambda: output.stat().st_ino != first, timeout_s=30)
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors.splitlines()[-1] == "gpurig: ending"
    assert list(tmp_path.iterdir()) == []


def test_a_textfile_that_cannot_be_written_is_a_missing_prerequisite(tmp_path: Path):
    (tmp_path / "taken").write_text("", encoding="utf-8")
    output = tmp_path / "taken" / "gpurig.prom"
    command = [sys.executable, "-m", "gpurig.runner", "metrics", "textfile", "--output", str(output)]
    done = run([*command, "--backend", "demo", "--once"], timeout_s=60)
    assert (done.code, "Traceback" in done.stderr) == (4, False)
    assert "hint:" in done.stderr


def test_openmetrics_of_every_family_is_read_by_the_client_librarys_own_parser(demo):
    text = demo.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[2]
    families = {one.name: one.type for one in parse_openmetrics(text)}
    assert families["gpurig_gpu_energy_joules"] == "counter"
    assert families["gpurig_gpu_power_watts"] == "gauge"
    assert families["gpurig_job_oom"] == "counter"


def test_a_board_made_for_dcgm_exporter_finds_data():
    with _exporter("--backend", "demo", "--dcgm-names") as exporter:
        text = exporter.get("/metrics")[2]
    found = {family.name: family for family in text_string_to_metric_families(text)}
    cards = {one.labels["modelName"] for one in found["DCGM_FI_DEV_FB_USED"].samples}
    assert cards == {"NVIDIA GeForce RTX 4090", "AMD Radeon RX 7900 XTX"}
    assert all(20 < one.value < 100 for one in found["DCGM_FI_DEV_GPU_TEMP"].samples)


def test_an_engine_that_cannot_be_used_is_a_collector_that_fails_and_nothing_more(tmp_path: Path):
    with _exporter("--backend", "cpu", "--root", str(tmp_path), "--engine", f"unix://{tmp_path}/none.sock") as exporter:
        success = exporter.series()["gpurig_collector_success"]
        assert (success["engine"], success["images"], success["box"], success["state"]) == (0, 0, 1, 1)
        assert exporter.get("/healthz")[0] == 200
        assert any(f"there is no socket {tmp_path}/none.sock" in line for line in exporter.lines)
    with _exporter("--backend", "cpu", "--root", str(tmp_path), "--engine", "off") as exporter:
        assert "engine" not in exporter.series()["gpurig_collector_success"]


def test_without_a_watcher_the_exporter_says_what_it_waits_for_and_takes_it_when_it_comes(tmp_path: Path):
    facts = tmp_path / "facts.json"
    with _exporter("--backend", "cpu", "--box-facts", str(facts)) as exporter:
        assert exporter.series()["gpurig_collector_success"]["box"] == 0
        assert any("the watcher has not written it yet" in line for line in exporter.lines)
        BoxWriter(facts).write(BoxFacts(written_at=0.0, model_bytes=7))
        assert exporter.until(lambda now: now["gpurig_collector_success"]["box"] == 1)["gpurig_models_bytes"] == {"": 7}


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:2375", "ssh://host", "docker.sock"])
def test_an_engine_elsewhere_is_refused(address: str):
    done = run([sys.executable, "-m", "gpurig.runner", "metrics", "serve", "--engine", address], timeout_s=60)
    assert done.code == 2
    assert "no socket of this machine" in done.stderr
