"""How often every sample is asked, and what its answers come to."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from gpurig.evaljobs.statistics.reducers import Reducer, parse_reducer
from gpurig.evaljobs.suites.fields import Strict


def _reducer(text: str) -> str:
    parse_reducer(text)
    return text


class EpochsSpec(Strict):
    """How often every sample is asked, and what the answers come to.

    Attributes:
        reduce: "mean", "pass@K", "pass^K" or "at-least-K" (`statistics.reducers`).
    """

    n: int = Field(default=1, ge=1, le=1000)
    reduce: Annotated[str, AfterValidator(_reducer)] = "mean"

    @property
    def reducer(self) -> Reducer:
        """What makes one value of a sample's epochs."""
        return parse_reducer(self.reduce)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.reducer.k > self.n:
            raise ValueError(f'reduce: "{self.reduce}" needs at least {self.reducer.k} epochs, and n is {self.n}')
        return self


def _epochs(value: object) -> object:
    """`epochs: 5` is short for `epochs: {n: 5}`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"n": value}
    if isinstance(value, dict):
        return value
    raise ValueError("must be a whole number, or a mapping such as {n: 5, reduce: mean}")


ONE_EPOCH = EpochsSpec()
_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1000}, {"defined": "EpochsSpec"}]}
Epochs = Annotated[EpochsSpec, BeforeValidator(_epochs), WithJsonSchema(_SCHEMA)]
