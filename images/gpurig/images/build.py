"""Building a planned image on an engine."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from gpurig.common.errors import PrerequisiteError
from gpurig.common.files import write_problem
from gpurig.common.terminal import harmless
from gpurig.images.plan import ImagePlan
from gpurig.provisioning.engine import translated

if TYPE_CHECKING:
    import docker

_TAIL_LINES = 40
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class BuiltImage:
    """An image that the engine has.

    Attributes:
        tag: its tag, as planned.
        id: its id, "sha256:…".
        built: it was built just now; False where it was there.
    """

    tag: str
    id: str
    built: bool


def ensure_image(
    client: docker.DockerClient,
    plan: ImagePlan,
    *,
    on_line: Callable[[str], None],
    log: Path | None = None,
) -> BuiltImage:
    """Build the image unless the engine has one of that tag.

    An interrupted or failed build leaves no tag: the next call builds again, from the layers that were finished.

    Args:
        client: the engine.
        plan: what to build.
        on_line: called for every line of the build's output, made harmless for a terminal.
        log: where the output is kept; None for a temporary file that is removed after a success.

    Raises:
        PrerequisiteError: the build failed; the message has its last meaningful lines, the hint the log's path.
    """
    present = _present(client, plan.tag)
    if present:
        return BuiltImage(tag=plan.tag, id=present, built=False)
    path = log or _temporary_log(plan.tag)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    try:
        with _opened(path) as stream:

            def note(line: str) -> None:
                stream.write(line + "\n")
                tail.append(line)
                on_line(line)

            error = _run_build(client, plan, note)
    except BaseException:
        # Interrupted: no message names the temporary file, so nobody would look for it.
        if log is None:
            path.unlink(missing_ok=True)
        raise
    built = "" if error else _present(client, plan.tag)
    if not built:
        reason = _meaningful(error or "the engine ended the build without an image", tail)
        raise PrerequisiteError(f"building {plan.tag} failed: {reason}", hint=f"{_hint(error)} the whole log: {path}")
    if log is None:
        path.unlink(missing_ok=True)
    return BuiltImage(tag=plan.tag, id=built, built=True)


def _present(client: docker.DockerClient, tag: str) -> str:
    """The id of the image with that tag; "" where there is none."""
    import docker.errors  # noqa: PLC0415 - 100 ms that `--help` must not pay

    with translated("looking for the image"):
        try:
            return str(client.images.get(tag).id)
        except docker.errors.ImageNotFound:
            return ""


def _run_build(client: docker.DockerClient, plan: ImagePlan, note: Callable[[str], None]) -> str:
    """Stream one build; why it failed, or "" when the engine said nothing of that."""
    import docker.errors  # noqa: PLC0415
    import requests  # noqa: PLC0415
    import urllib3  # noqa: PLC0415

    try:
        events: Iterator[Mapping[str, Any]] = client.api.build(
            fileobj=BytesIO(plan.context),
            custom_context=True,
            dockerfile=plan.dockerfile,
            tag=plan.tag,
            buildargs=dict(plan.build_args),
            labels=dict(plan.labels),
            rm=True,
            forcerm=True,
            decode=True,
        )
        for event in events:
            if "error" in event:
                return harmless(str(event["error"]))
            for line in _event_lines(event):
                note(line)
    # docker-py reads the stream below requests, so an engine that goes away shows as urllib3's error.
    except (docker.errors.DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        reason = _explain(error)
        note(reason)
        return reason
    return ""


def _event_lines(event: Mapping[str, Any]) -> Iterator[str]:
    """The readable lines of one event of the engine's build stream; a pull's progress bars are left out."""
    text = str(event.get("stream", ""))
    if "status" in event and "progress" not in event:
        text = " ".join(str(event[key]) for key in ("id", "status") if event.get(key))
    for line in text.replace("\r", "\n").splitlines():
        # Build tools colour their output; the codes are noise in a log.
        if cleaned := harmless(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line)).rstrip():
            yield cleaned


def _meaningful(error: str, tail: deque[str]) -> str:
    """The engine's last word and, for a command that failed inside, what that command said last."""
    said = [line for line in tail if not re.match(r"(Step \d+/|\s*--->|Removing intermediate)", line)]
    errors = [line for line in said if re.search(r"\berror\b|\bE:|fatal|not found|No space", line, re.IGNORECASE)]
    chosen = " | ".join((errors or said)[-2:]) if "non-zero code" in error else ""
    return "; ".join(part[-_SHOWN_CHARACTERS:] for part in (error, chosen) if part)


_UNREACHED = "the engine cannot reach the registry: name a base image that it has, or set its proxy or mirror;"
_HINTS = (
    (r"no space left", "free some disk space (docker system df shows who uses it);"),
    (r"pull access denied|manifest unknown|repository does not exist", "check the base image's name;"),
    (r"dial tcp|no such host|i/o timeout|TLS handshake|x509|Client\.Timeout", _UNREACHED),
)


def _hint(error: str) -> str:
    return next((hint for pattern, hint in _HINTS if re.search(pattern, error, re.IGNORECASE)), "")


def _explain(problem: Exception) -> str:
    reason = getattr(problem, "explanation", None) or problem
    return harmless(" ".join(str(reason).split()))


def _temporary_log(tag: str) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f"{tag.replace(':', '-')}-", suffix=".log")
    os.close(descriptor)
    return Path(name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", buffering=1) as stream:
            yield stream
    except OSError as error:
        raise write_problem(path, error) from error
