"""The header of a model that is not here: a few megabytes of a file of many gigabytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpurig.common.errors import InputError, RemoteError, TransientError
from gpurig.common.gguf import Gguf, from_header, parse_checked
from gpurig.common.gguf_header import MAGIC, Header, NeedsMore
from gpurig.common.models.remote import RemoteFacts, RemoteFile
from gpurig.common.waiting import Clock, SystemClock

# Of a model with a vocabulary of a quarter of a million texts the header has some 10 MB.
_FIRST = 2**20
_MOST = 64 * 2**20
# For the whole header: a source that sends a byte now and then would never be silent long enough.
_SECONDS = 120.0


def read_remote_header(remote: RemoteFile, *, clock: Clock | None = None) -> Gguf:
    """The header of a file at a source; its tensors are held against the length that the source tells.

    Raises:
        InputError: the file is damaged, or no GGUF. RemoteError: the source does not answer, breaks off, or lies.
    """
    return _Header(remote, clock or SystemClock()).read()


def joined(parts: Sequence[Gguf]) -> Gguf:
    """One model of the parts of a split one, which are in order: the first has the metadata.

    Raises:
        InputError: a part is missing, or is another model's.
    """
    first = parts[0]
    count = first.metadata.get("split.count", 1)
    numbers = [part.metadata.get("split.no", 0) for part in parts]
    if numbers != list(range(len(parts))) or (isinstance(count, int) and count > 1 and count != len(parts)):
        raise InputError(
            f"{first.source} is part {numbers[0] + 1 if isinstance(numbers[0], int) else '?'} of {count} of a model",
            hint="give the path of its first part, and keep the parts' names: NAME-00001-of-00003.gguf",
        )
    if len(parts) == 1:
        return first
    names = [tensor.name for part in parts for tensor in part.tensors]
    if len(names) != len(set(names)):
        raise InputError(f"the parts of {first.source} have the same tensors", hint="they belong to different models")
    return replace(
        first,
        size_bytes=sum(part.size_bytes for part in parts),
        tensors=tuple(tensor for part in parts for tensor in part.tensors),
    )


@dataclass(frozen=True)
class _Bytes:
    data: bytes

    def read(self, start: int, count: int) -> bytes:
        return self.data[start : start + count]


class _Header:
    def __init__(self, remote: RemoteFile, clock: Clock) -> None:
        self._remote = remote
        self._clock = clock
        self._end = clock.monotonic() + _SECONDS
        self._data = bytearray()
        self._size: int | None = None

    def read(self) -> Gguf:
        facts = self._remote.look()
        self._size = facts.size_bytes
        self._fetch(facts, _FIRST)
        while True:
            header = self._parse()
            if isinstance(header, Header):
                return from_header(self._remote.label, header, self._whole(), _Bytes(bytes(self._data)))
            self._fetch(facts, max(header, 2 * len(self._data)))

    def _whole(self) -> int:
        if self._size is None:
            raise RemoteError(
                f"{self._remote.label}: the source does not say how long the file is", hint="pull the model instead"
            )
        return self._size

    def _parse(self) -> Header | int:
        """The header, or how many bytes it needs at least."""
        label = self._remote.label
        if bytes(self._data[:4]) != MAGIC:
            raise InputError(f"{label} is no GGUF file", hint="give the address of a model in GGUF format")
        try:
            return parse_checked(label, bytes(self._data), self._whole())
        except NeedsMore as more:
            if more.size > _MOST:
                raise InputError(
                    f"{label} has a header of more than {_MOST // 2**20} MiB, more than any model",
                    hint="the file is damaged",
                ) from more
            return more.size

    def _fetch(self, facts: RemoteFacts, wanted: int) -> None:
        """Read on until `wanted` bytes are there, or the file ends."""
        wanted = min(wanted, _MOST, self._size if self._size is not None else _MOST)
        have = len(self._data)
        with self._remote.open(have, facts, stop=wanted) as body:
            self._hold_against(body.total)
            skip = have - body.start
            for chunk in body.chunks:
                self._data += chunk[skip:]
                skip = max(0, skip - len(chunk))
                if len(self._data) >= min(wanted, self._whole()):
                    return
                if self._clock.monotonic() > self._end:
                    raise TransientError(
                        f"{self._remote.label}: {len(self._data)} bytes came in {_SECONDS:g} s",
                        hint="try again, or pull the model first",
                    )
        if len(self._data) < min(wanted, self._whole()):
            raise TransientError(
                f"{self._remote.label}: the connection ended after {len(self._data)} bytes",
                hint="try again; if it happens again, the source tells a wrong length",
            )

    def _hold_against(self, total: int | None) -> None:
        if self._size is None:
            self._size = total
        elif total is not None and total != self._size:
            raise RemoteError(
                f"{self._remote.label}: the source tells two lengths, {self._size} and {total} bytes",
                hint="the file changed meanwhile, or a proxy is in between: try again",
            )
