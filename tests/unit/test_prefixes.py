"""Which beginnings are kept, and the folder that they are kept in."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.evaljobs.engine import PrefixSettings
from gpurig.evaljobs.inference.prefix_store import PrefixStore
from gpurig.evaljobs.inference.prefix_tree import WORTH_KEEPING, worth_keeping
from gpurig.evaljobs.inference.states import of_streams, one_stream
from gpurig.evaljobs.inference.works import Prefix
from hypothesis import given
from hypothesis import strategies as st

ADAPTED = (("a", 0.5),)


def stretched(*tokens: int) -> tuple[int, ...]:
    """Each token so often that a beginning of it pays."""
    return tuple(token for token in tokens for _ in range(WORTH_KEEPING))


def plan(*prompts: tuple[int, ...], known: tuple[tuple[int, ...], ...] = ()) -> list[tuple[int, ...]]:
    found = worth_keeping([Prefix((), one) for one in prompts], [Prefix((), one) for one in known])
    return [one.tokens for one in found]


def test_what_two_prompts_share_is_kept_on_every_level_the_shortest_first() -> None:
    system, document = stretched(1), stretched(1, 2)
    asked = [(*document, 7, 1), (*document, 8, 1), (*system, 9, 1), (*system, 3, 1)]
    assert plan(*asked) == [system, document]
    assert plan(*asked, known=(system,)) == [document]
    assert plan(*asked, known=(system, document)) == []


def test_a_few_tokens_more_than_another_beginning_are_not_worth_a_state() -> None:
    system = stretched(1)
    assert plan((*system, 5, 5, 1), (*system, 5, 5, 2), (*system, 6)) == [system]
    assert plan((*system[1:], 2), (*system[1:], 3)) == []


def test_what_one_prompt_has_alone_is_not_kept_and_the_last_token_is_in_none() -> None:
    assert plan((*stretched(1, 2), 1), (*stretched(3, 4), 1)) == []
    assert plan((*stretched(1), 2), (*stretched(1), 2)) == [stretched(1)]
    assert plan(stretched(1), stretched(1)) == []
    assert plan(stretched(1, 1), stretched(1, 1, 1)) == [stretched(1, 1)[:-1]]


def test_groups_share_nothing() -> None:
    prompts = [Prefix(group, (*stretched(1), token)) for group in ((), ADAPTED) for token in (1, 2)]
    assert worth_keeping([prompts[0], prompts[2]]) == []
    assert worth_keeping(prompts) == [Prefix((), stretched(1)), Prefix(ADAPTED, stretched(1))]


@given(st.lists(st.lists(st.integers(0, 2), max_size=5).map(lambda tokens: (*stretched(*tokens), 9, *tokens, 9))))
def test_whatever_is_kept_is_shared_long_enough_and_fits_its_prompts(prompts: list[tuple[int, ...]]) -> None:
    kept = plan(*prompts)
    assert plan(*reversed(prompts)) == kept
    for one in kept:
        assert sum(prompt[: len(one)] == one and len(prompt) > len(one) for prompt in prompts) >= 2
        shorter = [other for other in kept if other != one and one[: len(other)] == other]
        assert all(len(one) - len(other) >= WORTH_KEEPING for other in shorter)
        assert len(one) >= WORTH_KEEPING


def store(folder: Path, *, limit: int = 10**6, said: list[str] | None = None, **identity: object) -> PrefixStore:
    say = (said if said is not None else []).append
    return PrefixStore(PrefixSettings(folder, limit, say), {"model": "m", **identity})


def prefix(*tokens: int) -> Prefix:
    return Prefix(ADAPTED, tokens)


def test_a_state_is_read_by_the_same_identity_only(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.write(prefix(1, 2), b"state")
    assert bytes(one.read(prefix(1, 2)) or b"") == b"state"
    assert list(one.stored()) == [prefix(1, 2)]
    assert one.read(prefix(1, 3)) is one.read(Prefix((), (1, 2))) is None
    other = store(tmp_path, flash=1)
    assert list(other.stored()) == []
    assert other.read(prefix(1, 2)) is None
    assert next(tmp_path.iterdir()).stat().st_mode & 0o777 == 0o644


@given(position=st.integers(0, 10**6), byte=st.integers(1, 255), cut=st.integers(0, 200))
def test_no_changed_byte_and_no_cut_is_ever_taken_for_a_state(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store(folder).write(prefix(1, 2), b"state" * 10)
    (path,) = folder.iterdir()
    good = path.read_bytes()
    place = position % len(good)
    damaged = [
        good[:place] + bytes([good[place] ^ byte]) + good[place + 1 :],
        good[: max(len(good) - 1 - cut, 0)],
        good + b"x",
    ]
    for data in damaged:
        path.write_bytes(data)
        said: list[str] = []
        again = store(folder, said=said)
        assert set(again.stored()) <= {prefix(1, 2)}
        assert again.read(prefix(1, 2)) is None
        assert again.read(prefix(1, 2)) is None
        assert len(said) == 1


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"gpurigKV", b"gpurigKV\x02\0\0\0{}", b"gpurigKV\xff\xff\xff\xff"])
)
def test_files_of_anything_are_told_and_passed_over(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, start: bytes
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store(folder).write(prefix(1), b"state")
    (path,) = folder.iterdir()
    path.write_bytes(start + junk)
    assert list(store(folder).stored()) == []


def test_the_least_recently_used_states_go_and_those_of_this_run_stay(tmp_path: Path) -> None:
    first = store(tmp_path)
    for number in range(3):
        first.write(prefix(number), bytes(1000))
    size = next(tmp_path.iterdir()).stat().st_size
    for age, one in enumerate([prefix(1), prefix(2), prefix(0)]):
        (path,) = [path for path in tmp_path.iterdir() if path.name == first._file(one).name]
        os.utime(path, (1000 + age, 1000 + age))
    said: list[str] = []
    second = store(tmp_path, limit=3 * size, said=said)
    assert second.read(prefix(1)) is not None, "which makes it the one that was used last"
    second.write(prefix(7), bytes(1000))
    assert set(second.stored()) == {prefix(0), prefix(1), prefix(7)}
    second.write(prefix(8), bytes(1000))
    assert set(second.stored()) == {prefix(1), prefix(7), prefix(8)}
    assert not second.full
    second.write(prefix(9), bytes(1000))
    second.write(prefix(10), bytes(1000))
    assert second.full
    assert said == [f"prefix cache {tmp_path}: its limit of 0.0 GiB is reached; more is not kept"]
    assert set(second.stored()) == {prefix(1), prefix(7), prefix(8)}
    second.write(prefix(8), bytes(1000))
    assert len(list(tmp_path.iterdir())) == 3


def test_a_state_that_is_larger_than_the_limit_costs_nobody_theirs(tmp_path: Path) -> None:
    store(tmp_path).write(prefix(1), bytes(1000))
    small = store(tmp_path, limit=2000)
    small.write(prefix(2), bytes(5000))
    assert small.full
    assert list(small.stored()) == [prefix(1)]
    assert store(tmp_path, limit=500).read(prefix(1)) is None


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    one = store(tmp_path)
    os.mkfifo(one._file(prefix(1)))
    one._file(prefix(2)).mkdir()
    assert list(one.stored()) == []
    assert one.read(prefix(1)) is one.read(prefix(2)) is None


def test_other_peoples_files_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(bytes(5000))
    one = store(tmp_path, limit=3000)
    one.write(prefix(1), bytes(1000))
    one.write(prefix(2), bytes(5000))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".prefix", ".txt"]
    assert one.full


def test_what_a_killed_writer_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old, new = tmp_path / ".x.prefix.abc.tmp", tmp_path / ".y.prefix.abc.tmp"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    store(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_a_folder_that_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PrerequisiteError, match="cannot write"):
        store(tmp_path / "file" / "folder")


def state(streams: int, number: int, cells: bytes) -> bytes:
    """As llama.cpp writes it."""
    words = [streams, *[0] * number]
    return b"magc" + b"seq " + struct.pack(f"<{len(words)}I", *words) + cells + bytes(4 * (streams - 1 - number))


@given(st.integers(1, 9), st.data())
def test_a_state_is_the_same_whatever_the_streams_of_its_context(streams: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, streams - 1))
    cells = struct.pack("<I", data.draw(st.integers(1, 2**32 - 1))) + data.draw(st.binary(min_size=40))
    one = one_stream(state(streams, number, cells), streams)
    assert one == state(1, 0, cells)
    assert of_streams(memoryview(one), streams) == state(streams, 0, cells)


@pytest.mark.parametrize(
    "strange",
    [state(3, 0, bytes(60)), state(2, 0, b"\x01\0\0\0" + bytes(60)), state(3, 1, b"\x01" * 60)[:-4] + b"abcd"],
)
def test_a_state_that_is_laid_out_in_another_way_is_refused(strange: bytes) -> None:
    with pytest.raises(ValueError, match="no state of plain keys"):
        one_stream(strange, 3)
