"""docs/checks.md lists exactly the checks that exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from gpurig.evaljobs.checks import CHECKS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("checks_table", ROOT / "scripts" / "checks_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_tables_are_the_catalogue(tables):
    text = tables.DOCUMENT.read_text(encoding="utf-8")
    assert tables.with_tables(text) == text, "run `make docs`"
    between = "".join(re.findall(r"begin \(make docs[^\n]*\n(.*?)<!--", text, flags=re.DOTALL))
    assert sorted(re.findall(r"^\| `([a-z0-9-]+)` \|", between, flags=re.MULTILINE)) == sorted(CHECKS)


def test_a_document_without_the_marks_is_an_error(tables):
    with pytest.raises(ValueError, match="lacks the marks"):
        tables.with_tables("# Checks\n")


def test_every_parameter_of_a_check_with_a_shorthand_includes_it():
    for check in CHECKS.values():
        assert not check.shorthand or check.shorthand in check.parameter_names
        assert not check.passes.endswith(".")
