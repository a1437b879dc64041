"""`make bench NAME=quantize`: processor time of quantizing and comparing, beside llama.cpp's own programs.

GPURIG_LLAMA_TOOLS names a folder with llama-quantize, llama-imatrix and llama-perplexity of the pinned llama.cpp (the
sources are in llama-cpp-python's sdist, vendor/llama.cpp; cmake builds them). Without it only ours is measured. The
model is the bundled generator in F16, on the text that comes with gpurig; every program has one thread. Processor time,
not wall time: it means the same on a busy machine. A second model has 128,000 tokens in its vocabulary and next to no
weights, so that nearly all of its time goes into what is done with the logits.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from gpurig.common.assets import find_asset
from gpurig.common.files import write_atomic
from gpurig.common.process import Finished, run
from gpurig.common.terminal import table
from gpurig.common.version import __version__
from standins.tiny_gguf import vocabulary, write_tiny_gguf

ROUNDS = 3
CHUNKS = 12
OUT = Path(__file__).parent / "out" / "quantize.json"
_TOOLS = os.environ.get("GPURIG_LLAMA_TOOLS", "")


def main() -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory() as folder:
        figures: dict[str, Any] = measured(Path(folder))
    figures |= {"rounds": ROUNDS, "machine": platform.machine(), "versions": {"gpurig": __version__}}
    rows = [[name, f"{value:.4g}"] for name, value in figures.items() if isinstance(value, float)]
    print(table([f"quantize, median of {ROUNDS}", "measured"], rows))
    OUT.parent.mkdir(exist_ok=True)
    write_atomic(OUT, json.dumps(figures, indent=1) + "\n")


def measured(folder: Path) -> dict[str, Any]:
    """Every figure; the peers' where their programs are given."""
    text = find_asset("gpurig.evaljobs", "texts/comparison.txt")
    demo = find_asset("gpurig.evaljobs", "models") / "demo-generator.gguf"
    ours("quantize", demo, "--to", "F16", "--allow-requantize", "--no-divergence", "--out", folder)
    source = folder / "demo-generator-F16.gguf"
    ours("quantize", source, "--to", "Q4_0", "--no-divergence", "--out", folder)
    quantized = folder / "demo-generator-Q4_0.gguf"
    wide = write_tiny_gguf(folder / "wide-f32.gguf", vocabulary_=large_vocabulary())
    ours("quantize", wide, "--to", "Q8_0", "--no-divergence", "--out", folder)
    figures: dict[str, Any] = {
        "start_cpu_s": median(lambda: ours("--version")),
        "quantize_cpu_s": median(lambda: _quantize(source, folder / "again")),
        "imatrix_cpu_s": median(lambda: _imatrix(source, text, folder)),
        "divergence_cpu_s": median(lambda: _divergence(source, quantized, text)),
        "divergence_128k_cpu_s": median(lambda: _divergence(wide, folder / "wide-Q8_0.gguf", text, chunks=2)),
    }
    if _TOOLS:
        found = peers((source, quantized), (wide, folder / "wide-Q8_0.gguf"), text, folder)
        ratios = {
            f"{name}_by_peer": figures[f"{name}_cpu_s"] / found[f"peer_{name}_cpu_s"]
            for name in ("divergence", "divergence_128k", "imatrix", "quantize")
        }
        figures |= found | ratios
    return figures


def peers(demo: tuple[Path, Path], wide: tuple[Path, Path], text: Path, folder: Path) -> dict[str, Any]:
    """llama.cpp's own programs on the same pairs of original and quantized model; what divergence each finds."""
    source = demo[0]
    common = ("-f", text, "-c", 512, "-t", 1)
    base, found = folder / "base.bin", {}
    for name, (one, other), chunks in (("", demo, CHUNKS), ("_128k", wide, 2)):

        def compare(one: Path = one, other: Path = other, chunks: int = chunks) -> Finished:
            theirs("llama-perplexity", "-m", one, *common, "--chunks", chunks, "--save-all-logits", base)
            return theirs(
                *("llama-perplexity", "-m", other, "-c", 512, "-t", 1, "--kl-divergence", "--kl-divergence-base", base)
            )

        found[f"peer_divergence{name}_cpu_s"] = median(compare)
        said = re.search(r"Mean\s+KLD:\s+([\d.]+)", (last := compare()).stdout + last.stderr)
        mine = json.loads(_divergence(one, other, text, chunks=chunks).stdout)
        value = mine["models"][0]["figures"]["divergence"]["mean"]["value"]
        found[f"kld{name}"] = value
        found[f"peer_kld{name}"] = float(said[1]) if said else float("nan")
    found["peer_imatrix_cpu_s"] = median(
        lambda: theirs("llama-imatrix", "-m", source, *common, "--chunks", CHUNKS, "-o", folder / "theirs.gguf")
    )
    found["peer_quantize_cpu_s"] = median(
        lambda: theirs("llama-quantize", "--pure", source, folder / "theirs-q4_0.gguf", "Q4_0", 1)
    )
    return found


def large_vocabulary() -> list[tuple[str, float, int]]:
    """128,000 tokens, most of which no text has."""
    pieces = vocabulary()
    return pieces + [(f"zz{number}", -1e6 - number, 1) for number in range(128_000 - len(pieces))]


def _quantize(source: Path, out: Path) -> Finished:
    # What is there already would not be made again.
    shutil.rmtree(out, ignore_errors=True)
    return ours("quantize", source, "--to", "Q4_0", "--no-divergence", "--pure", "--out", out)


def _imatrix(source: Path, text: Path, folder: Path) -> Finished:
    target = folder / "m.imatrix"
    target.unlink(missing_ok=True)
    return ours("imatrix", source, "--text", text, "--chunks", CHUNKS, "--threads", 1, "--out", target)


def _divergence(one: Path, other: Path, text: Path, *, chunks: int = CHUNKS) -> Finished:
    return ours("divergence", one, other, "--text", text, "--chunks", chunks, "--threads", 1, "--json")


def ours(*words: object) -> Finished:
    """The job's program; ends the benchmark where it fails."""
    return _run([sys.executable, "-m", "gpurig.evaljobs", *map(str, words)])


def theirs(name: str, *words: object) -> Finished:
    """One of llama.cpp's programs."""
    return _run([str(Path(_TOOLS) / name), *map(str, words)])


def _run(argv: list[str]) -> Finished:
    done = run(argv, timeout_s=1800)
    if done.code:
        sys.exit(f"{' '.join(argv)} ended with {done.code}:\n{done.stdout}{done.stderr}")
    return done


def median(work: Callable[[], object]) -> float:
    """Processor seconds of the programs that `work` starts."""
    return statistics.median(_cpu_s(work) for _ in range(ROUNDS))


def _cpu_s(work: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


if __name__ == "__main__":
    main()
