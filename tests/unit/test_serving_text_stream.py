"""What is shown of an unfinished answer is never taken back."""

from __future__ import annotations

from gpurig.evaljobs.serving.text_stream import TextStream
from hypothesis import given
from hypothesis import strategies as st


def cut(output: bytes, stops: list[str]) -> tuple[bytes, bool]:
    """As the engine ends an answer: at the first stop that is complete."""
    found = [place for stop in stops if (place := output.find(stop.encode())) >= 0]
    return (output[: min(found)], True) if found else (output, False)


pieces = st.lists(st.one_of(st.text(alphabet="abé€𝄞", max_size=3).map(str.encode), st.binary(max_size=2)), max_size=12)


@given(pieces, st.lists(st.text(alphabet="abé€", min_size=1, max_size=4), max_size=3))
def test_the_pieces_of_a_stream_are_the_text_of_the_whole(written: list[bytes], stops: list[str]) -> None:
    stream, shown, output = TextStream(stops), "", b""
    for piece in written:
        output, stopped = cut(output + piece, stops)
        if stopped:
            break
        shown += stream.more(output)
    assert shown + stream.rest(output) == output.decode("utf-8", "replace")


def test_a_beginning_of_a_stop_is_held_back_until_it_is_none() -> None:
    stream = TextStream(["END"])
    assert stream.more(b"one E") == "one "
    assert stream.more(b"one EN") == ""
    assert stream.more(b"one ENt") == "ENt"


def test_half_a_character_is_held_back() -> None:
    stream = TextStream([])
    assert [stream.more("€".encode()[:length]) for length in (1, 2, 3)] == ["", "", "€"]


def test_nothing_is_shown_from_the_opening_of_a_call_on() -> None:
    stream = TextStream([], "<tool_call>")
    assert stream.more(b"I look <tool") == "I look "
    assert stream.more(b"I look <tool_call>{") == ""
    assert TextStream([], "").more(b"{") == ""
