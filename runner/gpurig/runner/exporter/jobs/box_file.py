"""The box's facts as a file: the watcher, which may use the engine, writes it; the exporter, which may not, reads it.

What is read is held against this format and its bounds before anything is made of it: the two trust each other little.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpurig.common.files import write_atomic
from gpurig.common.terminal import harmless
from gpurig.runner.exporter.devices.figures import SourceError
from gpurig.runner.exporter.jobs.json_values import as_amount, as_count, as_list, as_object, as_text
from gpurig.runner.exporter.jobs.model import BoxFacts, Disk, JobContainer, JobKey, RunnerEntry

VERSION = 1
HEARTBEAT_S = 10.0
STALE_S = 60.0

_MOST_BYTES = 4 * 1024 * 1024
_ID = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,20}")
_WORD = re.compile(r"[A-Za-z0-9_.-]{0,64}")


class BoxWriter:
    """Writes facts where they changed, and shows at least every ten seconds that somebody looks."""

    def __init__(self, path: Path) -> None:
        """Write to `path`; nothing is written yet."""
        self._path = path
        self._written = ""

    def write(self, facts: BoxFacts) -> None:
        """Replace the file, or touch it where nothing changed.

        Raises:
            PrerequisiteError: it cannot be written.
        """
        text = encode(dataclasses.replace(facts, written_at=0.0))
        if text == self._written:
            try:
                # The time of the file is the time of the facts: nothing needs to reach the disk for it.
                os.utime(self._path)
            except FileNotFoundError:
                self._written = ""
        if text != self._written:
            write_atomic(self._path, text, mode=0o644)
            self._written = text


class BoxReader:
    """Reads the file that another process writes, again when it has changed."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        """Read from `path`; it is not looked at yet."""
        self._path = path
        self._now = now
        self._key: tuple[int, int, int] | None = None
        self._facts = BoxFacts(written_at=0.0)

    def read(self) -> BoxFacts:
        """The facts as they were written last.

        Raises:
            SourceError: there is no such file yet, nobody has written it for a minute, or it is not what it should be.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise SourceError(f"{self._path} is not there: the watcher has not written it yet") from error
        except OSError as error:
            raise SourceError(f"cannot read {self._path}: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            age_s = self._now() - status.st_mtime
            if age_s > STALE_S:
                raise SourceError(f"the watcher has not written {self._path} for {age_s:.0f} s")
            key = (status.st_ino, status.st_size, status.st_mtime_ns)
            if key != self._key:
                self._facts = dataclasses.replace(decode(stream.read(_MOST_BYTES + 1)), written_at=status.st_mtime)
                self._key = key
        return self._facts


def encode(facts: BoxFacts) -> str:
    """Facts as the text of a file."""
    return json.dumps({"version": VERSION, **dataclasses.asdict(facts)}, sort_keys=True, allow_nan=False)


def decode(data: bytes) -> BoxFacts:
    """The facts that a file's content says.

    Raises:
        SourceError: it is of another form, or beyond its bounds.
    """
    if len(data) > _MOST_BYTES:
        raise SourceError(f"the box's facts are longer than {_MOST_BYTES} bytes")
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("version") != VERSION:
            raise SourceError("the box's facts are of another version: upgrade the watcher and the exporter together")
        return _facts(document)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"the box's facts are damaged: {_short(error)}") from error


def _short(error: Exception) -> str:
    return harmless(" ".join(f"{type(error).__name__} {error}".split()))[:200]


def _facts(document: Mapping[str, Any]) -> BoxFacts:
    runners = document["runners"]
    models = document["model_bytes"]
    return BoxFacts(
        written_at=as_amount(document["written_at"]),
        containers=tuple(_container(one) for one in as_list(document["containers"])),
        runners=None if runners is None else tuple(_runner(one) for one in as_list(runners)),
        image_bytes={
            _matching(_WORD, kind): as_count(size) for kind, size in as_object(document["image_bytes"]).items()
        },
        model_bytes=None if models is None else as_count(models),
        disks=tuple(
            Disk(_matching(_WORD, one["purpose"]), as_count(one["free_bytes"]), as_count(one["total_bytes"]))
            for one in as_list(document["disks"])
        ),
        sources=tuple(_matching(_WORD, name) for name in as_list(document["sources"])),
        problems={_matching(_WORD, name): _text(text) for name, text in as_object(document["problems"]).items()},
    )


def _container(one: Mapping[str, Any]) -> JobContainer:
    job, ended, code, oom = one["job"], one["ended_at"], one["exit_code"], one["oom"]
    if oom not in {None, "gpu", "host"}:
        raise ValueError("a kind of memory that there is not")
    pipeline = job["pipeline_id"]
    return JobContainer(
        id=_matching(_ID, one["id"]),
        job=JobKey(
            job_id=_matching(_NUMBER, job["job_id"]),
            project_id=_matching(_NUMBER, job["project_id"]),
            pipeline_id=_matching(_NUMBER, pipeline) if pipeline else "",
            runner=_matching(_WORD, job["runner"]),
        ),
        kind=_matching(_WORD, one["kind"]),
        started_at=as_amount(one["started_at"]),
        ended_at=None if ended is None else as_amount(ended),
        exit_code=None if code is None else as_count(code),
        oom=oom,
        oom_detail=_text(one["oom_detail"]),
    )


def _runner(one: Mapping[str, Any]) -> RunnerEntry:
    expires = one["expires_at"]
    return RunnerEntry(
        id=as_count(one["id"]),
        description=_text(one["description"]),
        tags=tuple(_text(tag) for tag in as_list(one["tags"])),
        expires_at=None if expires is None else as_amount(expires),
        short=_matching(_WORD, one["short"]),
    )


def _text(value: object) -> str:
    return harmless(as_text(value))


def _matching(pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError("a text of another form")
    return value
