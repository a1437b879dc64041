"""Any suite is read or refused with reasons, never a crash: random data under the keys that mean something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from gpurig.common.errors import InputError
from gpurig.evaljobs.checks import CHECKS
from gpurig.evaljobs.suites.suite import SuiteFile, load_suite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEYS = sorted(
    {
        *SuiteFile.model_fields,
        *("include", "model", "prompt", "sampling", "n", "reduce", "file", "name", "fields", "id", "input", "tags"),
        *("vars", "checks", "generator", "sample", "metric", "min", "verdicts", "format", "seed", "temperature"),
        *list(CHECKS)[:6],
    }
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats(-2, 2)
    | st.sampled_from(
        [
            "",
            "a",
            "x.yaml",
            "data.csv",
            "data.jsonl",
            "../x",
            "{{ input }}",
            "{{ nope }}",
            "{% if",
            "pass@2",
            "yaml",
            "p",
        ]
    )
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.integers(0, 1), inner, max_size=4)
    ),
    max_leaves=10,
)
DATASETS = st.dictionaries(
    st.sampled_from(["file", "format", "fields", "delimiter", "tags", "vars", "checks"]) | st.integers(0, 1), ANYTHING
).map(lambda entry: {"file": "data.csv"} | entry)
SUITES = st.dictionaries(st.sampled_from([*SuiteFile.model_fields, "include"]), ANYTHING, max_size=8)
GOOD: dict[str, Any] = {
    "version": 1,
    "name": "demo",
    "generator": {"model": "m"},
    "samples": [{"id": "a", "input": "x"}],
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(SUITES, st.booleans())
def test_any_suite_is_read_or_refused_in_lines_that_name_a_place(
    tmp_path: Path, data: dict[str, Any], complete: bool
) -> None:
    (tmp_path / "x.yaml").write_text("vars: {a: 1}\nsamples: [{id: b, input: y}]\n")
    (tmp_path / "data.csv").write_text("id,input\nc,z\n")
    (tmp_path / "data.jsonl").write_text('{"id": "d", "input": "z"}\n')
    (tmp_path / "prompts").mkdir(exist_ok=True)
    (tmp_path / "prompts" / "p.md").write_text("---\nvariables: [v]\n---\n{{ v }}")
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({**(GOOD if complete else {}), **data}, sort_keys=False))
    for line in refusal(tmp_path):
        assert line.startswith(f"{tmp_path}/")
        assert "\n" not in line


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.lists(DATASETS, min_size=1, max_size=3))
def test_any_entry_that_names_a_file_is_read_or_refused(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    (tmp_path / "x.yaml").write_text("- {id: b, input: y}\n")
    (tmp_path / "data.csv").write_text("id,input,a\nc,z,1\n")
    (tmp_path / "data.jsonl").write_text('{"id": "d", "input": "z", "a": 1}\n')
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(GOOD | {"samples": entries}))
    for line in refusal(tmp_path):
        assert line.startswith(f"{tmp_path}/")


def refusal(folder: Path) -> list[str]:
    try:
        load_suite(folder)
    except InputError as error:
        return [line for line in (error.message, *error.details) if not line.startswith("… and ")]
    return []
