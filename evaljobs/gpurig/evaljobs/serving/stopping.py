"""Requests that are cut off because a server has to stop."""

from __future__ import annotations

import asyncio

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpurig.evaljobs.serving.faults import ApiFault


class Stoppable:
    """An application whose requests may be cancelled: uvicorn does it when the grace is over.

    A request that has no answer yet gets 503, and the connection of a stream is closed before its end. Without this
    each gets nothing, and the log a traceback.
    """

    def __init__(self, application: ASGIApp) -> None:
        """Wrap it."""
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._application(scope, receive, noted)
        except asyncio.CancelledError:
            if not begun:
                fault = ApiFault(
                    503, "The server is stopping.", code="server_stopping", headers={"Connection": "close"}
                )
                await JSONResponse(fault.body, fault.status, fault.headers)(scope, receive, send)
