from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

np = pytest.importorskip("numpy", reason="the eval extra is not installed")

from gpurig.evaljobs.quantize.divergence import Comparison, Predictions  # noqa: E402 - needs numpy
from gpurig.evaljobs.quantize.figures import figures  # noqa: E402
from gpurig.evaljobs.quantize.report import ModelRow, Report, UsedImatrix, UsedText, as_text, gate  # noqa: E402
from gpurig.evaljobs.quantize.settings import Comparing, base_name  # noqa: E402


def comparison(divergence: list[float], model: list[float], reference: list[float], same: int) -> Comparison:
    count = len(divergence)
    best = np.arange(count)
    other = np.where(best < same, best, -1)
    return Comparison(np.array(divergence), Predictions(np.array(reference), best), Predictions(np.array(model), other))


def test_figures_are_those_of_the_values() -> None:
    reference, model = [-1.0, -2.0, -3.0, -4.0], [-1.5, -2.0, -3.5, -4.0]
    found = figures(comparison([0.0, 0.1, 0.2, 0.7], model, reference, same=3))
    assert found.tokens == 4
    assert found.divergence.mean.value == pytest.approx(0.25)
    # 1.96 standard errors: s = 0.3109, n = 4.
    assert found.divergence.mean.high == pytest.approx(0.25 + 1.959964 * 0.3109126 / 2, rel=1e-5)
    assert (found.divergence.median, found.divergence.maximum) == (pytest.approx(0.15), 0.7)
    assert found.same_top.value == 0.75
    assert 0.3 < found.same_top.low < 0.75 < found.same_top.high < 1
    assert found.perplexity.value == pytest.approx(math.exp(11 / 4))
    assert found.reference_perplexity.value == pytest.approx(math.exp(10 / 4))
    assert found.perplexity_ratio.value == pytest.approx(math.exp(1 / 4))
    delta = [math.exp(m) - math.exp(r) for m, r in zip(model, reference, strict=True)]
    assert found.delta_p_mean == pytest.approx(sum(delta) / 4)
    assert found.delta_p_rms == pytest.approx(math.sqrt(sum(one**2 for one in delta) / 4))


def test_paired_differences_make_the_ratio_sharper_than_two_perplexities() -> None:
    random = np.random.default_rng(1)
    reference = -random.exponential(3, 500)
    found = figures(comparison([0.0] * 500, list(reference - 0.01), list(reference), same=500))
    ratio, base = found.perplexity_ratio, found.reference_perplexity
    assert ratio.low == pytest.approx(math.exp(0.01), rel=1e-6)
    assert base.high / base.low > 1.2


def row(name: str = "Q4_K_M", **given: object) -> ModelRow:
    found = figures(comparison([0.1, 0.3], [-2.0, -1.0], [-1.9, -1.0], same=1))
    values = {"name": name, "file": f"m-{name}.gguf", "sha256": "ab" * 32, "size_bytes": 5 * 2**30}
    fixed: dict[str, object] = {"bits_per_weight": 4.85, "types": {"q4_K": 200, "q6_K": 26, "f32": 65}}
    return ModelRow(**{**values, **fixed, "figures": found, **given})  # type: ignore[arg-type]


def report(*models: ModelRow) -> Report:
    return Report(
        source=row("F16", figures=None),
        models=models,
        text=UsedText("a\x1b[31mtext", "cd" * 32, 20, 512, 5100),
        imatrix=UsedImatrix("m.imatrix", "ef" * 32, ("a",), 20, unseen_experts=3),
        packages={"llama-cpp-python": "0.3.36"},
        limits={"mean_kld": 0.1, "perplexity_ratio": None},
        failed=gate(models, Comparing(max_divergence=0.1)),
    )


def test_the_gate_names_what_is_outside_of_its_limits() -> None:
    comparing = Comparing(max_divergence=0.25, max_perplexity_ratio=1.01)
    assert gate((row(),), comparing) == ("Q4_K_M: perplexity ratio 1.0513 is above 1.01",)
    assert gate((row(),), Comparing(max_divergence=0.19)) == ("Q4_K_M: mean KLD 0.200000 is above 0.19",)
    assert gate((row(),), Comparing()) == ()


def test_a_model_that_predicts_nothing_fails_without_any_limit() -> None:
    assert gate((row(figures=None, problem="it predicts nothing"),), Comparing()) == ("Q4_K_M: it predicts nothing",)


def test_a_divergence_that_is_no_number_does_not_pass() -> None:
    found = figures(comparison([math.nan, 0.1], [-1.0, -1.0], [-1.0, -1.0], same=2))
    assert gate((row(figures=found),), Comparing(max_divergence=1.0))


def test_the_table_fits_80_columns_and_obeys_no_text() -> None:
    huge = figures(comparison([900.0, 20.0], [-2000.0, -100.0], [-1.9, -1.0], same=1))
    text = as_text(report(row(), row("IQ3_XXS", figures=huge), row("Q2_K", fallbacks=("a", "b"))))
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "3 experts got no token" in text


def test_json_has_no_infinity() -> None:
    broken = figures(comparison([0.5], [-2000.0], [-1.0], same=1))
    values = json.loads(report(row(figures=broken)).to_json(), parse_constant=lambda _: pytest.fail("no JSON"))
    assert values["schema"] == "gpurig.quantize/1"
    assert values["models"][0]["figures"]["perplexity"]["value"] is None
    assert values["passed"] is False
    assert values["failed"] == ["Q4_K_M: mean KLD 0.500000 is above 0.1"]


def test_one_token_has_no_interval() -> None:
    found = figures(comparison([0.5], [-2.0], [-1.0], same=1))
    assert (found.divergence.mean.low, found.divergence.mean.high) == (-math.inf, math.inf)
    assert dataclasses.asdict(found)["perplexity"]["low"] == 0


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model-f16.gguf", "model"),
        ("Model.BF16.gguf", "Model"),
        ("model_F32.gguf", "model"),
        ("f16.gguf", "f16"),
        ("conf16.gguf", "conf16"),
        ("model-Q8_0.gguf", "model-Q8_0"),
    ],
)
def test_a_results_name_begins_with_the_models(file: str, name: str) -> None:
    assert base_name(Path(file)) == name
