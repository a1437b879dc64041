"""Reading an entry of a catalogue: every mistake with the entry and the field it is in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from gpurig.common.errors import InputError

T = TypeVar("T")

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Fields:
    """One table of TOML; what is wrong is collected, so that one look names all of it."""

    def __init__(self, entry: str, table: Mapping[str, Any], problems: list[str]) -> None:
        """Read `table`, the entry called `entry`; mistakes are appended to `problems`."""
        self._entry = entry
        self._table = table
        self._problems = problems
        self._seen: set[str] = set()

    def wrong(self, field: str, why: str) -> None:
        """Note a mistake."""
        self._problems.append(f"{self._entry}: {field}: {why}")

    def text(self, field: str, *, needed: bool = True, pattern: re.Pattern[str] | None = None, like: str = "") -> str:
        """A text; "" where it is absent or wrong."""
        value = self._get(field, needed=needed)
        if value is None:
            return ""
        if not isinstance(value, str) or not value.strip():
            self.wrong(field, "must be a text")
            return ""
        if pattern is not None and not pattern.fullmatch(value):
            self.wrong(field, f"must be {like}, not {value!r}")
            return ""
        return value

    def number(self, field: str, *, least: int, most: int) -> int:
        """A whole number; `least` where it is absent or wrong."""
        value = self._get(field, needed=True)
        if value is None:
            return least
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.wrong(field, f"must be a whole number from {least} to {most}")
            return least
        return value

    def words(self, field: str, allowed: tuple[str, ...] | None = None, *, needed: bool = True) -> tuple[str, ...]:
        """A list of different texts; empty where it is absent or wrong."""
        value = self._get(field, needed=needed)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            self.wrong(field, "must be a list of texts")
            return ()
        if needed and not value:
            self.wrong(field, "must not be empty")
        if len(set(value)) != len(value):
            self.wrong(field, "names one thing twice")
        for word in value:
            if allowed is not None and word not in allowed:
                self.wrong(field, f"{word!r} is none of {', '.join(allowed)}")
        return tuple(value)

    def hashes(self, field: str, count: int) -> tuple[str | None, ...]:
        """A SHA-256 for each of `count` files, as a text or as a list; Nones where it is absent or wrong."""
        values = self._each(field, count)
        if any(value is not None and not (isinstance(value, str) and _SHA256.fullmatch(value)) for value in values):
            self.wrong(field, "must be 64 hexadecimal digits in lower case")
            return (None,) * count
        return values

    def sizes(self, field: str, count: int) -> tuple[int | None, ...]:
        """A size in bytes for each of `count` files; Nones where it is absent or wrong."""
        values = self._each(field, count)
        if any(value is not None and (type(value) is not int or value < 1) for value in values):
            self.wrong(field, "must be a whole number of bytes")
            return (None,) * count
        return values

    def finish(self) -> None:
        """Note fields that nobody reads: a misspelt one would silently mean nothing."""
        for field in self._table:
            if field not in self._seen:
                self.wrong(field, "is no field of an entry")

    def _get(self, field: str, *, needed: bool) -> Any:
        self._seen.add(field)
        value = self._table.get(field)
        if value is None and needed:
            self.wrong(field, "is missing")
        return value

    def _each(self, field: str, count: int) -> tuple[Any, ...]:
        value = self._get(field, needed=False)
        if value is None:
            return (None,) * count
        values = tuple(value) if isinstance(value, list) else (value,)
        if len(values) != count:
            self.wrong(field, f"must have {count} values, one for each file")
            return (None,) * count
        return values


def all_problems(place: str, problems: list[str]) -> None:
    """Raise what was found.

    Raises:
        InputError: something was.
    """
    if problems:
        raise InputError(
            f"the catalogue {place} has {len(problems)} mistake{'s' if len(problems) > 1 else ''}: {problems[0]}",
            hint="docs/models.md describes every field",
            details=problems[1:],
        )
