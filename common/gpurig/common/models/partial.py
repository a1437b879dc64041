"""The hidden file in which the bytes of a transfer gather, held by one run at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpurig.common.files import read_problem, sync_directory, try_lock, write_problem
from gpurig.common.waiting import Clock

_LOCK_EVERY_S = 0.5
_SUFFIX = ".partial"
_READ_BYTES = 2**20


class PartialFile:
    """An open partial file that this run has locked; every method raises PrerequisiteError where the disk refuses."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take over `descriptor`, which is open for reading and writing."""
        self.path = path
        self._descriptor = descriptor
        # Of all that is there; None until somebody asks for it or adds to it.
        self._hash: Any = None

    @property
    def size_bytes(self) -> int:
        """How far it is."""
        return os.fstat(self._descriptor).st_size

    def sha256(self) -> str:
        """The hash of all that is there, in hexadecimal; what was added is not read again."""
        digest: str = self._hashed().hexdigest()
        return digest

    def _hashed(self) -> Any:
        if self._hash is None:
            self._hash = hashlib.sha256()
            at = 0
            try:
                while data := os.pread(self._descriptor, _READ_BYTES, at):
                    self._hash.update(data)
                    at += len(data)
            except OSError as error:
                raise read_problem(self.path, error) from error
        return self._hash

    def cut(self, size_bytes: int = 0) -> None:
        """Throw away what is behind `size_bytes`."""
        try:
            os.ftruncate(self._descriptor, size_bytes)
        except OSError as error:
            raise write_problem(self.path, error) from error
        self._hash = None

    def append(self, chunk: bytes) -> None:
        """Put `chunk` at the end."""
        hashed = self._hashed()
        at, view = self.size_bytes, memoryview(chunk)
        try:
            while view:
                written = os.pwrite(self._descriptor, view, at)
                hashed.update(view[:written])
                at, view = at + written, view[written:]
        except OSError as error:
            raise write_problem(self.path, error) from error

    def publish(self, target: Path) -> None:
        """Give it its final name, durably."""
        try:
            # A container's user reads it too; a file system without modes (a stick's) refuses, and lets everybody read.
            with contextlib.suppress(PermissionError):
                os.fchmod(self._descriptor, 0o644)
            os.fsync(self._descriptor)
            self.path.replace(target)
            sync_directory(target.parent)
        except OSError as error:
            raise write_problem(target, error) from error

    def remove(self) -> None:
        """Remove it: its content is of no use."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def is_in_place(self) -> bool:
        """Whether the name still means this file: another run may have published it meanwhile."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False


def partial_path(target: Path, content: str) -> Path:
    """The partial file of `target` for one content; another content's bytes gather in another file."""
    return target.with_name(f".{target.name}.{hashlib.sha256(content.encode()).hexdigest()[:16]}{_SUFFIX}")


@contextlib.contextmanager
def locked_partial(path: Path, *, clock: Clock, say: Callable[[str], None]) -> Iterator[PartialFile]:
    """Open `path` for this run alone; where another run has it, wait until that has ended, however it ends.

    Raises:
        PrerequisiteError: it cannot be written.
    """
    waited = False
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise write_problem(path, error) from error
        partial = PartialFile(path, descriptor)
        try:
            # Without locks two runs at once spoil each other's bytes, and the hash tells.
            locked = try_lock(descriptor, path)
            if locked and partial.is_in_place():
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not locked:
            if not waited:
                say("another run is fetching this file; waiting for it")
                waited = True
            clock.sleep(_LOCK_EVERY_S)
    try:
        yield partial
    finally:
        if partial.size_bytes == 0 and partial.is_in_place():
            partial.remove()
        os.close(descriptor)


def remove_others(target: Path, keep: Path) -> None:
    """Remove what earlier runs left of other contents of `target`, unless a run is writing to it."""
    for path in target.parent.glob(f".{target.name}.*{_SUFFIX}"):
        if path == keep:
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                if try_lock(descriptor, path):
                    path.unlink()
            finally:
                os.close(descriptor)
