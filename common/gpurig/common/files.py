"""Files that are whole or absent: atomic replacement, durable appending, errors a user can act on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError

_HINTS = {
    errno.EACCES: "run it as a user who may write there, or choose another place",
    errno.EPERM: "run it as a user who may write there, or choose another place",
    errno.EROFS: "the file system is read-only: choose another place (for a box: --root DIR)",
    errno.ENOSPC: "free some disk space and run it again",
    errno.EDQUOT: "free some of your quota and run it again",
    errno.ENOTDIR: "a part of that path is a file: move it away or choose another place",
}


def write_problem(path: Path, error: OSError) -> PrerequisiteError:
    """The user's error for a failed write to `path`."""
    reason = error.strerror or type(error).__name__
    return PrerequisiteError(
        f"cannot write {path}: {reason}", hint=_HINTS.get(error.errno or 0, "check the path and its permissions")
    )


def read_problem(path: Path, error: OSError) -> ApplianceError:
    """The user's error for a failed read of `path`: absent is bad input, forbidden is a missing permission."""
    reason = error.strerror or type(error).__name__
    if isinstance(error, PermissionError):
        return PrerequisiteError(f"cannot read {path}: {reason}", hint="run it as a user who may read that file")
    return InputError(f"cannot read {path}: {reason}", hint="check the path")


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Make `path` and its parents; `mode` applies to the last one only.

    Raises:
        PrerequisiteError: it cannot be made.
    """
    try:
        new = not path.exists()
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        if new:
            # Whatever the umask takes away: a container's user must get into some of these.
            path.chmod(mode)
    except OSError as error:
        raise write_problem(path, error) from error


def demand_space(folder: Path, needed_bytes: int, what: str, *, hint: str = "free some space") -> None:
    """Room for something before it is begun; a file system that does not tell has it.

    Args:
        folder: where it will be written; it exists.
        needed_bytes: what it takes.
        what: the message's subject, for example "the download".
        hint: what to do, besides another folder.

    Raises:
        PrerequisiteError: there is not enough for this user.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise write_problem(folder, error) from error
    if free < needed_bytes:
        raise PrerequisiteError(
            f"{what} needs {needed_bytes / 1e6:.0f} MB in {folder}, and {free / 1e6:.0f} MB are free",
            hint=f"{hint}, or choose a folder on another disk",
        )


def try_lock(descriptor: int, path: Path) -> bool:
    """Take the kernel's lock (flock) of `path`, a file or folder that is open; False where another process has it.

    It is let go of when the descriptor is closed or the process ends, however it ends. A file system without locks
    (some network ones) counts as taken: there is nothing to hold, and no reason to refuse.

    Raises:
        PrerequisiteError: it cannot be locked.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise write_problem(path, error) from error
    return True


def write_atomic(path: Path, data: str | bytes, *, mode: int = 0o644, sync: bool = True) -> None:
    """Replace `path` by `data`: a reader sees the old content or the new, also after a power cut.

    The temporary file lies beside the target, because a rename is atomic on one file system only, and it has
    `mode` before the first byte is written, so that a secret is never readable by others.

    Args:
        path: the file.
        data: its content.
        mode: its permissions.
        sync: wait for the disk; without, only a power cut can leave it empty, and the disk is spared. For what is
            written again in seconds.

    Raises:
        PrerequisiteError: it cannot be written; the old content is untouched.
    """
    payload = data.encode() if isinstance(data, str) else data
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(payload)
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        Path(temporary).replace(path)
        temporary = ""
        if sync:
            sync_directory(path.parent)
    except OSError as error:
        raise write_problem(path, error) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def sync_directory(path: Path) -> None:
    """Let a rename in `path` survive a power cut; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: Path) -> bytes:
    """The content of `path`.

    Raises:
        InputError: no such file. PrerequisiteError: no permission.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise read_problem(path, error) from error


def read_text(path: Path) -> str:
    """The content of `path`, which must be UTF-8.

    Raises:
        InputError: no such file, or not UTF-8. PrerequisiteError: no permission.
    """
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})", hint="save the file as UTF-8") from error


def sha256_file(path: Path) -> str:
    """The file's SHA-256, in hexadecimal.

    Raises:
        InputError: no such file. PrerequisiteError: no permission.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise read_problem(path, error) from error


class LineLog:
    """A file of lines that survives being killed: whole lines only, each on disk before `append` returns.

    Opening it cuts off a last line that a killed writer left unfinished.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        """Open `path` for appending, making it and its folder where they are missing.

        Args:
            path: the file.
            sync: wait for the disk; without, a line survives the end of this process, and a power cut only once
                `sync` was called.

        Raises:
            PrerequisiteError: it cannot be written.
        """
        self.path = path
        self._sync = sync
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut_unfinished_line(path)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise write_problem(path, error) from error

    def append(self, line: str) -> None:
        """Add one line (without its end).

        Raises:
            PrerequisiteError: it cannot be written; an unfinished line is cut off at the next opening.
        """
        payload = line.encode() + b"\n"
        try:
            while payload:
                payload = payload[os.write(self._descriptor, payload) :]
            if self._sync:
                os.fsync(self._descriptor)
        except OSError as error:
            raise write_problem(self.path, error) from error

    def sync(self) -> None:
        """Wait until the disk has every line.

        Raises:
            PrerequisiteError: it cannot be written.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise write_problem(self.path, error) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _cut_unfinished_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        keep = size
        while keep > 0:
            start = max(0, keep - 65536)
            stream.seek(start)
            newline = stream.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep != size:
            stream.truncate(keep)


def whole_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The finished lines of `path` with their numbers (from 1); none where the file is missing.

    Raises:
        InputError: a line is not UTF-8. PrerequisiteError: no permission.
    """
    if not path.exists():
        return
    text = read_text_until_last_line(path)
    yield from enumerate(text.split("\n")[:-1], start=1)


def read_text_until_last_line(path: Path) -> str:
    """The content of `path` up to its last line end, so that a line being written is not seen."""
    payload = read_bytes(path)
    payload = payload[: payload.rfind(b"\n") + 1]
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})", hint="it was damaged: delete it") from error
