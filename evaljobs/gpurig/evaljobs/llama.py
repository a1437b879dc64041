"""llama.cpp in this process."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterator, Mapping

from gpurig.common.errors import PrerequisiteError
from gpurig.evaljobs.engine import EngineSettings, demand_positions
from gpurig.evaljobs.inference.embedding import Embedder
from gpurig.evaljobs.inference.engine import InferenceEngine
from gpurig.evaljobs.llama_probe import demand_loadable
from gpurig.evaljobs.models import ModelFile

_PACKAGE = "llama-cpp-python"


class LlamaProvider:
    """Loads GGUF files with llama.cpp."""

    @property
    def packages(self) -> Mapping[str, str]:
        """The binding's version, which pins llama.cpp's."""
        try:
            return {_PACKAGE: importlib.metadata.version(_PACKAGE)}
        except importlib.metadata.PackageNotFoundError as error:
            raise PrerequisiteError(
                "llama-cpp-python is not installed", hint="install gpurig with its eval extra: pip install gpurig[eval]"
            ) from error

    @contextlib.contextmanager
    def open(self, model: ModelFile, settings: EngineSettings) -> Iterator[InferenceEngine]:
        """Load a model and its adapters; leaving frees them.

        Raises:
            InputError: llama.cpp refuses a file, or the model has fewer positions than the context.
            PrerequisiteError: no memory, or a GPU build without a GPU.
        """
        demand_positions(model, settings.context)
        demand_loadable(model.path, settings.context, [adapter.path for adapter in model.adapters])
        engine = InferenceEngine(model, settings)
        try:
            yield engine
        finally:
            engine.close()

    @contextlib.contextmanager
    def open_embedder(self, model: ModelFile, settings: EngineSettings) -> Iterator[Embedder]:
        """Load an embedding model; leaving frees it.

        Raises:
            InputError: llama.cpp refuses the file. PrerequisiteError: no memory, or a GPU build without a GPU.
        """
        embedder = Embedder(model, settings)
        try:
            yield embedder
        finally:
            embedder.close()
