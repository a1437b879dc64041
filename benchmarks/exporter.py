"""`make bench NAME=exporter`: what a scrape takes, and what the exporter costs, beside nvitop-exporter.

Both read the same fake NVML (tests/standins/nvml) at the same time, once a second; every call of it takes 0.3 ms, which
is near what was reported for a real card (2743 readings of power a second, 0.36 ms each, on a Tesla K40m:
github.com/wookayin/gpustat/issues/76). 20 CI jobs run: containers on a real engine, labelled as gitlab-runner labels
them, whose processes the fake NVML reports. gpurig attributes use to them, which nvitop-exporter does not; its watcher
runs as `gpurig up` runs it, and is measured by itself.

A server that answers with the same bytes each time is scraped in turn with the two: its times are what the machine
itself takes, busy as it is with other work.

Then 24 hours pass on a fake clock, in one process: what grows?

nvitop-exporter comes from requirements/bench-exporter.lock, into an environment of its own.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import re
import secrets
import socket
import statistics
import subprocess  # noqa: TID251 - programs that run beside the benchmark, and are signalled
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import docker
from gpurig.common.process import run
from gpurig.common.terminal import table
from gpurig.common.waiting import wait_for
from measuring import machine, versions, write
from standins.nvml import FakeNvml, build_library

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "bench-exporter.lock"
GPUS = (1, 8, 16)
MAIN = 8
JOBS = 20
CALL_US = 300
# Scrapes for the latency, and the time over which CPU is counted with a scrape every 15 s, of the main size.
SCRAPES = int(os.environ.get("GPURIG_BENCH_SCRAPES", "400"))
CPU_S = float(os.environ.get("GPURIG_BENCH_CPU_S", "180"))
HOURS = float(os.environ.get("GPURIG_BENCH_HOURS", "24"))
SCRAPE_PERIOD_S = 15.0
MIB = 2**20
# What Prometheus 2.42, Debian's, asks for.
HEADERS = {
    "Accept": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}
SHOWN = {
    "scrape_p50_ms": ("scrape p50", "{:.1f} ms"),
    "scrape_p99_ms": ("scrape p99", "{:.1f} ms"),
    "rss_mb": ("resident", "{:.1f} MB"),
    "cpu_pct": ("of a core", "{:.2f} %"),
    "series": ("series", "{}"),
}
WANTED = {"scrape_p99_ms": "<= 10 ms", "rss_mb": "<= 40 MB", "cpu_pct": "<= 1 %"}
LABEL = "com.gitlab.gitlab-runner."


def main() -> None:
    """Measure, print, write."""
    figures: dict[str, Any] = {}
    peer = environment_of_the_peer()
    with tempfile.TemporaryDirectory(prefix="gpurig-bench-") as name, twenty_jobs() as pids:
        folder = Path(name)
        library = build_library(folder)
        for count in GPUS:
            figures |= side_by_side(count, folder, library, pids, peer)
    figures |= a_day()
    figures |= {
        "gpus": MAIN,
        "jobs": JOBS,
        "call_us": CALL_US,
        "scrapes": SCRAPES,
        "cpu_s": CPU_S,
        "machine": machine(),
        "versions": versions(("prometheus-client", "nvidia-ml-py")) | {"nvitop-exporter": peer_version(peer)},
    }
    show(figures)
    write("exporter", figures)


def show(figures: Mapping[str, Any]) -> None:
    """The table for people."""
    rows = []
    for count in (MAIN, *(count for count in GPUS if count != MAIN)):
        end, wanted = ("", WANTED) if count == MAIN else (f"_{count}gpu", {})
        rows += [
            [
                f"{count} GPU{'s' if count > 1 else ''}: {name}",
                *(pattern.format(figures[f"{who}{key}{end}"]) for who in ("", "nvitop_")),
                wanted.get(key, ""),
            ]
            for key, (name, pattern) in SHOWN.items()
        ]
    rows += [
        ["a constant body: scrape p50", f"{figures['floor_scrape_p50_ms']:.1f} ms", "", "the machine's"],
        ["a constant body: scrape p99", f"{figures['floor_scrape_p99_ms']:.1f} ms", "", "the machine's"],
        ["its watcher: resident", f"{figures['watcher_rss_mb']:.1f} MB", "", ""],
        ["its watcher: of a core", f"{figures['watcher_cpu_pct']:.2f} %", "", ""],
        [f"{figures['day_hours']:g} hours: growth", f"{figures['growth_24h_mb']:.2f} MB", "", "0"],
        ["  jobs", str(figures["day_jobs"]), "", ""],
        ["  series after 2 hours", str(figures["day_series_2h"]), "", ""],
        ["  series at the end", str(figures["day_series_end"]), "", ""],
    ]
    print(table([f"exporter, {JOBS} jobs", "gpurig", "nvitop-exporter", "wanted"], rows))


def environment_of_the_peer() -> Path:
    """nvitop-exporter's command, installed where it is not yet."""
    folder = ROOT / "build" / "bench-exporter-venv"
    command, stamp = folder / "bin" / "nvitop-exporter", folder / ".lock"
    if not stamp.exists() or stamp.read_bytes() != LOCK.read_bytes():
        for step in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(folder / "bin" / "pip"), "install", "--quiet", "--require-hashes", "-r", str(LOCK)],
        ):
            done = run(step, timeout_s=600)
            if done.code:
                sys.exit(f"cannot install nvitop-exporter: {done.stderr}")
        stamp.write_bytes(LOCK.read_bytes())
    return command


def peer_version(command: Path) -> str:
    """As it tells it."""
    return run([str(command), "--version"], timeout_s=60).stdout.split()[-1].strip("()")


@contextlib.contextmanager
def twenty_jobs() -> Iterator[list[int]]:
    """Containers as gitlab-runner starts them for jobs; the pids of their processes, as this machine counts them."""
    engine = docker.from_env()
    mark = secrets.token_hex(4)
    started = []
    try:
        for number in range(JOBS):
            labels = {
                f"{LABEL}{key}": value
                for key, value in {
                    "managed": "true",
                    "type": "build",
                    "job.id": str(7000 + number),
                    "project.id": str(40 + number % 5),
                    "pipeline.id": str(600 + number // 2),
                    "runner.id": f"t1_bEnCh{number % MAIN}",
                }.items()
            }
            started.append(
                engine.containers.run(
                    os.environ.get("GPURIG_BASE_IMAGE", "gpurig-base:bookworm"),
                    ["sleep", "infinity"],
                    name=f"bench-{mark}-{number}",
                    labels=labels,
                    network_mode="none",
                    detach=True,
                )
            )
        pids = []
        for one in started:
            one.reload()
            pids.append(int(one.attrs["State"]["Pid"]))
        yield pids
    finally:
        for one in started:
            one.remove(force=True)
        engine.close()


def cards(count: int, pids: list[int]) -> dict[str, Any]:
    """What NVML tells of so many cards, on which the jobs' processes are spread."""
    found = []
    for number in range(count):
        processes = [f"{pid} {1024 * MIB} compute" for index, pid in enumerate(pids) if index % count == number]
        found.append(
            {
                "uuid": f"GPU-{number:08d}-0000-4000-8000-000000000000",
                "name": "NVIDIA GeForce RTX 4090",
                "pci": f"00000000:{number + 1:02x}:00.0",
                "compute": "8.9",
                "memory_total": 24564 * MIB,
                "memory_used": 400 * MIB + 1024 * MIB * len(processes),
                "memory_reserved": 400 * MIB,
                "utilization_gpu": 80,
                "utilization_memory": 40,
                "utilization_encoder": 0,
                "utilization_decoder": 0,
                "sampling_period": 166666,
                "temperature": 61,
                "temperature_shutdown": 95,
                "temperature_slowdown": 92,
                "temperature_max": 90,
                "power_mw": 301500,
                "power_limit_mw": 450000,
                "energy_mj": 123456789,
                **{
                    f"{kind}clock_{domain}": 2500
                    for kind in ("", "max_")
                    for domain in ("graphics", "sm", "memory", "video")
                },
                "fan": 55,
                "fans": 2,
                "throttle_reasons": 4,
                "throttle_supported": 511,
                "ecc_mode": 1,
                "ecc_corrected_aggregate": 3,
                "ecc_uncorrected_aggregate": 0,
                "remapped_corrected": 1,
                "remapped_uncorrected": 0,
                "pcie_gen": 4,
                "pcie_width": 16,
                "pcie_gen_max": 4,
                "pcie_width_max": 16,
                "pcie_replays": 2,
                "pcie_tx_kb": 1000,
                "pcie_rx_kb": 1000,
                "pstate": 2,
                "persistence": 1,
                "mig_mode": 0,
                "process": processes,
            }
        )
    return {
        "driver": "580.95.05",
        "nvml": "13.580.95.05",
        "cuda": 13000,
        # NVML measures the throughput while the call waits, for 20 ms as its documentation has it.
        "delay_us": [f"* {CALL_US}", "nvmlDeviceGetPcieThroughput 20000"],
        "gpu": found,
    }


@dataclass
class Program:
    """A program that runs beside the benchmark."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int = 0

    def scrape(self, connection: http.client.HTTPConnection) -> tuple[float, bytes]:
        """One scrape: seconds and the body."""
        start = time.perf_counter()
        connection.request("GET", "/metrics", headers=HEADERS)
        answer = connection.getresponse()
        body = answer.read()
        taken = time.perf_counter() - start
        return taken, gzip.decompress(body) if answer.headers["Content-Encoding"] == "gzip" else body

    def connection(self) -> http.client.HTTPConnection:
        """To its port; one that the server closes is opened again by itself."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def cpu_s(self) -> float:
        """User and system time that it took."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        """Resident memory, MB of 2^20 bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


@contextlib.contextmanager
def program(name: str, command: list[str], folder: Path, env: Mapping[str, str], port: int = 0) -> Iterator[Program]:
    """Run it; ended at the end."""
    log = folder / f"{name}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=dict(env))
        one = Program(process, log, port)
        try:
            if port and not wait_for(lambda: answers(one), timeout_s=60):
                sys.exit(f"{name} does not answer:\n{log.read_text()}")
            yield one
        finally:
            process.terminate()
            process.wait(30)


def answers(one: Program) -> bool:
    """Whether it does; ends the benchmark where it has ended."""
    if one.process.poll() is not None:
        sys.exit(f"{one.process.args!r} ended:\n{one.log.read_text()}")
    try:
        return b"gpu" in one.scrape(one.connection())[1]
    except (OSError, http.client.HTTPException):
        return False


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def side_by_side(count: int, folder: Path, library: Path, pids: list[int], peer: Path) -> dict[str, Any]:
    """Both exporters on so many GPUs, at the same time."""
    fake = FakeNvml(library, folder / "nvml.txt")
    fake.set(cards(count, pids))
    env = fake.environment()
    ports = free_port(), free_port(), free_port()
    facts = folder / f"facts-{count}" / "box.json"
    command = [sys.executable, "-I", "-m", "gpurig.runner", "metrics"]
    watching = [*command, "watch", "--output", str(facts), "--root", str(folder)]
    ours = [*command, "serve", "--listen", f"127.0.0.1:{ports[0]}", "--box-facts", str(facts)]
    ours += ["--state-dir", str(facts.parent / "state"), "--usage-dir", str(facts.parent / "usage")]
    theirs = [str(peer), "--bind-address", "127.0.0.1", "--port", str(ports[1]), "--interval", "1.0"]
    with (
        program("watcher", watching, folder, os.environ) as watcher,
        program("gpurig", ours, folder, env, ports[0]) as gpurig,
        program("nvitop-exporter", theirs, folder, env, ports[1]) as nvitop,
        program("constant", [sys.executable, "-I", "-c", CONSTANT, str(ports[2])], folder, env, ports[2]) as constant,
    ):
        both = {"": gpurig, "nvitop_": nvitop}
        found: dict[str, Any] = {}
        if not wait_for(lambda: jobs_seen(gpurig) >= JOBS, timeout_s=30):
            sys.exit(f"the exporter sees {jobs_seen(gpurig)} of {JOBS} jobs:\n{gpurig.log.read_text()}")
        before, start = watcher.cpu_s(), time.monotonic()
        for who, values in scraping({**both, "floor_": constant}).items():
            found |= {f"{who}{name}": value for name, value in values.items()}
        seconds = CPU_S if count == MAIN else CPU_S / 3
        for who, share in cpu(both, seconds).items():
            found[f"{who}cpu_pct"] = share
        for who, one in {**both, "watcher_": watcher}.items():
            found[f"{who}rss_mb"] = one.rss_mb()
        found["watcher_cpu_pct"] = 100 * (watcher.cpu_s() - before) / (time.monotonic() - start)
    print(f"{count} GPUs: {json.dumps({key: round(value, 2) for key, value in found.items()})}", flush=True)
    return found if count == MAIN else {f"{name}_{count}gpu": value for name, value in found.items()}


def jobs_seen(exporter: Program) -> int:
    """How many jobs of this benchmark the exporter gives GPU time to; others may run on the engine."""
    body = exporter.scrape(exporter.connection())[1].decode()
    return len(
        set(re.findall(r'^gpurig_job_gpu_seconds_total\{.*job_id="(70\d\d)".*runner="t1_bEnCh', body, re.MULTILINE))
    )


# As long as the answer for 8 GPUs and 20 jobs is when it is compressed; kept alive, and in one write, as gpurig's is.
CONSTANT = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", -1, True
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "6500")
        self.end_headers()
        self.wfile.write(b"gpu" + b"." * 6497)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def scraping(programs: Mapping[str, Program]) -> dict[str, dict[str, float]]:
    """Times of scrapes, which they answer in turn, at moments that fall anywhere between two readings."""
    times: dict[str, list[float]] = {who: [] for who in programs}
    bodies = dict.fromkeys(programs, b"")
    connections = {who: one.connection() for who, one in programs.items()}
    for number in range(SCRAPES + 5):
        for who, one in programs.items():
            time.sleep(0.037 + 0.011 * (number % 7))
            taken, bodies[who] = one.scrape(connections[who])
            if number >= 5:
                times[who].append(taken)
    return {
        who: {
            "scrape_p50_ms": 1000 * statistics.median(taken),
            "scrape_p99_ms": 1000 * statistics.quantiles(taken, n=100)[98],
            "series": sum(1 for line in bodies[who].splitlines() if line and not line.startswith(b"#")),
        }
        for who, taken in times.items()
    }


def cpu(both: Mapping[str, Program], seconds: float) -> dict[str, float]:
    """Percent of a core that each takes, with a scrape every 15 s."""
    start = time.monotonic()
    before = {who: one.cpu_s() for who, one in both.items()}
    while (left := start + seconds - time.monotonic()) > 0:
        for one in both.values():
            with contextlib.closing(one.connection()) as connection:
                one.scrape(connection)
        time.sleep(min(SCRAPE_PERIOD_S, left))
    taken = time.monotonic() - start
    return {who: 100 * (one.cpu_s() - before[who]) / taken for who, one in both.items()}


def a_day() -> dict[str, float]:
    """24 hours on a fake clock, in a process of its own."""
    done = run([sys.executable, str(Path(__file__).with_name("exporter_day.py")), str(HOURS)], timeout_s=3600)
    if done.code:
        sys.exit(f"the simulated day ended with {done.code}:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
