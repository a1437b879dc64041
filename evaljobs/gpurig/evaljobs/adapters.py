"""LoRA adapter files: found and read like models, and held against the model that they are for.

llama.cpp checks less and later: an adapter of the wrong kind is told after the model is loaded, and a value of another
type than it expects ends the process. The format is what convert_lora_to_gguf.py writes (llama-adapter.cpp reads it).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from gpurig.common.errors import InputError
from gpurig.common.files import sha256_file
from gpurig.common.gguf import Gguf, read_gguf
from gpurig.common.models.resolving import Search
from gpurig.evaljobs.models import AdapterFile, ModelFile, find_model
from gpurig.evaljobs.records import AdapterRef

_PARTS = (".lora_a", ".lora_b")
# llama.cpp reads adapters with these, and leaves them out.
_IGNORED = "_norm.weight"
_EMBEDDING = "token_embd.weight"


def open_adapter(name: str, scale: float, *, search: Search, suite_folder: Path) -> AdapterFile:
    """Find an adapter, hash it and read its header.

    Args:
        name: a path or a name, as of a model (`models.find_model`).
        scale: how strongly it is applied.
        search: where names are looked for.
        suite_folder: what a path is relative to first.

    Raises:
        InputError: there is no such file, or it is no LoRA adapter. PrerequisiteError: this machine lacks it.
    """
    found = find_model(name, search=search, suite_folder=suite_folder)
    path, *others = found.files
    gguf = read_gguf(path)
    _demand_lora(gguf, parts=1 + len(others))
    ref = AdapterRef(name=name, file=path.name, sha256=sha256_file(path), size_bytes=gguf.size_bytes, scale=scale)
    return AdapterFile(ref, path, gguf)


def with_adapters(model: ModelFile, adapters: Sequence[AdapterFile]) -> ModelFile:
    """The model, to be run with adapters.

    Raises:
        InputError: one is for another model, or is there twice.
    """
    names: dict[str, str] = {}
    for adapter in adapters:
        if adapter.ref.sha256 in names:
            raise InputError(
                f"the adapter {adapter.ref.name} is the same file as {names[adapter.ref.sha256]}",
                hint="name each adapter once; a greater scale makes it stronger",
            )
        names[adapter.ref.sha256] = adapter.ref.name
        _demand_fit(adapter.gguf, model.gguf)
    ref = model.ref.model_copy(update={"adapters": tuple(adapter.ref for adapter in adapters)})
    return dataclasses.replace(model, ref=ref, adapters=tuple(adapters))


def loaded_once(models: Iterable[ModelFile]) -> ModelFile:
    """What is loaded for requests to several of them, which are one model with different adapters."""
    first, *others = models
    files = {adapter.ref.sha256: adapter for model in (first, *others) for adapter in model.adapters}
    ref = first.ref.model_copy(update={"adapters": ()})
    return dataclasses.replace(first, ref=ref, adapters=tuple(files.values()))


def _demand_lora(gguf: Gguf, *, parts: int) -> None:
    kind, adapter = gguf.metadata.get("general.type"), gguf.metadata.get("adapter.type")
    if kind != "adapter" or adapter != "lora":
        what = f"one of type {adapter!r}" if kind == "adapter" else f"a {kind or 'model'}"
        raise InputError(
            f"{gguf.source} is no LoRA adapter, but {what}"[:300],
            hint="convert_lora_to_gguf.py makes one of an adapter that PEFT has trained",
        )
    if parts > 1:
        raise InputError(f"{gguf.source} is an adapter in {parts} parts", hint="llama.cpp loads adapters of one file")
    if "adapter.alora.invocation_tokens" in gguf.metadata:
        raise InputError(
            f"{gguf.source} is an activated LoRA (aLoRA), which begins to work in the middle of a prompt",
            hint="that is not supported; a plain LoRA adapter is",
        )
    alpha = gguf.metadata.get("adapter.lora.alpha")
    if alpha is not None and not isinstance(alpha, float):
        raise InputError(f"{gguf.source} is damaged: adapter.lora.alpha is {alpha!r}"[:300], hint="convert it again")


def _demand_fit(adapter: Gguf, model: Gguf) -> None:
    """Every tensor pair has a tensor in the model, of the same shape."""
    if adapter.architecture != model.architecture:
        raise _other_model(adapter, f"it is for {adapter.architecture or 'no'} models, this is {model.architecture}")
    weights = {tensor.name: tensor.shape for tensor in model.tensors}
    pairs: dict[str, dict[str, tuple[int, ...]]] = {}
    for tensor in adapter.tensors:
        name, part = tensor.name[: -len(_PARTS[0])], tensor.name[-len(_PARTS[0]) :]
        if part in _PARTS:
            pairs.setdefault(name, {})[part] = tensor.shape
        elif not tensor.name.endswith(_IGNORED):
            raise _other_model(adapter, f"tensor {tensor.name} is no part of a LoRA")
    if not pairs:
        raise _other_model(adapter, "it holds no LoRA tensors")
    # A model in several parts has its other tensors in other files: llama.cpp will say what is missing.
    whole = int(model.metadata.get("split.count", 1) or 1) == 1
    for name, shapes in pairs.items():
        if len(shapes) < len(_PARTS):
            raise _other_model(adapter, f"{name} has one half of its pair only")
        if name in weights and not _fits(name, weights[name], *(shapes[part] for part in _PARTS)):
            raise _other_model(adapter, f"{name} has another shape")
        if name not in weights and whole:
            raise _other_model(adapter, f"the model has no {name}")


def _fits(name: str, weight: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether B·A has the weight's shape; shapes as ggml counts, the fastest dimension first."""
    if min(len(weight), len(a), len(b)) < 2:
        return False
    if name == _EMBEDDING:
        # Rows are looked up in A here, so both are the other way round (llm_build_inp_embd).
        return weight[:2] == (b[1], a[1]) and a[0] == b[0]
    return weight[:2] == (a[0], b[1]) and a[1] == b[0] and weight[2:] == a[2:] == b[2:]


def _other_model(adapter: Gguf, why: str) -> InputError:
    return InputError(
        f"the adapter {adapter.source} does not fit the model: {why}"[:400],
        hint="an adapter works with the model that it was trained on, or one with the same tensors",
    )
