"""The bytes of a sequence's state, for contexts with other numbers of streams.

Of a cache that keeps plain keys and values llama.cpp writes (llama_context::state_seq_get_data,
llama_kv_cache::state_write): a magic number and the sequence's, four bytes each; the number of streams; of each stream,
four bytes: how many cells of it are the sequence's, and behind that what is in them. All but one stream have none. It
reads such a state into a context with as many streams only, so it is kept as if there were one.
"""

from __future__ import annotations

import struct

_HEAD = 8


def one_stream(state: bytes, streams: int) -> bytes:
    """A state of a context with so many streams as one with a single stream has it.

    Raises:
        ValueError: it is laid out in another way.
    """
    begin, *counts = struct.unpack_from(f"<{streams + 1}I", state, _HEAD)
    number = next((index for index, count in enumerate(counts) if count), None)
    if begin != streams or number is None:
        raise ValueError("this is no state of plain keys and values")
    end = len(state) - 4 * (streams - 1 - number)
    if any(state[end:]):
        raise ValueError("this is no state of plain keys and values")
    return b"".join((state[:_HEAD], struct.pack("<I", 1), state[_HEAD + 4 + 4 * number : end]))


def of_streams(state: bytes | memoryview, streams: int) -> bytes:
    """The other way round: a state of a single stream for a context with so many; its cells are its first stream's."""
    return b"".join((state[:_HEAD], struct.pack("<I", streams), state[_HEAD + 4 :], bytes(4 * (streams - 1))))
