"""llama.cpp's account of the memory that a model and a context would take, from a process of its own.

A model that is loaded with `no_alloc` has its tensors placed, its caches sized and its compute graph planned. What
that comes to is read from llama.cpp's own account (llama_get_memory_breakdown, llama-ext.h), which is C++: a
std::map that is walked here. A wrong layout, or a damaged file, ends the process; `memory.measure` starts it.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError
from gpurig.evaljobs.llama_log import last_errors
from gpurig.evaljobs.memory import CACHE_TYPES, Buffer, MemoryRequest
from gpurig.evaljobs.phantom_gpu import PhantomGpus

_FLASH = {"auto": -1, "off": 0, "on": 1}
# ggml_backend_dev_type (ggml-backend.h): a GPU, and one that uses the machine's memory.
_GPU_KINDS = frozenset({1, 2})
_BREAKDOWN = "_Z26llama_get_memory_breakdownPK13llama_context"


def main() -> int:
    """Answer the requests on standard input: {"path": …, "requests": [{…}, …]}, one line of JSON each.

    Returns:
        0; a request that llama.cpp refuses is answered with its error.
    """
    asked = json.load(sys.stdin)
    path = Path(asked["path"])
    for fields in asked["requests"]:
        request = MemoryRequest(**{**fields, "cards": tuple(fields["cards"])})
        try:
            answer: dict[str, Any] = {"buffers": [asdict(buffer) for buffer in _measure(path, request)]}
        except ApplianceError as error:
            answer = {"error": error.message, "hint": error.hint, "prerequisite": isinstance(error, PrerequisiteError)}
        # Whatever comes before an end by a signal is answered.
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


def _measure(path: Path, request: MemoryRequest) -> tuple[Buffer, ...]:
    import llama_cpp  # noqa: PLC0415 - loads shared libraries
    from llama_cpp._ggml import libggml  # noqa: PLC0415 - likewise

    errors = last_errors(llama_cpp)
    errors.clear()
    llama_cpp.llama_backend_init()
    cards = PhantomGpus(libggml, list(request.cards)) if request.cards else None
    model = _load(llama_cpp, path, request, cards)
    if not model:
        raise InputError(
            f"llama.cpp cannot load {path}: {_why(errors)}",
            hint="the file is damaged, or made for a newer llama.cpp than this installation's",
        )
    try:
        return _plan(llama_cpp, libggml, model, request, errors)
    finally:
        llama_cpp.llama_model_free(model)


def _load(api: Any, path: Path, request: MemoryRequest, cards: PhantomGpus | None) -> Any:
    parameters = api.llama_model_default_params()
    parameters.no_alloc = True
    parameters.load_mode = api.LLAMA_LOAD_MODE_NONE  # a mapped file counts as allocated
    parameters.n_gpu_layers = request.gpu_layers
    parameters.use_extra_bufts = request.repack
    if cards is not None:
        handles = (ctypes.c_void_p * (len(cards.handles) + 1))(*cards.handles, None)
        parameters.devices = ctypes.addressof(handles)
    return api.llama_model_load_from_file(str(path).encode(), parameters)


def _plan(api: Any, libggml: Any, model: Any, request: MemoryRequest, errors: Sequence[str]) -> tuple[Buffer, ...]:
    options = api.llama_context_default_params()
    options.n_ctx = request.context
    options.n_seq_max = request.parallel
    options.n_batch = options.n_ubatch = request.batch
    options.type_k = options.type_v = CACHE_TYPES[request.kv]
    options.flash_attn_type = _FLASH[request.flash_attention]
    options.kv_unified = request.unified
    options.swa_full = request.swa_full
    options.no_perf = True
    context = api.llama_init_from_model(model, options)
    if not context:
        raise InputError(
            f"llama.cpp cannot make a context of {request.context} tokens: {_why(errors)}",
            hint="another --context, --parallel or --kv",
        )
    try:
        return _breakdown(api, libggml, context)
    finally:
        api.llama_free(context)


class _Node(ctypes.Structure):
    """A node of libstdc++'s std::map<buffer type, {model, context, compute}>: _Rb_tree_node_base, key, value."""


_NodePointer = ctypes.POINTER(_Node)
_Node._fields_ = [
    ("colour", ctypes.c_int),
    ("parent", _NodePointer),
    ("left", _NodePointer),
    ("right", _NodePointer),
    ("kind", ctypes.c_void_p),
    ("sizes", ctypes.c_size_t * 3),
]


class _Map(ctypes.Structure):
    """std::map of libstdc++: the comparator's place, the header node, the count."""

    _fields_ = [
        ("comparator", ctypes.c_void_p),
        ("colour", ctypes.c_int),
        ("root", _NodePointer),
        ("leftmost", _NodePointer),
        ("rightmost", _NodePointer),
        ("count", ctypes.c_size_t),
    ]


def _breakdown(api: Any, libggml: Any, context: Any) -> tuple[Buffer, ...]:
    try:
        function = getattr(api.llama_cpp._lib, _BREAKDOWN)  # noqa: SLF001 - the binding has no name for it
    except AttributeError as error:
        raise PrerequisiteError(
            "this llama.cpp does not tell its memory",
            hint="install gpurig with its eval extra: pip install gpurig[eval]",
        ) from error
    # A class that is returned by value comes in memory whose address is the first argument (Itanium C++ ABI). The
    # map's nodes are not freed: the process ends soon.
    function.argtypes, function.restype = [ctypes.POINTER(_Map), ctypes.c_void_p], ctypes.c_void_p
    found = _Map()
    function(ctypes.byref(found), context)
    nodes = list(_nodes(found.root)) if found.count else []
    if len(nodes) != found.count:
        raise PrerequisiteError(
            "llama.cpp's account of its memory is laid out in another way than expected",
            hint="install gpurig with its eval extra: pip install gpurig[eval]",
        )
    libggml.ggml_backend_buft_name.argtypes = [ctypes.c_void_p]
    libggml.ggml_backend_buft_name.restype = ctypes.c_char_p
    libggml.ggml_backend_buft_get_device.argtypes = [ctypes.c_void_p]
    libggml.ggml_backend_buft_get_device.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    libggml.ggml_backend_dev_type.restype = ctypes.c_int
    return tuple(
        Buffer(
            libggml.ggml_backend_buft_name(node.kind).decode(errors="replace"),
            not _on_gpu(libggml, node.kind),
            *node.sizes,
        )
        for node in nodes
    )


def _on_gpu(libggml: Any, kind: int) -> bool:
    # The buffer types of processors (AMX, repacked weights) call themselves "not host" too, for their layout.
    device = libggml.ggml_backend_buft_get_device(kind)
    return bool(device) and libggml.ggml_backend_dev_type(device) in _GPU_KINDS


def _nodes(pointer: Any, depth: int = 0) -> list[Any]:
    """The nodes below `pointer` in order; a tree of a few buffer types is not deep."""
    if not pointer or depth > 16:
        return []
    node = pointer.contents
    return [*_nodes(node.left, depth + 1), node, *_nodes(node.right, depth + 1)]


def _why(errors: Sequence[str]) -> str:
    return errors[-1] if errors else "it does not say why"


if __name__ == "__main__":
    sys.exit(main())
