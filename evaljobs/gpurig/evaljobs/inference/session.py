"""Requests that come and go while others are answered: the engine's loop, one step at a time."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gpurig.evaljobs.engine import Completion
from gpurig.evaljobs.inference.answers import Answer
from gpurig.evaljobs.inference.context import Context
from gpurig.evaljobs.inference.scheduler import Scheduler
from gpurig.evaljobs.inference.works import Row
from gpurig.evaljobs.llama_vocabulary import RequestFault


class Session:
    """The requests of one context.

    Not safe for several threads: one thread adds, cancels and steps.

    Attributes:
        sequences: how many requests are answered at the same time.
    """

    def __init__(self, context: Context, *, sequences: int, batch: int, share: bool, cut: bool) -> None:
        """Begin with no request.

        Args:
            context: with that many sequences; the caller closes it.
            sequences: how many requests are answered at the same time.
            batch: tokens that are computed together, at most.
            share: compute once what prompts have in common.
            cut: the model's memory can be cut.
        """
        self._context, self.sequences = context, sequences
        self._empty = functools.partial(
            Scheduler, sequences=sequences, cells=context.cells, batch=batch, share=share, cut=cut
        )
        self._scheduler = self._empty()
        self._answers: dict[str, Answer] = {}

    def __len__(self) -> int:
        """Requests that are not answered yet."""
        return len(self._answers)

    def add(self, answer: Answer) -> None:
        """Let a request wait for its turn.

        Raises:
            ValueError: it needs more cells than a sequence has, or its id is not unique.
        """
        self._scheduler.add(answer.work)
        self._answers[answer.work.id] = answer

    def cancel(self, request: str) -> None:
        """Forget a request; nothing where there is none of that id."""
        if (answer := self._answers.pop(request, None)) is not None:
            self._scheduler.close(request)
            answer.close()

    def close(self) -> None:
        """Forget all of them."""
        for request in tuple(self._answers):
            self.cancel(request)

    def step(self) -> list[Completion]:
        """Compute once; the requests that are answered by that. Nothing where there is no request.

        A request whose model computes no numbers fails, and those that are under way begin anew.

        Raises:
            PrerequisiteError: llama.cpp failed to compute; no request can be answered any more.
        """
        step = self._scheduler.next_step()
        if step is None:
            if self._answers:
                raise AssertionError("requests wait, and nothing is to be computed")
            return []
        started = time.monotonic()
        logits = self._context.compute(step)
        self._charge(step.rows, time.monotonic() - started)
        done: list[Completion] = []
        place = 0
        for row in step.rows:
            if row.scored:
                completion = self._go_on(row, logits[place : place + row.scored])
                place += row.scored
                if completion is not None:
                    self.cancel(row.work)
                    done.append(replace(completion, parallel=self.sequences))
        if any(completion.fault == "model" for completion in done):
            self._start_over()
        return done

    def _start_over(self) -> None:
        """What is in the cells is spoilt, and may have been copied already: the others are computed anew."""
        self._context.clear()
        self._scheduler = self._empty()
        for answer in self._answers.values():
            answer.restart()
            self._scheduler.add(answer.work)

    def _charge(self, rows: Sequence[Row], seconds: float) -> None:
        for row in rows:
            self._answers[row.work].seconds += seconds / len(rows)

    def _go_on(self, row: Row, logits: Any) -> Completion | None:
        """Give a request its logits; the completion where that was all it wanted."""
        answer = self._answers[row.work]
        try:
            if row.kind == "branch":
                answer.scored(row.branch, logits)
            else:
                token = (answer.prompted if row.kind == "prompt" else answer.written)(logits[0])
                if token is not None:
                    self._scheduler.write(row.work, token)
        except RequestFault as fault:
            return answer.failed(fault)
        return answer.completion() if answer.done else None
