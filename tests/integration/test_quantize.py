"""Quantizing with llama.cpp: the bundled model, and models with random weights in the shapes that matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpurig.common.ggml_types import TYPE_NUMBERS
from gpurig.common.gguf import read_gguf
from gpurig.common.gguf_file_types import FILE_TYPES
from gpurig.common.models.quantizations import QUANTIZATIONS, bits_per_weight
from standins.quantizing import DEMO, done, job, report, write_words
from standins.tiny_gguf import vocabulary, write_tiny_gguf

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

pytestmark = pytest.mark.models

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "ci-jobs"


@pytest.fixture(scope="module")
def ci_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the bundled model knows: pipelines."""
    samples = yaml.safe_load((EXAMPLES / "samples.yaml").read_text())
    path = tmp_path_factory.mktemp("texts") / "ci.txt"
    path.write_text("\n".join(one["reference"] for one in samples if one.get("reference")))
    return path


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("texts") / "words.txt")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in F16."""
    out = tmp_path_factory.mktemp("demo")
    done("quantize", DEMO, "--to", "F16", "--allow-requantize", "--no-divergence", "--out", out)
    return out / "demo-generator-F16.gguf"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny-f32.gguf")


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
