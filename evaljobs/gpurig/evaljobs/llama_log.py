"""What llama.cpp logs goes here instead of to the terminal; its last errors explain a failure."""

from __future__ import annotations

import functools
from collections import deque
from typing import Any

# ggml.h, enum ggml_log_level; the numbers in llama-cpp-python's own logger are older.
_ERROR = 4
# llama.cpp, src/llama.cpp and src/llama-context.cpp.
_OUTER = ("failed to load", "exiting", "failed to allocate compute", "failed to initialize the context")


@functools.cache
def last_errors(api: Any) -> deque[str]:
    """The last errors of llama.cpp in this process, the newest at the end.

    Takes llama.cpp's log over, which is one for the whole process; the callback lives as long as it.
    """
    import ctypes  # noqa: PLC0415

    errors: deque[str] = deque(maxlen=8)

    @api.llama_log_callback  # type: ignore[untyped-decorator]  # llama_cpp has no types here
    def keep(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        line = " ".join(text.decode("utf-8", "replace").split())
        if level == _ERROR and line:
            # The outer functions report "failed to load model" after the one that knows why: which device, how much.
            if errors and any(words in line for words in _OUTER):
                return
            errors.append(line.partition(": ")[2] or line)

    last_errors.callback = keep  # type: ignore[attr-defined]  # keeps it from being collected while C holds it
    api.llama_log_set(keep, ctypes.c_void_p(0))
    return errors
