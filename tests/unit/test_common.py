"""Small shared mechanisms: programs, waiting, terminals, progress."""

from __future__ import annotations

import io
import sys
import unicodedata

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.common.process import run
from gpurig.common.progress import ByteProgress, Progress
from gpurig.common.terminal import harmless, shorten, size_text, table
from gpurig.common.waiting import wait_for
from hypothesis import given
from hypothesis import strategies as st
from standins.clocks import FakeClock


def test_a_program_that_is_missing_is_a_missing_prerequisite() -> None:
    with pytest.raises(PrerequisiteError, match="gpurig-no-such-program is not installed"):
        run(["gpurig-no-such-program"], timeout_s=1)


def test_a_program_that_hangs_is_killed_and_named() -> None:
    with pytest.raises(PrerequisiteError, match=r"did not finish within 0\.05 s"):
        run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.05)


def test_a_programs_code_and_output_come_back_and_bad_bytes_do_no_harm() -> None:
    done = run([sys.executable, "-c", r"import sys; sys.stdout.buffer.write(b'a\xff'); sys.exit(7)"], timeout_s=30)
    assert (done.code, done.stdout) == (7, "a\ufffd")


def test_no_shell_interprets_an_argument() -> None:
    assert run([sys.executable, "-c", "import sys; print(sys.argv[1])", "$(id)"], timeout_s=30).stdout == "$(id)\n"


def test_waiting_ends_as_soon_as_the_condition_holds() -> None:
    clock = FakeClock()
    answers = iter([None, None, "ready"])
    assert wait_for(lambda: next(answers), timeout_s=60, interval_s=1, clock=clock) == "ready"
    assert clock.now == 2


def test_waiting_gives_up_after_its_time_and_not_later() -> None:
    clock = FakeClock()
    assert wait_for(lambda: None, timeout_s=2.5, interval_s=1, clock=clock) is None
    assert clock.now == 2.5


@given(st.text())
def test_harmless_text_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    safe = harmless(text)
    assert all(unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in safe)
    assert len(safe) >= len(text)


def test_an_escape_sequence_shows_as_text() -> None:
    assert harmless("\x1b]0;owned\x07\u202egpj") == "\\x1b]0;owned\\x07\\x202egpj"


@given(st.text(), st.integers(min_value=0, max_value=40))
def test_shortened_text_fits(text: str, width: int) -> None:
    short = shorten(text, width)
    assert len(short) <= width
    assert short == text or len(text) > width


@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60)), max_size=5))
def test_a_table_fits_80_columns(rows: list[tuple[str, str, str]]) -> None:
    assert all(len(line) <= 80 for line in table(("one", "two", "three"), rows).split("\n"))


def test_numbers_are_aligned_to_the_right() -> None:
    assert table(("name", "value"), [("a", "1.5"), ("b", "10.5")]) == "name  value\na       1.5\nb      10.5"


def test_progress_of_answers_says_how_fast_and_how_long_still() -> None:
    stream, clock = io.StringIO(), FakeClock()
    with Progress("generate", 40, done=10, stream=stream, clock=clock) as progress:
        for _ in range(30):
            clock.sleep(4)
            progress.advance("a", tokens=100)
    assert stream.getvalue().splitlines() == [
        "generate: 10/40",
        "generate: 13/40, 25 tokens/s, 1 min 48 s left",
        "generate: 16/40, 25 tokens/s, 1 min 36 s left",
        "generate: 19/40, 25 tokens/s, 1 min 24 s left",
        "generate: 22/40, 25 tokens/s, 1 min 12 s left",
        "generate: 25/40, 25 tokens/s, 1 min 0 s left",
        "generate: 28/40, 25 tokens/s, 48 s left",
        "generate: 31/40, 25 tokens/s, 36 s left",
        "generate: 34/40, 25 tokens/s, 24 s left",
        "generate: 37/40, 25 tokens/s, 12 s left",
        "generate: 40/40, 25 tokens/s",
    ]


def test_progress_in_a_log_is_lines_without_carriage_returns() -> None:
    stream = io.StringIO()
    with Progress("generate", 3, done=1, stream=stream) as progress:
        progress.advance("a")
        progress.advance("b")
    assert stream.getvalue() == "generate: 1/3\ngenerate: 3/3\n"


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (4_683_073_536, "4.68 GB"),
        (99_960_000, "100 MB"),
        (10**15, "1000 TB"),
    ],
)
def test_a_size_is_short(size: int, shown: str) -> None:
    assert size_text(size) == shown


def test_a_transfer_in_a_log_is_a_line_now_and_then_with_its_rate_and_the_time_left() -> None:
    stream, clock = io.StringIO(), FakeClock()
    with ByteProgress("pull", 100_000_000, done=20_000_000, stream=stream, clock=clock) as progress:
        for second in range(1, 21):
            clock.now = float(second)
            progress.reach(20_000_000 + second * 2_000_000)
        progress.reach(100_000_000)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "pull: 20 MB/100 MB"
    assert lines[1] == "pull: 40 MB/100 MB 2 MB/s, 30 s left"
    assert lines[-1].startswith("pull: 100 MB/100 MB")
    assert len(lines) == 4


def test_a_transfer_on_a_terminal_fits_80_columns() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream, clock = Terminal(), FakeClock()
    with ByteProgress("pull", 18_556_689_568, stream=stream, clock=clock) as progress:
        for second in range(1, 50):
            clock.now = float(second)
            progress.reach(second * 123_456_789)
    drawn = [
        line for line in stream.getvalue().replace("\x1b[?25h", "").replace("\x1b[?25l", "").split("\r") if line.strip()
    ]
    assert max(len(line.rstrip()) for line in drawn) <= 80
    assert "MB/s" in drawn[-1]
