"""Texts as vectors: a context of its own kind, for models that were made for that and for others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.evaljobs.engine import EngineSettings
from gpurig.evaljobs.llama_log import last_errors
from gpurig.evaljobs.llama_model import demand_device, load_model, release
from gpurig.evaljobs.llama_probe import demand_loadable
from gpurig.evaljobs.llama_vocabulary import PromptTooLong, RequestFault, Vocabulary
from gpurig.evaljobs.models import ModelFile

_SEQUENCES = 16


@dataclass(frozen=True)
class Embedding:
    """A text's vector.

    Attributes:
        vector: float32 of shape (width of the model,), of length 1.
        tokens: of the text.
    """

    vector: Any
    tokens: int


class Embedder:
    """One model that turns texts into vectors; several texts are computed together.

    The tokens' vectors become the text's as the model says (mean, first or last token), by their mean where it says
    nothing.

    Attributes:
        width: of the vectors.
    """

    def __init__(self, model: ModelFile, settings: EngineSettings) -> None:
        """Load the model.

        Raises:
            InputError: llama.cpp refuses the file, or the model ranks texts instead.
            PrerequisiteError: no memory, or a GPU build without a GPU.
        """
        import llama_cpp as api  # noqa: PLC0415 - loads shared libraries

        demand_loadable(model.path, settings.context)
        # An encoder has no positions beyond those of its training, and llama.cpp ends the process there.
        trained = model.gguf.of_architecture("context_length")
        self._api, self._limit = api, min(settings.context, trained if isinstance(trained, int) else settings.context)
        self._errors = last_errors(api)
        self._errors.clear()
        api.llama_backend_init()
        demand_device(api)
        self._model = load_model(api, model.path, self._errors, gpu=bool(api.llama_supports_gpu_offload()))
        self._context: Any = None
        self._batch: Any = None
        try:
            self._vocabulary = Vocabulary(api, self._model)
            self._context = self._made(settings)
            self._batch = api.llama_batch_init(settings.context, 0, 1)
            self.width = int(api.llama_model_n_embd_out(self._model))
            self._memory = api.llama_get_memory(self._context)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free it; a second call does nothing."""
        release(self._api, model=self._model, context=self._context, batch=self._batch)
        self._model = self._context = self._batch = None

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """The texts' vectors, in their order.

        Raises:
            RequestFault: a text is empty or too long, or has no usable vector.
            PrerequisiteError: llama.cpp failed to compute.
        """
        tokens = [self._tokens(text) for text in texts]
        found: list[Embedding] = []
        for group in self._groups(tokens):
            found += self._computed(group)
        return found

    def _tokens(self, text: str) -> list[int]:
        tokens = self._vocabulary.plain_tokens(text)
        if not text or not tokens:
            raise RequestFault("a text is empty")
        if len(tokens) > self._limit:
            raise PromptTooLong(f"a text has {len(tokens)} tokens, and at most {self._limit} are computed")
        return tokens

    def _groups(self, texts: Sequence[list[int]]) -> Iterator[list[list[int]]]:
        group: list[list[int]] = []
        for text in texts:
            if len(group) == _SEQUENCES or sum(map(len, group)) + len(text) > self._limit:
                yield group
                group = []
            group.append(text)
        if group:
            yield group

    def _computed(self, group: Sequence[list[int]]) -> list[Embedding]:
        import numpy as np  # noqa: PLC0415 - comes with llama-cpp-python

        api, batch = self._api, self._batch
        place = 0
        for sequence, tokens in enumerate(group):
            for position, token in enumerate(tokens):
                batch.token[place], batch.pos[place] = token, position
                batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, sequence, 1
                place += 1
        batch.n_tokens = place
        if self._memory:
            api.llama_memory_clear(self._memory, True)  # noqa: FBT003 - C API
        # What has no memory of the past is an encoder.
        compute = api.llama_decode if self._memory else api.llama_encode
        if code := compute(self._context, batch):
            raise PrerequisiteError(
                f"llama.cpp failed to compute ({code}): {self._why()}", hint="use a smaller context"
            )
        found = []
        for sequence, tokens in enumerate(group):
            raw = api.llama_get_embeddings_seq(self._context, sequence)
            vector = np.ctypeslib.as_array(raw, shape=(self.width,)).astype(np.float64)
            length = float(np.sqrt((vector**2).sum()))
            if not np.isfinite(length) or not length:
                raise RequestFault("the model computed no usable vector")
            found.append(Embedding((vector / length).astype(np.float32), len(tokens)))
        return found

    def _made(self, settings: EngineSettings) -> Any:
        api, options = self._api, self._api.llama_context_default_params()
        # A text whose tokens see one another has to be computed in one piece.
        options.n_ctx = options.n_batch = options.n_ubatch = settings.context
        options.n_seq_max, options.kv_unified = _SEQUENCES, True
        options.n_threads = options.n_threads_batch = settings.threads
        options.embeddings, options.no_perf = True, True
        context = api.llama_init_from_model(self._model, options)
        if context and api.llama_pooling_type(context) == api.LLAMA_POOLING_TYPE_NONE:
            api.llama_free(context)
            options.pooling_type = api.LLAMA_POOLING_TYPE_MEAN
            context = api.llama_init_from_model(self._model, options)
        if not context:
            raise PrerequisiteError(
                f"llama.cpp cannot make a context of {settings.context} tokens: {self._why()}",
                hint="a smaller --context needs less memory",
            )
        if api.llama_pooling_type(context) == api.LLAMA_POOLING_TYPE_RANK:
            api.llama_free(context)
            raise InputError("this model ranks texts and has no vectors for them", hint="serve an embedding model")
        return context

    def _why(self) -> str:
        return self._errors[-1] if self._errors else "it does not say why"
