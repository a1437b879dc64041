"""What the parameters of checks have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema

from gpurig.evaljobs.checks.subject import Extract

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


def listed(value: object) -> object:
    """One text as a list of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


_TEXT: dict[str, JsonValue] = {"type": "string", "minLength": 1}
Texts = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    BeforeValidator(listed),
    Field(min_length=1, max_length=1000),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "minItems": 1, "maxItems": 1000, "items": _TEXT}]}),
]


class Parameters(BaseModel):
    """What every check's parameters share.

    Attributes:
        weight: how much its score counts among those of the sample's checks.
        extract: which part of the answer is meant.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(default=1.0, ge=0.0, le=1e6, allow_inf_nan=False)
    extract: Extract = "whole"

    def files(self) -> tuple[str, ...]:
        """What it reads beside the suite: files and folders, relative to the suite's; part of the record's key."""
        return ()

    def problem(self, folder: Path) -> str:  # noqa: ARG002 - for those that have something to say
        """What is wrong with it in a suite of this folder, in one line; "" where nothing is."""
        return ""


class Scored(Parameters):
    """Parameters of a check that scores.

    Attributes:
        threshold: the score from which an answer passes; without one the check measures, and nothing fails it.
    """

    threshold: Share | None = None
