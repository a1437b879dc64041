"""A process of its own that lets llama.cpp quantize: it ends the process on some inputs, and cannot be interrupted.

It reads a job as JSON from standard input and writes JSON lines: a type that is begun, a tensor that is reached, what
is planned for it, an error.
"""

from __future__ import annotations

import ctypes
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

from gpurig.evaljobs.quantize.imatrix_file import read_importance

# ggml.h, enum ggml_log_level.
_ERROR = 4
_TENSOR = re.compile(r"\[ *(\d+)/ *(\d+)\] (\S+)")
_PLANNED = re.compile(r"MiB -> .*MiB \((\w+)\)")
_FALLBACK = re.compile(r"warning: (\S+)\s+- ncols\s+(\d+) not divisible by\s+(\d+)")
_NEEDS_IMATRIX = "will require an imatrix"
# llama.h, enum llama_model_kv_override_type.
_INT, _STRING = 0, 3
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Do the job on standard input; 0 where it is done, 1 where llama.cpp refuses."""
    # Nobody would stop this when the program that waits for it is killed.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # An interruption is that program's to act on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = json.loads(sys.stdin.read())
    import llama_cpp  # noqa: PLC0415 - loads shared libraries

    log = _Log()
    callback = llama_cpp.llama_log_callback(log)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    parameters, kept = _parameters(llama_cpp, job)
    paths = job["source"].encode(), job["target"].encode()
    for file_type in job["file_types"]:
        _say({"file_type": file_type})
        parameters.ftype = file_type
        if llama_cpp.llama_model_quantize(*paths, ctypes.byref(parameters)):
            _say({"error": log.error or "it does not say why"})
            return 1
    del kept
    return 0


def _say(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class _Log:
    """llama.cpp's log of a quantization, turned into events."""

    def __init__(self) -> None:
        self.error = ""
        self._tensor = ""

    def __call__(self, level: int, raw: bytes, _: object) -> None:
        text = raw.decode("utf-8", "replace")
        if level == _ERROR and text.strip(" =\n"):
            self.error = " ".join(text.split()).partition("failed to quantize: ")[2] or " ".join(text.split())
        elif found := _TENSOR.match(text):
            self._tensor = found[3]
            _say({"tensor": found[3], "number": int(found[1]), "of": int(found[2])})
        elif found := _FALLBACK.match(text):
            _say({"fallback": found[1], "columns": int(found[2]), "block": int(found[3])})
        elif _NEEDS_IMATRIX in text:
            _say({"needs_imatrix": True})
        if found := _PLANNED.search(text):
            _say({"planned": self._tensor, "type": found[1]})


def _parameters(api: Any, job: dict[str, Any]) -> tuple[Any, list[Any]]:
    """llama.cpp's parameters, and what must be kept while it reads them."""
    parameters = api.llama_model_quantize_default_params()
    parameters.nthread = job["threads"]
    parameters.dry_run = job["dry_run"]
    parameters.allow_requantize = job["allow_requantize"]
    parameters.pure = job["pure"]
    parameters.quantize_output_tensor = not job["leave_output"]
    if job["output_type"] is not None:
        parameters.output_tensor_type = job["output_type"]
    if job["embedding_type"] is not None:
        parameters.token_embedding_type = job["embedding_type"]
    kept: list[Any] = []
    if job["imatrix"]:
        kept += _importance(api, parameters, Path(job["imatrix"]))
    kept.append(_labels(api, parameters, job["labels"]))
    return parameters, kept


def _importance(api: Any, parameters: Any, path: Path) -> list[Any]:
    weights = read_importance(path).weights
    means = {name: one.means() for name, one in weights.items()}
    entries = (api.llama_model_imatrix_data * (len(means) + 1))()  # the last one, empty, is the end
    for entry, (name, values) in zip(entries, means.items(), strict=False):
        entry.name = name.encode("utf-8", "surrogateescape")
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    parameters.imatrix = entries
    return [means, entries]


def _labels(api: Any, parameters: Any, labels: dict[str, str | int]) -> Any:
    overrides = (api.llama_model_kv_override * (len(labels) + 1))()
    for override, (key, value) in zip(overrides, labels.items(), strict=False):
        override.key = key.encode()[:127]
        if isinstance(value, int):
            override.tag, override.value.val_i64 = _INT, value
        else:
            override.tag, override.value.val_str = _STRING, _cut(value)
    parameters.kv_overrides = overrides
    return overrides


def _cut(text: str) -> bytes:
    """At most 127 bytes, which is what llama.cpp takes, and still UTF-8."""
    return text.encode("utf-8", "replace")[:127].decode("utf-8", "ignore").encode()


if __name__ == "__main__":
    sys.exit(main())
