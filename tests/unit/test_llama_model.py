"""How models are loaded, without llama.cpp."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from gpurig.evaljobs.llama_model import model_parameters


def _api(system: bytes) -> SimpleNamespace:
    return SimpleNamespace(
        llama_model_default_params=lambda: SimpleNamespace(n_gpu_layers=0, use_extra_bufts=True),
        llama_print_system_info=lambda: system,
    )


def test_a_build_with_amx_does_not_lay_weights_out_for_it():
    # Its tile configuration is garbage with GCC 12, and the processor's answer to that ends the process.
    assert not model_parameters(_api(b"CPU : AVX512 = 1 | AMX_INT8 = 1 | REPACK = 1 | "), gpu=False).use_extra_bufts


@pytest.mark.parametrize("system", [b"CPU : AVX2 = 1 | REPACK = 1 | ", b"CPU : AMX_INT8 = 0 | ", b""])
def test_other_builds_keep_the_layouts_that_make_them_fast(system):
    assert model_parameters(_api(system), gpu=False).use_extra_bufts


@pytest.mark.parametrize(("gpu", "layers"), [(True, -1), (False, 0)])
def test_all_layers_or_none_go_to_the_gpu(gpu, layers):
    assert model_parameters(_api(b""), gpu=gpu).n_gpu_layers == layers
