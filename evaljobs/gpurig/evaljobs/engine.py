"""The seam between the stages and what runs a model.

A stage hands an engine all its requests at once and takes completions as they come, in any order; so a batched
engine takes the place of one that answers one by one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from gpurig.common.errors import InputError
from gpurig.evaljobs.memory import CACHE_TYPES
from gpurig.evaljobs.models import ModelFile
from gpurig.evaljobs.records import AdapterRef, Sampling

DEFAULT_CONTEXT = 4096
_F32 = 0  # ggml_type

# Why there is no answer: the request asks for what cannot be, its prompt is too long for the context, or the model
# computes no numbers.
Fault = Literal["", "request", "too-long", "model"]

_REQUESTS_A_PROBE, _WORTH_A_PROBE, _MOST_PROBES = 50, 8, 4

# Below this size threads wait for each other longer than they compute; on a busy machine 3 MB took 40 times as long
# with two threads as with one.
_WORTH_THREADS_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Shaping:
    """What a request may want beside its sampling.

    Attributes:
        bias: added to tokens' logits, by the token's number.
        frequency_penalty: taken from a token's logit for every time that it was written.
        presence_penalty: taken from a token's logit where it was written at all.
        alternatives: the log-probability of every written token is kept, and of so many of the likeliest in its place;
            None keeps none.
    """

    bias: Mapping[int, float] = field(default_factory=dict)
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    alternatives: int | None = None


@dataclass(frozen=True)
class Request:
    """One prompt and what to do with it.

    Attributes:
        id: comes back in the completion.
        prompt: the text as the model gets it, special tokens written out; the engine adds the model's BOS where the
            text does not begin with it.
        tokens: the prompt instead of a text, as it is; then there are no choices.
        stop: texts that end the answer.
        grammar: GBNF with the rule `root`; the answer follows it. Empty: no constraint.
        choices: continuations of the prompt whose log-probabilities are wanted.
        shaping: what else changes the choice of tokens, and what is told of it.
        adapters: what the model answers with; of those that were loaded with it.
    """

    id: str
    prompt: str
    sampling: Sampling
    stop: tuple[str, ...] = ()
    grammar: str = ""
    choices: tuple[str, ...] = ()
    shaping: Shaping = Shaping()
    adapters: tuple[AdapterRef, ...] = ()
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """The answer to one request.

    Attributes:
        text: without the stop text that ended it.
        finish: "stop", "length" (`max_tokens`, or the context is full), "error".
        error: why there is no answer; the same request fails again in the same way.
        fault: whose fault that is; "" where there is an answer.
        seconds: its share of the time that was spent on computing.
        choices: log-probability (natural) of every one of the request's choices as the prompt's continuation.
        parallel: how many requests were answered at the same time, at most.
        exact: whether the same request alone has the same text; None where that was not tried.
    """

    id: str
    text: str
    finish: Literal["stop", "length", "error"]
    error: str = ""
    fault: Fault = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    choices: Mapping[str, float] = field(default_factory=dict)
    parallel: int = 1
    exact: bool | None = None


class Engine(Protocol):
    """A model in memory."""

    def run(self, requests: Iterable[Request], *, exact: bool = False) -> Iterator[Completion]:
        """Answer every request once.

        A request that cannot be answered is a completion with an error; the others go on.

        Args:
            requests: what is asked.
            exact: one after the other, so that an answer depends on its request alone.

        Raises:
            PrerequisiteError: the engine itself failed (memory, device); what was not answered was not.
        """
        ...


@dataclass(frozen=True)
class PrefixSettings:
    """Where the states of prompts' beginnings are kept between runs.

    Attributes:
        folder: made where it is missing.
        limit_bytes: of all states in it, of whatever model; the least recently used ones go.
        say: is told, a line each, what a person should know.
    """

    folder: Path
    limit_bytes: int
    say: Callable[[str], None]


@dataclass(frozen=True)
class EngineSettings:
    """How to load a model.

    Attributes:
        context: tokens of prompt and answer together.
        threads: CPU threads.
        parallel: requests that are answered at the same time, at most; as many as pay where None.
        exact: one request after the other, so that an answer depends on its request alone, to the byte.
        cache: how keys and values are kept ("f16", "f32", a key of `memory.CACHE_TYPES`): f16 rounds log-probabilities
            by some thousandths.
        prefixes: where beginnings that prompts share are kept between runs; nowhere where None, and not where it is
            exact.
    """

    context: int
    threads: int
    parallel: int | None = None
    exact: bool = False
    cache: str = "f16"
    prefixes: PrefixSettings | None = None


class TextEmbedder(Protocol):
    """An embedding model in memory."""

    def embed(self, texts: Sequence[str]) -> Sequence[TextVector]:
        """The texts' vectors, in their order.

        Raises:
            RequestFault: one of the texts has none.
            PrerequisiteError: the engine itself failed.
        """
        ...


class TextVector(Protocol):
    """A text's vector.

    Attributes:
        vector: float32 of shape (width of the model,), of length 1.
    """

    @property
    def vector(self) -> Any:
        """The vector."""
        ...


class EngineProvider(Protocol):
    """Loads models."""

    @property
    def packages(self) -> Mapping[str, str]:
        """Versions that an answer depends on, by package name; known without loading anything."""
        ...

    def open(self, model: ModelFile, settings: EngineSettings) -> AbstractContextManager[Engine]:
        """Load a model and its adapters; leaving the context frees their memory.

        Raises:
            InputError: the file cannot be loaded. PrerequisiteError: not enough memory, no device.
        """
        ...

    def open_embedder(self, model: ModelFile, settings: EngineSettings) -> AbstractContextManager[TextEmbedder]:
        """Load an embedding model; leaving the context frees its memory.

        Raises:
            InputError: the file cannot be loaded. PrerequisiteError: not enough memory, no device.
        """
        ...


def answered_with_probe(engine: Engine, requests: Sequence[Request]) -> Iterator[Completion]:
    """Answer every request, and a few of them once more alone: what is computed together is rounded differently.

    One in 50 requests is tried so, four at most, none of a handful.

    Raises:
        PrerequisiteError: the engine failed.
    """
    tried = min(_MOST_PROBES, -(-len(requests) // _REQUESTS_A_PROBE)) if len(requests) >= _WORTH_A_PROBE else 0
    probes = {one.id: one for one in (requests[number * len(requests) // tried] for number in range(tried))}
    held: dict[str, Completion] = {}
    for completion in engine.run(requests):
        if completion.id in probes and completion.parallel > 1 and completion.finish != "error":
            held[completion.id] = completion
        else:
            yield completion
    for alone in engine.run([probes[name] for name in held], exact=True):
        together = held[alone.id]
        yield replace(together, exact=(together.text, together.finish) == (alone.text, alone.finish))


def context_size(model: ModelFile, wanted: int | None) -> int:
    """The suite's wish, or what the model was trained for up to `DEFAULT_CONTEXT`."""
    if wanted is not None:
        return wanted
    trained = model.gguf.of_architecture("context_length")
    return min(trained, DEFAULT_CONTEXT) if isinstance(trained, int) and trained > 0 else DEFAULT_CONTEXT


def demand_positions(model: ModelFile, context: int) -> None:
    """Refuse a context that the model has no positions for.

    Most models compute a position (RoPE, ALiBi) and go on beyond what they were trained for, the worse the further.
    GPT-2 and its kin look it up in a table, and llama.cpp ends the process where that ends (ggml_get_rows).

    Raises:
        InputError: the model has a table, which is shorter.
    """
    table = next((tensor for tensor in model.gguf.tensors if tensor.name == "position_embd.weight"), None)
    if table is not None and context > table.shape[-1]:
        raise InputError(
            f"{model.path.name} has {table.shape[-1]} positions and no more, and the context shall be {context}",
            hint="a smaller context (--context, `context` in a suite), or none",
        )


def beyond_training(model: ModelFile, context: int) -> str:
    """A warning where a context is longer than what the model was trained for; "" where it is not."""
    trained = model.gguf.of_architecture("context_length")
    if not isinstance(trained, int) or context <= trained:
        return ""
    return f"a context of {context}, and {model.path.name} was trained for {trained}: what it writes beyond may be poor"


def cache_type(model: ModelFile, wanted: str) -> str:
    """How log-likelihoods' keys and values are kept: the user's wish, and by "auto" f32 for a model in F32, else f16.

    Raises:
        InputError: there is no such type.
    """
    if wanted == "auto":
        return "f32" if all(tensor.kind == _F32 for tensor in model.gguf.tensors) else "f16"
    if wanted not in CACHE_TYPES:
        raise InputError(f'"{wanted}" is no type of KV cache', hint=f"auto, or one of {', '.join(CACHE_TYPES)}")
    return wanted


def thread_count(model: ModelFile, wanted: int | None) -> int:
    """The user's wish, or every CPU this process may use; one for a model too small to gain by more."""
    return threads_for(model.ref.size_bytes, wanted)


def threads_for(size_bytes: int, wanted: int | None) -> int:
    """The same for a model file of that size."""
    if wanted is not None:
        return wanted
    return 1 if size_bytes < _WORTH_THREADS_BYTES else len(os.sched_getaffinity(0))
