"""An answer as server-sent events, piece by piece."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gpurig.evaljobs.engine import Completion
from gpurig.evaljobs.inference.written import Written
from gpurig.evaljobs.serving.answering import Envelope, chat_logprobs, text_logprobs, usage
from gpurig.evaljobs.serving.asking import Asked
from gpurig.evaljobs.serving.faults import ApiFault
from gpurig.evaljobs.serving.service import LiveCall
from gpurig.evaljobs.serving.text_stream import TextStream
from gpurig.evaljobs.serving.tool_calls import CallFormat, read_calls
from gpurig.evaljobs.serving.worker import Progress


class EventStream(StreamingResponse):
    """Server-sent events of a call, which is forgotten however the stream ends."""

    def __init__(self, call: LiveCall, events: AsyncIterator[str]) -> None:
        """Take over the call."""
        # What stands between must not keep events back (nginx).
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._call.close()


class _Choice:
    """One choice's pieces."""

    def __init__(self, index: int, envelope: Envelope, asked: Asked, calls: CallFormat, *, logprobs: bool) -> None:
        self._index, self._envelope, self._asked, self._calls = index, envelope, asked, calls
        self._logprobs = logprobs
        self._stream = TextStream(asked.stop, calls.opening if asked.tools else None)
        self._tokens = 0
        self._characters = len(asked.echo[index]) if asked.echo else 0

    def first(self) -> dict[str, Any] | None:
        """What comes before anything is written."""
        if self._envelope.kind == "chat":
            return self._part({"delta": {"role": "assistant", "content": "", "refusal": None}}, ())
        return self._part({"text": self._asked.echo[self._index]}, ()) if self._asked.echo else None

    def pieces(self, event: Progress) -> list[dict[str, Any]]:
        """What an event adds."""
        if event.done is None:
            text = self._stream.more(event.output)
            return self._piece(text, self._whole_tokens(event))
        tools = self._asked.tools
        found = read_calls(event.done.text, self._calls, tools)[1] if tools else []
        # The calls are told by themselves.
        end = event.output.find(self._calls.opening.encode()) if found else len(event.output)
        rest = self._stream.rest(event.output[:end])
        parts = self._piece(rest, event.log[self._tokens :])
        if found:
            calls = [{"index": number, **call.as_data()} for number, call in enumerate(found)]
            parts.append(self._part({"delta": {"tool_calls": calls}}, ()))
        reason = "tool_calls" if found else event.done.finish
        last: dict[str, Any] = {"delta": {}} if self._envelope.kind == "chat" else {"text": ""}
        return [*parts, self._part(last, (), reason)]

    def _whole_tokens(self, event: Progress) -> list[Written]:
        """The tokens that are shown to their end, and were not told yet."""
        end, found = sum(len(one.piece) for one in event.log[: self._tokens]), []
        for one in event.log[self._tokens :]:
            end += len(one.piece)
            if end > self._stream.shown:
                break
            found.append(one)
        return found

    def _piece(self, text: str, log: Any) -> list[dict[str, Any]]:
        if not text and not log:
            return []
        choice = {"delta": {"content": text}} if self._envelope.kind == "chat" else {"text": text}
        part = self._part(choice, log)
        self._tokens += len(log)
        self._characters += sum(len(one.piece.decode("utf-8", "replace")) for one in log)
        return [part]

    def _part(self, choice: dict[str, Any], log: Any, reason: str | None = None) -> dict[str, Any]:
        told = None
        if self._logprobs and log:
            told = chat_logprobs(log) if self._envelope.kind == "chat" else text_logprobs(log, self._characters)
        return {"index": self._index, **choice, "logprobs": told, "finish_reason": reason}


async def events(
    progress: AsyncIterator[Progress],
    first: Progress,
    asked: Asked,
    envelope: Envelope,
    calls: CallFormat,
    *,
    choices: int,
    logprobs: bool,
    tell_usage: bool,
) -> AsyncIterator[str]:
    """The events of a call.

    Args:
        progress: what comes after `first`.
        first: what came first; there was no fault until then.
        asked: what was asked.
        envelope: what every event carries.
        calls: how the model writes calls of tools.
        choices: of every prompt.
        logprobs: whether they are told.
        tell_usage: at the end.
    """
    streams = [_Choice(index, envelope, asked, calls, logprobs=logprobs) for index in range(len(asked.requests))]
    for stream in streams:
        if (begin := stream.first()) is not None:
            yield _event(envelope.chunk([begin], told=tell_usage))
    done: dict[int, Completion] = {}
    try:
        async for event in _chained(first, progress):
            for part in streams[event.number].pieces(event):
                yield _event(envelope.chunk([part], told=tell_usage))
            if event.done is not None:
                done[event.number] = event.done
    except ApiFault as fault:
        # The status was sent long ago.
        yield _event(fault.body)
        return
    if tell_usage:
        counts = usage([done[number] for number in sorted(done)], choices)
        yield _event(envelope.chunk([], usage=counts, told=True))
    yield "data: [DONE]\n\n"


async def _chained(first: Progress, others: AsyncIterator[Progress]) -> AsyncIterator[Progress]:
    yield first
    async for one in others:
        yield one


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
