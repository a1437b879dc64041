"""Requests and answers as values: parameters as GitLab's Grape reads them, errors as it writes them."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_PART_NAMES = re.compile(rb'name="(?P<name>[^"]*)"(?:;\s*filename="(?P<filename>[^"]*)")?', re.IGNORECASE)


class ApiError(Exception):
    """An answer that is not success; `body` as GitLab words it."""

    def __init__(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.headers = dict(headers or {})


def message(status: int, text: str, headers: Mapping[str, str] | None = None) -> ApiError:
    """An error in GitLab's usual form, {"message": text}."""
    return ApiError(status, {"message": text}, headers)


def invalid(text: str) -> ApiError:
    """A parameter that Grape refuses: 400 with {"error": text}."""
    return ApiError(400, {"error": text})


@dataclass(frozen=True)
class Upload:
    """A file of a multipart body."""

    filename: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Request:
    """One request; `path` is percent-encoded still, `params` merges query, body and path as Grape does."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    path_params: Mapping[str, str] = field(default_factory=dict)

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def params(self) -> Params:
        """All parameters.

        Raises:
            ApiError: the body is not what its content type says.
        """
        merged: dict[str, Any] = {}
        for name, values in self.query.items():
            merged[name.removesuffix("[]")] = list(values) if name.endswith("[]") else values[-1]
        if self.content_type == "application/json" and self.body:
            try:
                document = json.loads(self.body)
            except ValueError as error:
                raise message(400, "400 Bad request - message body does not match declared format") from error
            if isinstance(document, dict):
                merged.update(document)
        elif self.content_type == "application/x-www-form-urlencoded":
            for name, values in urllib.parse.parse_qs(self.body.decode(), keep_blank_values=True).items():
                merged[name.removesuffix("[]")] = values if name.endswith("[]") else values[-1]
        elif self.content_type == "multipart/form-data":
            merged.update(_multipart(self.headers["content-type"], self.body))
        return Params({**merged, **self.path_params})


class Params:
    """Parameters with Grape's coercions and wordings."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def text(self, name: str, default: str = "") -> str:
        value = self.values.get(name)
        if isinstance(value, (dict, list)):
            raise invalid(f"{name} is invalid")
        return default if value is None else str(value)

    def required(self, name: str) -> str:
        if name not in self.values:
            raise invalid(f"{name} is missing")
        return self.text(name)

    def choice(self, name: str, allowed: Sequence[str], default: str = "") -> str:
        value = self.text(name, default)
        if value not in {*allowed, default}:
            raise invalid(f"{name} does not have a valid value")
        return value

    def integer(self, name: str, default: int | None = None) -> int | None:
        value = self.values.get(name)
        if value is None or value == "":
            return default
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
            raise invalid(f"{name} is invalid")
        return int(value)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        known = {"true": True, "1": True, "false": False, "0": False}
        if str(value).lower() not in known:
            raise invalid(f"{name} is invalid")
        return known[str(value).lower()]

    def words(self, name: str) -> list[str] | None:
        """A list, or a comma-separated string."""
        value = self.values.get(name)
        if value is None:
            return None
        items = value if isinstance(value, list) else str(value).split(",")
        return [str(item).strip() for item in items if str(item).strip()]

    def table(self, name: str) -> Mapping[str, Any]:
        value = self.values.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise invalid(f"{name} is invalid")
        return value


@dataclass(frozen=True)
class Response:
    """One answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(status, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})


def ranged(request: Request, content: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """A file, or the part of it that the request's Range asks for (RFC 9110, 14.2; one range, from a byte on)."""
    offered = {"Accept-Ranges": "bytes", **(headers or {})}
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if not found:
        return Response(200, content, offered)
    start, last = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
    if start > last:
        return Response(416, b"", {**offered, "Content-Range": f"bytes */{len(content)}"})
    return Response(
        206, content[start : last + 1], {**offered, "Content-Range": f"bytes {start}-{last}/{len(content)}"}
    )


def paginated(items: Sequence[object], request: Request) -> Response:
    """One page of a list, with GitLab's offset-pagination headers.

    Raises:
        ApiError: `page` or `per_page` is not a number.
    """
    params = request.params
    page, size = params.integer("page", 1) or 1, min(params.integer("per_page", 20) or 20, 100)
    total, pages = len(items), max(1, -(-len(items) // size))
    following, preceding = str(page + 1) if page < pages else "", str(page - 1) if page > 1 else ""
    base = f"{request.headers.get('x-standin-origin', '')}{request.path}"
    rest = {name: values[-1] for name, values in request.query.items() if name not in {"page", "per_page"}}
    places = {"prev": preceding, "next": following, "first": "1", "last": str(pages)}
    links = [
        f'<{base}?{urllib.parse.urlencode({**rest, "page": number, "per_page": size})}>; rel="{name}"'
        for name, number in places.items()
        if number
    ]
    headers = {
        "Link": ", ".join(links),
        "X-Page": str(page),
        "X-Per-Page": str(size),
        "X-Total": str(total),
        "X-Total-Pages": str(pages),
        "X-Next-Page": following,
        "X-Prev-Page": preceding,
    }
    return answer(list(items[(page - 1) * size : page * size]), headers=headers)


def _multipart(content_type: str, body: bytes) -> dict[str, Any]:
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    if not found:
        raise message(400, "400 Bad request - no boundary")
    fields: dict[str, Any] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + found[1].encode())[1:]:
        if part.startswith(b"--"):
            return fields
        head, separator, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        names = _PART_NAMES.search(head)
        if not separator or not names:
            break
        name = names["name"].decode()
        if names["filename"] is None:
            fields[name] = content.decode()
        else:
            fields[name] = Upload(names["filename"].decode(), content)
    raise message(400, "400 Bad request - the multipart body ends too early")
