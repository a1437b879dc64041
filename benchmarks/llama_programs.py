"""llama.cpp's own programs, as peers: llama-server and llama-batched-bench, built from the tree in the locked sdist."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess  # noqa: TID251 - a server has to run while it is asked
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurig.common.process import run

_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)
_PORT = 18080
_PROGRAMS = ("llama-server", "llama-batched-bench")


def built(folder: Path, version: str) -> Path:
    """The folder with the programs of that llama-cpp-python's llama.cpp; built where it lacks them (minutes).

    Raises:
        SystemExit: it cannot be built.
    """
    programs = folder / f"llama.cpp-{version}" / "bin"
    if all((programs / name).exists() for name in _PROGRAMS):
        return programs
    with tempfile.TemporaryDirectory() as place:
        print(f"building llama.cpp's own programs of llama-cpp-python {version}: minutes, once", flush=True)
        wanted = f"llama-cpp-python=={version}"
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
        _demand([*pip, "--dest", place, wanted])
        (archive,) = Path(place).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(place, filter="data")
        (source,) = Path(place).glob("*/vendor/llama.cpp")
        build = programs.parent
        _demand(["cmake", "-S", str(source), "-B", str(build), *_OPTIONS])
        _demand(["cmake", "--build", str(build), "--parallel", "2", "--target", *_PROGRAMS])
    return programs


def _demand(argv: Sequence[str]) -> None:
    done = run(argv, timeout_s=3600)
    if done.code:
        raise SystemExit(f"{argv[0]} ended with {done.code}:\n{(done.stdout + done.stderr)[-2000:]}")


@dataclass(frozen=True)
class Asked:
    """What a server was asked and how long it took.

    Attributes:
        seconds: from the first request to the last answer.
        rss_mb: the server's memory at its highest, in MB.
        tokens: that it wrote.
    """

    seconds: float
    rss_mb: float
    tokens: int


@contextlib.contextmanager
def server(
    programs: Path, model: Path, *, slots: int, context: int, threads: int, tuned: bool = True
) -> Iterator[Server]:
    """llama-server, ready to be asked; leaving ends it.

    Args:
        programs: the folder it is in.
        model: what it loads.
        slots: prompts that it answers at the same time.
        context: tokens of each.
        threads: of the CPU.
        tuned: without flash attention, which halves its speed on a CPU as it does ours; else as it comes.
    """
    with tempfile.TemporaryFile() as log:
        argv = [str(programs / "llama-server"), "--model", str(model), "--parallel", str(slots)]
        argv += ["--ctx-size", str(slots * context), "--threads", str(threads), "--threads-batch", str(threads)]
        # Without --no-repack a build by GCC 12 dies on processors with AMX (llama_model.model_parameters says why);
        # weights lie then as they do for our engine.
        if tuned:
            argv += ["--flash-attn", "off"]
        argv += ["--host", "127.0.0.1", "--port", str(_PORT), "--no-webui", "--no-repack", "--offline"]
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            one = Server(_PORT, process.pid, slots)
            one.wait(process)
            yield one
        finally:
            process.terminate()
            process.wait(30)


@dataclass(frozen=True)
class Server:
    """A llama-server that runs."""

    port: int
    pid: int
    slots: int

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Until it is ready.

        Raises:
            SystemExit: it ended, or took ten minutes.
        """
        for _ in range(6000):
            if process.poll() is not None:
                raise SystemExit(f"llama-server ended with {process.returncode}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._call("GET", "/health")[0] == http.HTTPStatus.OK:
                    return
            time.sleep(0.1)
        raise SystemExit("llama-server is not ready after ten minutes")

    def ask(self, prompts: Sequence[str], **fields: Any) -> Asked:
        """All prompts, as many at a time as it has slots."""
        started = time.perf_counter()
        with ThreadPoolExecutor(self.slots) as pool:
            tokens = sum(pool.map(lambda prompt: self._one(prompt, fields), prompts))
        seconds = time.perf_counter() - started
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        highest = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        return Asked(seconds, int(highest[1]) / 1000 if highest else 0.0, tokens)

    def _one(self, prompt: str, fields: dict[str, Any]) -> int:
        body = json.dumps({"prompt": prompt, "temperature": 0.0, "cache_prompt": True, **fields})
        status, answer = self._call("POST", "/completion", body)
        if status != http.HTTPStatus.OK:
            raise SystemExit(f"llama-server answers {status}: {answer[:500]!r}")
        return int(json.loads(answer)["tokens_predicted"])

    def _call(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3600)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()


def batched_bench_s(
    programs: Path, model: Path, *, prompts: int, shared: int, unique: int, new: int, threads: int
) -> float:
    """Seconds that llama.cpp's own batched decoding takes for as many tokens: its limit.

    With a shared beginning two of its runs are put together, because it knows prompts that are shared as a whole only:
    the beginning once, and the rest for each.
    """
    total = _bench(programs, model, prompts=prompts, prompt=unique, new=new, threads=threads, whole=shared + unique)
    if shared:
        total += _bench(programs, model, prompts=1, prompt=shared, new=0, threads=threads, whole=shared)
    return total


def _bench(programs: Path, model: Path, *, prompts: int, prompt: int, new: int, threads: int, whole: int) -> float:
    cells = prompts * (-(-(whole + new + 1) // 256) * 256)
    argv = [str(programs / "llama-batched-bench"), "--model", str(model), "--ctx-size", str(cells)]
    argv += ["-b", "2048", "-ub", "512", "-npp", str(prompt), "-ntg", str(max(new, 1)), "-npl", str(prompts)]
    argv += ["--threads", str(threads), "--threads-batch", str(threads), "--no-repack", "--output-format", "jsonl"]
    argv += ["--flash-attn", "off"]
    done = run(argv, timeout_s=3600)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.code or not rows:
        raise SystemExit(f"llama-batched-bench ended with {done.code}:\n{(done.stdout + done.stderr)[-2000:]}")
    return float(rows[0]["t_pp"]) + (float(rows[0]["t_tg"]) if new else 0.0)
