"""A trial load in a process of its own, because llama.cpp ends the process on some damaged files.

A flipped bit in the vocabulary passes every check of the header and then meets an assertion. The trial reads the
header and the vocabulary and plans the context, without the weights (`no_alloc`): tenths of a second for any size.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from gpurig.common.errors import InputError
from gpurig.common.process import run

_SECONDS = 300.0


def demand_loadable(path: Path, context: int, adapters: Sequence[Path] = ()) -> None:
    """Let another process load the model's header, vocabulary and context, and its adapters.

    Raises:
        InputError: llama.cpp refuses a file, or dies of it. PrerequisiteError: it did not answer in time.
    """
    files = [str(path), *(str(adapter) for adapter in adapters)]
    argv = [sys.executable, "-m", "gpurig.evaljobs.llama_probe", str(context), *files]
    # Without this llama.cpp starts a debugger on its own corpse, where one is installed.
    finished = run(argv, timeout_s=_SECONDS, env={**os.environ, "GGML_NO_BACKTRACE": "1"})
    if finished.code < 0:
        name = signal.Signals(-finished.code).name
        raise InputError(
            f"llama.cpp dies of {' or '.join(files)} ({name}): the file is damaged",
            hint="copy or download the model again and compare its sha256",
        )
    if finished.code:
        reason = (finished.stdout.strip().splitlines() or ["it does not say why"])[-1]
        raise InputError(
            f"llama.cpp cannot load {' with '.join(files)}: {reason}",
            hint="the file is damaged, or made for a newer llama.cpp than this installation's",
        )


def main(arguments: list[str]) -> int:
    """Load; print the reason where that fails.

    Args:
        arguments: the context in tokens, the model's path, and its adapters' paths.

    Returns:
        0 where it loads, 1 where it does not.
    """
    import llama_cpp  # noqa: PLC0415 - loads shared libraries

    from gpurig.evaljobs.llama_log import last_errors  # noqa: PLC0415

    context, path, *adapters = arguments
    errors = last_errors(llama_cpp)
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.no_alloc = True
    parameters.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE  # a mapped file counts as allocated
    parameters.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
    loaded = bool(model) and all(llama_cpp.llama_adapter_lora_init(model, adapter.encode()) for adapter in adapters)
    if loaded:
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = int(context)
        options.n_batch = options.n_ubatch = min(512, int(context))
        loaded = bool(llama_cpp.llama_init_from_model(model, options))
    if not loaded:
        sys.stdout.write((errors[-1] if errors else "it does not say why") + "\n")
    return 0 if loaded else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
