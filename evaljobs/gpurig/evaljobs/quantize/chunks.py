"""A model read over a text in pieces of one length, as llama-perplexity and llama-imatrix do it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.common.gguf import Gguf, read_gguf
from gpurig.evaljobs.llama_log import last_errors
from gpurig.evaljobs.llama_model import demand_device, load_model, release
from gpurig.evaljobs.llama_probe import demand_loadable
from gpurig.evaljobs.quantize.graph_inputs import InputSquares

# llama-perplexity's and llama-imatrix's default, so that figures can be compared.
DEFAULT_CONTEXT = 512
_BATCH = 512


@dataclass(frozen=True)
class Chunks:
    """A text as token numbers.

    Attributes:
        tokens: (chunks, context), without what every chunk begins with.
        begin: the token that replaces every chunk's first (the model's BOS), or None.
    """

    tokens: NDArray[np.int32]
    begin: int | None

    @property
    def first_scored(self) -> int:
        """From this position on predictions count: before it a token has too little context."""
        return int(self.tokens.shape[1]) // 2

    @property
    def scored(self) -> int:
        """Predictions per chunk: the last token's is not, because nothing follows it."""
        return int(self.tokens.shape[1]) - 1 - self.first_scored


def chunk_context(gguf: Gguf, wanted: int) -> int:
    """`wanted` tokens, or what the model was made for where that is less."""
    trained = gguf.of_architecture("context_length")
    return min(wanted, trained) if isinstance(trained, int) and trained > 0 else wanted


class ChunkReader:
    """A model in memory that decodes chunks."""

    def __init__(self, path: Path, *, context: int, threads: int, squares: InputSquares | None = None) -> None:
        """Load the model.

        Args:
            path: its GGUF file.
            context: tokens a chunk.
            threads: CPU threads.
            squares: gets the inputs of every weight.

        Raises:
            InputError: llama.cpp refuses the file, or it predicts no next tokens. PrerequisiteError: no memory, or a
                GPU build without a GPU.
        """
        import llama_cpp  # noqa: PLC0415 - loads shared libraries

        _demand_predictions(read_gguf(path))
        demand_loadable(path, context)
        self._api = llama_cpp
        self._path = path
        self._model: Any = None
        self._context: Any = None
        self._batch: Any = None
        self._size = context
        self._squares = squares
        self._errors = last_errors(llama_cpp)
        self._errors.clear()
        llama_cpp.llama_backend_init()
        demand_device(llama_cpp)
        try:
            self._load(threads)
        except BaseException:
            self.close()
            raise

    def _load(self, threads: int) -> None:
        api = self._api
        self._model = load_model(api, self._path, self._errors, gpu=bool(api.llama_supports_gpu_offload()))
        options = api.llama_context_default_params()
        options.n_ctx = self._size
        options.n_batch = options.n_ubatch = min(_BATCH, self._size)
        options.n_seq_max = 1
        options.n_threads = options.n_threads_batch = threads
        options.no_perf = True
        if self._squares is not None:
            # Kept here as long as the context may call it.
            self._callback = api.ggml_backend_sched_eval_callback(self._squares)
            options.cb_eval = self._callback
        self._context = api.llama_init_from_model(self._model, options)
        if not self._context:
            raise PrerequisiteError(
                f"llama.cpp cannot make a context of {self._size} tokens for {self._path.name}: {self._why()}",
                hint="a smaller --context needs less memory",
            )
        self._batch = api.llama_batch_init(_BATCH, 0, 1)
        self._vocabulary = api.llama_model_get_vocab(self._model)
        self.vocabulary_size = int(api.llama_vocab_n_tokens(self._vocabulary))

    def close(self) -> None:
        """Free the model's memory; a second call does nothing."""
        release(self._api, model=self._model, context=self._context, batch=self._batch)
        self._batch = self._context = self._model = None

    def chunks(self, text: str, *, limit: int | None) -> Chunks:
        """A text in chunks; what is left at its end is not used.

        Args:
            text: as it is; nothing in it is taken for a special token.
            limit: at most so many chunks.

        Raises:
            InputError: it does not fill one chunk.
        """
        api, raw = self._api, text.encode()
        buffer = (api.llama_token * (len(raw) + 8))()
        count = api.llama_tokenize(self._vocabulary, raw, len(raw), buffer, len(buffer), True, False)  # noqa: FBT003 - C API
        if count < 0:
            raise InputError(f"{self._path.name} cannot turn the text into tokens", hint="use another text")
        if count < self._size:
            raise InputError(
                f"the text has {count} tokens for {self._path.name}, and one chunk is {self._size}",
                hint="give a longer text, or a smaller --context",
            )
        whole = min(count // self._size, limit or count)
        tokens = np.array(buffer[: whole * self._size], np.int32).reshape(whole, self._size)
        begins = bool(api.llama_vocab_get_add_bos(self._vocabulary))
        return Chunks(tokens, int(api.llama_vocab_bos(self._vocabulary)) if begins else None)

    def read(self, chunks: Chunks, number: int) -> NDArray[np.float32]:
        """Decode one chunk from an empty cache.

        Returns:
            (chunks.scored, vocabulary): the logits that predict each token after `first_scored`; a copy.

        Raises:
            PrerequisiteError: llama.cpp failed to compute. InputError: what was collected is not finite.
        """
        api, batch = self._api, self._batch
        tokens = chunks.tokens[number].tolist()
        if chunks.begin is not None:
            tokens[0] = chunks.begin
        api.llama_memory_clear(api.llama_get_memory(self._context), True)  # noqa: FBT003 - C API
        logits = np.empty((chunks.scored, self.vocabulary_size), np.float32)
        done = 0
        for start in range(0, len(tokens), _BATCH):
            part = tokens[start : start + _BATCH]
            batch.n_tokens = len(part)
            wanted = 0
            for index, token in enumerate(part):
                scored = chunks.first_scored <= start + index < len(tokens) - 1
                # For the inputs of the last layer every token must be computed to its end.
                output = scored or self._squares is not None
                batch.token[index], batch.pos[index], batch.logits[index] = token, start + index, output
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
                wanted += scored
            self._decode()
            if wanted and self._squares is None:
                rows = np.ctypeslib.as_array(api.llama_get_logits(self._context), (wanted, self.vocabulary_size))
                logits[done : done + wanted] = rows
                done += wanted
        return logits

    def _decode(self) -> None:
        code = self._api.llama_decode(self._context, self._batch)
        if self._squares is not None and self._squares.fault is not None:
            raise self._squares.fault
        if code:
            raise PrerequisiteError(
                f"llama.cpp failed to compute (llama_decode: {code}): {self._why()}",
                hint="free memory, or use a smaller --context, and run it again",
            )

    def _why(self) -> str:
        return self._errors[-1] if self._errors else "it does not say why"


def _demand_predictions(gguf: Gguf) -> None:
    if gguf.of_architecture("attention.causal") is False or gguf.of_architecture("pooling_type"):
        raise InputError(
            f"{gguf.path.name} is an embedding model: it predicts no next tokens",
            hint="quantize it without a comparison: --no-divergence",
        )


@contextlib.contextmanager
def opened(path: Path, *, context: int, threads: int, squares: InputSquares | None = None) -> Iterator[ChunkReader]:
    """A ChunkReader whose memory is freed at the end; see ChunkReader for what it raises."""
    reader = ChunkReader(path, context=context, threads=threads, squares=squares)
    try:
        yield reader
    finally:
        reader.close()
