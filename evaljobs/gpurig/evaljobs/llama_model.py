"""Loading a model with llama.cpp: the one place that says how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpurig.common.errors import InputError, PrerequisiteError

_SHORT = 64


def model_parameters(api: Any, *, gpu: bool) -> Any:
    """llama.cpp's parameters for a model whose weights are computed with.

    A llama.cpp that GCC before 13 compiled for a processor with AMX dies of a general protection fault at its first
    product with quantized weights: `_tile_loadconfig` is declared there to read eight bytes, so the compiler drops the
    writes to the other 56 of the tile configuration (ggml-cpu/amx/mmq.cpp, ggml_tile_config_init; amxtileintrin.h).
    Weights are laid out for AMX only in the extra buffer types, so a build with AMX goes without those.

    Args:
        api: the module llama_cpp.
        gpu: all layers on the GPU.
    """
    parameters = api.llama_model_default_params()
    parameters.n_gpu_layers = -1 if gpu else 0
    if b"AMX_INT8 = 1" in api.llama_print_system_info():
        parameters.use_extra_bufts = False
    return parameters


def load_model(api: Any, path: Path, errors: Sequence[str], *, gpu: bool) -> Any:
    """A model's handle; the caller frees it.

    Args:
        api: the module llama_cpp.
        path: its GGUF file.
        errors: llama.cpp's last words (llama_log.last_errors).
        gpu: all layers on the GPU.

    Raises:
        InputError: llama.cpp refuses the file.
    """
    model = api.llama_model_load_from_file(str(path).encode(), model_parameters(api, gpu=gpu))
    if not model:
        raise InputError(
            f"llama.cpp cannot load {path}: {errors[-1] if errors else 'it does not say why'}",
            hint="the file is damaged, or made for a newer llama.cpp than this installation's",
        )
    return model


def demand_device(api: Any) -> None:
    """A GPU build that finds no GPU must not compute on the CPU in silence.

    Raises:
        PrerequisiteError: it is one, and there is none.
    """
    libraries = Path(api.__file__).parent / "lib"
    built = [name for name in ("cuda", "hip") if any(libraries.glob(f"libggml-{name}.so*"))]
    if built and not api.llama_supports_gpu_offload():
        raise PrerequisiteError(
            f"this llama.cpp is built for {built[0]}, and finds no such GPU",
            hint="run it on a machine with that GPU, or use the CPU image",
        )


def release(api: Any, *, model: Any, context: Any, batch: Any) -> None:
    """Free what there is of a model, its context and its batch; each may be None."""
    if batch is not None:
        api.llama_batch_free(batch)
    if context:
        api.llama_free(context)
    if model:
        api.llama_model_free(model)


def continued(api: Any, model: Any, prompt: bytes, *, tokens: int) -> int:
    """Let a model continue a prompt by its likeliest tokens, past an end token too; how many were decoded.

    One thread: on a busy machine several would wait for one another longer than a few tokens take.

    Args:
        api: the module llama_cpp.
        model: from `load_model`.
        prompt: shorter than 64 tokens less `tokens`.
        tokens: how many to generate.

    Raises:
        RuntimeError: no context, no tokens of the prompt, or llama.cpp failed to compute.
    """
    options = api.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = _SHORT
    options.n_threads = options.n_threads_batch = 1
    context = api.llama_init_from_model(model, options)
    if not context:
        raise RuntimeError("it makes no context")
    try:
        vocabulary = api.llama_model_get_vocab(model)
        size = int(api.llama_vocab_n_tokens(vocabulary))
        window = (api.llama_token * _SHORT)()
        count = api.llama_tokenize(vocabulary, prompt, len(prompt), window, _SHORT - tokens, True, False)  # noqa: FBT003 - C
        if count < 1:
            raise RuntimeError("its vocabulary does not spell the prompt")
        for done in range(tokens):
            if api.llama_decode(context, api.llama_batch_get_one(window, count)):
                raise RuntimeError(f"it failed to compute token {done + 1}")
            logits = api.llama_get_logits_ith(context, -1)
            window[0], count = max(range(size), key=logits.__getitem__), 1
        return tokens
    finally:
        api.llama_free(context)
