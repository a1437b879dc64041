"""What programs write when the GPU has no memory left for them, found at the end of a job's log.

Each form is taken from the program's source or from reports of it, and demands what those print and prose does not: a
number, a device, a call.
"""

from __future__ import annotations

import re
from collections import deque

from gpurig.common.terminal import harmless

# No longer than what is said of a job in a report.
_MOST_DETAIL = 200

_SIZE = r"\d[\d.,]* ?(?:[KMGT]i?B|bytes)"
_DEVICE = r"(?:CUDA|ROCm|Vulkan|MUSA|SYCL)\d+"

_FORMS = re.compile(
    "|".join(
        (
            # PyTorch, c10/cuda/CUDACachingAllocator.cpp; hipified and XPU builds write their own name.
            rf"(?:CUDA|HIP|XPU|MPS|MUSA) out of memory\. Tried to allocate {_SIZE}[^\n]{{0,160}}",
            # CUDA_CHECK of PyTorch, ggml (GGML_CUDA_NAME) and others, with cudaGetErrorString; the driver's form.
            r"(?:CUDA|HIP|ROCm|MUSA)(?: driver| runtime)? error: (?:\(2\) )?out of memory",
            r"\b(?:cuda|hip|musa)(?:Malloc|MallocAsync|MallocManaged|MemCreate) failed: out of memory",
            r"results in CUDA_ERROR_OUT_OF_MEMORY|CUDA_ERROR_OUT_OF_MEMORY: out of memory",
            r"cudaErrorMemoryAllocation: out of memory|hipErrorOutOfMemory: out of memory",
            # NCCL.
            r"Cuda failure 2 'out of memory'",
            # cuBLAS and cuDNN as PyTorch tells their status.
            r"CUBLAS_STATUS_ALLOC_FAILED when calling `[^`\n]{1,80}`",
            r"cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
            # llama.cpp, src/llama-model.cpp and ggml/src/ggml-alloc.c; the CPU's buffers are no GPU's.
            rf"unable to allocate {_DEVICE}(?:_Split)? buffer",
            rf"failed to allocate {_DEVICE}(?:_Split)? buffer of size \d+",
            # ggml/src/ggml-vulkan, and the loader's exception.
            r"ggml_vulkan: Device memory allocation of size \d+ failed",
            r"vk::Device::allocateMemory: ErrorOutOfDeviceMemory",
            # JAX and TensorFlow: XLA's allocator, and TensorFlow's own.
            rf"RESOURCE_EXHAUSTED: Out of memory (?:while trying to allocate|allocating) {_SIZE}",
            rf"RESOURCE_EXHAUSTED: Failed to allocate request for {_SIZE} \(\d+B\) on device ordinal \d+",
            r"OOM when allocating tensor with shape\[[\d,]{1,80}\][^\n]{0,80} by allocator GPU_\d+_bfc",
            # CuPy, bitsandbytes, vLLM.
            rf"cupy\.cuda\.memory\.OutOfMemoryError: [Oo]ut of memory (?:allocating|to allocate) {_SIZE}",
            r"Error out of memory at line \d+ in file [^\n]{1,80}",
            r"Free memory on device (?:cuda:\d+ )?\([\d.]+/[\d.]+ GiB\) on startup is\s+less than desired GPU memory",
        )
    )
)

# llama.cpp, src/llama-context.cpp: it does without what it asked for first, and goes on.
_MENDED = re.compile(r"compute buffer allocation failed, retrying without pipeline parallelism")

# CSI, OSC and the two-byte escapes of ECMA-48.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])|\r")


def gpu_oom(tail: bytes) -> str:
    """The message of a program that ran out of the GPU's memory; "" where there is none.

    Args:
        tail: the end of what a job wrote that failed; hostile. Whether it failed is the caller's to know: a job that
            prints such a message and succeeds has not died of it.

    Returns:
        What a form matched, without anything a terminal obeys: nothing else that the job wrote.
    """
    text = _ESCAPES.sub("", tail.decode(errors="replace"))
    found = deque(_FORMS.finditer(text), maxlen=1)
    if not found or _MENDED.search(text, found[0].end()):
        return ""
    return harmless(" ".join(found[0][0].split()))[:_MOST_DETAIL]
