"""States of prompts' beginnings in a folder, between runs: whole or absent, and used only where the checksum holds.

A file is: eight bytes of magic; the length of the head, four bytes, little-endian; the head, JSON: `identity` (all that
the state depends on beside its tokens), `group`, `tokens`; the state, to the end but for the SHA-256 of all before it.
llama.cpp's reader checks little of what it takes for its own, so nothing reaches it that the checksum does not cover.
But a checksum keeps out damage, not malice: who may write into the folder may write what the reader gets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gpurig.common.errors import PrerequisiteError
from gpurig.common.files import make_directory, write_atomic
from gpurig.evaljobs.engine import PrefixSettings
from gpurig.evaljobs.inference.works import Prefix

_MAGIC = b"gpurigKV"
_SUFFIX = ".prefix"
_DIGEST_BYTES = 32
# More than a head of a million tokens takes.
_LARGEST_HEAD = 16 * 1024 * 1024
# What a writer that was killed has left is removed after so long.
_ABANDONED_S = 3600.0


class PrefixStore:
    """The states that fit one model as it runs here.

    Attributes:
        full: what this run uses has reached the limit: nothing more is kept.
    """

    def __init__(self, settings: PrefixSettings, identity: Mapping[str, Any]) -> None:
        """Look into the folder.

        Args:
            settings: where.
            identity: all that a state depends on beside its tokens and adapters, as JSON data.

        Raises:
            PrerequisiteError: the folder cannot be made.
        """
        self._settings, self._identity = settings, dict(identity)
        self._name = _digest(self._identity)[:16]
        self._used: set[str] = set()
        self._told: set[str] = set()
        self.full = False
        make_directory(settings.folder)
        self._remove_abandoned()

    def stored(self) -> Iterator[Prefix]:
        """What is there, by the heads alone: whether a state is sound shows when it is read."""
        for path in sorted(self._settings.folder.glob(f"{self._name}-*{_SUFFIX}")):
            with contextlib.suppress(FileNotFoundError):
                # A pipe of that name would be waited for.
                prefix = self._prefix_in(path) if path.is_file() else None
                if prefix is not None and path.name == self._file(prefix).name:
                    yield prefix

    def read(self, prefix: Prefix) -> memoryview | None:
        """A prefix's state; None where there is none that is sound, of which one that is not is told once."""
        path, head = self._file(prefix), self._head(prefix)
        data = self._content(path)
        if data is None:
            return None
        if hashlib.sha256(data[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
            self._bad(path, "its checksum differs")
            return None
        if not data.startswith(head):
            self._bad(path, "it is of another model or prompt")
            return None
        self._used.add(path.name)
        with contextlib.suppress(OSError):
            os.utime(path)
        return memoryview(data)[len(head) : -_DIGEST_BYTES]

    def _content(self, path: Path) -> bytes | None:
        """A file's bytes; None where there is none that can be read."""
        try:
            if not path.is_file():
                return None
            if path.stat().st_size <= self._settings.limit_bytes:
                return path.read_bytes()
            self._bad(path, "it is larger than the limit")
        except FileNotFoundError:
            pass
        except OSError as error:
            self._bad(path, error.strerror or "it cannot be read")
        return None

    def write(self, prefix: Prefix, state: bytes) -> None:
        """Keep a prefix's state, if there is room for it beside what this run uses."""
        path = self._file(prefix)
        body = self._head(prefix) + state
        size = len(body) + _DIGEST_BYTES
        if not self._make_room(size, path.name):
            self.full = True
            self._say("full", f"its limit of {self._settings.limit_bytes / 2**30:.1f} GiB is reached; more is not kept")
            return
        try:
            # A power cut may leave it damaged: that is found out, and costs computing it again. Others may read it:
            # gitlab-runner restores a cache as root, and a job's user may be another one.
            write_atomic(path, body + hashlib.sha256(body).digest(), sync=False)
        except PrerequisiteError as error:
            self.full = True
            self._say("full", error.message)
            return
        self._used.add(path.name)

    def _file(self, prefix: Prefix) -> Path:
        digest = _digest({"group": prefix.group, "tokens": prefix.tokens})
        return self._settings.folder / f"{self._name}-{digest[:32]}{_SUFFIX}"

    def _head(self, prefix: Prefix) -> bytes:
        data = {"identity": self._identity, "group": prefix.group, "tokens": prefix.tokens}
        head = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
        return _MAGIC + struct.pack("<I", len(head)) + head

    def _prefix_in(self, path: Path) -> Prefix | None:
        try:
            with path.open("rb") as stream:
                data = _read_head(stream)
            identity = data["identity"]
            prefix = Prefix(
                tuple((str(name), float(scale)) for name, scale in data["group"]),
                tuple(int(token) for token in data["tokens"]),
            )
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            self._bad(path, getattr(error, "strerror", None) or "its head is garbage")
            return None
        return prefix if identity == self._identity and prefix.tokens else None

    def _make_room(self, size: int, name: str) -> bool:
        """Remove what was used least recently until there is room for one more file; False where there is none."""
        found = []
        for path in self._settings.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.name != name:
                    found.append((status.st_mtime, path.name, status.st_size, path))
        ours = sum(bytes_ for _, other, bytes_, _ in found if other in self._used)
        if ours + size > self._settings.limit_bytes:
            return False
        taken = sum(bytes_ for _, _, bytes_, _ in found)
        for _, other, bytes_, path in sorted(found):
            if taken + size > self._settings.limit_bytes and other not in self._used:
                with contextlib.suppress(OSError):
                    path.unlink()
                    taken -= bytes_
        return taken + size <= self._settings.limit_bytes

    def _remove_abandoned(self) -> None:
        for path in self._settings.folder.glob(f".*{_SUFFIX}.*.tmp"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - _ABANDONED_S:
                    path.unlink()

    def _bad(self, path: Path, why: str) -> None:
        self._say(path.name, f"{path.name} is not used: {why}")

    def _say(self, key: str, text: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._settings.say(f"prefix cache {self._settings.folder}: {text}")


def _read_head(stream: BinaryIO) -> dict[str, Any]:
    """The head's data.

    Raises:
        ValueError: there is none.
    """
    first = stream.read(len(_MAGIC) + 4)
    if len(first) < len(_MAGIC) + 4 or not first.startswith(_MAGIC):
        raise ValueError("no magic")
    (length,) = struct.unpack("<I", first[len(_MAGIC) :])
    if length > _LARGEST_HEAD:
        raise ValueError("too long")
    data = json.loads(stream.read(length))
    if not isinstance(data, dict):
        raise TypeError("no object")
    return data


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
