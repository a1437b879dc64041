"""A GPU that llama.cpp plans for and that is not there: it has sizes and rules, and no memory.

With `no_alloc` llama.cpp places every weight, cache and temporary tensor and allocates none of them, but it needs a
device to place them on. This is one, made of ggml's own backend interface (ggml-backend-impl.h, llama-cpp-python
0.3.36): it counts sizes as ggml's CUDA backend does. So a machine without a GPU can say what a GPU would need.

What it copies of the CUDA backend, and where from:
    alignment 128, rows of quantized matrices padded to 512 elements      ggml-cuda.cu, common.cuh
    flash attention over a quantized cache needs an f16 copy of it        fattn.cu, fattn-common.cuh
    which head sizes flash attention has kernels for                     fattn.cu
    big batches of layers whose weights lie in host memory run on it      ggml-cuda.cu, offload_op: from 32 tokens on
"""

from __future__ import annotations

import ctypes
from typing import Any

from gpurig.common.errors import PrerequisiteError

# The layouts below are those of this ggml; another one's may differ, and a wrong layout ends the process.
GGML_VERSION = "0.25.3"

_ALIGNMENT = 128
_ROW_PADDING = 512
_OFFLOAD_FROM_TOKENS = 32
# ggml_op (ggml.h).
_OPERATIONS = {29: b"MUL_MAT", 30: b"MUL_MAT_ID", 40: b"GET_ROWS", 48: b"ROPE", 74: b"FLASH_ATTN_EXT"}
_MUL_MAT, _MUL_MAT_ID, _GET_ROWS, _ROPE, _FLASH_ATTN_EXT = _OPERATIONS
_F16 = 1
# Head sizes with the same value length, and those with another one: K's to V's.
_SAME_HEADS = frozenset({40, 64, 72, 80, 96, 112, 128, 256, 512})
_OTHER_HEADS = {192: 128, 320: 256, 576: 512}

_Void = ctypes.c_void_p
_Size = ctypes.c_size_t


class _Tensor(ctypes.Structure):
    """struct ggml_tensor, as far as a size depends on it."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", _Void),
    ("ne", ctypes.c_int64 * 4),
    ("nb", _Size * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10),
    ("view_src", _Void),
    ("view_offs", _Size),
    ("data", _Void),
    ("name", ctypes.c_char * 64),
    ("extra", _Void),
    ("padding", ctypes.c_char * 8),
]
_TensorPointer = ctypes.POINTER(_Tensor)


class _Capabilities(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_bool) for name in ("asynchronous", "host_buffer", "from_host_pointer", "events", "mmap_support")
    ]


class _Properties(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("free", _Size),
        ("total", _Size),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("capabilities", _Capabilities),
    ]


# A name as its address: of a callback that gives bytes nobody would free the copy.
_Name = ctypes.CFUNCTYPE(_Void, _Void)
_Number = ctypes.CFUNCTYPE(_Size, _Void)
_Kind = ctypes.CFUNCTYPE(ctypes.c_int, _Void)
_Handle = ctypes.CFUNCTYPE(_Void, _Void)
_Nothing = ctypes.CFUNCTYPE(None, _Void)
_Allocate = ctypes.CFUNCTYPE(_Void, _Void, _Size)
_AllocationSize = ctypes.CFUNCTYPE(_Size, _Void, _TensorPointer)
_Clear = ctypes.CFUNCTYPE(None, _Void, ctypes.c_uint8)
_Memory = ctypes.CFUNCTYPE(None, _Void, ctypes.POINTER(_Size), ctypes.POINTER(_Size))
_GetProperties = ctypes.CFUNCTYPE(None, _Void, ctypes.POINTER(_Properties))
_InitBackend = ctypes.CFUNCTYPE(_Void, _Void, ctypes.c_char_p)
_SupportsOp = ctypes.CFUNCTYPE(ctypes.c_bool, _Void, _TensorPointer)
_SupportsBuffer = ctypes.CFUNCTYPE(ctypes.c_bool, _Void, _Void)
_DeviceAt = ctypes.CFUNCTYPE(_Void, _Void, _Size)
_FreeEvent = ctypes.CFUNCTYPE(None, _Void, _Void)
_Compute = ctypes.CFUNCTYPE(ctypes.c_int, _Void, _Void)


class _BufferType(ctypes.Structure):
    _fields_ = [
        ("get_name", _Name),
        ("alloc_buffer", _Allocate),
        ("get_alignment", _Number),
        ("get_max_size", _Void),
        ("get_alloc_size", _AllocationSize),
        ("is_host", _Void),
        ("device", _Void),
        ("context", _Void),
    ]


class _BufferInterface(ctypes.Structure):
    _fields_ = [
        ("free_buffer", _Void),
        ("get_base", _Handle),
        *((name, _Void) for name in ("init_tensor", "memset_tensor", "set_tensor", "get_tensor")),
        *((name, _Void) for name in ("set_tensor_2d", "get_tensor_2d", "cpy_tensor")),
        ("clear", _Clear),
        ("reset", _Void),
    ]


class _Backend(ctypes.Structure):
    _fields_ = [
        ("guid", _Void),
        ("get_name", _Name),
        ("free", _Nothing),
        *((name, _Void) for name in ("set_tensor_async", "get_tensor_async", "set_tensor_2d_async")),
        *((name, _Void) for name in ("get_tensor_2d_async", "cpy_tensor_async", "synchronize")),
        *((name, _Void) for name in ("plan_create", "plan_free", "plan_update", "plan_compute")),
        ("graph_compute", _Compute),
        *((name, _Void) for name in ("event_record", "event_wait", "graph_optimize")),
        ("device", _Void),
        ("context", _Void),
    ]


class _Device(ctypes.Structure):
    _fields_ = [
        ("get_name", _Name),
        ("get_description", _Name),
        ("get_memory", _Memory),
        ("get_type", _Kind),
        ("get_props", _GetProperties),
        ("init_backend", _InitBackend),
        ("get_buffer_type", _Handle),
        ("get_host_buffer_type", _Handle),
        ("buffer_from_host_ptr", _Void),
        ("supports_op", _SupportsOp),
        ("supports_buft", _SupportsBuffer),
        ("offload_op", _SupportsOp),
        ("event_new", _Handle),
        ("event_free", _FreeEvent),
        ("event_synchronize", _FreeEvent),
        ("reg", _Void),
        ("context", _Void),
    ]


class _Event(ctypes.Structure):
    _fields_ = [("device", _Void), ("context", _Void)]


class _Registry(ctypes.Structure):
    _fields_ = [
        ("api_version", ctypes.c_int),
        ("get_name", _Name),
        ("get_device_count", _Number),
        ("get_device", _DeviceAt),
        ("get_proc_address", _Void),
        ("context", _Void),
    ]


class PhantomGpus:
    """Cards that llama.cpp can plan for; they live as long as this object.

    Attributes:
        handles: ggml_backend_dev_t of each, for llama.cpp's model parameter `devices`.
        names: as ggml knows them.
    """

    def __init__(self, libggml: Any, memory_bytes: list[int]) -> None:
        """Make one card for each free memory in `memory_bytes`; `libggml` is the library that llama.cpp uses.

        Raises:
            PrerequisiteError: that library is not the version whose layouts these are.
        """
        _demand_layout(libggml)
        self._lib = libggml
        libggml.ggml_nbytes.argtypes, libggml.ggml_nbytes.restype = [_TensorPointer], _Size
        libggml.ggml_row_size.argtypes, libggml.ggml_row_size.restype = [ctypes.c_int, ctypes.c_int64], _Size
        libggml.ggml_is_quantized.argtypes, libggml.ggml_is_quantized.restype = [ctypes.c_int], ctypes.c_bool
        libggml.ggml_backend_buffer_init.argtypes = [_Void, _BufferInterface, _Void, _Size]
        libggml.ggml_backend_buffer_init.restype = libggml.ggml_backend_cpu_buffer_type.restype = _Void
        self._devices: list[_Device] = []
        self._kept: list[Any] = []
        self._registry = _Registry(2, self._named("phantom"), _Number(lambda _: len(memory_bytes)))
        for index, size in enumerate(memory_bytes):
            self._devices.append(self._device(index, size))
        self._registry.get_device = _DeviceAt(lambda _, index: ctypes.addressof(self._devices[index]))
        self.names = tuple(f"GPU{index}" for index in range(len(memory_bytes)))
        self.handles = tuple(ctypes.addressof(device) for device in self._devices)

    def _device(self, index: int, memory_bytes: int) -> _Device:
        name = self._named(f"GPU{index}")
        kind = _BufferType(
            get_name=name,
            alloc_buffer=_Allocate(self._buffer),
            get_alignment=_Number(lambda _: _ALIGNMENT),
            get_alloc_size=_AllocationSize(self._size),
        )
        backend = _Backend(
            get_name=name,
            free=_Nothing(lambda _: None),
            graph_compute=_Compute(lambda *_: -1),
        )
        plain = self._lib.ggml_backend_cpu_buffer_type()
        guid = ctypes.create_string_buffer(b"gpurig phantom %d" % (index % 10), 16)
        device = _Device(
            get_name=name,
            get_description=name,
            get_type=_Kind(lambda _: 1),
            get_buffer_type=_Handle(lambda _: ctypes.addressof(kind)),
            # Weights that stay on the CPU lie in plain memory beside a GPU (pinned, with CUDA), not laid out anew.
            get_host_buffer_type=_Handle(lambda _: plain),
            init_backend=_InitBackend(lambda *_: ctypes.addressof(backend)),
            supports_op=_SupportsOp(lambda _, tensor: _supported(tensor.contents)),
            supports_buft=_SupportsBuffer(lambda _, other: other == ctypes.addressof(kind)),
            offload_op=_SupportsOp(lambda _, tensor: _batch(tensor.contents) >= _OFFLOAD_FROM_TOKENS),
            event_new=_Handle(self._event),
            event_free=_FreeEvent(lambda *_: None),
            event_synchronize=_FreeEvent(lambda *_: None),
            reg=ctypes.addressof(self._registry),
        )

        def memory(_: Any, free: Any, total: Any) -> None:
            free[0] = total[0] = memory_bytes

        label = f"GPU{index}".encode()

        def properties(_: Any, answer: Any) -> None:
            # With these llama.cpp lets several cards work on several batches at a time, as with CUDA.
            found = _Capabilities(asynchronous=True, host_buffer=True, events=True, mmap_support=True)
            answer[0] = _Properties(label, label, memory_bytes, memory_bytes, 1, None, found)

        device.get_memory, device.get_props = _Memory(memory), _GetProperties(properties)
        kind.device = backend.device = ctypes.addressof(device)
        backend.guid = ctypes.addressof(guid)
        self._kept += [kind, backend, guid]
        return device

    def _event(self, device: int) -> int:
        event = _Event(device=device)
        self._kept.append(event)
        return ctypes.addressof(event)

    def _named(self, name: str) -> Any:
        text = ctypes.create_string_buffer(name.encode())
        self._kept.append(text)
        return _Name(lambda _: ctypes.addressof(text))

    def _buffer(self, kind: int, size: int) -> Any:
        # Only recurrent states are allocated in spite of `no_alloc`, and nothing reads or writes them.
        interface = _BufferInterface(get_base=_Handle(lambda _: 1 << 40), clear=_Clear(lambda *_: None))
        self._kept.append(interface)
        return self._lib.ggml_backend_buffer_init(kind, interface, None, size)

    def _size(self, _: int, pointer: Any) -> int:
        tensor = pointer.contents
        size = int(self._lib.ggml_nbytes(pointer))
        if tensor.op == _FLASH_ATTN_EXT:
            return self._attention_size(tensor, size)
        if self._lib.ggml_is_quantized(tensor.type) and tensor.ne[0] % _ROW_PADDING:
            size += self._lib.ggml_row_size(tensor.type, _ROW_PADDING - tensor.ne[0] % _ROW_PADDING)
        return size

    def _attention_size(self, tensor: Any, size: int) -> int:
        for index in (1, 2):
            cache = tensor.src[index].contents
            if cache.type != _F16:
                size = (size + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
                size += 2 * cache.ne[0] * cache.ne[1] * cache.ne[2] * cache.ne[3]
        return size


def _demand_layout(libggml: Any) -> None:
    libggml.ggml_version.restype = libggml.ggml_op_name.restype = ctypes.c_char_p
    libggml.ggml_op_name.argtypes = [ctypes.c_int]
    found = (libggml.ggml_version() or b"").decode()
    if found != GGML_VERSION or any(libggml.ggml_op_name(number) != name for number, name in _OPERATIONS.items()):
        raise PrerequisiteError(
            f"a GPU that is not there can be planned for with ggml {GGML_VERSION} only; this is {found}",
            hint="install gpurig with its eval extra: pip install gpurig[eval]",
        )


def _supported(tensor: Any) -> bool:
    if tensor.op != _FLASH_ATTN_EXT:
        return True
    query, key, value = (tensor.src[index].contents for index in range(3))
    size, other = key.ne[0], value.ne[0]
    if size in _OTHER_HEADS:
        return bool(other == _OTHER_HEADS[size] and query.ne[2] // key.ne[2] >= 2)
    return size in _SAME_HEADS and bool(other == size)


def _batch(tensor: Any) -> int:
    if tensor.op == _GET_ROWS:
        return 0
    if tensor.op == _MUL_MAT:
        return int(tensor.ne[1])
    if tensor.op in {_MUL_MAT_ID, _ROPE}:
        return int(tensor.ne[2])
    return int(tensor.ne[1] * tensor.ne[2] * tensor.ne[3])
