"""`make bench NAME=engine`: prompts a second of the inference engine, beside its peers in the same run.

A model of 0.34 billion parameters in Q4_K_M with random weights, which the benchmark makes, and prompts of 256 tokens
that are answered with 32, with and without a beginning of 200 tokens that all share. Peers: llama-cpp-python's `Llama`,
one prompt after the other; llama-server with 4 and with 16 slots and its prompt cache, without flash attention (which
halves its speed on a CPU), and of the cells with 32 prompts as it comes too; llama.cpp's own batched decoding
(llama-batched-bench), which is the limit, with 32 sequences and with as many as the engine takes. llama.cpp's programs
are built from the tree in llama-cpp-python's locked sdist, once, into build/. A grading suite: a rubric of 900 tokens
before 60 answers, 8 tokens under a grammar. 200 questions with 4 choices each behind 5 examples, beside
lm-evaluation-harness' gguf model on the first 10 (lm_eval_peer.py; needs `make reference`).

QUICK=1: the cells with 32 prompts alone, without llama-server as it comes. GPURIG_LLAMA_PROGRAMS names a folder where
llama-server and llama-batched-bench are already.

Every measurement is a process of its own, so that each one's memory is its own.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lm_eval_peer
from gpurig.common.models.resolving import Search
from gpurig.common.process import run
from gpurig.common.terminal import table
from gpurig.evaljobs.engine import EngineSettings, Request
from gpurig.evaljobs.inference.context import Context
from gpurig.evaljobs.inference.engine import InferenceEngine
from gpurig.evaljobs.models import open_model
from gpurig.evaljobs.records import Sampling
from llama_programs import Asked, batched_bench_s, built, server
from measuring import machine, versions, write
from random_model import random_model, words

BUILD = Path(__file__).parents[1] / "build"
PROMPT, NEW, SHARED = 256, 32, 200
RUBRIC, ANSWERS, ANSWER, VERDICT = 900, 60, 100, 8
# lm-evaluation-harness' gguf model takes half a minute a question: what is compared is seconds a question.
QUESTIONS, PEER_QUESTIONS = 200, 10
SLOTS = (4, 16)
# Sequences that the engine takes for prompts of that length.
SAME = 16
GRAMMAR = "root ::= [a-z ]+"
_PACKAGE = "llama-cpp-python"
THREADS = len(os.sched_getaffinity(0))


def prompts(count: int, shared: int, whole: int) -> list[str]:
    """Texts of `whole` tokens with BOS, the first `shared` of them the same."""
    draw = random.Random(1)  # noqa: S311 - the same prompts in every run
    known = words()

    def text(length: int) -> str:
        return " ".join(draw.choice(known) for _ in range(length))

    stem = text(shared) + " " if shared else ""
    return [stem + text(whole - shared - 1) for _ in range(count)]


def main() -> None:
    """Measure, print, write."""
    version = importlib.metadata.version(_PACKAGE)
    given = os.environ.get("GPURIG_LLAMA_PROGRAMS")
    programs = Path(given) if given else built(BUILD, version)
    model = random_model(BUILD / "models")
    quick = os.environ.get("QUICK") == "1"
    counts = (32,) if quick else (32, 128)
    figures: dict[str, Any] = {"threads": THREADS}
    for count in counts:
        for shared in (0, SHARED):
            cell = _cell(programs, model, count, shared, as_it_comes=count == counts[0] and not quick)
            name = f"{count}_shared_{shared}"
            figures |= {f"{name}_{key}": value for key, value in cell.items()}
            _tell(f"{count} prompts, {shared} tokens shared", cell)
    if not quick:
        grading = _grading(programs, model)
        figures |= {f"grading_{key}": value for key, value in grading.items()}
        _tell("grading", grading)
        for name, kind in (("vs_server_grading", ""), ("vs_server_as_it_comes_grading", "_as_it_comes")):
            figures[name] = grading["gpurig"] / max(grading[f"server_{slots}{kind}"] for slots in SLOTS)
        choices = lm_eval_peer.measured(model, questions=QUESTIONS, peer_questions=PEER_QUESTIONS)
        figures |= choices
        _tell("multiple choice", choices, "measured")
    figures |= _ratios(figures, counts[-1])
    figures |= {"machine": machine(), "versions": versions((_PACKAGE,))}
    wanted = {
        "vs_server_unshared": "≥ 1",
        "vs_server_shared": "≥ 1.8",
        "vs_server_grading": "≥ 3",
        "vs_server_as_it_comes_unshared": "",
        "vs_server_as_it_comes_shared": "",
        "vs_server_as_it_comes_grading": "",
        "vs_lmeval_choice": "≥ 10",
        "vs_limit": "≤ 1.05",
        "vs_limit_same_sequences": "",
        "python_share": "≤ 0.03",
        "rss_mb": "≤ server_rss_mb",
        "server_rss_mb": "",
    }
    print()
    print(
        table(
            ["figure", "measured", "wanted"],
            [[name, f"{figures[name]:.3f}", text] for name, text in wanted.items() if name in figures],
        )
    )
    write("engine", figures)


def _tell(cell: str, measured: dict[str, float], unit: str = "prompts a second") -> None:
    rows = [[key, f"{value:.2f}"] for key, value in measured.items()]
    print(table([cell, unit], rows), end="\n\n", flush=True)


def _cell(programs: Path, model: Path, count: int, shared: int, *, as_it_comes: bool) -> dict[str, float]:
    """One cell: prompts a second of everybody, and what else is measured on the way."""
    asked = prompts(count, shared, PROMPT)
    ours = _in_process("ours", model, count, shared)
    found = {
        "gpurig": count / ours["seconds"],
        "python_share": 1 - ours["computing"] / ours["seconds"],
        "rss_mb": ours["rss_mb"],
    }
    alone = _in_process("one_by_one", model, min(count, 8), shared)
    found["one_by_one"] = min(count, 8) / alone["seconds"]
    highest = []
    for slots in SLOTS:
        took = _asked_server(programs, model, slots, asked)
        found[f"server_{slots}"] = count / took.seconds
        highest.append(took.rss_mb)
        if as_it_comes:
            found[f"server_{slots}_as_it_comes"] = (
                count / _asked_server(programs, model, slots, asked, tuned=False).seconds
            )
    found["server_rss_mb"] = max(highest)
    for name, together in (("limit", 32), ("limit_same", SAME)):
        took_s = batched_bench_s(
            programs, model, prompts=together, shared=shared, unique=PROMPT - shared, new=NEW, threads=THREADS
        )
        found[name] = together / took_s
    return found


def _asked_server(programs: Path, model: Path, slots: int, asked: Sequence[str], *, tuned: bool = True) -> Asked:
    with server(programs, model, slots=slots, context=512, threads=THREADS, tuned=tuned) as peer:
        peer.ask(asked[:1], n_predict=1)
        return peer.ask(asked, n_predict=NEW, ignore_eos=True)


def _grading(programs: Path, model: Path) -> dict[str, float]:
    asked = prompts(ANSWERS, RUBRIC, RUBRIC + ANSWER)
    ours = _in_process("grading", model, ANSWERS, RUBRIC)
    found = {"gpurig": ANSWERS / ours["seconds"]}
    for slots in SLOTS:
        for name, tuned in ((f"server_{slots}", True), (f"server_{slots}_as_it_comes", False)):
            with server(programs, model, slots=slots, context=1280, threads=THREADS, tuned=tuned) as peer:
                peer.ask(asked[:1], n_predict=1)
                took = peer.ask(asked, n_predict=VERDICT, grammar=GRAMMAR, ignore_eos=True)
                found[name] = ANSWERS / took.seconds
    return found


def _ratios(figures: dict[str, Any], count: int) -> dict[str, float]:
    """The figures that are compared, of the largest cells."""
    plain, shared = f"{count}_shared_0", f"{count}_shared_{SHARED}"

    def best(name: str) -> float:
        return float(max(figures[f"{name}_server_{slots}"] for slots in SLOTS))

    small = "32_shared_0"
    found = {
        "vs_server_unshared": figures[f"{plain}_gpurig"] / best(plain),
        "vs_server_shared": figures[f"{shared}_gpurig"] / best(shared),
        "vs_limit": figures[f"{small}_limit"] / figures[f"{small}_gpurig"],
        "vs_limit_same_sequences": figures[f"{small}_limit_same"] / figures[f"{small}_gpurig"],
        "python_share": statistics.mean(figures[f"{name}_python_share"] for name in (plain, shared)),
        "rss_mb": max(figures[f"{name}_rss_mb"] for name in (plain, shared)),
        "server_rss_mb": min(figures[f"{name}_server_rss_mb"] for name in (plain, shared)),
    }
    for key, name in (("unshared", small), ("shared", f"32_shared_{SHARED}")):
        peers = [figures.get(f"{name}_server_{slots}_as_it_comes", 0.0) for slots in SLOTS]
        if max(peers):
            found[f"vs_server_as_it_comes_{key}"] = figures[f"{name}_gpurig"] / max(peers)
    return found


def _in_process(what: str, model: Path, count: int, shared: int) -> dict[str, float]:
    done = run([sys.executable, __file__, what, str(model), str(count), str(shared)], timeout_s=3600)
    if done.code:
        raise SystemExit(f"{what} ended with {done.code}:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(what: str, model: Path, count: int, shared: int) -> dict[str, float]:
    """One measurement, in this process."""
    grading = what == "grading"
    asked = prompts(count, shared, RUBRIC + ANSWER if grading else PROMPT)
    ask: Callable[[Sequence[str]], float] = {"ours": _ours, "grading": _ours, "one_by_one": _one_by_one}[what](
        model, grading=grading
    )
    ask(asked[:1])
    computing.clear()
    started = time.perf_counter()
    ask(asked)
    seconds = time.perf_counter() - started
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"seconds": seconds, "computing": sum(computing), "rss_mb": rss}


computing: list[float] = []


def _ours(model: Path, *, grading: bool) -> Callable[[Sequence[str]], float]:
    file = open_model(str(model), search=Search.of_folders(), suite_folder=Path())
    engine = InferenceEngine(file, EngineSettings(context=1280 if grading else 512, threads=THREADS))
    compute = Context.compute

    def timed(self: Context, step: Any) -> Any:
        started = time.perf_counter()
        logits = compute(self, step)
        computing.append(time.perf_counter() - started)
        return logits

    # What is not spent in llama.cpp is Python's share.
    Context.compute = timed  # type: ignore[method-assign] # measured, not changed

    def ask(texts: Sequence[str]) -> float:
        sampling = Sampling(max_tokens=VERDICT if grading else NEW)
        requests = [
            Request(str(number), text, sampling, grammar=GRAMMAR if grading else "")
            for number, text in enumerate(texts)
        ]
        return float(sum(done.completion_tokens for done in engine.run(requests)))

    return ask


def _one_by_one(model: Path, *, grading: bool) -> Callable[[Sequence[str]], float]:
    import llama_cpp  # noqa: PLC0415 - loads shared libraries

    # It has no option for use_extra_bufts: where the processor has AMX and GCC 12 built it, it would die.
    original = llama_cpp.llama_model_default_params

    def parameters() -> Any:
        found = original()
        found.use_extra_bufts = False
        return found

    llama_cpp.llama_cpp.llama_model_default_params = parameters
    llama = llama_cpp.Llama(
        str(model),
        n_ctx=1280 if grading else 512,
        n_threads=THREADS,
        n_threads_batch=THREADS,
        flash_attn=False,
        verbose=False,
    )

    def ask(texts: Sequence[str]) -> float:
        answers = [llama(text, max_tokens=NEW, temperature=0.0) for text in texts]
        return float(sum(answer["usage"]["completion_tokens"] for answer in answers))

    return ask


if __name__ == "__main__":
    if len(sys.argv) > 1:
        kind, path, number, same = sys.argv[1:]
        print(json.dumps(measured(kind, Path(path), int(number), int(same))))
    else:
        main()
