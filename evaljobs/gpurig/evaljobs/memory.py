"""What llama.cpp would allocate for a model and a context, to the byte, without allocating it.

A model that is loaded with `no_alloc` has its tensors placed, its caches sized and its compute graph planned. What
that comes to is read from llama.cpp's own account (llama_get_memory_breakdown, llama-ext.h), which is C++: a
std::map that is walked here. It needs the process for itself, as a wrong layout would end it: the callers start it as
a program.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.evaljobs.llama_log import last_errors
from gpurig.evaljobs.phantom_gpu import PhantomGpus

FlashAttention = Literal["auto", "on", "off"]

# ggml_type of what a KV cache may hold (ggml.h).
CACHE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
_FLASH = {"auto": -1, "off": 0, "on": 1}
# ggml_backend_dev_type (ggml-backend.h): a GPU, and one that uses the machine's memory.
_GPU_KINDS = frozenset({1, 2})
_BREAKDOWN = "_Z26llama_get_memory_breakdownPK13llama_context"


@dataclass(frozen=True)
class MemoryRequest:
    """How a model would be loaded.

    Attributes:
        context: tokens of all sequences together; 0 for what the model was trained for.
        parallel: sequences.
        kv: type of the KV cache, a key of CACHE_TYPES.
        batch, ubatch: llama.cpp's n_batch and n_ubatch.
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
    ubatch: int = 512
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
    """What llama.cpp would allocate for each request. Output buffers (one row of logits a sequence) are not in it.

    Raises:
        InputError: llama.cpp refuses the file, or the context. PrerequisiteError: this llama.cpp cannot tell.
    """
    import llama_cpp  # noqa: PLC0415 - loads shared libraries
    from llama_cpp._ggml import libggml  # noqa: PLC0415 - likewise

    errors = last_errors(llama_cpp)
    llama_cpp.llama_backend_init()
    answers = []
    for request in requests:
        errors.clear()
        cards = PhantomGpus(libggml, list(request.cards)) if request.cards else None
        model = _load(llama_cpp, path, request, cards)
        try:
            if not model:
                raise InputError(
                    f"llama.cpp cannot load {path}: {_why(errors)}",
                    hint="the file is damaged, or made for a newer llama.cpp than this installation's",
                )
            answers.append(_plan(llama_cpp, libggml, model, request, errors))
        finally:
            llama_cpp.llama_model_free(model)
    return answers


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
    options.n_batch, options.n_ubatch = request.batch, request.ubatch
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
