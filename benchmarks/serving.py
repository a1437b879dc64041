"""`make bench NAME=serving`: what HTTP adds to a request, by a model so small that nearly nothing else takes time.

One client, one request after the other on one connection; each is asked of a session of the engine too, in turn. The
peer is the engine itself: what is measured is what `gpurig-job serve` puts on it.
"""

from __future__ import annotations

import http.client
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from gpurig.common.files import write_atomic
from gpurig.common.models.resolving import Search
from gpurig.common.terminal import table
from gpurig.common.version import __version__
from gpurig.evaljobs.engine import Completion, EngineSettings, Request
from gpurig.evaljobs.inference.engine import InferenceEngine
from gpurig.evaljobs.inference.session import Session
from gpurig.evaljobs.models import open_model
from gpurig.evaljobs.records import Sampling
from standins.serving import KEY, serving, write_served

REQUESTS = 400
OUT = Path(__file__).parent / "out" / "serving.json"
SAMPLING = Sampling(max_tokens=1, top_k=0, top_p=1.0, min_p=0.0)
ASKED = {"model": "tiny", "max_tokens": 1, "temperature": 0}


def main() -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory() as folder:
        figures: dict[str, Any] = measured(write_served(Path(folder) / "tiny.gguf"))
    rows = [[name, f"{value:.2f}"] for name, value in figures.items()]
    print(table([f"serving, median of {REQUESTS}", "ms"], rows))
    figures |= {"requests": REQUESTS, "machine": platform.machine(), "versions": {"gpurig": __version__}}
    OUT.parent.mkdir(exist_ok=True)
    write_atomic(OUT, json.dumps(figures, indent=1) + "\n")


def measured(path: Path) -> dict[str, float]:
    """Milliseconds of a request, by who is asked, and what HTTP adds."""
    engine = InferenceEngine(
        open_model(str(path), search=Search.of_folders(), suite_folder=Path()), EngineSettings(512, 1)
    )
    found: dict[str, list[float]] = {"engine_ms": [], "completion_ms": [], "chat_ms": []}
    with engine.session(8, 512) as session, serving(path) as server:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
        for number in range(REQUESTS):
            prompt = f"user: hello {number}\nassistant:"
            messages = [{"role": "user", "content": f"hello {number}"}]
            found["engine_ms"].append(direct(engine, session, Request(f"r{number}", prompt, SAMPLING)))
            found["completion_ms"].append(asked(connection, "/v1/completions", {**ASKED, "prompt": prompt}))
            found["chat_ms"].append(asked(connection, "/v1/chat/completions", {**ASKED, "messages": messages}))
        connection.close()
    engine.close()
    medians = {name: statistics.median(values) * 1000 for name, values in found.items()}
    added = {f"{name}_http_ms": medians[f"{name}_ms"] - medians["engine_ms"] for name in ("completion", "chat")}
    return medians | added


def direct(engine: InferenceEngine, session: Session[Completion], request: Request) -> float:
    """Seconds that the engine takes for a request."""
    started = time.perf_counter()
    session.add(engine.answer(request))
    while len(session):
        session.step()
    return time.perf_counter() - started


def asked(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> float:
    """Seconds that a request takes by HTTP."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    started = time.perf_counter()
    connection.request("POST", path, json.dumps(body).encode(), headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path} answers {answer.status}")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
