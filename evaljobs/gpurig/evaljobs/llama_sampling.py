"""A chain of llama.cpp's samplers for one request."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Any, Self

from gpurig.evaljobs.engine import Shaping
from gpurig.evaljobs.llama_vocabulary import ModelFault, RequestFault
from gpurig.evaljobs.records import Sampling

_PENALTY_WINDOW = 64
# A grammar is asked about so many of the likeliest tokens first, and about all only where it forbids them: llama.cpp
# walks through the text of every token that it is asked about.
_ASKED_FIRST = (1, 64, 2048)


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
        # Whether nothing but the grammar stands between the likeliest token and the choice; how many tokens top-k keeps
        # of those that the grammar allows.
        shaped = bool(shaping.bias or shaping.frequency_penalty or shaping.presence_penalty)
        as_computed = sampling.repeat_penalty in (0.0, 1.0) and not shaped
        self._plain = sampling.temperature == 0.0 and as_computed
        self._kept = sampling.top_k if as_computed else 0
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

    def pick(self, logits: Any) -> int:
        """The next token.

        `llama_sampler_sample` would take any token where none has a probability, and a grammar that gets one it forbids
        ends the process.

        Raises:
            ModelFault: the logits are not numbers.
            RequestFault: the grammar allows no token of the vocabulary, not even the end.
        """
        # The largest of numbers of which one is NaN is NaN.
        if not self._numpy.isfinite(logits.max()):
            raise ModelFault("the model computed no usable probabilities (NaN or infinite logits)")
        token = self._likeliest(logits) if self._plain else self._chosen(logits)
        if token is None:
            raise RequestFault("the grammar allows no token of the model's vocabulary")
        self._api.llama_sampler_accept(self._chain, token)
        return token

    def _likeliest(self, logits: Any) -> int | None:
        """The likeliest token that the grammar allows, or None where it allows none that has a probability."""
        if self._grammar is None:
            return int(logits.argmax())
        for count in (*(count for count in _ASKED_FIRST if count < self._size), self._size):
            asked = self._first(logits, count)
            array = self._array(asked, logits[asked])
            self._api.llama_sampler_apply(self._grammar, ctypes.byref(array))
            allowed = self._candidates["logit"][:count]
            # Of equally likely ones the first of the vocabulary, as llama.cpp's greedy sampler takes it; one that is as
            # unlikely as the least of those asked about may have an equal before it that was not.
            best = int(allowed.argmax())
            certain = count in (1, self._size) or allowed[best] > logits[asked].min()
            if certain and allowed[best] > -self._numpy.inf:
                return int(self._candidates["id"][best])
        return None

    def _first(self, logits: Any, count: int) -> Any:
        """The numbers of the `count` likeliest tokens, ascending."""
        if count >= self._size:
            return self._numpy.arange(self._size, dtype=self._numpy.int32)
        if count == 1:
            return self._numpy.array([logits.argmax()], dtype=self._numpy.int32)
        return self._numpy.sort(self._numpy.argpartition(logits, -count)[-count:])

    def _array(self, tokens: Any, logits: Any) -> Any:
        """Candidates as llama.cpp's samplers take them; they lie in the first places of `_candidates`."""
        count = len(tokens)
        held = self._candidates[:count]
        held["id"], held["logit"], held["p"] = tokens, logits, 0.0
        return self._api.llama_token_data_array(
            data=held.ctypes.data_as(self._api.llama_token_data_p), size=count, selected=-1, sorted=False
        )

    def _chosen(self, logits: Any) -> int | None:
        """What the whole chain chooses."""
        asked = self._enough(logits)
        array = self._array(asked, logits[asked])
        self._api.llama_sampler_apply(self._chain, ctypes.byref(array))
        if not 0 <= array.selected < array.size:
            return None
        chosen = array.data[array.selected]
        return None if chosen.logit == -self._numpy.inf else int(chosen.id)

    def _enough(self, logits: Any) -> Any:
        """Tokens among which are all that the chain could choose: where as many are allowed as top-k keeps, not all."""
        if self._grammar is not None and 0 < self._kept <= _ASKED_FIRST[-1] < self._size:
            asked = self._first(logits, _ASKED_FIRST[-1])
            array = self._array(asked, logits[asked])
            self._api.llama_sampler_apply(self._grammar, ctypes.byref(array))
            allowed = self._candidates["logit"][: len(asked)]
            if int((allowed > logits[asked].min()).sum()) >= self._kept:
                return asked
        return self._first(logits, self._size)

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
