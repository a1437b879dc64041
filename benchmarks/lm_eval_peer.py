"""Multiple choice with lm-evaluation-harness: its own `gguf` model against llama-cpp-python's server, and our model.

    python benchmarks/lm_eval_peer.py --questions 200 --peer-questions 10

Questions with four choices of four tokens behind five solved examples that all of them share, on the random model of
benchmarks/engine.py. `gguf` asks one question after the other, and the server makes a list of the likeliest tokens for
each token of the prompt: it takes so long that it may be given fewer questions; what is compared is seconds a question.
Loading is not measured on either side. Needs `make reference`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import subprocess  # noqa: TID251 - a server has to run while it is asked
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpurig.common.process import run
from random_model import random_model, words

BUILD = Path(__file__).parents[1] / "build"
PYTHON = BUILD / "reference-venv" / "bin" / "python"
PROGRAM = Path(__file__).with_name("lm_eval_program.py")
THREADS = len(os.sched_getaffinity(0))
SHOTS, QUESTION, CHOICES, CHOICE = 5, 60, 4, 4
_CONTEXT = 1024

# A context, and a choice behind it.
Pair = tuple[str, str]


def suite(questions: int) -> list[Pair]:
    """Every choice of every question; contexts have about 400 tokens, of which the examples' 320 are the same."""
    draw = random.Random(3)  # noqa: S311 - the same questions in every run
    known = words()

    def text(length: int) -> str:
        return " ".join(draw.choice(known) for _ in range(length))

    examples = " ".join(text(QUESTION) + " " + text(CHOICE) for _ in range(SHOTS))
    found = []
    for _ in range(questions):
        question = text(QUESTION)
        found += [(f"{examples} {question}", f" {text(CHOICE)}") for _ in range(CHOICES)]
    return found


def measured(model: Path, *, questions: int, peer_questions: int) -> dict[str, float]:
    """Seconds a question of both, their ratio, and how far their log-likelihoods are apart at most.

    Raises:
        SystemExit: the environment is missing, or a program fails.
    """
    if not PYTHON.is_file():
        raise SystemExit("there is no build/reference-venv: make reference")
    pairs = suite(questions)
    ours_s, ours = _asked("gpurig", {"model": str(model), "max_length": _CONTEXT, "threads": THREADS}, pairs)
    few = pairs[: peer_questions * CHOICES]
    with _server(model) as url:
        # The first question pays for what the server makes once.
        _asked("gguf", {"base_url": url}, few[:1])
        theirs_s, theirs = _asked("gguf", {"base_url": url}, few)
    apart = max(abs(one - other) for (one, _), (other, _) in zip(ours, theirs, strict=False))
    figures = {
        "questions": questions,
        "peer_questions": peer_questions,
        "gpurig_s_a_question": ours_s / questions,
        "lmeval_gguf_s_a_question": theirs_s / peer_questions,
        "apart": apart,
    }
    figures["vs_lmeval_choice"] = figures["lmeval_gguf_s_a_question"] / figures["gpurig_s_a_question"]
    return figures


def _asked(kind: str, arguments: dict[str, object], pairs: Sequence[Pair]) -> tuple[float, list[tuple[float, bool]]]:
    argv = [str(PYTHON), str(PROGRAM), "ask", kind, json.dumps(arguments)]
    done = run(argv, timeout_s=4 * 3600, stdin=json.dumps(pairs))
    if done.code:
        raise SystemExit(f"{kind} ended with {done.code}:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], [tuple(answer) for answer in found["answers"]]


@contextlib.contextmanager
def _server(model: Path) -> Iterator[str]:
    """llama-cpp-python's server, ready; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = [str(PYTHON), str(PROGRAM), "serve", str(model), str(port), str(_CONTEXT), str(THREADS)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            _wait(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(6000):
        if process.poll() is not None:
            raise SystemExit(f"llama_cpp.server ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise SystemExit("llama_cpp.server is not ready after ten minutes")


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--peer-questions", type=int, default=10, help="that lm-evaluation-harness' own model gets")
    wishes = parser.parse_args()
    model = random_model(BUILD / "models")
    figures = measured(model, questions=wishes.questions, peer_questions=min(wishes.peer_questions, wishes.questions))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
