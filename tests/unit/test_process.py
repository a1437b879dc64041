"""Programs whose lines are read as they come."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.common.process import attend, stream
from gpurig.common.waiting import wait_for

ECHO = "import sys; [print(line.strip()) for line in sys.stdin]; print('bad', file=sys.stderr); sys.exit(7)"


def test_lines_of_both_outputs_come_one_by_one_and_the_exit_code_last():
    lines: list[str] = []
    code = stream([sys.executable, "-u", "-c", ECHO], on_line=lines.append, stdin=b"a\nb\n")
    assert (code, sorted(lines)) == (7, ["a", "b", "bad"])


def test_more_input_than_a_pipe_holds_does_not_block_either_side():
    seen: list[str] = []
    data = b"x" * 1000 + b"\n"
    assert stream([sys.executable, "-c", ECHO], on_line=seen.append, stdin=data * 500) == 7
    assert len(seen) == 501


def test_a_program_that_reads_nothing_is_no_error():
    assert stream([sys.executable, "-c", "pass"], on_line=pytest.fail, stdin=b"x" * 10**6) == 0


def test_a_line_without_end_comes_in_parts():
    lines: list[str] = []
    stream([sys.executable, "-c", "print('x' * 200000)"], on_line=lines.append)
    assert "".join(lines) == "x" * 200000
    assert len(lines) > 1


def test_what_the_reader_raises_ends_the_program():
    seen: list[str] = []

    def stop(line: str) -> None:
        seen.append(line)
        raise KeyboardInterrupt

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        stream([sys.executable, "-c", code], on_line=stop)
    assert wait_for(lambda: not Path(f"/proc/{seen[0]}").exists(), timeout_s=5)


def test_a_missing_program_is_a_missing_prerequisite():
    with pytest.raises(PrerequisiteError, match="is not installed"):
        stream(["gpurig-no-such-program"], on_line=pytest.fail)


def test_an_error_of_the_reader_is_not_the_programs():
    def full(_line: str) -> None:
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match="No space"):
        stream([sys.executable, "-c", "print(1)"], on_line=full)


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ('exit "$CODE"', 5)])
def test_an_attended_programs_end_is_told_as_a_shell_tells_it(script: str, code: int):
    assert attend(["sh", "-c", script], env={**os.environ, "CODE": "5"}, needed=lambda: True) == code


def test_an_attended_program_that_is_needed_no_longer_is_ended():
    looks = iter([True])
    assert attend(["sleep", "99"], env=os.environ, needed=lambda: next(looks, False)) == 128 + signal.SIGTERM


def test_signals_have_their_former_handlers_after_an_attended_program():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(PrerequisiteError, match="not installed"):
        attend(["no-such-program"], env=os.environ, needed=lambda: True)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
