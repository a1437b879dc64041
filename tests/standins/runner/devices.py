"""`gpus` and `devices` as gitlab-runner understands them, and the engine's units."""

from __future__ import annotations

import csv
import re
from typing import Any

_UNITS = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def device_requests(gpus: str) -> list[dict[str, Any]]:  # noqa: C901 - one branch for each key of the syntax
    """`gpus` in the syntax of Docker's --gpus (docker/cli, opts/gpus.go), as the engine API wants it.

    Raises:
        ValueError: as Docker's command line refuses it.
    """
    if not gpus.strip():
        return []
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    seen = set()
    for item in next(csv.reader([gpus], strict=True)):
        key, separator, value = item.partition("=")
        if key in seen:
            raise ValueError(f"gpu request key {key!r} can be specified only once")
        seen.add(key)
        if not separator:
            seen.add("count")
            request["Count"] = _count(key)
        elif key == "driver":
            request["Driver"] = value
        elif key == "count":
            request["Count"] = _count(value)
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            request["Options"] = dict(pair.split("=", 1) for pair in next(csv.reader([value])))
        else:
            raise ValueError(f"unexpected key {key!r} in {item!r}")
    if "count" not in seen and request["DeviceIDs"] is None:
        request["Count"] = 1
    return [request]


def _count(text: str) -> int:
    if text == "all":
        return -1
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(f"count must be an integer: {text!r}")
    return int(text)


def device_mapping(text: str) -> dict[str, str]:
    """One item of `devices`: host path, container path, permissions; split at colons, so a CDI name breaks.

    Raises:
        ValueError: more than three parts.
    """
    parts = text.split(":")
    if len(parts) > 3:
        raise ValueError(f"failed to parse device string {text!r}: too many colons")
    host = parts[0]
    return {
        "PathOnHost": host,
        "PathInContainer": parts[1] if len(parts) > 1 else host,
        "CgroupPermissions": parts[2] if len(parts) > 2 else "rwm",
    }


def size_bytes(text: str) -> int:
    """ "512m" or "8g" in bytes, binary units (docker/go-units, RAMInBytes).

    Raises:
        ValueError: not a size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([bkmgt]?)(?:i?b)?", text.strip().lower())
    if not found:
        raise ValueError(f"invalid size: {text!r}")
    return int(float(found[1]) * _UNITS[found[2] or "b"])


def matches(pattern: str, image: str) -> bool:
    """Whether `image` fits a pattern of `allowed_images`: `*` stays between slashes, `**` does not.

    `**/` is any folders, none among them (bmatcuk/doublestar).
    """
    places = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")", ",": "|"}
    expression = re.sub(
        r"\*\*/|\*\*|[*?{},]|[^*?{},]+",
        lambda found: places.get(found[0], re.escape(found[0])),
        pattern,
    )
    return re.fullmatch(expression, image) is not None
