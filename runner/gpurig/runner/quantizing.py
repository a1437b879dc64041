"""Quantizing a model of this box: which one, and where the job's program runs that does it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.models.installed import InstalledModel, installed_models
from gpurig.common.models.names import SUFFIX, find_in
from gpurig.common.models.quantize_options import QuantizeOptions
from gpurig.common.process import run

# What can be quantized without losing twice.
_PLAIN = ("F32", "F16", "BF16")


def choose_source(given: str | None, folders: Sequence[Path], ask: Callable[[Sequence[str]], int] | None) -> Path:
    """The model to quantize.

    Args:
        given: a path (it holds a slash or ends with .gguf), or a name; None where the user named none.
        folders: where names are looked for, in this order.
        ask: lets the user choose one of some names, by its number from 0; None where nobody can be asked.

    Raises:
        InputError: there is no such model, or several and nobody can be asked. PrerequisiteError: no permission.
    """
    if given is not None:
        return _named(given, folders)
    found = [model for folder in folders for model in installed_models(folder) if _can_be_quantized(model)]
    if not found:
        raise InputError(
            f"no model in F16, BF16 or F32 in {', '.join(map(str, folders))}",
            hint="pull one, or name a file: gpurig models quantize model-f16.gguf --to Q4_K_M",
        )
    if len(found) == 1:
        return found[0].files[0]
    names = [model.name for model in found]
    if ask is None:
        raise InputError("several models can be quantized", hint="name one", details=names)
    return found[ask(names)].files[0]


def _named(given: str, folders: Sequence[Path]) -> Path:
    if "/" in given or given.endswith(SUFFIX):
        path = Path(given)
        if not path.is_file():
            raise InputError(f"there is no file {path}", hint="gpurig models list shows the models that are here")
        return path
    for folder in folders:
        files = find_in(folder, given)
        if files:
            return files[0]
    raise InputError(
        f'there is no model "{given}" in {", ".join(map(str, folders))}',
        hint="gpurig models list shows those that are here; gpurig models pull fetches more",
    )


def _can_be_quantized(model: InstalledModel) -> bool:
    return not model.problem and len(model.files) == 1 and model.quantization in _PLAIN


def can_run_here() -> bool:
    """Whether the eval extra is installed, without loading it."""
    return importlib.util.find_spec("llama_cpp") is not None


def quantize_here(source: Path, out: Path, options: QuantizeOptions) -> int:
    """Run the job's program in this installation, its output passed through; its exit code.

    Raises:
        PrerequisiteError: the eval extra is not installed.
    """
    if not can_run_here():
        raise PrerequisiteError(
            "llama-cpp-python is not installed here",
            hint="pip install 'gpurig[eval]', or leave out --no-container: the job image has it",
        )
    # A program of its own, as in a job: the box's side knows its files and exit codes only.
    done = run(
        [sys.executable, "-m", "gpurig.evaljobs", *job_words(str(source), str(out), options)],
        timeout_s=None,
        passthrough=True,
    )
    return done.code


def job_words(source: str, out: str, options: QuantizeOptions) -> list[str]:
    """The words of `gpurig-job` that quantize."""
    return ["quantize", source, *options.arguments(), "--out", out]
