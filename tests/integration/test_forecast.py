"""The forecast against llama.cpp's own plan: every model, loaded in every way; and llama.cpp's account of itself."""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpurig.common.command import run_command
from gpurig.common.errors import InputError
from gpurig.common.gguf import read_gguf
from gpurig.evaljobs.__main__ import cli as job
from gpurig.evaljobs.memory import MemoryRequest, measure
from gpurig.images.memory.architectures import MEASURED
from gpurig.images.memory.forecast import model_of, retyped
from gpurig.images.memory.quantizations import LADDER, tensor_kinds
from gpurig.images.memory.verdict import file_bytes
from gpurig.runner.__main__ import cli
from standins.forecast_matrix import Row, forecast_figures, measure_model
from standins.llama_words import llama_log
from standins.model_shapes import published_shapes, write_shape
from standins.tiny_gguf import write_tiny_gguf

_ROWS: dict[str, list[Row]] = {}


def rows_of(name: str, folder: Path) -> list[Row]:
    """Measured once, for the test of the model and for that of the figures."""
    if name not in _ROWS:
        _ROWS[name] = measure_model(name, folder)
    return _ROWS[name]


@pytest.mark.parametrize("name", published_shapes())
def test_a_forecast_is_within_3_percent_or_150_mib_and_never_under(name: str, tmp_path: Path) -> None:
    rows = rows_of(name, tmp_path)
    assert len(rows) >= 30
    assert [str(row) for row in rows if not row.right] == []


def test_the_figures_are_of_at_least_12_models_and_of_every_measured_architecture(tmp_path: Path) -> None:
    names = list(published_shapes())
    figures = forecast_figures([row for name in names for row in rows_of(name, tmp_path)])
    assert figures["forecast_models"] == len(names) >= 12
    assert figures["forecast_worst_under_mb"] == figures["forecast_outside"] == 0
    assert {shape.architecture for shape in published_shapes().values()} == MEASURED


# llama_ftype (llama.h).
_FTYPES = {"F16": 1, "Q8_0": 7, "Q2_K": 10, "Q3_K_M": 12, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "IQ4_XS": 30}


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What llama.cpp says, which goes to a list for the time of a test."""
    with llama_log() as lines:
        yield lines


@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b", "qwen2.5-0.5b", "phi-3-mini", "granite-4.0-h-micro"])
def test_a_quantization_is_as_large_as_llama_quantize_would_make_it(name: str, tmp_path: Path, log: list[str]) -> None:
    import llama_cpp

    path = write_shape(tmp_path / "f16.gguf", published_shapes()[name], "F16")
    model = model_of(read_gguf(path))
    for quantization in LADDER:
        log.clear()
        wish = llama_cpp.llama_model_quantize_default_params()
        wish.ftype, wish.dry_run, wish.nthread = _FTYPES[quantization], True, 1
        llama_cpp.llama_model_quantize(str(path).encode(), str(tmp_path / "none").encode(), ctypes.byref(wish))
        (told,) = re.findall(r"quant size\s*=\s*([\d.]+) MiB", "".join(log))
        ours = file_bytes(retyped(model, tensor_kinds(model, quantization))) / 2**20
        assert ours == pytest.approx(float(told), abs=0.2), quantization
    assert not (tmp_path / "none").exists()


def test_memory_tells_the_buffers_of_a_card_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_shape(tmp_path / "m.gguf", published_shapes()["llama-3.2-1b"])
    arguments = ["memory", str(path), "--card-mib", "8192", "--context", "8192", "--kv", "q8_0"]
    assert run_command(job, program="gpurig-job", arguments=[*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    gpu = next(buffer for buffer in document["buffers"] if not buffer["host"])
    # 16 layers, 8 heads of 64 for keys and values each, 34 bytes for 32 elements.
    assert gpu["context_bytes"] == 16 * 8192 * 8 * 64 * 2 // 32 * 34
    assert run_command(job, program="gpurig-job", arguments=arguments) == 0
    assert re.search(r"GPU0 +\d", capsys.readouterr().out)


def test_a_real_model_takes_what_no_alloc_says(tmp_path: Path) -> None:
    import llama_cpp

    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    (buffers,) = measure(path, [MemoryRequest(context=512, repack=False)])
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    try:
        weights = llama_cpp.llama_model_size(model)
    finally:
        llama_cpp.llama_model_free(model)
    assert sum(buffer.model_bytes for buffer in buffers) == pytest.approx(weights, abs=4096)


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_model_is_an_error_of_one_line_and_no_end_by_a_signal(damage: str, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    data = bytearray(path.read_bytes())
    if damage == "garbage":
        data[200:4000] = bytes(3800)
    path.write_bytes(data[: len(data) // 3] if damage == "cut" else data)
    with pytest.raises(InputError, match=r"llama\.cpp") as caught:
        measure(path, [MemoryRequest(context=256)])
    assert caught.value.hint


def test_fit_shows_llama_cpps_figures_beside_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_shape(tmp_path / "m.gguf", published_shapes()["llama-3.1-8b"])
    arguments = ["models", "fit", str(path), "--vram", "8GB", "--exact", "--json", "--root", str(tmp_path)]
    assert run_command(cli, program="gpurig", arguments=arguments) == 0
    document = json.loads(capsys.readouterr().out)
    forecast, exact = document["forecast"]["gpus"][0], document["exact"]["gpu"]
    assert (forecast["weights"], forecast["cache"]) == (exact["weights"], exact["cache"])
    assert 0 <= forecast["compute"] - exact["compute"] < 150 * 2**20
    assert document["verdict"]["answer"] == "fits"
