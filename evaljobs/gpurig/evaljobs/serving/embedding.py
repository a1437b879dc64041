"""The thread that owns an embedding model."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gpurig.common.errors import ApplianceError
from gpurig.evaljobs.engine import EngineSettings
from gpurig.evaljobs.inference.embedding import Embedder, Embedding
from gpurig.evaljobs.llama_vocabulary import PromptTooLong, RequestFault
from gpurig.evaljobs.models import ModelFile
from gpurig.evaljobs.serving.bodies import EmbeddingBody
from gpurig.evaljobs.serving.faults import ApiFault

_MOST_TEXTS = 2048
# The texts of one client that are computed before others have their turn.
_TURN = 16


class EmbeddingWorker:
    """Loads a model and embeds texts until it is stopped.

    Attributes:
        failure: why it cannot any more; None while it can.
        pending: requests that are not answered yet; for one event loop.
    """

    def __init__(
        self, model: ModelFile, settings: EngineSettings, *, waiting: int, on_failure: Callable[[], None]
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            model: what embeds.
            settings: how it is loaded.
            waiting: requests that are not answered yet, at most.
            on_failure: called once it cannot any more.
        """
        self._model, self._settings, self._on_failure, self._waiting = model, settings, on_failure, waiting
        self._thread = ThreadPoolExecutor(1, "embedding")
        self._embedder: Embedder | None = None
        self.failure: ApplianceError | None = None
        self.pending = 0

    def start(self) -> int:
        """Load the model; how many texts are computed at the same time.

        Raises:
            InputError: llama.cpp refuses the file. PrerequisiteError: no memory, or a GPU build without a GPU.
        """
        self._embedder = self._thread.submit(Embedder, self._model, self._settings).result()
        return _TURN

    def stop(self) -> None:
        """Forget everything and free the model's memory."""
        if self._embedder is not None:
            self._thread.submit(self._embedder.close)
        self._thread.shutdown()

    async def answer(self, body: EmbeddingBody) -> dict[str, Any]:
        """The body of an answer.

        Raises:
            ApiFault: it cannot be answered.
        """
        texts = _texts(body)
        if self._embedder is not None and body.dimensions not in (None, self._embedder.width):
            message = f"This model's vectors have {self._embedder.width} dimensions, and cannot be shortened."
            raise ApiFault(400, message, param="dimensions", code="invalid_value")
        if self.pending >= self._waiting:
            message = f"{self.pending} requests wait already."
            raise ApiFault(429, message, code="rate_limit_exceeded", headers={"Retry-After": "1"})
        self.pending += 1
        try:
            found: list[Embedding] = []
            for start in range(0, len(texts), _TURN):
                found += await self._embedded(texts[start : start + _TURN])
        except RequestFault as fault:
            code = "context_length_exceeded" if isinstance(fault, PromptTooLong) else "invalid_value"
            raise ApiFault(400, f"{fault}.", param="input", code=code) from None
        except ApplianceError as error:
            self.failure = error
            self._on_failure()
            raise ApiFault(503, "The engine failed; this server ends.", code="engine_failed") from error
        finally:
            self.pending -= 1
        used = sum(one.tokens for one in found)
        return {
            "object": "list",
            "model": body.model,
            "data": [
                {"object": "embedding", "index": number, "embedding": _written(one, body.encoding_format)}
                for number, one in enumerate(found)
            ],
            "usage": {"prompt_tokens": used, "total_tokens": used},
        }

    async def _embedded(self, texts: Sequence[str]) -> list[Embedding]:
        if self._embedder is None:
            raise AssertionError("it is started first")
        return await asyncio.wrap_future(self._thread.submit(self._embedder.embed, texts))


def _texts(body: EmbeddingBody) -> list[str]:
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = [one for one in given if isinstance(one, str)]
    if len(texts) < len(given):
        message = "input must be text or a list of texts: numbers of tokens are not supported."
        raise ApiFault(400, message, param="input", code="unsupported_value")
    if not 1 <= len(texts) <= _MOST_TEXTS:
        raise ApiFault(400, f"input must hold 1 to {_MOST_TEXTS} texts.", param="input", code="invalid_value")
    return texts


def _written(one: Embedding, form: str | None) -> Any:
    if form == "base64":
        return base64.b64encode(one.vector.astype("<f4").tobytes()).decode()
    return one.vector.tolist()
