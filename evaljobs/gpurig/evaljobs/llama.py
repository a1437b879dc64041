"""llama.cpp in this process, one request at a time: the same bytes on every run and for every order of requests.

Over llama-cpp-python's low-level API: the cache is emptied before every request, prompts are decoded in batches of a
fixed size, and thus nothing of one request can reach another.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpurig.common.errors import PrerequisiteError
from gpurig.evaljobs.engine import Completion, Engine, EngineSettings, Request
from gpurig.evaljobs.llama_log import last_errors
from gpurig.evaljobs.llama_model import load_model, release
from gpurig.evaljobs.llama_probe import demand_loadable
from gpurig.evaljobs.llama_sampling import Chain
from gpurig.evaljobs.llama_vocabulary import RequestFault, Vocabulary
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
        self._vocabulary = Vocabulary(api, self._model)

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
            prompt = self._vocabulary.prompt(request.prompt, self._limit)
            text, count, finish = self._generate(request, prompt)
            choices = self._score(request.prompt, prompt, request.choices)
        except RequestFault as fault:
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

    def _generate(self, request: Request, prompt: list[int]) -> tuple[str, int, bool]:
        """The answer's text, its tokens, and whether it ended by itself."""
        vocabulary = self._vocabulary
        self._forget(0)
        self._decode(prompt, 0, scored=len(prompt) - 1)
        stops = tuple(stop.encode() for stop in request.stop)
        output = b""
        room = min(request.sampling.max_tokens, self._limit - len(prompt))
        with Chain(self._api, vocabulary.llama, request.sampling, request.grammar) as chain:
            if not chain.valid:
                raise RequestFault("the grammar is no valid GBNF")
            for count in range(room):
                token = chain.pick(self._logits(-1))
                if token is None:
                    if not count:
                        raise RequestFault("the model computed no usable probabilities, or the grammar allows nothing")
                    return _text(output), count, True
                if vocabulary.ends(token):
                    return _text(output), count, True
                output += vocabulary.piece(token)
                found = [position for stop in stops if (position := output.find(stop)) >= 0]
                if found:
                    return _text(output[: min(found)]), count + 1, True
                if count + 1 < room:
                    self._decode([token], len(prompt) + count, scored=0)
        return _text(output), room, False

    def _score(self, text: str, prompt: list[int], choices: tuple[str, ...]) -> dict[str, float]:
        """The log-probability of every choice after the prompt."""
        if not choices:
            return {}
        found = self._vocabulary.continuations(text, prompt, choices, self._limit)
        answer = {}
        for choice, tokens in found.tokens.items():
            # The token before the first scored one is decoded again: its logits are the first that are needed.
            self._rewind(tokens, found.shared - 1)
            answer[choice] = self._log_probability(
                tokens[found.shared - 1 : -1], found.shared - 1, tokens[found.shared :]
            )
        return answer

    def _log_probability(self, tokens: Sequence[int], position: int, scored: Sequence[int]) -> float:
        import numpy as np  # noqa: PLC0415 - comes with llama-cpp-python

        total = 0.0
        for start in range(0, len(tokens), self._batch_size):
            part = tokens[start : start + self._batch_size]
            self._decode(part, position + start, scored=None)
            for index in range(len(part)):
                logits = self._logits(index).astype(np.float64)
                top = logits.max()
                if not math.isfinite(top):
                    raise RequestFault("the model computed no usable probabilities")
                total += float(logits[scored[start + index]] - top - np.log(np.exp(logits - top).sum()))
        return total

    def _rewind(self, tokens: Sequence[int], position: int) -> None:
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

    def _decode(self, tokens: Sequence[int], position: int, *, scored: int | None) -> None:
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

        return np.ctypeslib.as_array(
            self._api.llama_get_logits_ith(self._context, index), shape=(self._vocabulary.size,)
        )

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


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace")
