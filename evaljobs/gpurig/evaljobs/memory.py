"""What llama.cpp would allocate for a model and a context, to the byte, without allocating it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.process import run

FlashAttention = Literal["auto", "on", "off"]

# ggml_type of what a KV cache may hold (ggml.h).
CACHE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
_SECONDS = 300.0


@dataclass(frozen=True)
class MemoryRequest:
    """How a model would be loaded.

    Attributes:
        context: tokens of all sequences together; 0 for what the model was trained for.
        parallel: sequences.
        kv: type of the KV cache, a key of CACHE_TYPES.
        batch: tokens that are computed at a time (llama.cpp's n_batch and n_ubatch).
        unified: one KV cache for all sequences.
        swa_full: layers with a sliding window get a cache of the whole context.
        gpu_layers: layers on the GPU; -1 for all.
        repack: weights that stay on the CPU are laid out anew for it, as a job does; how much room that takes depends
            on the processor.
        cards: free bytes of each GPU to plan for that is not there; none: this machine's devices.
    """

    context: int = 4096
    parallel: int = 1
    kv: str = "f16"
    batch: int = 512
    flash_attention: FlashAttention = "auto"
    unified: bool = False
    swa_full: bool = True
    gpu_layers: int = -1
    repack: bool = True
    cards: tuple[int, ...] = ()


@dataclass(frozen=True)
class Buffer:
    """What one device's memory holds.

    Attributes:
        device: ggml's name of the buffer type: "CPU", "CUDA0", "GPU0".
        host: it is the machine's memory.
        model_bytes, context_bytes, compute_bytes: weights; KV cache and recurrent states; temporary tensors.
    """

    device: str
    host: bool
    model_bytes: int
    context_bytes: int
    compute_bytes: int


def measure(path: Path, requests: Sequence[MemoryRequest]) -> list[tuple[Buffer, ...]]:
    """What llama.cpp would allocate for each request, asked in a process of its own (memory_probe).

    Output buffers (one row of logits a sequence, on the CPU) are not in it.

    Raises:
        InputError: llama.cpp refuses the file or a request, or dies of it. PrerequisiteError: this llama.cpp cannot
            tell, or did not answer in time.
    """
    asked = json.dumps({"path": str(path), "requests": [asdict(request) for request in requests]})
    finished = run(
        [sys.executable, "-m", "gpurig.evaljobs.memory_probe"],
        timeout_s=_SECONDS,
        stdin=asked,
        # Without this llama.cpp starts a debugger on its own corpse, where one is installed.
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )
    answers = [_answer(json.loads(line)) for line in finished.stdout.splitlines()]
    if finished.code < 0:
        raise InputError(
            f"llama.cpp dies of {path} ({signal.Signals(-finished.code).name}), with request {len(answers) + 1}",
            hint="the file is damaged, or this llama.cpp cannot load it in that way",
        )
    if finished.code or len(answers) != len(requests):
        reason = (finished.stderr.strip().splitlines() or ["it does not say why"])[-1]
        raise PrerequisiteError(
            f"llama.cpp does not tell its memory: {reason}",
            hint="install gpurig with its eval extra: pip install gpurig[eval]",
        )
    return answers


def _answer(fields: dict[str, object]) -> tuple[Buffer, ...]:
    error, hint, buffers = fields.get("error"), str(fields.get("hint", "")), fields.get("buffers", [])
    if error:
        raise (PrerequisiteError if fields.get("prerequisite") else InputError)(str(error), hint=hint)
    assert isinstance(buffers, list)  # noqa: S101 - our own program's answer
    return tuple(Buffer(**buffer) for buffer in buffers)
