"""One llama.cpp context with many sequences: the only place of the batched engine that calls llama.cpp to compute."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from gpurig.common.errors import PrerequisiteError
from gpurig.evaljobs.inference.adapters import Adapters
from gpurig.evaljobs.inference.states import of_streams, one_stream
from gpurig.evaljobs.inference.works import Copy, Group, Row, Step
from gpurig.evaljobs.memory import CACHE_TYPES

# On a CPU ggml's flash attention goes row by row and takes twice the time of two products (docs/inference.md). Those
# need memory that grows with the sequences' length, so longer ones are left to llama.cpp's choice.
_LONG = 8192


class NoRoomError(Exception):
    """llama.cpp cannot make a context of that size."""


class Context:
    """Computes steps.

    Attributes:
        cells: of each sequence; llama.cpp rounds up what was asked for.
        layout: what a sequence's state depends on beside model, tokens and machine, as JSON data.
    """

    def __init__(
        self,
        api: Any,
        model: Any,
        errors: Sequence[str],
        *,
        sequences: int,
        cells: int,
        batch: int,
        threads: int,
        gpu: bool,
        cache: str = "f16",
        adapters: Adapters | None = None,
    ) -> None:
        """Make the context.

        Args:
            api: the module llama_cpp.
            model: from llama_model.load_model; it must outlive the context.
            errors: llama.cpp's last words.
            sequences: how many; each has a part of the cache for itself.
            cells: of each.
            batch: tokens that are computed together, at most.
            threads: of the CPU.
            gpu: the model's layers are on a GPU.
            cache: how keys and values are kept, a key of `memory.CACHE_TYPES`.
            adapters: of the model; they must outlive the context.

        Raises:
            NoRoomError: llama.cpp does not make it.
        """
        import numpy as np  # noqa: PLC0415 - comes with llama-cpp-python

        self._api, self._errors, self._numpy = api, errors, np
        self._adapters, self._group = adapters, Group()
        options = api.llama_context_default_params()
        options.n_ctx = cells * sequences
        # A branch may be longer than what is computed together: llama.cpp divides it then.
        options.n_batch = max(batch, sequences, cells)
        options.n_ubatch = max(batch, sequences)
        options.n_seq_max = sequences
        options.kv_unified = False
        options.type_k = options.type_v = CACHE_TYPES[cache]
        options.n_threads = options.n_threads_batch = threads
        if not gpu and cells <= _LONG:
            options.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        options.no_perf = True
        self._context = api.llama_init_from_model(model, options)
        if not self._context:
            raise NoRoomError(self._why())
        self.cells = int(api.llama_n_ctx_seq(self._context))
        self._memory = api.llama_get_memory(self._context)
        recurrent, hybrid = api.llama_model_is_recurrent(model), api.llama_model_is_hybrid(model)
        plain = not (recurrent or hybrid or api.llama_model_n_swa(model))
        # How many streams a state is written for; 0: it is kept as llama.cpp writes it.
        self._streams = sequences if plain else 0
        self.layout = {
            # A recurrent model's has none; one that has several caches has them in each (states.py).
            "streams": 1 if plain or (recurrent and not hybrid) else sequences,
            "cache": [int(options.type_k), int(options.type_v)],
            "flash": int(options.flash_attn_type),
            "piece": int(options.n_ubatch),
        }
        self._vocabulary_size = int(api.llama_vocab_n_tokens(api.llama_model_get_vocab(model)))
        self._batch = _Batch(api, int(options.n_batch))

    def close(self) -> None:
        """Free it; a second call does nothing."""
        if self._context:
            self._api.llama_free(self._context)
            self._context = None

    def clear(self) -> None:
        """Empty every sequence, and overwrite what was in the cells.

        What is masked is multiplied by zero, and NaN times zero is NaN: cells that hold it would spoil every request
        that comes to use them.
        """
        self._api.llama_memory_clear(self._memory, True)  # noqa: FBT003 - C API

    def compute(self, step: Step) -> Any:
        """Compute a step's rows; its copies and loads are made already.

        Returns:
            The logits that its rows want, float32 of shape (wanted tokens, vocabulary), in the rows' order; a view that
            the next step overwrites.

        Raises:
            PrerequisiteError: llama.cpp failed to compute.
        """
        if not step.rows:
            return self._numpy.empty((0, self._vocabulary_size), dtype=self._numpy.float32)
        place = wanted = 0
        for row in step.rows:
            wanted += self._batch.fill(row, place)
            place += len(row.tokens) + row.padding
        self._batch.llama.n_tokens = place
        if step.group != self._group and self._adapters is not None:
            self._adapters.apply(self._context, step.group)
            self._group = step.group
        code = self._api.llama_decode(self._context, self._batch.llama)
        if code:
            raise PrerequisiteError(
                f"llama.cpp failed to compute (llama_decode: {code}): {self._why()}",
                hint="what was finished is on disk: free memory, or use a smaller context, and run it again",
            )
        for row in step.rows:
            if row.keep < row.start + len(row.tokens) + row.padding:
                self._cut(row.sequence, row.keep)
        if not wanted:
            return self._numpy.empty((0, self._vocabulary_size), dtype=self._numpy.float32)
        logits = self._api.llama_get_logits(self._context)
        return self._numpy.ctypeslib.as_array(logits, shape=(wanted, self._vocabulary_size))

    def finite(self, logits: Any) -> bool:
        """Whether they are numbers."""
        return bool(self._numpy.isfinite(logits).all())

    def state(self, sequence: int) -> bytes:
        """What a sequence holds, for any context of the same layout, whatever its sequences and their length."""
        size = int(self._api.llama_state_seq_get_size(self._context, sequence))
        state = self._numpy.empty(size, dtype=self._numpy.uint8)
        place = state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        written = int(self._api.llama_state_seq_get_data(self._context, place, size, sequence))
        if written != size:
            raise PrerequisiteError(f"llama.cpp does not give its state: {self._why()}")
        return one_stream(state.tobytes(), self._streams) if self._streams else state.tobytes()

    def restore(self, sequence: int, state: bytes | memoryview, tokens: int) -> bool:
        """Let a sequence hold a state of so many tokens and nothing else; False, and empty, where it is none."""
        data = of_streams(state, self._streams) if self._streams else bytes(state)
        place = ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))
        read = self._api.llama_state_seq_set_data(self._context, place, len(data), sequence)
        if read == len(data) and self._api.llama_memory_seq_pos_max(self._memory, sequence) == tokens - 1:
            return True
        self._cut(sequence, 0)
        return False

    def copy(self, copy: Copy) -> None:
        """Let a sequence become the beginning of another one.

        Raises:
            PrerequisiteError: the model's memory cannot be cut so.
        """
        if copy.source != copy.target:
            # Between streams llama.cpp copies whole sequences only (llama_kv_cache::seq_cp).
            self._api.llama_memory_seq_cp(self._memory, copy.source, copy.target, -1, -1)
        self._cut(copy.target, copy.keep)

    def _cut(self, sequence: int, keep: int) -> None:
        if not self._api.llama_memory_seq_rm(self._memory, sequence, keep, -1):
            raise PrerequisiteError(
                "this model's memory cannot be cut, so its prompts cannot be computed together",
                hint="use --exact, which answers one prompt after the other",
            )

    def _why(self) -> str:
        return self._errors[-1] if self._errors else "it does not say why"


class _Batch:
    """A llama_batch over arrays: it is filled by copies, not token by token.

    Attributes:
        llama: what llama_decode takes.
    """

    def __init__(self, api: Any, size: int) -> None:
        import numpy as np  # noqa: PLC0415 - comes with llama-cpp-python

        self._numpy = np
        self._tokens, self._positions, self._sequences = (np.zeros(size, dtype=np.int32) for _ in range(3))
        self._wanted = np.zeros(size, dtype=np.int8)
        # Every token has one sequence: its list of sequences is one element of one array.
        self._counts = np.ones(size, dtype=np.int32)
        self._lists = self._sequences.ctypes.data + np.arange(size, dtype=np.uintp) * self._sequences.itemsize
        fields = dict(api.llama_batch._fields_)
        self.llama = api.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(fields["token"]),
            embd=None,
            pos=self._positions.ctypes.data_as(fields["pos"]),
            n_seq_id=self._counts.ctypes.data_as(fields["n_seq_id"]),
            seq_id=self._lists.ctypes.data_as(fields["seq_id"]),
            logits=self._wanted.ctypes.data_as(fields["logits"]),
        )

    def fill(self, row: Row, place: int) -> int:
        """Write a row from `place` on; how many logits it wants."""
        count, end = len(row.tokens), place + len(row.tokens) + row.padding
        self._tokens[place : place + count] = row.tokens
        self._tokens[place + count : end] = row.tokens[-1]
        self._positions[place:end] = self._numpy.arange(row.start, row.start + end - place)
        self._sequences[place:end] = row.sequence
        self._wanted[place:end] = 0
        self._wanted[place + count - row.scored : place + count] = 1
        return row.scored
