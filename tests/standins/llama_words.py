"""What llama.cpp says while a test listens."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator


@contextlib.contextmanager
def llama_log() -> Iterator[list[str]]:
    """The lines that llama.cpp writes to its log from now on."""
    import llama_cpp

    lines: list[str] = []

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]  # llama_cpp has no types here
    def keep(_level: int, text: bytes, _: ctypes.c_void_p) -> None:
        lines.append(text.decode(errors="replace"))

    # Others in this process read llama.cpp's errors there.
    before, data = type(keep)(), ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    try:
        yield lines
    finally:
        llama_cpp.llama_log_set(before, data)
