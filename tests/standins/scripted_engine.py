"""An engine that answers by rule: for tests of what stands around engines."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase

import numpy as np
from gpurig.evaljobs.engine import Completion, Engine, EngineSettings, Request, TextEmbedder
from gpurig.evaljobs.llama_vocabulary import PromptTooLong
from gpurig.evaljobs.models import ModelFile


def by_hash(request: Request) -> Completion:
    """An answer that depends on the prompt alone; a request with choices prefers one of them by the same hash."""
    number = int(hashlib.sha256(request.prompt.encode()).hexdigest(), 16)
    if request.choices:
        favourite = request.choices[number % len(request.choices)]
        scores = {choice: -0.1 if choice == favourite else -3.0 for choice in request.choices}
        return Completion(request.id, favourite, "stop", choices=scores, seconds=0.5)
    return Completion(
        request.id, f"job:\n  script: echo {number % 997}\n", "stop", prompt_tokens=3, completion_tokens=5, seconds=0.5
    )


@dataclass
class ScriptedProvider:
    """Opens engines that answer by `answer`.

    Attributes:
        opened: the names of the models loaded, in order.
        asked: the ids of the requests, in order.
        in_memory: models that are loaded now; the most there ever were is `most`.
    """

    answer: Callable[[Request], Completion] = by_hash
    packages: Mapping[str, str] = field(default_factory=lambda: {"scripted": "1"})
    reverse: bool = False
    opened: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    in_memory: int = 0
    most: int = 0

    @contextlib.contextmanager
    def open(self, model: ModelFile, settings: EngineSettings) -> Iterator[Engine]:
        self.opened.append(model.ref.name)
        self.in_memory += 1
        self.most = max(self.most, self.in_memory)
        try:
            yield _Scripted(self)
        finally:
            self.in_memory -= 1

    @contextlib.contextmanager
    def open_embedder(self, model: ModelFile, settings: EngineSettings) -> Iterator[TextEmbedder]:
        with self.open(model, settings):
            yield _Embedder(self)


@dataclass(frozen=True)
class LetterVector:
    """How often a text has each letter, as a vector of length 1."""

    vector: np.ndarray


@dataclass
class _Embedder:
    provider: ScriptedProvider

    def embed(self, texts: Sequence[str]) -> list[LetterVector]:
        if any(len(text) > 2000 for text in texts):
            raise PromptTooLong("a text has more than 2000 letters")
        self.provider.asked += texts
        counts = [np.array([text.lower().count(letter) for letter in ascii_lowercase], np.float32) for text in texts]
        return [LetterVector(count / max(1e-9, float(np.linalg.norm(count)))) for count in counts]


@dataclass
class _Scripted:
    provider: ScriptedProvider

    def run(self, requests: Iterable[Request], *, exact: bool = False) -> Iterator[Completion]:
        waiting = list(requests)
        for request in reversed(waiting) if self.provider.reverse else waiting:
            self.provider.asked.append(request.id)
            yield self.provider.answer(request)
