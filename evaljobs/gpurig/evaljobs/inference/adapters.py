"""LoRA adapters of a loaded model: each is loaded once, and a context computes with some of them at a time."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

from gpurig.common.errors import InputError
from gpurig.evaljobs.inference.works import Group
from gpurig.evaljobs.llama_vocabulary import RequestFault
from gpurig.evaljobs.models import AdapterFile
from gpurig.evaljobs.records import AdapterRef


class Adapters:
    """The adapters that a model was loaded with."""

    def __init__(self, api: Any, model: Any, files: Sequence[AdapterFile], errors: Sequence[str]) -> None:
        """Load them; the model must outlive them, and contexts are made afterwards (llama.h).

        Args:
            api: the module llama_cpp.
            model: from llama_model.load_model.
            files: of equal ones the first is loaded.
            errors: llama.cpp's last words.

        Raises:
            InputError: llama.cpp refuses a file. The others are freed with the model.
        """
        self._api = api
        self._handles: dict[str, Any] = {}
        for file in files:
            if file.ref.sha256 in self._handles:
                continue
            handle = api.llama_adapter_lora_init(model, str(file.path).encode())
            if not handle:
                raise InputError(
                    f"llama.cpp cannot load the adapter {file.path}: {errors[-1] if errors else 'it does not say why'}",
                    hint="the file is damaged, or made for another model",
                )
            self._handles[file.ref.sha256] = handle

    def demand(self, adapters: Iterable[AdapterRef]) -> None:
        """See to it that a request can be answered.

        Raises:
            RequestFault: it wants an adapter that is not loaded.
        """
        for one in adapters:
            if one.scale and one.sha256 not in self._handles:
                raise RequestFault(f"the adapter {one.name} is not loaded")

    def apply(self, context: Any, group: Group) -> None:
        """Let a context compute with these adapters from its next call on, and with no others.

        llama.cpp adds two adapters' parts in an order that follows from this one. Of three and more, addresses in
        memory have a say in it (std::unordered_map), and the sum may be rounded differently from run to run.
        """
        handles = (self._api.llama_adapter_lora_p_ctypes * len(group))(*(self._handles[name] for name, _ in group))
        scales = (ctypes.c_float * len(group))(*(scale for _, scale in group))
        self._api.llama_set_adapters_lora(context, handles, len(group), scales)

    def close(self) -> None:
        """Free them, after all contexts; a second call does nothing."""
        for handle in self._handles.values():
            self._api.llama_adapter_lora_free(handle)
        self._handles = {}
