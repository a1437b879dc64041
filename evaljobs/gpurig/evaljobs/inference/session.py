"""Requests that come and go while others are answered: the engine's loop, one step at a time."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gpurig.evaljobs.inference.context import Context
from gpurig.evaljobs.inference.prefixes import Prefixes
from gpurig.evaljobs.inference.scheduler import Scheduler
from gpurig.evaljobs.inference.tasks import Task
from gpurig.evaljobs.inference.works import Copy, Prefix, Row
from gpurig.evaljobs.llama_vocabulary import ModelFault, RequestFault

T = TypeVar("T")


@dataclass(frozen=True)
class Ended(Generic[T]):
    """A request that is done.

    Attributes:
        spoilt: the model computed no numbers for it; another request's may have spoilt them.
    """

    task: Task[T]
    result: T
    spoilt: bool = False


class Session(Generic[T]):
    """The requests of one context.

    Not safe for several threads: one thread adds, cancels and steps.

    Attributes:
        sequences: how many requests are answered at the same time.
    """

    def __init__(
        self,
        context: Context,
        *,
        sequences: int,
        batch: int,
        share: bool,
        cut: bool,
        whole: bool = False,
        prefixes: Prefixes | None = None,
    ) -> None:
        """Begin with no request.

        Args:
            context: with that many sequences; the caller closes it.
            sequences: how many requests are answered at the same time.
            batch: tokens that are computed together, at most.
            share: compute once what prompts have in common.
            cut: the model's memory can be cut.
            whole: but what was loaded cannot.
            prefixes: beginnings that are loaded instead of computed; None: there are none.
        """
        self._context, self.sequences, self._prefixes = context, sequences, prefixes
        self._empty = functools.partial(
            Scheduler, sequences=sequences, cells=context.cells, batch=batch, share=share, cut=cut, whole=whole
        )
        self._scheduler = self._empty()
        self._know(prefixes.known if prefixes is not None else ())
        self._expected: set[str] = set()
        self._tasks: dict[str, Task[T]] = {}

    def __len__(self) -> int:
        """Requests that are not answered yet."""
        return len(self._tasks)

    def expect(self, tasks: Iterable[Task[T]]) -> None:
        """Say which requests will be added, so that what they share is known before the first is answered."""
        if self._prefixes is not None:
            works = [task.work for task in tasks]
            self._expected |= {work.id for work in works}
            self._know(self._prefixes.expect(works))

    def _know(self, prefixes: Iterable[Prefix]) -> None:
        for prefix in prefixes:
            self._scheduler.know(prefix)

    def add(self, task: Task[T]) -> None:
        """Let a request wait for its turn.

        Raises:
            ValueError: it needs more cells than a sequence has, or its id is not unique.
        """
        self._scheduler.add(task.work)
        if self._prefixes is not None and task.work.id not in self._expected:
            for prefix in self._prefixes.notice(task.work):
                self._scheduler.know(prefix, fresh=True)
        self._tasks[task.work.id] = task

    def cancel(self, request: str) -> None:
        """Forget a request; nothing where there is none of that id."""
        if (task := self._tasks.pop(request, None)) is not None:
            self._scheduler.close(request)
            task.close()

    def close(self) -> None:
        """Forget all of them."""
        for request in tuple(self._tasks):
            self.cancel(request)

    def step(self) -> list[Ended[T]]:
        """Compute once; the requests that are done by that. Nothing where there is no request.

        A request whose model computes no numbers fails, and those that are under way begin anew.

        Raises:
            PrerequisiteError: llama.cpp failed to compute; no request can be answered any more.
        """
        step = self._scheduler.next_step()
        if step is None:
            if self._tasks:
                raise AssertionError("requests wait, and nothing is to be computed")
            return []
        started = time.monotonic()
        for change in step.copies:
            if isinstance(change, Copy):
                self._context.copy(change)
            elif self._prefixes is not None:
                self._prefixes.fill(change)
        logits = self._context.compute(step)
        self._charge(step.rows, time.monotonic() - started)
        done: list[Ended[T]] = []
        place = 0
        for row in step.rows:
            if row.scored:
                ended = self._go_on(row, logits[place : place + row.scored])
                place += row.scored
                if ended is not None:
                    self.cancel(row.work)
                    done.append(ended)
        if any(ended.spoilt for ended in done):
            self._start_over()
        return done

    def _start_over(self) -> None:
        """What is in the cells is spoilt, and may have been copied already: the others are computed anew."""
        self._context.clear()
        self._scheduler = self._empty()
        self._know(self._prefixes.known if self._prefixes is not None else ())
        for task in self._tasks.values():
            task.restart()
            self._scheduler.add(task.work)

    def _charge(self, rows: Sequence[Row], seconds: float) -> None:
        for row in rows:
            self._tasks[row.work].seconds += seconds / len(rows)

    def _go_on(self, row: Row, logits: Any) -> Ended[T] | None:
        """Give a request its logits; what it came to where that was all it wanted."""
        task = self._tasks[row.work]
        token = None
        try:
            if row.kind == "branch":
                task.scored(row.branch, logits)
            elif row.kind == "prompt":
                token = task.prompted(row.start + len(row.tokens) - row.scored, logits)
            else:
                token = task.written(logits[0])
        except RequestFault as fault:
            return Ended(task, task.failed(fault), isinstance(fault, ModelFault))
        if token is not None:
            self._scheduler.write(row.work, token)
        return Ended(task, task.result(self.sequences)) if task.done else None
