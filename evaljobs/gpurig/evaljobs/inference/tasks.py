"""What a session works on: something that gets logits and says what comes next, until it is done."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from gpurig.evaljobs.inference.works import Work
from gpurig.evaljobs.llama_vocabulary import RequestFault

T_co = TypeVar("T_co", covariant=True)


class Task(Protocol[T_co]):
    """One request on its way to its result.

    Attributes:
        work: the request as the scheduler sees it.
        seconds: its share of the time that was spent on computing so far.
    """

    seconds: float

    @property
    def work(self) -> Work:
        """The request as the scheduler sees it."""
        ...

    @property
    def done(self) -> bool:
        """Everything that was asked for is known."""
        ...

    def prompted(self, start: int, logits: Any) -> int | None:
        """Logits of the prompt's tokens from number `start` on; the first token to feed, or None where none is.

        They come in pieces where the work wants more than one token's.

        Raises:
            RequestFault: the request cannot be answered. ModelFault: no usable probabilities.
        """
        ...

    def written(self, logits: Any) -> int | None:
        """The logits after the last token that was written, of shape (vocabulary,); the next one, or None.

        Raises:
            RequestFault: the request cannot be answered. ModelFault: no usable probabilities.
        """
        ...

    def scored(self, branch: int, logits: Any) -> None:
        """The logits of a branch's tokens, of shape (tokens, vocabulary).

        Raises:
            ModelFault: no usable probabilities.
        """
        ...

    def restart(self) -> None:
        """Forget what was computed: it is to be computed anew."""
        ...

    def close(self) -> None:
        """Free what llama.cpp holds for it; a second call does nothing."""
        ...

    def result(self, parallel: int) -> T_co:
        """What it came to, computed beside at most so many others."""
        ...

    def failed(self, fault: RequestFault) -> T_co:
        """What it came to where it cannot be answered."""
        ...
