"""How many sequences there is memory for."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpurig.evaljobs.memory import MemoryRequest, measure
from gpurig.evaljobs.models import ModelFile

# ggml_backend_dev_type (ggml-backend.h): a GPU with memory of its own, and one that uses the machine's.
_GPU_KINDS = (1, 2)
# More sequences than this gain little, and each costs its part of the cache. On a CPU 32 gain 5 to 10 % over 16, as the
# weights are unpacked once for all of them (docs/performance.md): worth memory only as long as sequences are short.
_MOST, _WORTH_LONG_ON_CPU = 32, 16
_WORTH_CELLS_ON_CPU = 8192
# llama.cpp rounds a sequence's cells up to a multiple of this (llama_context).
_CELLS_STEP = 256
# What is left to others, and to what is not forecast.
_USABLE = 0.8
_UNKNOWN = 2**62


def worthwhile(cells: int, *, gpu: bool) -> int:
    """Sequences of at most that many cells that gain more than they cost."""
    if gpu:
        return _MOST
    whole = -(-cells // _CELLS_STEP) * _CELLS_STEP
    return max(_WORTH_LONG_ON_CPU, min(_MOST, _WORTH_CELLS_ON_CPU // whole))


def sequences_for(
    api: Any, model: ModelFile, *, wanted: int, cells: int, batch: int, gpu: bool, cache: str = "f16"
) -> int:
    """As many of the wanted sequences as there is memory for, at least one.

    Args:
        api: the module llama_cpp.
        model: it is loaded already, with its adapters: what they take is no longer free.
        wanted: sequences.
        cells: of each.
        batch: tokens that are computed together.
        gpu: the cache lies in the GPU's memory.
        cache: how keys and values are kept, a key of `memory.CACHE_TYPES`.
    """
    free = int((gpu_free_bytes(api) if gpu else machine_free_bytes()) * _USABLE)
    # Most runs need a small part of what there is: then nobody has to be asked.
    if wanted == 1 or _at_most(model, cells) * wanted < free // 4:
        return wanted
    request = MemoryRequest(
        context=cells, batch=batch, kv=cache, gpu_layers=-1 if gpu else 0, flash_attention="auto" if gpu else "off"
    )
    (buffers,) = measure(model.path, [request])
    here = [buffer for buffer in buffers if buffer.host != gpu]
    each = sum(buffer.context_bytes for buffer in here)
    compute = sum(buffer.compute_bytes for buffer in here)
    return max(1, min(wanted, (free - compute) // max(each, 1)))


def machine_free_bytes() -> int:
    """What processes may still take of the machine's memory, or of the control group's limit where that is less."""
    found = [_UNKNOWN]
    if match := re.search(r"^MemAvailable:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE):
        found.append(int(match[1]) * 1024)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        texts = _text(limit).strip(), _text(used).strip()
        if all(text.isdigit() for text in texts):
            # What the group reads from files counts as used, and is given back when it is needed.
            found.append(int(texts[0]) - int(texts[1]) + _file_cache(Path(used).parent))
    return max(0, min(found))


def gpu_free_bytes(api: Any) -> int:
    """Free memory of all GPUs that llama.cpp sees."""
    library = _devices(api)
    memory = library.ggml_backend_dev_memory
    memory.restype = None
    memory.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)]
    total = 0
    for device in _gpus(library):
        free, size = ctypes.c_size_t(), ctypes.c_size_t()
        memory(device, ctypes.byref(free), ctypes.byref(size))
        total += free.value
    return total


def gpu_names(api: Any) -> list[str]:
    """What all GPUs that llama.cpp sees call themselves: "NVIDIA GeForce RTX 4090"."""
    library = _devices(api)
    describe = library.ggml_backend_dev_description
    describe.restype, describe.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    return [describe(device).decode(errors="replace") for device in _gpus(library)]


def _devices(api: Any) -> ctypes.CDLL:
    library: ctypes.CDLL = api.llama_cpp._lib  # noqa: SLF001 - the binding has no name for ggml's devices
    return library


def _gpus(library: ctypes.CDLL) -> Iterator[int]:
    count, get, kind = library.ggml_backend_dev_count, library.ggml_backend_dev_get, library.ggml_backend_dev_type
    count.restype, get.restype, get.argtypes = ctypes.c_size_t, ctypes.c_void_p, [ctypes.c_size_t]
    kind.restype, kind.argtypes = ctypes.c_int, [ctypes.c_void_p]
    for index in range(count()):
        device = get(index)
        if kind(device) in _GPU_KINDS:
            yield device


def _at_most(model: ModelFile, cells: int) -> int:
    """More than a sequence's cache takes with any architecture: keys and values as wide as the model, in f32."""
    layers, width = (_number(model, key) for key in ("block_count", "embedding_length"))
    heads = max(_number(model, "attention.head_count"), 1)
    # Some have heads that are wider than their share of the model's width.
    wide = max(width, heads * max(_number(model, f"attention.{kind}_length") for kind in ("key", "value")))
    return layers * 2 * wide * 4 * cells if layers and width else _UNKNOWN


def _number(model: ModelFile, key: str) -> int:
    value = model.gguf.of_architecture(key)
    if isinstance(value, list | tuple):
        value = max((one for one in value if isinstance(one, int)), default=0)
    return value if isinstance(value, int) else 0


def _file_cache(folder: Path) -> int:
    stat: Mapping[str, str] = dict(
        line.split(" ", 1) for line in _text(str(folder / "memory.stat")).splitlines() if " " in line
    )
    found = stat.get("inactive_file", stat.get("total_inactive_file", "0"))
    return int(found) if found.isdigit() else 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
