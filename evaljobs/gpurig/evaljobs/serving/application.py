"""The HTTP application: OpenAI's endpoints on one model."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gpurig.evaljobs.serving.access import Access
from gpurig.evaljobs.serving.answering import Envelope, Kind, chat_logprobs, message, text_logprobs, usage
from gpurig.evaljobs.serving.asking import Asked, Limits, ask_chat, ask_completion
from gpurig.evaljobs.serving.bodies import ChatBody, Common, CompletionBody, EmbeddingBody, parse_body, parse_json
from gpurig.evaljobs.serving.chat import ChatTemplate
from gpurig.evaljobs.serving.embedding import EmbeddingWorker
from gpurig.evaljobs.serving.faults import ApiFault
from gpurig.evaljobs.serving.naming import Chosen, ModelNames
from gpurig.evaljobs.serving.service import LiveCall, Service
from gpurig.evaljobs.serving.streaming import EventStream, events
from gpurig.evaljobs.serving.tool_calls import read_calls
from gpurig.evaljobs.serving.worker import Progress

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]
# nginx's status for a client that did not wait; nobody reads it.
_GONE = 499


@dataclass(frozen=True)
class Served:
    """What is served.

    Attributes:
        names: by which clients may ask for the model, with and without adapters.
        fingerprint: changes with the model and with what computes it.
        since: seconds since the epoch.
        template: turns chats into prompts.
        access: who may ask.
    """

    names: ModelNames
    fingerprint: str
    since: int
    template: ChatTemplate
    access: Access


class Endpoints:
    """One method an endpoint."""

    def __init__(self, source: Service | EmbeddingWorker, served: Served, limits: Limits) -> None:
        """Serve a model: one that writes, or one that embeds."""
        self._source, self._served, self._limits = source, served, limits

    async def health(self, _: Request) -> Response:
        """Whether it can answer; nobody needs a key to ask."""
        healthy = self._source.failure is None
        body = {"status": "ok" if healthy else "failed", "pending": self._source.pending}
        return _json(body, 200 if healthy else 503)

    async def models(self, _: Request) -> Response:
        """The one model, under its names, with each of its adapters."""
        data = [self._model(chosen) for chosen in self._served.names.listed()]
        return _json({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """One of its names."""
        return _json(self._model(self._chosen(str(request.path_params["name"]))))

    async def chat(self, request: Request) -> Response:
        """/v1/chat/completions."""
        body = parse_body(ChatBody, await self._body(request))
        chosen = self._chosen(body.model)
        asked = ask_chat(body, self._served.template, self._limits).answered_with(chosen.adapters)
        return await self._answer("chat", request, body, asked, logprobs=bool(body.logprobs))

    async def completions(self, request: Request) -> Response:
        """/v1/completions."""
        body = parse_body(CompletionBody, await self._body(request))
        chosen = self._chosen(body.model)
        asked = ask_completion(body, self._limits).answered_with(chosen.adapters)
        return await self._answer("text", request, body, asked, logprobs=body.logprobs is not None)

    async def embeddings(self, request: Request) -> Response:
        """/v1/embeddings."""
        body = parse_body(EmbeddingBody, await self._body(request))
        self._chosen(body.model)
        if not isinstance(self._source, EmbeddingWorker):
            message = "This server writes, and does not embed: gpurig-job serve --embeddings does."
            raise ApiFault(501, message, code="not_implemented")
        return _json(await _unless_gone(request, self._source.answer(body)))

    async def _answer(self, kind: Kind, request: Request, body: Common, asked: Asked, *, logprobs: bool) -> Response:
        served, choices, service = self._served, body.n or 1, self._source
        if not isinstance(service, Service):
            raise ApiFault(501, "This server embeds, and does not write.", code="not_implemented")
        envelope = Envelope.new(kind, asked.requests[0].id.partition("-")[0], body.model, served.fingerprint)
        if not body.stream:
            with contextlib.closing(service.call(asked, stream=False)) as call:
                done = await _unless_gone(request, _all(call))
            return _json(self._whole(envelope, asked, done, choices, logprobs=logprobs))
        call = service.call(asked, stream=True)
        try:
            progress = call.progress()
            # A fault of the first token still has a status of its own.
            first = await _unless_gone(request, anext(progress))
        except BaseException:
            call.close()
            raise
        tell_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        stream = events(
            progress,
            first,
            asked,
            envelope,
            served.template.calls,
            choices=choices,
            logprobs=logprobs,
            tell_usage=tell_usage,
        )
        return EventStream(call, stream)

    def _whole(
        self, envelope: Envelope, asked: Asked, done: list[Progress], choices: int, *, logprobs: bool
    ) -> dict[str, Any]:
        parts = []
        for number, event in enumerate(done):
            if event.done is None:
                raise AssertionError("only finished answers are told at once")
            text, reason = event.done.text, event.done.finish
            part: dict[str, Any] = {"index": number, "logprobs": None, "finish_reason": reason}
            if envelope.kind == "chat":
                text, calls = read_calls(text, self._served.template.calls, asked.tools) if asked.tools else (text, [])
                part |= {"message": message(text, calls)}
                part |= {"finish_reason": "tool_calls"} if calls else {}
                part |= {"logprobs": chat_logprobs(event.log)} if logprobs else {}
            else:
                before = asked.echo[number] if asked.echo else ""
                part |= {"text": before + text}
                part |= {"logprobs": text_logprobs(event.log, len(before))} if logprobs else {}
            parts.append(part)
        return envelope.whole(parts, usage([event.done for event in done if event.done], choices))

    async def _body(self, request: Request) -> Any:
        """The data of a request's body.

        Raises:
            ApiFault: too large, too slow, or no JSON.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # Web pages can send other kinds to any address without asking it first.
            raise ApiFault(415, "The request's body must be application/json.")
        if request.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            raise ApiFault(415, "The request's body must not be compressed.")
        limits = self._limits
        try:
            raw = await asyncio.wait_for(_read(request, limits.body_bytes), limits.read_seconds)
        except TimeoutError:
            raise ApiFault(408, "The request's body did not arrive in time.", headers={"Connection": "close"}) from None
        return parse_json(raw)

    def _chosen(self, name: str) -> Chosen:
        """What a client asks for by that name."""
        chosen = self._served.names.find(name)
        if chosen is None:
            known = ", ".join(one.name for one in self._served.names.listed())
            message = f"The model '{name[:100]}' does not exist; this server has: {known}."
            raise ApiFault(404, message, param="model", code="model_not_found")
        return chosen

    def _model(self, chosen: Chosen) -> dict[str, Any]:
        # "parent" is vLLM's word for what an adapter's model is made from.
        parent = {} if chosen.name == chosen.root else {"parent": chosen.root}
        return {"id": chosen.name, "object": "model", "created": self._served.since, "owned_by": "gpurig", **parent}


def application(source: Service | EmbeddingWorker, served: Served, limits: Limits) -> Starlette:
    """The ASGI application: of a model that writes, or of one that embeds."""
    ends = Endpoints(source, served, limits)

    def guarded(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def guard(request: Request) -> Response:
            served.access.demand(request.headers)
            return await handler(request)

        return guard

    return Starlette(
        routes=[
            Route("/health", ends.health, methods=["GET"]),
            Route("/v1/models", guarded(ends.models), methods=["GET"]),
            Route("/v1/models/{name:path}", guarded(ends.model), methods=["GET"]),
            Route("/v1/chat/completions", guarded(ends.chat), methods=["POST"]),
            Route("/v1/completions", guarded(ends.completions), methods=["POST"]),
            Route("/v1/embeddings", guarded(ends.embeddings), methods=["POST"]),
        ],
        exception_handlers={
            ApiFault: _refused,
            HTTPException: _no_such,
            ClientDisconnect: _gone,
            Exception: _broken,
        },
    )


async def _all(call: LiveCall) -> list[Progress]:
    found = [event async for event in call.progress()]
    return sorted(found, key=lambda event: event.number)


async def _unless_gone(request: Request, wanted: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
    """What is wanted, unless the client hangs up first.

    Raises:
        ClientDisconnect: it did.
    """
    result, gone = asyncio.ensure_future(wanted), asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        result.cancel()
        gone.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read(request: Request, limit: int) -> bytes:
    too_large = ApiFault(
        413, f"The request's body is larger than {limit} bytes.", code="body_too_large", headers={"Connection": "close"}
    )
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limit:
        raise too_large
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > limit:
            raise too_large
    return bytes(raw)


def _json(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # In ASCII, so that half a surrogate pair that a client sent can be sent back.
    return Response(json.dumps(data), status, headers, media_type="application/json")


async def _refused(_: Request, fault: Exception) -> Response:
    if not isinstance(fault, ApiFault):
        raise fault
    return _json(fault.body, fault.status, fault.headers)


async def _no_such(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = f"{request.method} {request.url.path}"[:200]
    fault = ApiFault(status, f"Invalid URL or method ({what}).", code="unknown_url" if status == 404 else None)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return _json(fault.body, fault.status, headers)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=_GONE)


async def _broken(_: Request, __: Exception) -> Response:
    return _json(ApiFault(500, "The server had an error while processing your request.").body, 500)
