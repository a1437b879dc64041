"""What is to be scored: JSON Lines, one question or text a line (docs/score.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.evaljobs.suites.fields import SampleId
from gpurig.evaljobs.suites.wording import in_words

_MOST_CHOICES = 1000


class Item(BaseModel):
    """A line: a prompt with choices, or a text.

    Attributes:
        id: unique; the line's number where it is left out.
        prompt: what comes before the choices; may be empty.
        choices: texts that go on from the prompt, as they stand (a space at their beginning included).
        answer: the number of the right one, from 0, or its text; None where there is none.
        text: of which the perplexity is wanted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: SampleId = ""
    prompt: str = ""
    choices: Annotated[tuple[str, ...], Field(max_length=_MOST_CHOICES)] = ()
    answer: int | str | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (not self.choices):
            raise ValueError("needs choices or text, and not both")
        if self.text is not None and (self.prompt or self.answer is not None):
            raise ValueError("a text has neither prompt nor answer")
        if any(not choice for choice in self.choices) or self.text == "":
            raise ValueError("an empty text has no probability")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("choices: two are the same")
        if isinstance(self.answer, str) and self.answer not in self.choices:
            raise ValueError(f"answer: {json.dumps(self.answer, ensure_ascii=False)} is none of the choices")
        if isinstance(self.answer, int) and not 0 <= self.answer < len(self.choices):
            raise ValueError(f"answer: {self.answer} is no number of a choice: from 0 to {len(self.choices) - 1}")
        return self

    @property
    def right(self) -> int | None:
        """The number of the right choice, from 0."""
        return self.choices.index(self.answer) if isinstance(self.answer, str) else self.answer


def read_items(path: Path) -> tuple[Item, ...]:
    """The lines of a file; empty ones are passed over.

    Raises:
        InputError: no such file, no line in it, or a wrong one: file, line and field are named.
        PrerequisiteError: no permission.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="give a JSON Lines file: docs/score.md has its format")
    items = tuple(_items(path))
    if not items:
        raise InputError(f"{path} has no line", hint='write one, for example {"text": "Some text."}')
    return items


def _items(path: Path) -> Iterator[Item]:
    first: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            item = Item.model_validate_json(line, strict=True)
        except ValidationError as error:
            raise InputError(
                f"{path}:{number}: {_told(error, line)}", hint="docs/score.md has the format of a line"
            ) from error
        item = item if item.id else item.model_copy(update={"id": f"line-{number}"})
        if item.id in first:
            raise InputError(
                f'{path}:{number}: id: "{item.id}" is there twice, first in line {first[item.id]}',
                hint="ids must differ; without one it is line-NUMBER",
            )
        first[item.id] = number
        yield item


def _told(error: ValidationError, line: str) -> str:
    entry = error.errors()[0]
    if entry["type"] == "json_invalid" or not isinstance(json.loads(line), dict):
        return "no JSON object"
    where, message = next(iter(in_words(entry, json.loads(line), Item)), (entry["loc"], entry["msg"]))
    field = ".".join(str(part) for part in where if part not in {"int", "str"})
    return f"{field}: {message}" if field else message
