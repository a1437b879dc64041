from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from gpurig.common.errors import PrerequisiteError
from gpurig.evaljobs.checks import Answer, parse_check, run_check

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


def message(check: object, output: str) -> str:
    outcome = run_check(parse_check(check), Answer(output))
    assert "\n" not in outcome.message
    return outcome.message


@pytest.mark.parametrize(
    ("check", "output"),
    [
        ("python", "import os\n\n\ndef main(a, /, *, b: int = 1) -> None:\n    print(os)\n"),
        ("python", "Sure:\n```python\nprint('x')\n```\nThat prints x."),
        ({"python": {"defines": ["add", "Adder"]}}, "def add(a, b):\n    return a + b\nclass Adder: ...\n"),
        ({"python": {"minor": 8}}, "print(f'{1}')\n"),
        ("python", "x = '\\d'\n"),
    ],
)
def test_code_that_parses_passes(check: object, output: str) -> None:
    assert message(check, output) == ""


@pytest.mark.parametrize(
    ("check", "output", "says"),
    [
        ("python", "", "the answer is empty"),
        ("python", "Sure, here is the code", "no valid Python in line 1"),
        ("python", "def f(:\n  pass", 'no valid Python in line 1: invalid syntax: "def f(:"'),
        ("python", "print 'x'", "no valid Python in line 1"),
        ("python", "x = 1\0", "no valid Python"),
        (
            {"python": {"minor": 9}},
            "match x:\n    case 1:\n        pass\n",
            "in line 3: Pattern matching is only",
        ),
        ({"python": {"defines": ["add"]}}, "def sub(): ...", 'expected a definition of "add", found "sub"'),
        ("python", "(" * 5000, "no valid Python"),
        ("python", "x" * 300_000, "more than 200000"),
    ],
)
def test_code_that_does_not_parse_fails_and_says_where(check: object, output: str, says: str) -> None:
    assert says in message(check, output)


@pytest.mark.parametrize(
    "output", ["-" * 100_000 + "1", "not " * 40_000 + "x", "x." * 60_000 + "y", "[" * 90 + "]" * 90]
)
def test_deep_code_neither_ends_nor_delays_the_run(output: str) -> None:
    started = time.process_time()
    message("python", output)
    assert time.process_time() - started < 20


@needs_bash
@pytest.mark.parametrize(
    ("check", "output", "says"),
    [
        ("shell", 'set -eu\nfor f in *.py; do echo "$f"; done\n', ""),
        ("shell", "```bash\nif true; then echo x; fi\n```", ""),
        ("shell", "cat <(echo x)\n", ""),
        ("shell", "if true; then echo x\n", "unexpected end of file"),
        ("shell", "for do done", "line 1: syntax error near unexpected token"),
        ("shell", "echo 'open\n", "unexpected EOF"),
        ("shell", "echo \0", "zero byte"),
    ],
)
def test_a_script_is_read_by_bash(check: object, output: str, says: str) -> None:
    found = message(check, output)
    assert says in found
    assert bool(says) == bool(found)


@needs_bash
def test_a_script_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "ran"
    startup = tmp_path / "startup"
    startup.write_text(f"touch {trap}\n")
    monkeypatch.setenv("BASH_ENV", str(startup))
    monkeypatch.setenv("ENV", str(startup))
    for script in (
        f"touch {trap}",
        f"$(touch {trap})",
        f"x=`touch {trap}`; exit",
        f": ${{x:=$(touch {trap})}}",
        ":(){ :|:& };:",
    ):
        message("shell", script)
    assert not trap.exists()


def test_without_bash_the_run_ends_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PrerequisiteError, match="bash is not installed"):
        message("shell", "echo x")


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ({"latency": 2.5}, ""),
        ({"latency": 1.5}, "expected at most 1.5 s, found 2 s"),
        ("latency", ""),
        ({"tokens": {"prompt": 100, "completion": 50}}, ""),
        ({"tokens": 10}, "expected at most 10 completion tokens, found 40"),
        ({"tokens": {"prompt": 10}}, "expected at most 10 prompt tokens, found 100"),
        ({"tokens-per-second": 20}, ""),
        ({"tokens-per-second": 21}, "expected at least 21 tokens/s, found 20"),
    ],
)
def test_cost_is_held_against_limits(check: object, says: str) -> None:
    answer = Answer("x", prompt_tokens=100, completion_tokens=40, seconds=2.0)
    outcome = run_check(parse_check(check), answer)
    assert outcome.message == says
    assert outcome.figures
    assert "does not say" in run_check(parse_check(check), Answer("x")).message
