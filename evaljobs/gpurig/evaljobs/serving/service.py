"""Calls on their way: how many there are, and that each is forgotten when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gpurig.common.errors import ApplianceError
from gpurig.evaljobs.engine import Completion
from gpurig.evaljobs.serving.asking import Asked, Limits
from gpurig.evaljobs.serving.faults import ApiFault
from gpurig.evaljobs.serving.worker import Call, Progress, Worker


class Service:
    """Hands calls to the worker; belongs to one event loop.

    Attributes:
        limits: what clients may ask for.
        pending: requests that are not answered yet.
    """

    def __init__(self, worker: Worker, limits: Limits) -> None:
        """Take a worker that is ready."""
        self._worker, self.limits = worker, limits
        self.pending = 0

    @property
    def failure(self) -> ApplianceError | None:
        """Why the engine cannot answer any more; None while it can."""
        return self._worker.failure

    def call(self, asked: Asked, *, stream: bool) -> LiveCall:
        """Begin to answer.

        Raises:
            ApiFault: too many wait already.
        """
        if self.pending + len(asked.requests) > self.limits.waiting:
            message = f"{self.pending} requests wait already, and this server lets {self.limits.waiting} wait."
            raise ApiFault(429, message, code="rate_limit_exceeded", headers={"Retry-After": "1"})
        call = Call(asked.requests, stream, asyncio.get_running_loop(), asyncio.Queue())
        self._worker.submit(call)
        return LiveCall(self, call)

    def forget(self, requests: list[str]) -> None:
        """Let the worker forget requests."""
        self._worker.cancel(requests)


class LiveCall:
    """One call's answers as they come; closing it forgets those that are not finished."""

    def __init__(self, service: Service, call: Call) -> None:
        """Count it; `close` takes it back."""
        self._service, self._call = service, call
        self._open = {number: request.id for number, request in enumerate(call.requests)}
        service.pending += len(self._open)

    def close(self) -> None:
        """Forget what is not finished; a second call does nothing."""
        if self._open:
            self._service.pending -= len(self._open)
            self._service.forget(list(self._open.values()))
            self._open = {}

    async def progress(self) -> AsyncIterator[Progress]:
        """What is known, whenever that is more than before, until all is finished.

        Raises:
            ApiFault: a request cannot be answered, or the engine failed.
        """
        while self._open:
            event = await self._call.events.get()
            if event is None:
                raise ApiFault(503, "The engine failed; this server ends.", code="engine_failed")
            if event.done is not None:
                self._service.pending -= 1
                del self._open[event.number]
                if event.done.finish == "error":
                    raise _fault(event.done)
            yield event


def _fault(done: Completion) -> ApiFault:
    message = done.error[:1].upper() + done.error[1:] + "."
    if done.fault == "too-long":
        return ApiFault(400, message, code="context_length_exceeded")
    return ApiFault(500 if done.fault == "model" else 400, message)
