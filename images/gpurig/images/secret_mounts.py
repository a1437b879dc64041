"""Secrets of a build: one Dockerfile for both builders, and mounts that only BuildKit is told of.

A Dockerfile names a secret by the place where BuildKit shows it, `/run/secrets/NAME`, and works without it. The classic
builder does not know `RUN --mount`, so the mount is written into the copy of the Dockerfile that BuildKit gets. It is
there with and without a secret: BuildKit's cache must not tell the two apart.
"""

from __future__ import annotations

import io
import re
import tarfile

_PLACE = re.compile(r"/run/secrets/([a-z][a-z0-9-]*)")


def with_secret_mounts(context: bytes, dockerfile: str) -> bytes:
    """A build context (a tar) whose Dockerfile mounts the secrets that its RUN instructions name.

    Raises:
        KeyError: there is no such Dockerfile in it.
    """
    result = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(context)) as before,
        tarfile.open(fileobj=result, mode="w", format=tarfile.USTAR_FORMAT) as after,
    ):
        before.getmember(dockerfile)
        for member in before.getmembers():
            file = before.extractfile(member)
            data = b"" if file is None else file.read()
            if member.name == dockerfile:
                data = mounted(data.decode()).encode()
                member.size = len(data)
            after.addfile(member, io.BytesIO(data))
    return result.getvalue()


def mounted(dockerfile: str) -> str:
    """The Dockerfile's text, with a mount for every secret that a RUN instruction names.

    An instruction goes on where a line ends in a backslash, with comments and empty lines between such lines.
    """
    lines = dockerfile.split("\n")
    start: int | None = None
    for number, line in enumerate(lines):
        if start is None:
            if not re.match(r"\s*RUN\s", line, re.IGNORECASE):
                continue
            start = number
        passed_over = number != start and (not line.strip() or line.lstrip().startswith("#"))
        if passed_over or line.rstrip().endswith("\\"):
            continue
        names = dict.fromkeys(_PLACE.findall("\n".join(lines[start : number + 1])))
        mounts = "".join(f" --mount=type=secret,id={name}" for name in names)
        lines[start] = re.sub(r"^(\s*RUN)\b", rf"\1{mounts}", lines[start], count=1, flags=re.IGNORECASE)
        start = None
    return "\n".join(lines)
