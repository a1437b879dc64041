"""Quantizing what cannot be quantized, on a full disk, interrupted: one line, the right code, nothing half made."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess  # noqa: TID251 - a program that is interrupted
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpurig.common.gguf import read_gguf
from gpurig.common.process import Finished, run
from gpurig.common.waiting import SystemClock, wait_for
from standins.missing import missing
from standins.quantizing import DEMO, done, job, report, write_words
from standins.tiny_gguf import vocabulary, write_tiny_gguf

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("texts") / "words.txt")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny-f32.gguf")


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


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder in which this user may not write; root may everywhere but in a file system that is read-only."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    if os.geteuid():
        yield folder
        return
    if run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], timeout_s=30).code:
        missing("this user may not mount a read-only file system", "GPURIG_REQUIRE_MOUNT")
    yield folder
    run(["umount", str(folder)], timeout_s=30)


def test_a_folder_that_may_not_be_written_is_told(tiny: Path, closed: Path) -> None:
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
