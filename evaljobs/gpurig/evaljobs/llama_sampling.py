"""A chain of llama.cpp's samplers for one request."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Any, Self

from gpurig.evaljobs.engine import Shaping
from gpurig.evaljobs.records import Sampling

_PENALTY_WINDOW = 64


class Chain:
    """Grammar, then penalty, then the truncations, then the choice; greedy where the temperature is 0.

    Attributes:
        valid: False where the grammar does not parse.
    """

    def __init__(self, api: Any, vocabulary: Any, sampling: Sampling, grammar: str, shaping: Shaping) -> None:
        """Make the chain; leave the context to free it."""
        import numpy as np  # noqa: PLC0415 - comes with llama-cpp-python

        self._api = api
        self._numpy = np
        self._size = int(api.llama_vocab_n_tokens(vocabulary))
        self._candidates = np.zeros(
            self._size, dtype=np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)
        )
        self.valid = True
        self._grammar: Any = None
        # Nothing but the grammar stands between the likeliest token and the choice.
        shaped = bool(shaping.bias or shaping.frequency_penalty or shaping.presence_penalty)
        self._plain = sampling.temperature == 0.0 and sampling.repeat_penalty in (0.0, 1.0) and not shaped
        self._chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        if grammar:
            constraint = api.llama_sampler_init_grammar(vocabulary, grammar.encode(), b"root")
            self.valid = bool(constraint)
            if self.valid:
                self._grammar = constraint
                self._add(constraint)
        if sampling.repeat_penalty not in (0.0, 1.0):
            self._add(api.llama_sampler_init_penalties(self._size, _PENALTY_WINDOW, sampling.repeat_penalty, 0.0, 0.0))
        if shaped:
            self._shape(shaping, sampling.max_tokens)
        if sampling.temperature == 0.0:
            self._add(api.llama_sampler_init_greedy())
        else:
            self._add(api.llama_sampler_init_top_k(sampling.top_k))
            self._add(api.llama_sampler_init_top_p(sampling.top_p, 1))
            self._add(api.llama_sampler_init_min_p(sampling.min_p, 1))
            self._add(api.llama_sampler_init_temp(sampling.temperature))
            self._add(api.llama_sampler_init_dist(sampling.seed))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free it; a second call does nothing."""
        if self._chain:
            self._api.llama_sampler_free(self._chain)
            self._chain = None

    def pick(self, logits: Any) -> int | None:
        """The next token, or None where no token has a finite probability (a grammar that is met, NaN).

        `llama_sampler_sample` would take any token then, and a grammar that gets one it forbids ends the process.
        """
        if self._numpy.isnan(logits).any() or not self._numpy.isfinite(logits).any():
            return None
        token = self._likeliest(logits) if self._plain else None
        if token is None:
            token = self._chosen(logits)
        if token is not None:
            self._api.llama_sampler_accept(self._chain, token)
        return token

    def _likeliest(self, logits: Any) -> int | None:
        """What a greedy choice comes to unless the grammar forbids it: one token is asked about sooner than all."""
        token = int(logits.argmax())
        if self._grammar is None:
            return token
        candidate = self._api.llama_token_data(id=token, logit=1.0, p=0.0)
        array = self._api.llama_token_data_array(data=ctypes.pointer(candidate), size=1, selected=-1, sorted=False)
        self._api.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return token if candidate.logit > -self._numpy.inf else None

    def _chosen(self, logits: Any) -> int | None:
        """What the whole chain chooses from all tokens."""
        candidates = self._candidates
        candidates["id"] = self._numpy.arange(self._size, dtype=self._numpy.int32)
        candidates["logit"] = logits
        candidates["p"] = 0.0
        array = self._api.llama_token_data_array(
            data=candidates.ctypes.data_as(self._api.llama_token_data_p), size=self._size, selected=-1, sorted=False
        )
        self._api.llama_sampler_apply(self._chain, ctypes.byref(array))
        if not 0 <= array.selected < array.size:
            return None
        chosen = array.data[array.selected]
        return None if chosen.logit == -self._numpy.inf else int(chosen.id)

    def _shape(self, shaping: Shaping, window: int) -> None:
        """Bias and penalties; these count all that was written, as OpenAI's do, and not a window of it."""
        if shaping.bias:
            biases = (self._api.llama_logit_bias * len(shaping.bias))(*shaping.bias.items())
            self._add(self._api.llama_sampler_init_logit_bias(self._size, len(biases), biases))
        frequency, presence = shaping.frequency_penalty, shaping.presence_penalty
        if frequency or presence:
            self._add(self._api.llama_sampler_init_penalties(self._size, window, 1.0, frequency, presence))

    def _add(self, sampler: Any) -> None:
        self._api.llama_sampler_chain_add(self._chain, sampler)
