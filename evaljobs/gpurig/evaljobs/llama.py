"""llama.cpp in this process, one request at a time: the same bytes on every run and for every order of requests.

Over llama-cpp-python's low-level API: the cache is emptied before every request, prompts are decoded in batches of a
fixed size, and thus nothing of one request can reach another.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpurig.common.errors import PrerequisiteError
from gpurig.evaljobs.engine import Completion, Engine, EngineSettings, Request
from gpurig.evaljobs.llama_log import last_errors
from gpurig.evaljobs.llama_model import load_model, release
from gpurig.evaljobs.llama_probe import demand_loadable
from gpurig.evaljobs.llama_sampling import Chain
from gpurig.evaljobs.models import ModelFile

_BATCH = 512
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
    def open(self, model: ModelFile, settings: EngineSettings) -> Iterator[Engine]:
        """Load a model; leaving frees it.

        Raises:
            InputError: llama.cpp refuses the file. PrerequisiteError: no memory, or a GPU build without a GPU.
        """
        demand_loadable(model.path, settings.context)
        engine = LlamaEngine(model, settings)
        try:
            yield engine
        finally:
            engine.close()


class _RequestFault(Exception):  # noqa: N818 - what is wrong with a request, not with the program
    """The request cannot be answered; its text says why."""


class LlamaEngine:
    """One model with one sequence."""

    def __init__(self, model: ModelFile, settings: EngineSettings) -> None:
        """Load the model and make a context.

        Raises:
            InputError: llama.cpp refuses the file. PrerequisiteError: no memory, or a GPU build without a GPU.
        """
        import llama_cpp  # noqa: PLC0415 - loads shared libraries

        self._api = llama_cpp
        self._model: Any = None
        self._context: Any = None
        self._batch: Any = None
        self._errors = last_errors(llama_cpp)
        self._errors.clear()
        llama_cpp.llama_backend_init()
        demand_device(llama_cpp)
        try:
            self._load(model.path, settings)
        except BaseException:
            self.close()
            raise

    def _load(self, path: Path, settings: EngineSettings) -> None:
        api = self._api
        self._model = load_model(api, path, self._errors, gpu=bool(api.llama_supports_gpu_offload()))
        options = api.llama_context_default_params()
        options.n_ctx = settings.context
        options.n_batch = options.n_ubatch = min(_BATCH, settings.context)
        options.n_seq_max = 1
        options.n_threads = options.n_threads_batch = settings.threads
        options.no_perf = True
        self._context = api.llama_init_from_model(self._model, options)
        if not self._context:
            raise PrerequisiteError(
                f"llama.cpp cannot make a context of {settings.context} tokens for {path.name}: {self._why()}",
                hint="a smaller `context` in the suite needs less memory",
            )
        self._batch = api.llama_batch_init(options.n_batch, 0, 1)
        self._batch_size = int(options.n_batch)
        # llama.cpp rounds the context up; what the suite says is the limit.
        self._limit = settings.context
        self._vocabulary = api.llama_model_get_vocab(self._model)
        self._token_count = int(api.llama_vocab_n_tokens(self._vocabulary))

    def close(self) -> None:
        """Free the model's memory; a second call does nothing."""
        release(self._api, model=self._model, context=self._context, batch=self._batch)
        self._batch = self._context = self._model = None

    def run(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer the requests in their order.

        Raises:
            PrerequisiteError: llama.cpp failed to compute.
        """
        for request in requests:
            yield self._answer(request)

    def _answer(self, request: Request) -> Completion:
        started = time.monotonic()
        prompt: list[int] = []
        try:
            prompt = self._tokens_of_prompt(request.prompt)
            text, count, finish = self._generate(request, prompt)
            choices = self._score(request.prompt, prompt, request.choices)
        except _RequestFault as fault:
            return Completion(
                id=request.id,
                text="",
                finish="error",
                error=str(fault),
                prompt_tokens=len(prompt),
                seconds=time.monotonic() - started,
            )
        return Completion(
            id=request.id,
            text=text,
            finish="stop" if finish else "length",
            prompt_tokens=len(prompt),
            completion_tokens=count,
            seconds=time.monotonic() - started,
            choices=choices,
        )

    def _tokens_of_prompt(self, prompt: str) -> list[int]:
        tokens = self._tokenize(prompt)
        if not tokens or not prompt:
            raise _RequestFault("the prompt is empty")
        if len(tokens) >= self._limit:
            raise _RequestFault(
                f"the prompt has {len(tokens)} tokens, and the context of {self._limit} must hold an answer too"
            )
        return tokens

    def _tokenize(self, text: str) -> list[int]:
        api, vocabulary = self._api, self._vocabulary
        raw = text.encode("utf-8", "replace")
        begin = api.llama_vocab_bos(vocabulary)
        begins = begin >= 0 and raw.startswith(api.llama_vocab_get_text(vocabulary, begin) or b"\0")
        size = len(raw) + 8
        buffer = (api.llama_token * size)()
        count = api.llama_tokenize(vocabulary, raw, len(raw), buffer, size, not begins, True)  # noqa: FBT003 - C API
        if count < 0:
            raise _RequestFault("the prompt cannot be turned into tokens")
        tokens = list(buffer[:count])
        if tokens and api.llama_vocab_get_add_eos(vocabulary) and tokens[-1] == api.llama_vocab_eos(vocabulary):
            tokens.pop()  # an end before the answer would end it
        return tokens

    def _generate(self, request: Request, prompt: list[int]) -> tuple[str, int, bool]:
        """The answer's text, its tokens, and whether it ended by itself."""
        api = self._api
        self._forget(0)
        self._decode(prompt, 0, scored=len(prompt) - 1)
        stops = tuple(stop.encode() for stop in request.stop)
        output = b""
        room = min(request.sampling.max_tokens, self._limit - len(prompt))
        with Chain(api, self._vocabulary, request.sampling, request.grammar) as chain:
            if not chain.valid:
                raise _RequestFault("the grammar is no valid GBNF")
            for count in range(room):
                token = chain.pick(self._logits(-1))
                if token is None:
                    if not count:
                        raise _RequestFault("the model computed no usable probabilities, or the grammar allows nothing")
                    return _text(output), count, True
                if api.llama_vocab_is_eog(self._vocabulary, token):
                    return _text(output), count, True
                output += self._piece(token)
                found = [position for stop in stops if (position := output.find(stop)) >= 0]
                if found:
                    return _text(output[: min(found)]), count + 1, True
                if count + 1 < room:
                    self._decode([token], len(prompt) + count, scored=0)
        return _text(output), room, False

    def _score(self, text: str, prompt: list[int], choices: tuple[str, ...]) -> dict[str, float]:
        """The log-probability of every choice after the prompt.

        A choice is tokenized together with the prompt, as the model has seen text in training. Where that changes the
        prompt's last tokens, every choice is scored from the first token that changes, so that all are comparable.
        """
        if not choices:
            return {}
        whole = {choice: self._tokenize(text + choice) for choice in choices}
        shared = min(_common(prompt, tokens) for tokens in whole.values())
        # The token before the first scored one is decoded again: its logits are the first that are needed.
        shared = max(1, shared)
        answer = {}
        for choice, tokens in whole.items():
            if len(tokens) > self._limit:
                raise _RequestFault(
                    f"the prompt and its continuation have {len(tokens)} tokens, the context {self._limit}"
                )
            scored = tokens[shared:]
            self._rewind(tokens, shared - 1)
            answer[choice] = self._log_probability(tokens[shared - 1 : -1], shared - 1, scored)
        return answer

    def _log_probability(self, tokens: list[int], position: int, scored: list[int]) -> float:
        import numpy as np  # noqa: PLC0415 - comes with llama-cpp-python

        total = 0.0
        for start in range(0, len(tokens), self._batch_size):
            part = tokens[start : start + self._batch_size]
            self._decode(part, position + start, scored=None)
            for index in range(len(part)):
                logits = self._logits(index).astype(np.float64)
                top = logits.max()
                if not math.isfinite(top):
                    raise _RequestFault("the model computed no usable probabilities")
                total += float(logits[scored[start + index]] - top - np.log(np.exp(logits - top).sum()))
        return total

    def _rewind(self, tokens: list[int], position: int) -> None:
        """Bring the cache to the first `position` of `tokens`."""
        memory = self._api.llama_get_memory(self._context)
        if not self._api.llama_memory_seq_rm(memory, 0, position, -1):
            # A recurrent model has no earlier state to go back to.
            self._forget(0)
            if position:
                self._decode(tokens[:position], 0, scored=position - 1)

    def _forget(self, position: int) -> None:
        memory = self._api.llama_get_memory(self._context)
        self._api.llama_memory_seq_rm(memory, 0, position, -1)

    def _decode(self, tokens: list[int], position: int, *, scored: int | None) -> None:
        """Decode `tokens` from `position` on; logits of the token at index `scored` (None: of all) are kept."""
        batch = self._batch
        for start in range(0, len(tokens), self._batch_size):
            part = tokens[start : start + self._batch_size]
            batch.n_tokens = len(part)
            for index, token in enumerate(part):
                batch.token[index] = token
                batch.pos[index] = position + start + index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = 0
                batch.logits[index] = scored is None or scored == start + index
            code = self._api.llama_decode(self._context, batch)
            if code:
                raise PrerequisiteError(
                    f"llama.cpp failed to compute (llama_decode: {code}): {self._why()}",
                    hint="what was finished is on disk: free memory, or use a smaller context, and run it again",
                )

    def _logits(self, index: int) -> Any:
        """The logits of the token at `index` of the last batch, as a view into llama.cpp's memory."""
        import numpy as np  # noqa: PLC0415 - comes with llama-cpp-python

        return np.ctypeslib.as_array(self._api.llama_get_logits_ith(self._context, index), shape=(self._token_count,))

    def _piece(self, token: int) -> bytes:
        import ctypes  # noqa: PLC0415

        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = self._api.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, False)  # noqa: FBT003 - C API
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def _why(self) -> str:
        return self._errors[-1] if self._errors else "it does not say why"


def demand_device(api: Any) -> None:
    """A GPU build that finds no GPU must not compute on the CPU in silence.

    Raises:
        PrerequisiteError: it is one, and there is none.
    """
    libraries = Path(api.__file__).parent / "lib"
    built = [name for name in ("cuda", "hip") if any(libraries.glob(f"libggml-{name}.so*"))]
    if built and not api.llama_supports_gpu_offload():
        raise PrerequisiteError(
            f"this llama.cpp is built for {built[0]}, and finds no such GPU",
            hint="run it on a machine with that GPU, or use the CPU image",
        )


def _common(one: list[int], other: list[int]) -> int:
    length = min(len(one), len(other))
    return next((index for index in range(length) if one[index] != other[index]), length)


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace")
