"""Quantizing with llama.cpp: the bundled model, and models with random weights in the shapes that matter."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess  # noqa: TID251 - a program that is interrupted
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpurig.common.assets import find_asset
from gpurig.common.ggml_types import TYPE_NUMBERS
from gpurig.common.gguf import read_gguf
from gpurig.common.gguf_file_types import FILE_TYPES
from gpurig.common.models.quantizations import QUANTIZATIONS, bits_per_weight
from gpurig.common.process import Finished, run
from gpurig.common.waiting import SystemClock, wait_for
from standins.missing import missing
from standins.tiny_gguf import vocabulary, write_tiny_gguf

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

pytestmark = pytest.mark.models

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "ci-jobs"
DEMO = find_asset("gpurig.evaljobs", "models") / "demo-generator.gguf"
"""A model that was trained: figures of divergence mean something."""


def job(*words: object, cwd: Path | None = None) -> Finished:
    # A program of its own: a fault of llama.cpp's ends a process.
    return run([sys.executable, "-m", "gpurig.evaljobs", *map(str, words)], timeout_s=600, cwd=cwd)


def done(*words: object) -> Finished:
    finished = job(*words)
    assert finished.code == 0, finished.stderr
    return finished


@pytest.fixture(scope="module")
def ci_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the bundled model knows: pipelines."""
    samples = yaml.safe_load((EXAMPLES / "samples.yaml").read_text())
    path = tmp_path_factory.mktemp("texts") / "ci.txt"
    path.write_text("\n".join(one["reference"] for one in samples if one.get("reference")))
    return path


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text in the words of the models with random weights."""
    path = tmp_path_factory.mktemp("texts") / "words.txt"
    path.write_text(" ".join(["stage script test build image deploy job good bad"] * 120))
    return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in F16."""
    out = tmp_path_factory.mktemp("demo")
    done("quantize", DEMO, "--to", "F16", "--allow-requantize", "--no-divergence", "--out", out)
    return out / "demo-generator-F16.gguf"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny-f32.gguf")


def report(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text())
    assert isinstance(values, dict)
    return values


def divergences(values: dict[str, Any]) -> dict[str, float]:
    return {one["name"]: one["figures"]["divergence"]["mean"]["value"] for one in values["models"]}


def test_fewer_bits_diverge_more_on_a_trained_model(demo: Path, ci_text: Path, tmp_path: Path) -> None:
    types = "F16,Q8_0,Q5_0,Q4_0,Q2_K"
    common = ("--text", ci_text, "--context", 256, "--chunks", 6)
    finished = done("quantize", demo, "--to", types, "--out", tmp_path, *common)
    values = report(tmp_path / "demo-generator.quantize.json")
    found = divergences(values)
    # Its rows of 192 numbers have no Q2_K: llama.cpp takes Q4_0 for them, and the report says so.
    assert abs(found["F16"]) < 1e-6 < found["Q8_0"] < found["Q5_0"] < found["Q4_0"] == found["Q2_K"]
    by_name = {one["name"]: one for one in values["models"]}
    assert len(by_name["Q2_K"]["fallbacks"]) == 49
    assert by_name["F16"]["figures"]["same_top"]["value"] == 1
    assert by_name["F16"]["figures"]["perplexity_ratio"]["value"] == 1
    assert "Q2_K: 49 of 65 tensors have rows that its type cannot divide" in finished.stdout
    assert max(map(len, finished.stdout.splitlines()[:-1])) <= 80


def test_an_importance_matrix_brings_few_bits_nearer(demo: Path, ci_text: Path, tmp_path: Path) -> None:
    found = []
    for name, more in (("without", ()), ("with", ("--calibration", ci_text))):
        common = ("--text", ci_text, "--context", 256, "--chunks", 5)
        done("quantize", demo, "--to", "IQ4_NL", "--out", tmp_path / name, *common, *more)
        found.append(divergences(report(tmp_path / name / "demo-generator.quantize.json"))["IQ4_NL"])
    assert found[1] < 0.95 * found[0]
    metadata = read_gguf(tmp_path / "with" / "demo-generator-IQ4_NL.gguf").metadata
    assert metadata["quantize.imatrix.dataset"] == "ci.txt"
    assert metadata["quantize.imatrix.chunks_count"] == 5


def test_fewer_bits_diverge_more_in_the_k_types(words: Path, tmp_path: Path) -> None:
    source = write_tiny_gguf(tmp_path / "wide-f32.gguf", width=256)
    types = "Q8_0,Q6_K,Q4_K_M,Q2_K"
    done("quantize", source, "--to", types, "--out", tmp_path, "--text", words, "--context", 128, "--chunks", 4)
    values = report(tmp_path / "wide.quantize.json")
    found = list(divergences(values).values())
    assert found == sorted(found)
    assert not any(one["fallbacks"] for one in values["models"])


def test_the_forecast_is_the_size_that_comes_out(tiny: Path, tmp_path: Path) -> None:
    types = "Q8_0,Q4_0,Q4_K_M,F16"
    planned = json.loads(done("quantize", tiny, "--to", types, "--out", tmp_path, "--dry-run", "--json").stdout)
    assert list(tmp_path.glob("*Q*")) == []
    done("quantize", tiny, "--to", types, "--out", tmp_path, "--no-divergence")
    for one in planned["models"]:
        size = (tmp_path / one["file"]).stat().st_size
        assert size <= one["size_bytes"] <= size + 1024
        gguf = read_gguf(tmp_path / one["file"])
        stored = sum(tensor.size_bytes or 0 for tensor in gguf.tensors) * 8
        count = sum(tensor.shape[0] * (tensor.shape[1] if len(tensor.shape) > 1 else 1) for tensor in gguf.tensors)
        assert one["bits_per_weight"] == pytest.approx(stored / count)


def test_the_numbers_of_the_quantizations_are_the_librarys() -> None:
    import llama_cpp

    named = {
        name.removeprefix("LLAMA_FTYPE_MOSTLY_").removeprefix("LLAMA_FTYPE_ALL_"): getattr(llama_cpp, name)
        for name in dir(llama_cpp)
        if name.startswith("LLAMA_FTYPE_")
    }
    assert {one.name: one.file_type for one in QUANTIZATIONS.values()}.items() <= named.items()
    assert set(FILE_TYPES.values()) - set(QUANTIZATIONS) == {"NVFP4"}


def test_every_quantization_has_the_type_that_most_tensors_get(tmp_path: Path, words: Path) -> None:
    source = write_tiny_gguf(tmp_path / "wide-f32.gguf", width=256)
    done("imatrix", source, "--text", words, "--context", 64, "--out", tmp_path / "wide.imatrix")
    names = [name for name in QUANTIZATIONS if name != "MXFP4_MOE"]  # which is for experts only
    finished = done(
        *("quantize", source, "--to", ",".join(names), "--imatrix", tmp_path / "wide.imatrix"),
        *("--pure", "--dry-run", "--json"),
    )
    for one in json.loads(finished.stdout)["models"]:
        types = {name: count for name, count in one["types"].items() if name != "f32"} or one["types"]
        most = max(types, key=lambda name: types[name])
        assert QUANTIZATIONS[one["name"]].bits == bits_per_weight(TYPE_NUMBERS[most]), one["name"]


def test_a_second_run_makes_nothing_again(tiny: Path, tmp_path: Path) -> None:
    done("quantize", tiny, "--to", "Q8_0,Q4_0", "--out", tmp_path, "--no-divergence")
    made = [tmp_path / "tiny-Q8_0.gguf", tmp_path / "tiny-Q4_0.gguf"]
    before = [path.stat().st_ino for path in made]
    done("quantize", tiny, "--to", "Q8_0,Q4_0", "--out", tmp_path, "--no-divergence")
    assert [path.stat().st_ino for path in made] == before


def test_a_file_of_another_recipe_is_replaced_only_when_asked(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "tiny-Q8_0.gguf"
    target.write_text("mine")
    refused = job("quantize", tiny, "--to", "Q8_0", "--out", tmp_path, "--no-divergence")
    assert refused.code == 2
    assert "made in another way" in refused.stderr
    assert "--force" in refused.stderr
    assert target.read_text() == "mine"
    done("quantize", tiny, "--to", "Q8_0", "--out", tmp_path, "--no-divergence", "--force")
    assert read_gguf(target).metadata["gpurig.quantize.recipe"].startswith("Q8_0, llama-cpp-python ")


def test_the_gate_fails_a_model_that_is_too_far(tiny: Path, words: Path, tmp_path: Path) -> None:
    common = ("--text", words, "--context", 128, "--chunks", 4)
    finished = job("quantize", tiny, "--to", "Q8_0,Q4_0", "--out", tmp_path, *common, "--max-kld", "0.01")
    values = report(tmp_path / "tiny.quantize.json")
    found = divergences(values)
    assert found["Q8_0"] < 0.01 < found["Q4_0"], "the limit lies between the two"
    assert finished.code == 3
    assert f"Q4_0: mean KLD {found['Q4_0']:.6f} is above 0.01" in finished.stderr
    assert "Q8_0" not in finished.stderr.split("too far")[1]
    assert values["passed"] is False
    done("divergence", tiny, tmp_path / "tiny-Q8_0.gguf", *common, "--max-kld", "0.01")


@pytest.mark.parametrize("experts", [0, 4])
def test_an_importance_matrix_has_the_squares_of_what_the_weights_get(
    tmp_path: Path, words: Path, experts: int
) -> None:
    """Computed again with nothing but numpy for the first layer, whose inputs are the normalised embeddings."""
    import numpy as np
    from gpurig.evaljobs.quantize.imatrix_file import read_importance

    source = write_tiny_gguf(tmp_path / "tiny-f32.gguf", experts=experts)
    done("imatrix", source, "--text", words, "--context", 128, "--chunks", 3, "--out", tmp_path / "m.imatrix")
    matrix = read_importance(tmp_path / "m.imatrix")
    pieces = [text for text, _, _ in vocabulary()]
    numbers = [pieces.index("▁" + word) for word in words.read_text().split()]
    chunks = np.array([1, *numbers])[: 3 * 128].reshape(3, 128)
    chunks[:, 0] = 1  # every chunk begins with the model's BOS
    gguf = read_gguf(source)
    [tensor] = [one for one in gguf.tensors if one.name == "token_embd.weight"]
    table = np.frombuffer(source.read_bytes(), "<f4", tensor.shape[0] * tensor.shape[1], tensor.offset)
    rows = table.reshape(tensor.shape[1], tensor.shape[0])[chunks.ravel()].astype(np.float64)
    inputs = rows / np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + 1e-5)
    for name in ("q", "k", "v"):
        found = matrix.weights[f"blk.0.attn_{name}.weight"]
        np.testing.assert_allclose(found.sums[0], np.square(inputs).sum(axis=0), rtol=1e-4)
        assert found.counts.tolist() == [3 * 128]
    assert "output.weight" not in matrix.weights
    if experts:
        up, down = (matrix.weights[f"blk.1.ffn_{name}_exps.weight"] for name in ("up", "down"))
        assert (up.sums.shape, down.sums.shape) == ((4, 32), (4, 64))
        # Every token goes to two experts.
        assert up.counts.sum() == down.counts.sum() == 2 * 3 * 128
        np.testing.assert_array_equal(up.counts, down.counts)


def test_a_mixture_of_experts_is_quantized_with_its_importance_matrix(tmp_path: Path, words: Path) -> None:
    source = write_tiny_gguf(tmp_path / "moe-f32.gguf", experts=4)
    common = ("--text", words, "--context", 128, "--chunks", 3)
    done("quantize", source, "--to", "Q4_0", "--calibration", words, "--out", tmp_path, *common)
    assert divergences(report(tmp_path / "moe.quantize.json"))["Q4_0"] > 0


def test_an_importance_matrix_is_computed_once(tiny: Path, words: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.imatrix"
    for context, again in ((64, False), (64, True), (96, False)):
        finished = done("imatrix", tiny, "--text", words, "--context", context, "--out", target)
        assert ("is there already" in finished.stdout) is again


def test_few_bits_without_an_importance_matrix_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    source = write_tiny_gguf(tmp_path / "wide-f32.gguf", width=256)
    finished = job("quantize", source, "--to", "Q8_0,IQ2_XS", "--out", tmp_path / "out")
    assert finished.code == 2
    assert "IQ2_XS needs an importance matrix" in finished.stderr
    assert not (tmp_path / "out").exists()


def cases(tmp_path: Path, tiny: Path, words: Path) -> dict[str, tuple[tuple[object, ...], int, str]]:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny.read_bytes()[:-200])
    short = tmp_path / "short.txt"
    short.write_text("test build")
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"caf\xe9 " * 2000)
    other = write_tiny_gguf(tmp_path / "other.gguf", vocabulary_=vocabulary(("good", "bad", "maybe")))
    wrong = tmp_path / "wrong.imatrix"
    wrong.write_bytes(b"\1\0\0\0 nothing")
    out = ("--out", tmp_path / "out")
    quiet = ("--to", "Q8_0", "--no-divergence")
    return {
        "truncated": (("quantize", cut, *quiet, *out), 2, "truncated"),
        "unknown": (("quantize", tiny, "--to", "Q4_Z", *out), 2, "there is no quantization 'Q4_Z'"),
        "requantize": (("quantize", DEMO, *quiet, *out), 2, "is Q8_0 already"),
        "short text": (("quantize", tiny, "--to", "Q8_0", "--text", short, *out), 2, "one chunk is 512"),
        "no utf-8": (("quantize", tiny, "--to", "Q8_0", "--text", latin, *out), 2, "is not UTF-8"),
        "no text": (("divergence", tiny, tiny, "--text", tmp_path / "none"), 2, "No such file"),
        "vocabulary": (("divergence", tiny, other, "--text", words), 2, "have different vocabularies"),
        "imatrix": (("quantize", tiny, *quiet, "--imatrix", wrong, *out), 2, "no usable importance matrix"),
        "both": (
            ("quantize", tiny, *quiet, "--imatrix", wrong, "--calibration", words, *out),
            2,
            "give one of the two",
        ),
        "limit": (("quantize", tiny, *quiet, "--max-kld", 1, *out), 2, "a limit needs the comparison"),
        "no model": (("quantize", "nowhere", *quiet, *out), 4, 'has no model "nowhere"'),
        "a file for a folder": (("quantize", tiny, *quiet, "--out", short / "x"), 4, "cannot write"),
    }


@pytest.mark.parametrize(
    "case",
    [
        *("truncated", "unknown", "requantize", "short text", "no utf-8", "no text", "vocabulary", "imatrix", "both"),
        *("limit", "no model", "a file for a folder"),
    ],
)
def test_bad_input_is_told_in_one_line_with_a_hint(tmp_path: Path, tiny: Path, words: Path, case: str) -> None:
    given, code, said = cases(tmp_path, tiny, words)[case]
    finished = job(*given, cwd=tmp_path)
    assert finished.code == code, finished.stderr
    assert said in finished.stderr
    assert "hint: " in finished.stderr
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.rglob("*.part")) == []


@pytest.fixture
def broken(tiny: Path, tmp_path: Path) -> Path:
    """A model one of whose numbers is none."""
    [tensor] = [one for one in read_gguf(tiny).tensors if one.name == "output.weight"]
    data = bytearray(tiny.read_bytes())
    data[tensor.offset + 8 : tensor.offset + 12] = struct.pack("<f", float("nan"))
    path = tmp_path / "broken.gguf"
    path.write_bytes(data)
    return path


def test_a_model_that_predicts_nothing_fails_the_gate_and_is_no_reference(
    tiny: Path, broken: Path, words: Path, tmp_path: Path
) -> None:
    common = ("--text", words, "--context", 128, "--chunks", 2)
    out = tmp_path / "report.json"
    compared = job("divergence", tiny, broken, *common, "--out", out)
    assert compared.code == 3
    assert "it predicts nothing" in compared.stderr
    assert "Warning" not in compared.stderr
    [row] = report(out)["models"]
    assert (row["figures"], row["problem"]) == (None, "it predicts nothing: its logits are not finite")
    reference = job("divergence", broken, tiny, *common)
    assert reference.code == 2
    assert "the reference model predicts nothing" in reference.stderr
    quantized = job("quantize", broken, "--to", "Q8_0", "--no-divergence", "--out", tmp_path)
    assert quantized.code == 2
    assert "llama.cpp cannot quantize broken.gguf to Q8_0" in quantized.stderr


def test_an_embedding_model_is_not_compared(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    import numpy as np

    path = tmp_path / "embed.gguf"
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_causal_attention(value=False)
    writer.add_context_length(64)
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    finished = job("divergence", path, path)
    assert finished.code == 2
    assert "it predicts no next tokens" in finished.stderr


def limited(limit_bytes: int, *words: object) -> Finished:
    """The program with files limited to a size: writes beyond it fail as on a full disk."""
    script = (
        "import resource, signal, sys, runpy\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))\n"
        "sys.argv = ['gpurig-job', *sys.argv[1:]]\n"
        "runpy.run_module('gpurig.evaljobs', run_name='__main__')\n"
    )
    return run([sys.executable, "-c", script, *map(str, words)], timeout_s=300)


def test_a_disk_that_fills_up_leaves_nothing_under_the_final_name(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finished = limited(20_000, "quantize", tiny, "--to", "Q8_0", "--no-divergence", "--out", out)
    assert finished.code in {2, 4}, finished.stderr
    assert "Traceback" not in finished.stderr
    assert list(out.iterdir()) == []


def test_a_disk_that_fills_up_during_the_comparison_is_told(tiny: Path, words: Path, tmp_path: Path) -> None:
    size = tiny.stat().st_size
    common = ("--text", words, "--context", 128)
    finished = limited(size, "quantize", tiny, "--to", "Q8_0", "--out", tmp_path, *common)
    assert finished.code == 4, finished.stderr
    assert "cannot write" in finished.stderr
    # What was finished stays, and the next run takes it.
    assert (tmp_path / "tiny-Q8_0.gguf").exists()


def test_too_little_space_is_told_before_anything_is_made(tiny: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(small)], timeout_s=30)
    if mounted.code:
        missing("this user may not mount a small file system", "GPURIG_REQUIRE_MOUNT")
    try:
        finished = job("quantize", tiny, "--to", "Q8_0", "--no-divergence", "--out", small)
        assert finished.code == 4
        assert "what is to be made needs" in finished.stderr
        assert list(small.iterdir()) == []
    finally:
        run(["umount", str(small)], timeout_s=30)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told(tiny: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    finished = job("quantize", tiny, "--to", "Q8_0", "--no-divergence", "--out", closed)
    assert finished.code == 4
    assert "cannot write" in finished.stderr


@contextlib.contextmanager
def quantizing(source: Path, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that llama.cpp is busy with: its unfinished file has grown."""
    words = ("quantize", source, "--to", "IQ4_XS", "--no-divergence", "--threads", 1, "--out", out)
    command = [sys.executable, "-m", "gpurig.evaljobs", *map(str, words)]
    part = out / f".{source.stem.removesuffix('-f32')}-IQ4_XS.gguf.part"
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            busy = wait_for(
                lambda: (part.exists() and part.stat().st_size > 0) or process.poll() is not None,
                timeout_s=120,
                interval_s=0.005,
                clock=SystemClock(),
            )
            assert busy, "it did not begin"
            assert process.poll() is None, "it was too fast to be interrupted"
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes some seconds."""
    return write_tiny_gguf(tmp_path_factory.mktemp("slow") / "slow-f32.gguf", width=768)


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_under_the_final_name_and_the_next_one_finishes(
    slow: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with quantizing(slow, tmp_path) as process:
        workers = children_of(process.pid)
        process.send_signal(number)
        process.wait(60)
        assert process.returncode == (130 if number == signal.SIGINT else -number)
        gone = wait_for(lambda: not any(map(alive, workers)), timeout_s=30, interval_s=0.05, clock=SystemClock())
        assert gone, "llama.cpp works on for nobody"
    assert list(tmp_path.glob("*.gguf")) == []
    done("quantize", slow, "--to", "IQ4_XS", "--no-divergence", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(("gguf", "part"))] == ["slow-IQ4_XS.gguf"]


def test_two_runs_do_not_make_the_same_file(slow: Path, tmp_path: Path) -> None:
    with quantizing(slow, tmp_path):
        second = job("quantize", slow, "--to", "IQ4_XS", "--no-divergence", "--out", tmp_path)
        assert second.code == 4
        assert "another gpurig makes slow-IQ4_XS.gguf now" in second.stderr
