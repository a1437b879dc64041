"""One file from a source into a folder: resumable, verified, whole or absent.

The bytes gather in a hidden file beside the target, named after the content that is wanted, so that a later run goes
on where an earlier one broke off. Only what has the right length and hash, and a sound GGUF header, gets the last name.
huggingface_hub's own download begins anew in every process and compares no hash, so it brings metadata only (hub.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from gpurig.common.errors import InputError, PrerequisiteError, RemoteError, TransientError
from gpurig.common.files import make_directory, sha256_file
from gpurig.common.gguf import read_gguf
from gpurig.common.models.partial import PartialFile, locked_partial, partial_path, remove_others
from gpurig.common.models.remote import LocalFile, RemoteFacts, RemoteFile, free_bytes
from gpurig.common.progress import ByteProgress
from gpurig.common.retrying import Patience, retrying
from gpurig.common.terminal import size_text
from gpurig.common.waiting import Clock, SystemClock

# What stays free on the disk beside the file.
_MARGIN = 64 * 2**20
# A source that says no size and sends without end must not fill the disk.
_LARGEST = 2**42


@dataclass(frozen=True)
class Tools:
    """What a transfer works with, so that tests bring their own.

    Attributes:
        say: told what happens, one line at a time.
        free: bytes that are free where a folder is.
        stream: where progress goes; standard error where None.
    """

    say: Callable[[str], None]
    clock: Clock = field(default_factory=SystemClock)
    patience: Patience = field(default_factory=Patience)
    free: Callable[[Path], int] = free_bytes
    stream: TextIO | None = None


@dataclass(frozen=True)
class Wanted:
    """What is known of a file beforehand.

    Attributes:
        because: where hash and size come from, for messages: "the catalogue says".
        hint: what to do where the file is another one.
    """

    sha256: str | None = None
    size_bytes: int | None = None
    because: str = "its source announced"
    hint: str = "do not use it before you know why: was it replaced, or does a proxy answer in its source's place?"


@dataclass(frozen=True)
class Received:
    """A file that is in its place.

    Attributes:
        sha256: of its content, computed here.
        fetched: bytes that were transferred now; 0 where it was there already.
    """

    path: Path
    sha256: str
    size_bytes: int
    revision: str
    fetched: int


def receive(remote: RemoteFile, target: Path, wanted: Wanted, tools: Tools) -> Received:
    """Bring a file to `target`.

    Raises:
        InputError: the source's file is no sound GGUF; a local file is not the wanted one.
        PrerequisiteError: no room, no permission.
        RemoteError: the source fails, or has another content than `wanted`.
    """
    facts = retrying(remote.look, patience=tools.patience, clock=tools.clock, say=tools.say)
    for what, mine, theirs in (("sha256", wanted.sha256, facts.sha256), ("size", wanted.size_bytes, facts.size_bytes)):
        if mine is not None and theirs is not None and mine != theirs:
            raise _other_content(remote, f"{what} {theirs}", f"{what} {mine}", wanted)
    goal = Wanted(
        wanted.sha256 or facts.sha256,
        facts.size_bytes if wanted.size_bytes is None else wanted.size_bytes,
        wanted.because,
        wanted.hint,
    )
    make_directory(target.parent)
    content = goal.sha256 or "\0".join((remote.label, facts.revision, facts.etag, str(goal.size_bytes)))
    path = partial_path(target, content)
    with locked_partial(path, clock=tools.clock, say=tools.say) as partial:
        # Another run may have brought it while this one waited.
        if goal.sha256 is not None and target.is_file() and sha256_file(target) == goal.sha256:
            partial.remove()
            return Received(target, goal.sha256, target.stat().st_size, facts.revision, 0)
        remove_others(target, path)
        transfer = _Transfer(remote, facts, partial, goal, tools)
        digest = transfer.complete()
        _check_header(remote, partial)
        partial.publish(target)
    return Received(target, digest, target.stat().st_size, facts.revision, transfer.moved)


def _other_content(remote: RemoteFile, got: str, expected: str, wanted: Wanted) -> InputError | RemoteError:
    kind = InputError if isinstance(remote, LocalFile) else RemoteError
    return kind(f"{remote.label} has {got}, and {wanted.because} {expected}", hint=wanted.hint)


def _check_header(remote: RemoteFile, partial: PartialFile) -> None:
    """Refuse what is no sound GGUF file; it is not kept: it would be refused again."""
    try:
        read_gguf(partial.path)
    except InputError as error:
        partial.remove()
        reason = error.message.removeprefix(str(partial.path)).strip()
        raise InputError(
            f"{remote.label} {reason}", hint="name a .gguf file; a damaged one must be replaced at its source"
        ) from error


class _Transfer:
    """The way of one file's bytes into its partial file."""

    def __init__(
        self, remote: RemoteFile, facts: RemoteFacts, partial: PartialFile, goal: Wanted, tools: Tools
    ) -> None:
        self._remote = remote
        self._facts = facts
        self._partial = partial
        self._goal = goal
        self._tools = tools
        self.moved = 0

    def complete(self) -> str:
        """Fill the partial file; a wrong hash after going on from an earlier run is followed by one fresh start.

        Returns:
            Its SHA-256.
        """
        size = self._goal.size_bytes
        if size is not None and self._partial.size_bytes > size:
            self._partial.cut()
        self._check_room()
        before = self._partial.size_bytes
        if before:
            self._tools.say(f"going on at {size_text(before)} of an earlier run")
        digest = self._filled()
        if self._goal.sha256 not in {None, digest} and before:
            self._tools.say("the bytes of the earlier run do not fit; beginning again")
            self._partial.cut()
            digest = self._filled()
        if self._goal.sha256 not in {None, digest}:
            self._partial.cut()
            raise _other_content(self._remote, f"sha256 {digest}", f"sha256 {self._goal.sha256}", self._goal)
        return digest

    def _check_room(self) -> None:
        if self._goal.size_bytes is None:
            return
        folder = self._partial.path.parent
        free, missing = self._tools.free(folder), self._goal.size_bytes - self._partial.size_bytes
        if missing and free < missing + _MARGIN:
            raise PrerequisiteError(
                f"{folder} has {size_text(free)} free, and {size_text(missing + _MARGIN)} are needed",
                hint="free some disk space, or choose another folder (--dir; in a job --models-cache)",
            )

    def _filled(self) -> str:
        tools, partial = self._tools, self._partial
        with ByteProgress(
            "pull", self._goal.size_bytes, done=partial.size_bytes, stream=tools.stream, clock=tools.clock
        ) as progress:
            retrying(
                lambda: self._attempt(progress),
                patience=tools.patience,
                clock=tools.clock,
                say=tools.say,
                progress=lambda: partial.size_bytes,
            )
        return partial.sha256()

    def _attempt(self, progress: ByteProgress) -> None:
        partial, size = self._partial, self._goal.size_bytes
        if partial.size_bytes == size:
            return
        with self._remote.open(partial.size_bytes, self._facts) as body:
            if body.start != partial.size_bytes:
                partial.cut(body.start)
            size = body.total if size is None else size
            for chunk in body.chunks:
                if partial.size_bytes + len(chunk) > (_LARGEST if size is None else size):
                    partial.cut()
                    raise RemoteError(
                        f"{self._remote.label} sends more bytes than it announced",
                        hint="pull it again; if that stays, its source or a proxy is broken",
                    )
                partial.append(chunk)
                self.moved += len(chunk)
                progress.reach(partial.size_bytes)
        if size is not None and partial.size_bytes < size:
            raise TransientError(
                f"{self._remote.label} ended after {size_text(partial.size_bytes)} of {size_text(size)}",
                hint="pull it again: it goes on where it broke off",
            )
