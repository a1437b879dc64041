from __future__ import annotations

import itertools

import click
import pytest
from click.testing import CliRunner
from gpurig.common.errors import InputError
from gpurig.common.ggml_types import GGML_TYPES
from gpurig.common.models.quantizations import QUANTIZATIONS, bits_per_weight, parse_quantizations
from gpurig.common.models.quantize_options import QuantizeOptions, quantize_options


def names(text: str) -> list[str]:
    return [one.name for one in parse_quantizations(text)]


def test_a_list_names_quantizations_each_once_in_its_order() -> None:
    assert names("Q5_K_M, q4_k_m,Q5_K_M,") == ["Q5_K_M", "Q4_K_M"]


def test_llama_quantizes_short_names_are_known() -> None:
    assert names("Q4_K,q3_k,Q5_K") == ["Q4_K_M", "Q3_K_M", "Q5_K_M"]


@pytest.mark.parametrize("text", ["", " , ", "Q4_K_X", "NVFP4", "Q4_K_M,nonsense"])
def test_what_is_no_quantization_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_quantizations(text)
    if text.strip(" ,"):
        listed = " ".join(caught.value.details)
        assert all(f"{one.name} " in listed for one in QUANTIZATIONS.values())
        assert "Q4_K_M 4.5" in listed


def test_the_list_goes_from_many_bits_to_few() -> None:
    bits = [one.bits for one in QUANTIZATIONS.values()]
    # Neighbours of one family keep together, so it may rise by a little.
    assert all(later <= earlier + 0.25 for earlier, later in itertools.pairwise(bits))
    assert (bits[0], QUANTIZATIONS["Q8_0"].bits, bits[-1]) == (32, 8.5, 1.125)


def test_bits_count_the_scales() -> None:
    by_name = {one.name: bits_per_weight(number) for number, one in GGML_TYPES.items()}
    assert (by_name["q8_0"], by_name["q6_K"], by_name["f16"]) == (8.5, 6.5625, 16)


OPTIONS = QuantizeOptions(
    to="Q4_K_M,Q8_0",
    calibration="builtin",
    chunks=3,
    max_kld=0.05,
    pure=True,
    output_tensor_type="q6_K",
    force=True,
    threads=2,
)


def test_options_survive_being_handed_on_as_words() -> None:
    heard: list[QuantizeOptions] = []

    @click.command()
    @quantize_options
    def command(**given: object) -> None:
        heard.append(QuantizeOptions(**given))  # type: ignore[arg-type]  # what click read

    done = CliRunner().invoke(command, OPTIONS.arguments())
    assert done.exit_code == 0, done.output
    assert heard == [OPTIONS]


def test_options_that_were_not_given_are_not_handed_on() -> None:
    assert QuantizeOptions(to="Q8_0").arguments() == ["--to", "Q8_0", "--context", "512"]
