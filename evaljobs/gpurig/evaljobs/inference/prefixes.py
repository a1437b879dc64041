"""Beginnings of prompts that are kept between runs: how a sequence comes to hold one.

A kept beginning is always computed alone, from its first token, in pieces of the same size; then nothing depends on
whether a run finds it or computes it, and a run with the folder as it was answers the same bytes.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence

from gpurig.evaljobs.inference.context import Context
from gpurig.evaljobs.inference.prefix_store import PrefixStore
from gpurig.evaljobs.inference.prefix_tree import common, worth_keeping
from gpurig.evaljobs.inference.works import Copy, Load, Prefix, Row, Step, Work

# Prompts that a later one is held against.
_RECENT = 64


class Prefixes:
    """The beginnings that one context loads instead of computing them.

    Attributes:
        known: those that may be loaded, in the order in which they became known.
        loaded, computed: how many tokens were in the states that were found, and in those that were not.
    """

    def __init__(self, context: Context, store: PrefixStore, *, batch: int, cut: bool) -> None:
        """Begin with what is stored.

        Args:
            context: whose sequences are filled.
            store: of the context's model.
            batch: tokens that are computed together, at most.
            cut: what was loaded can be cut, so that one may grow out of another.
        """
        self._context, self._store, self._batch, self._cut = context, store, batch, cut
        self.known = dict.fromkeys(store.stored())
        self._recent: list[Prefix] = []
        self._order: list[Prefix] = []
        # The one that was used last, because works come in the order of their tokens.
        self._last: tuple[Prefix, bytes | memoryview] | None = None
        self.loaded = self.computed = 0

    def expect(self, works: Iterable[Work]) -> list[Prefix]:
        """Works that come together: what is known by that and was not before."""
        return self._learn([Prefix(work.group, work.prompt) for work in works])

    def notice(self, work: Work) -> list[Prefix]:
        """A work that comes alone: what is known by that and was not before."""
        prompt = Prefix(work.group, work.prompt)
        place = bisect.bisect_left(self._recent, prompt)
        neighbours = self._recent[max(place - 1, 0) : place + 1]
        self._recent.insert(place, prompt)
        self._order.append(prompt)
        if len(self._order) > _RECENT:
            self._recent.remove(self._order.pop(0))
        # Mostly there is nothing new, which two prompts tell.
        return self._learn(self._recent) if any(worth_keeping([prompt, one], self.known) for one in neighbours) else []

    def _learn(self, prompts: Sequence[Prefix]) -> list[Prefix]:
        if self._store.full:
            return []
        found = worth_keeping(prompts, self.known)
        self.known |= dict.fromkeys(found)
        return found

    def fill(self, load: Load) -> None:
        """Let a sequence hold a prefix and nothing else.

        Raises:
            PrerequisiteError: llama.cpp failed to compute.
        """
        prefix, tokens = load.prefix, len(load.prefix.tokens)
        state = self._read(prefix)
        if state is not None and self._context.restore(load.target, state, tokens):
            self.loaded += tokens
        else:
            state = self._compute(load)
            self.computed += tokens
        self._last = None if state is None else (prefix, state)

    def _read(self, prefix: Prefix) -> bytes | memoryview | None:
        return self._last[1] if self._last is not None and self._last[0] == prefix else self._store.read(prefix)

    def _compute(self, load: Load) -> bytes | None:
        """Compute a prefix into a sequence, and keep it; None where the model computes no numbers."""
        prefix, target = load.prefix, load.target
        start = self._begun(load)
        if not start:
            self._context.copy(Copy(target, target, 0))
        last = None
        for place in range(start, len(prefix.tokens), self._batch):
            tokens = prefix.tokens[place : place + self._batch]
            row = Row(
                work="",
                sequence=target,
                start=place,
                tokens=tokens,
                padding=0,
                kind="prompt",
                scored=1,
                keep=place + len(tokens),
            )
            last = self._context.compute(Step((), (row,), prefix.group))
        if last is None or not self._context.finite(last):
            return None
        state = self._context.state(target)
        self._store.write(prefix, state)
        return state

    def _begun(self, load: Load) -> int:
        """How many of a prefix's tokens the sequence has from another one: whole pieces, which would be the same."""
        if not self._cut:
            return 0
        whole, best = 0, None
        for one in self.known:
            if one != load.prefix and one.group == load.prefix.group:
                pieces = common(one.tokens, load.prefix.tokens) // self._batch * self._batch
                if pieces > whole:
                    whole, best = pieces, one
        state = None if best is None else self._read(best)
        if best is None or state is None or not self._context.restore(load.target, state, len(best.tokens)):
            return 0
        self._context.copy(Copy(load.target, load.target, whole))
        return whole

    def told(self) -> Iterator[str]:
        """What a person may want to know of it."""
        if self.loaded or self.computed:
            yield f"prompts' beginnings: {self.loaded} tokens loaded, {self.computed} computed"
