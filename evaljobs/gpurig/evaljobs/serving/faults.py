"""What a client is told where its request is not answered: OpenAI's shape of errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiFault(Exception):  # noqa: N818 - what is wrong with a request, not with the program
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        body: what is sent.
        headers: sent with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.body: dict[str, Any] = {"error": {"message": message, "type": _kind(status), "param": param, "code": code}}


def _kind(status: int) -> str:
    return {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
