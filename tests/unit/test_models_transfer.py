"""A transfer ends with exactly the wanted bytes under the final name, or with none, whatever its source does."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError, RemoteError, TransientError
from gpurig.common.models.partial import PartialFile, partial_path
from gpurig.common.models.remote import Body, LocalFile, RemoteFacts, answered_span
from gpurig.common.models.transfer import Received, Tools, Wanted, receive
from gpurig.common.retrying import Patience
from hypothesis import given, settings
from hypothesis import strategies as st
from standins.clocks import FakeClock
from standins.pulling import digest, model_bytes

with tempfile.TemporaryDirectory() as _folder:
    DATA = model_bytes(Path(_folder))
SIZE = len(DATA)


@dataclass
class Attempt:
    """What one opening of the source does.

    Attributes:
        ends_at: the byte at which the connection breaks; the end where None.
        silent: it breaks without an error, as a server without a length does.
        from_start: the range is ignored.
        wrong: one byte is another.
        extra: bytes more than there are.
        fails: nothing comes.
    """

    ends_at: int | None = None
    silent: bool = False
    from_start: bool = False
    wrong: bool = False
    extra: int = 0
    fails: bool = False


@dataclass
class Scripted:
    """A source that does what its attempts say, and then behaves."""

    attempts: list[Attempt] = field(default_factory=list)
    facts: RemoteFacts = field(default_factory=lambda: RemoteFacts(SIZE, digest(DATA), "c" * 40, "etag"))
    data: bytes = DATA
    chunk: int = 50_000
    opened: list[int] = field(default_factory=list)

    @property
    def label(self) -> str:
        return "the source"

    def look(self) -> RemoteFacts:
        return self.facts

    @contextlib.contextmanager
    def open(self, start: int, facts: RemoteFacts) -> Iterator[Body]:
        self.opened.append(start)
        attempt = self.attempts.pop(0) if self.attempts else Attempt()
        if attempt.fails:
            raise TransientError("nothing came", hint="wait")
        begins = 0 if attempt.from_start else start
        yield Body(begins, self._chunks(begins, attempt), self.facts.size_bytes)

    def _chunks(self, begins: int, attempt: Attempt) -> Iterator[bytes]:
        end = len(self.data) if attempt.ends_at is None else min(attempt.ends_at, len(self.data))
        data = bytearray(self.data[begins:end])
        if attempt.wrong and data:
            data[len(data) // 2] ^= 1
        data += b"x" * attempt.extra
        for at in range(0, len(data), self.chunk):
            yield bytes(data[at : at + self.chunk])
        if attempt.ends_at is not None and not attempt.silent:
            raise TransientError("it broke off", hint="wait")


def tools(**changes: object) -> Tools:
    values: dict[str, object] = {"clock": FakeClock(), "stream": io.StringIO()}
    return dataclasses.replace(Tools(say=lambda _: None), **values | changes)


def fetch(remote: Scripted, folder: Path, wanted: Wanted | None = None, **changes: object) -> Received:
    return receive(remote, folder / "m.gguf", wanted or Wanted(), tools(**changes))


ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        ends_at=st.none() | st.integers(0, SIZE),
        silent=st.booleans(),
        from_start=st.booleans(),
        wrong=st.booleans(),
        extra=st.sampled_from([0, 0, 0, 1, 100_000]),
        fails=st.booleans(),
    ),
    max_size=6,
)


@settings(max_examples=80)
@given(ATTEMPTS, st.integers(1, 4), st.sampled_from([1000, 70_000, 10**6]), st.booleans())
def test_whatever_a_source_does_the_file_is_the_wanted_one_or_not_there(
    attempts: list[Attempt], attempts_each: int, chunk: int, announced: bool
) -> None:
    facts = RemoteFacts(SIZE if announced else None, digest(DATA), "c" * 40, "etag")
    remote = Scripted(list(attempts), facts, chunk=chunk)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = folder / "m.gguf"
        # Every pull uses up at least one of the attempts, and in the end the source behaves.
        for _ in range(len(attempts) + 1):
            try:
                done = fetch(remote, folder, patience=Patience(attempts=attempts_each))
            except ApplianceError:
                assert not target.exists()
            else:
                assert target.read_bytes() == DATA
                assert done.sha256 == digest(DATA)
                assert os.listdir(folder) == ["m.gguf"]  # noqa: PTH208 - names
                return
        raise AssertionError("it never arrived")


@settings(max_examples=60)
@given(st.binary(max_size=200) | st.integers(0, SIZE).map(lambda end: DATA[:end]) | st.just(DATA + b"more"))
def test_whatever_an_earlier_run_left_the_file_is_the_wanted_one(left: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        partial_path(folder / "m.gguf", digest(DATA)).write_bytes(left)
        fetch(Scripted(), folder)
        assert (folder / "m.gguf").read_bytes() == DATA
        assert os.listdir(folder) == ["m.gguf"]  # noqa: PTH208


def test_what_another_content_left_is_removed_and_what_another_run_writes_is_not(tmp_path: Path) -> None:
    import fcntl

    old, busy = (partial_path(tmp_path / "m.gguf", content) for content in ("old", "busy"))
    for path in (old, busy, partial_path(tmp_path / "other.gguf", "x")):
        path.write_bytes(b"half")
    with busy.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        fetch(Scripted(), tmp_path)
    assert not old.exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == sorted(
        [busy.name, partial_path(tmp_path / "other.gguf", "x").name]
    )


def test_an_interrupt_keeps_what_came(tmp_path: Path) -> None:
    class Interrupted(Scripted):
        def _chunks(self, begins: int, attempt: Attempt) -> Iterator[bytes]:
            yield self.data[begins : begins + 100_000]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(Interrupted(), tmp_path)
    (partial,) = tmp_path.iterdir()
    assert partial.read_bytes() == DATA[:100_000]
    remote = Scripted()
    fetch(remote, tmp_path)
    assert remote.opened == [100_000]


@pytest.mark.parametrize("call", ["append", "publish"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_refuses_is_a_missing_prerequisite_and_leaves_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("os.pwrite" if call == "append" else "os.fsync", refuse)
    with pytest.raises(PrerequisiteError) as caught:
        fetch(Scripted(), tmp_path)
    assert caught.value.exit_code == 4
    assert caught.value.hint
    monkeypatch.undo()
    assert not (tmp_path / "m.gguf").exists()
    fetch(Scripted(), tmp_path)
    assert (tmp_path / "m.gguf").read_bytes() == DATA


def test_a_file_system_without_locks_and_modes_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int):
        def call(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return call

    monkeypatch.setattr("fcntl.flock", refuse(errno.ENOLCK))
    monkeypatch.setattr("os.fchmod", refuse(errno.EPERM))
    fetch(Scripted([Attempt(ends_at=1000)]), tmp_path)
    assert (tmp_path / "m.gguf").read_bytes() == DATA


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PrerequisiteError, match="file/models"):
        fetch(Scripted(), tmp_path / "file" / "models")


def test_other_bytes_than_the_catalogues_are_refused_before_and_after_the_transfer(tmp_path: Path) -> None:
    wanted = Wanted("b" * 64, SIZE, "the catalogue says")
    remote = Scripted()
    with pytest.raises(RemoteError, match="the catalogue says sha256 bbb"):
        fetch(remote, tmp_path, wanted)
    assert remote.opened == []
    remote = Scripted(facts=RemoteFacts())
    with pytest.raises(RemoteError, match="the catalogue says sha256 bbb"):
        fetch(remote, tmp_path, wanted)
    assert not list(tmp_path.iterdir())


def test_a_local_file_with_other_bytes_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "usb.gguf").write_bytes(DATA)
    with pytest.raises(InputError, match="size"):
        receive(LocalFile(tmp_path / "usb.gguf"), tmp_path / "m.gguf", Wanted(size_bytes=7), tools())


def test_the_lock_is_of_the_file_that_has_the_name(tmp_path: Path) -> None:
    path = tmp_path / ".m.partial"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        partial = PartialFile(path, descriptor)
        assert partial.is_in_place()
        path.rename(tmp_path / "m.gguf")
        assert not partial.is_in_place()
        path.touch()
        assert not partial.is_in_place()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("status", "headers", "asked", "expected"),
    [
        (200, {"Content-Length": "10"}, 0, (0, 10)),
        (200, {"Content-Length": "10"}, 4, (0, 10)),
        (200, {"Content-Length": "10", "Content-Encoding": "gzip"}, 0, (0, None)),
        (200, {"Content-Length": "-1"}, 0, (0, None)),
        (200, {}, 0, (0, None)),
        (206, {"Content-Range": "bytes 4-9/10"}, 4, (4, 10)),
        (206, {"Content-Range": "bytes 4-9/*"}, 4, (4, None)),
        (416, {"Content-Range": "bytes */4"}, 4, (4, 4)),
    ],
)
def test_where_an_answer_begins_is_read_from_it(
    status: int, headers: dict[str, str], asked: int, expected: tuple[int, int | None]
) -> None:
    assert answered_span(status, headers, asked) == expected


@given(st.sampled_from([200, 204, 206, 304, 416]), st.text(max_size=30), st.integers(0, 100))
def test_no_answer_is_a_bug(status: int, text: str, asked: int) -> None:
    for name in ("Content-Range", "Content-Length"):
        with contextlib.suppress(TransientError):
            start, total = answered_span(status, {name: text}, asked)
            assert start in {0, asked}
            assert total is None or total >= 0
