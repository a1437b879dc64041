from __future__ import annotations

import sys
from pathlib import Path

import pytest
from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.evaljobs.checks import Answer, parse_check, run_check
from gpurig.evaljobs.checks.resources import Resources
from gpurig.evaljobs.records import CheckOutcome
from gpurig.evaljobs.stages import check, generate
from gpurig.evaljobs.store import CHECKS
from standins.eval_box import EvalBox

CODE = """
def says(answer, parameters):
    return eval(parameters["say"], {"answer": answer})
"""


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with a check that says what it is told to."""
    place = tmp_path / "site"
    info = place / "own_checks-1.5.dist-info"
    info.mkdir(parents=True)
    (place / "own_checks.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-checks\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[gpurig.checks]\nown = own_checks:says\nbroken = own_checks:gone\n")
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "own_checks", raising=False)


def outcome(say: str, name: str = "own", allowed: str = "own", **parameters: object) -> CheckOutcome:
    spec = parse_check({"custom": {"name": name, "parameters": {"say": say}, **parameters}})
    return run_check(spec, Answer("hello", vars={"n": 1}, resources=Resources(allowed=frozenset({allowed}))))


@pytest.mark.parametrize(
    ("say", "passed", "score", "message"),
    [
        ("True", True, None, ""),
        ("False", False, None, 'the check "own" says no'),
        ("''", True, None, ""),
        ("'expected x, found ' + answer.output", False, None, "expected x, found hello"),
        ("answer.vars['n'] / 2", True, 0.5, ""),
        ("'a\\x1b[2J\\nb'", False, None, "a\\x1b[2J b"),
        ("1 / 0", False, 0.0, 'the check "own" failed: ZeroDivisionError: division by zero'),
        ("float('nan')", False, 0.0, 'the check "own" returned "nan": neither true, a score 0 to 1, nor a text'),
        ("[]", False, 0.0, 'the check "own" returned "[]": neither true, a score 0 to 1, nor a text'),
    ],
)
def test_what_it_says_is_the_outcome(say: str, passed: bool, score: float | None, message: str) -> None:
    found = outcome(say)
    assert (found.passed, found.score, found.message) == (passed, score, message)


def test_a_score_is_held_against_the_threshold() -> None:
    assert outcome("0.5", threshold=0.5).passed
    assert outcome("0.5", threshold=0.6).message == "expected own of at least 0.6, found 0.500 for this answer"


def test_it_runs_only_where_it_is_allowed_and_there(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        outcome("True", allowed="other")
    assert refused.value.hint == "where you trust it: --allow-check own"
    with pytest.raises(PrerequisiteError, match="no installed package has the check"):
        outcome("True", name="nobody", allowed="nobody")
    assert "AttributeError" in outcome("True", name="broken", allowed="broken").message


def test_nothing_is_recorded_without_leave_and_its_version_is_with_it(tmp_path: Path) -> None:
    box = EvalBox(tmp_path / "box")
    box.data["checks"] = [{"custom": {"name": "own", "parameters": {"say": "True"}}}]
    box.save()
    generate(box.settings())
    with pytest.raises(InputError, match="nobody allowed"):
        check(box.settings())
    assert not (box.out / CHECKS).exists()
    check(box.settings(allowed=frozenset({"own"})))
    assert box.records(CHECKS)[1]["packages"] == {"own-checks": "1.5"}
