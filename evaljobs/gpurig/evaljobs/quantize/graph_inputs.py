"""The inputs of a model's weights, seen while llama.cpp computes: what llama-imatrix collects, through ctypes.

llama.cpp asks a callback about every node of its graph and hands over those that it wants (cb_eval in
llama_context_params). A node is a `ggml_tensor`, a C structure that the bindings do not describe; `Tensor` does, and
`demand_layout` holds it against tensors that ggml itself makes, so that another ggml is refused, never misread.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.evaljobs.quantize.imatrix_file import Importance

# Fewer rows than this are no text that is read, but a token that is generated (llama-imatrix has the same limit).
_FEWEST_ROWS = 16
_F32, _I32 = 0, 26
_NAMES = (b"MUL_MAT", b"MUL_MAT_ID")


class Tensor(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h, up to what is read here."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


class _InitParameters(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class Ggml:
    """The functions of libggml that are needed here."""

    def __init__(self) -> None:
        """Declare them on the library that llama-cpp-python has loaded."""
        from llama_cpp._ggml import libggml  # noqa: PLC0415 - loads the libraries

        self.library = libggml
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        for name, arguments, result in (
            ("ggml_init", [_InitParameters], pointer),
            ("ggml_free", [pointer], None),
            ("ggml_new_tensor_3d", [pointer, ctypes.c_int, number, number, number], pointer),
            ("ggml_mul_mat", [pointer, pointer, pointer], pointer),
            ("ggml_mul_mat_id", [pointer, pointer, pointer, pointer], pointer),
            ("ggml_set_name", [pointer, ctypes.c_char_p], pointer),
            ("ggml_op_name", [ctypes.c_int], ctypes.c_char_p),
            ("ggml_nbytes", [pointer], ctypes.c_size_t),
            ("ggml_tensor_overhead", [], ctypes.c_size_t),
            ("ggml_backend_tensor_get", [pointer, pointer, ctypes.c_size_t, ctypes.c_size_t], None),
        ):
            function = getattr(libggml, name)
            function.argtypes, function.restype = arguments, result

    def bytes_of(self, address: int) -> NDArray[np.uint8]:
        """A copy of a tensor's data, from whichever device holds it."""
        data = np.empty(self.library.ggml_nbytes(address), np.uint8)
        self.library.ggml_backend_tensor_get(address, data.ctypes.data, 0, data.nbytes)
        return data


@dataclass(frozen=True)
class Operations:
    """Numbers of ggml's operations (enum ggml_op)."""

    plain: int
    by_expert: int


def demand_layout(ggml: Ggml) -> Operations:
    """Let ggml make tensors, and find in them what `Tensor` says.

    Returns:
        The numbers of the two multiplications that take a weight.

    Raises:
        PrerequisiteError: this ggml lays its tensors out in another way.
    """
    library = ggml.library
    context = library.ggml_init(_InitParameters(64 * library.ggml_tensor_overhead(), None, True))  # noqa: FBT003 - C API
    try:
        weight = library.ggml_new_tensor_3d(context, _F32, 6, 5, 3)
        inputs = library.ggml_new_tensor_3d(context, _F32, 6, 2, 7)
        experts = library.ggml_new_tensor_3d(context, _I32, 2, 7, 1)
        library.ggml_set_name(weight, b"blk.0.attn_q.weight")
        product = library.ggml_mul_mat(context, weight, library.ggml_new_tensor_3d(context, _F32, 6, 4, 3))
        routed = library.ggml_mul_mat_id(context, weight, inputs, experts)
        one, plain, by_expert = (Tensor.from_address(address) for address in (weight, product, routed))
        right = (
            (tuple(one.ne), tuple(one.nb)) == ((6, 5, 3, 1), (4, 24, 120, 360))
            and (one.name, one.type) == (b"blk.0.attn_q.weight", _F32)
            and plain.src[0] == weight
            and tuple(by_expert.src[:3]) == (weight, inputs, experts)
            and Tensor.from_address(experts).type == _I32
            and plain.op != by_expert.op
        )
        numbers = Operations(plain.op, by_expert.op)
        # Asked only once the layout is right: the function looks the number up without a check.
        right = right and (library.ggml_op_name(numbers.plain), library.ggml_op_name(numbers.by_expert)) == _NAMES
    finally:
        library.ggml_free(context)
    if not right:
        raise PrerequisiteError(
            "this llama.cpp lays out its tensors in a way that gpurig does not know",
            hint="use the llama-cpp-python that gpurig pins (0.3.36), or give an importance matrix with --imatrix",
        )
    return numbers


class InputSquares:
    """Sums up the squares of the inputs of every weight, while llama.cpp computes.

    Attributes:
        fault: what went wrong in the callback, where nothing can be raised through C.
    """

    def __init__(self, *, output: bool) -> None:
        """Collect for the layers' weights, and with `output` for output.weight too.

        Raises:
            PrerequisiteError: this llama.cpp's tensors are laid out in another way.
        """
        self._ggml = Ggml()
        self._operations = demand_layout(self._ggml)
        self._output = output
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}
        self.fault: BaseException | None = None

    def __call__(self, address: int, ask: bool, _: Any) -> bool:  # noqa: FBT001 - called from C
        """What llama.cpp calls: whether a node is wanted, then with the node computed."""
        try:
            node = Tensor.from_address(address)
            if ask:
                return self._wants(node)
            self._take(node)
        except BaseException as fault:  # noqa: BLE001 - nothing may be raised through C, an interruption included
            self.fault = fault
            return False
        return True

    def _wants(self, node: Tensor) -> bool:
        if node.op == self._operations.by_expert:
            return self._collects(node)
        if node.op != self._operations.plain:
            return False
        inputs = Tensor.from_address(node.src[1])
        return inputs.ne[1] >= _FEWEST_ROWS and inputs.type == _F32 and self._collects(node)

    def _collects(self, node: Tensor) -> bool:
        name = weight_name(Tensor.from_address(node.src[0]).name)
        return name.startswith("blk.") or (self._output and name == "output.weight")

    def _take(self, node: Tensor) -> None:
        weight = Tensor.from_address(node.src[0])
        name = weight_name(weight.name)
        inputs = self._values(node.src[1])
        if node.op == self._operations.by_expert:
            sums, counts = by_expert(inputs[0], self._experts(node.src[2]), weight.ne[2])
        else:
            sums, counts = by_matrix(inputs, (weight.ne[3], weight.ne[2]))
        if not np.isfinite(sums).all():
            raise InputError(
                f"the model computes inputs of {name} that are not finite",
                hint="it is damaged, or needs a wider type than it is stored in (F32 or BF16 instead of F16)",
            )
        if name in self._sums:
            self._sums[name] += sums
            self._counts[name] += counts
        else:
            self._sums[name], self._counts[name] = sums.astype(np.float64), counts

    def _values(self, address: int) -> NDArray[np.float32]:
        """A tensor's numbers, the slowest dimension first."""
        tensor = Tensor.from_address(address)
        data = self._ggml.bytes_of(address)
        return np.ndarray(tuple(tensor.ne)[::-1], np.float32, data, strides=tuple(tensor.nb)[::-1])

    def _experts(self, address: int) -> NDArray[np.int32]:
        """(tokens, experts used): the numbers of the experts that each token went to."""
        tensor = Tensor.from_address(address)
        data = self._ggml.bytes_of(address)
        return np.ndarray((tensor.ne[1], tensor.ne[0]), np.int32, data, strides=(tensor.nb[1], tensor.nb[0]))

    def importance(self) -> dict[str, Importance]:
        """What was collected, by the weights' names."""
        return {
            name: Importance(sums.astype(np.float32), self._counts[name].astype(np.float32))
            for name, sums in self._sums.items()
        }


def weight_name(raw: bytes) -> str:
    """A weight's name without what the scheduler adds to a copy's: "CUDA0#blk.0.attn_q.weight#0"."""
    name = raw.decode("utf-8", "replace")
    parts = name.split("#")
    return parts[1] if len(parts) > 1 else name


def by_matrix(inputs: NDArray[np.float32], matrices: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums of squares by column for each matrix of a weight.

    Args:
        inputs: (a, b, rows, columns), as they are multiplied with a weight's matrices; a weight with fewer matrices
            than the inputs have is used again from its beginning, as ggml broadcasts.
        matrices: how many a weight has along the first two dimensions.

    Returns:
        (matrices, columns) sums, and the rows that came to each matrix, as one number: (1,).
    """
    outer, inner = matrices
    squares = np.einsum("abrc,abrc->abc", inputs, inputs)
    sums = np.zeros((outer, inner, inputs.shape[-1]))
    for a in range(inputs.shape[0]):
        for b in range(inputs.shape[1]):
            sums[a % outer, b % inner] += squares[a, b]
    rows = inputs.shape[0] * inputs.shape[1] * inputs.shape[2] // (outer * inner)
    return sums.reshape(1, -1), np.array([rows])


def by_expert(
    inputs: NDArray[np.float32], chosen: NDArray[np.int32], experts: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sums of squares by column for each expert.

    Args:
        inputs: (tokens, experts used, columns), or (tokens, 1, columns) where all get the same.
        chosen: (tokens, experts used), the expert that each goes to.
        experts: how many there are.

    Returns:
        (experts, columns) sums, and how many inputs each expert got: (experts,).
    """
    tokens, slots = len(chosen), inputs.shape[1]
    rows = np.arange(tokens)
    sums = np.zeros((experts, inputs.shape[-1]))
    for slot in range(slots):
        goes_to = np.zeros((experts, tokens), np.float32)
        # With one input for all, every expert of a token gets it.
        for column in chosen[:, slot::slots].T:
            goes_to[column, rows] += 1
        sums += goes_to @ np.square(inputs[:, slot])
    return sums, np.bincount(chosen.ravel(), minlength=experts)
