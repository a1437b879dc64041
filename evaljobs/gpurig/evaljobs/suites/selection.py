"""Which part of a suite a run is about: by id, tag, at random, from the front, by generator, and its shard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """One of several equal parts of a selection.

    Attributes:
        index: from 1.
        total: how many there are; each takes every total-th sample.
    """

    index: int
    total: int

    def __str__(self) -> str:
        """As the command line has it."""
        return f"{self.index}/{self.total}"


@dataclass(frozen=True)
class Selection:
    """What to take of a suite; the filters apply in the order of the attributes.

    Attributes:
        only: ids of samples; all where empty.
        tags: a sample must fit one of them (all fit where none asks for a tag), and none with `!` alone may speak
            against it. Each is a tag, `!tag`, or several with commas between them that must all hold.
        sample: so many at random, the same ones on every machine; all where None. More of them hold the fewer.
        seed: which random ones.
        limit: the first so many; all where None.
        generators: by name; all where empty.
        shard: which part of what is left; all of it where None.
    """

    only: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    sample: int | None = None
    seed: int = 1
    limit: int | None = None
    generators: tuple[str, ...] = ()
    shard: Shard | None = None


EVERYTHING = Selection()


def fits(tags: Iterable[str], wanted: Sequence[str]) -> bool:
    """Whether a sample with these tags is taken (`Selection.tags`)."""
    has = set(tags)

    def holds(one: str) -> bool:
        return all((word[1:] not in has) if word.startswith("!") else word in has for word in one.split(","))

    asking = [one for one in wanted if not _excludes(one)]
    return all(holds(one) for one in wanted if _excludes(one)) and (not asking or any(holds(one) for one in asking))


def _excludes(one: str) -> bool:
    return one.startswith("!") and "," not in one


def tag_names(tags: Iterable[str]) -> list[str]:
    """The tags that a selection speaks of."""
    return [word.removeprefix("!") for one in tags for word in one.split(",")]
