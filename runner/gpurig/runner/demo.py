"""The demo: a real eval on the bundled models, without a GPU, an engine or a GitLab."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.assets import find_asset
from gpurig.common.errors import PrerequisiteError
from gpurig.common.files import write_problem
from gpurig.common.process import run
from gpurig.evaljobs.results import Results, read_results

SUITE = "examples/ci-jobs"
# What the stages remember (gpurig.evaljobs.store, which the runner does not import; a test holds the two together).
RECORDS = ("generations.jsonl", "checks.jsonl", "grades.jsonl")
_EVAL_EXTRA = ("llama_cpp", "jinja2", "check_jsonschema")


@dataclass(frozen=True)
class DemoOutcome:
    """How the demo ended.

    Attributes:
        code: the eval's exit code; it has said itself what was wrong.
        results: what it found; None where it did not come to its end.
    """

    code: int
    results: Results | None

    @property
    def nothing_new(self) -> bool:
        """Whether an earlier run had finished every sample."""
        return self.results is not None and self.results.reused >= len(self.results.samples)


def run_demo(out: Path, *, fresh: bool = False) -> DemoOutcome:
    """Run the bundled suite through the job programs, as a CI job would, its output passed through.

    Args:
        out: the folder of the records and the report.
        fresh: forget what earlier runs finished.

    Raises:
        PrerequisiteError: the eval extra or the suite is not installed; `out` cannot be written.
    """
    require_eval_extra()
    suite = find_asset("gpurig.runner", SUITE)
    if fresh:
        forget(out)
    # A program of its own, as in a job: the box's side knows its files and exit codes only.
    done = run(
        [sys.executable, "-m", "gpurig.evaljobs", "eval", str(suite), "--out", str(out), "--note", "never"],
        timeout_s=None,
        passthrough=True,
    )
    finished = done.code in {0, 3}
    return DemoOutcome(done.code, read_results(out / "results.json") if finished else None)


def require_eval_extra() -> None:
    """Look for what the eval needs, without loading it.

    Raises:
        PrerequisiteError: something of the eval extra is missing.
    """
    missing = [name for name in _EVAL_EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise PrerequisiteError(
            f"the demo needs gpurig's eval extra ({', '.join(missing)} not found)",
            hint="pip install 'gpurig[eval]' (it compiles llama.cpp, which takes some minutes), or `make demo`",
        )


def forget(out: Path) -> None:
    """Delete the stages' records in `out`, and nothing else.

    Raises:
        PrerequisiteError: one of them cannot be deleted.
    """
    for name in RECORDS:
        try:
            (out / name).unlink(missing_ok=True)
        except OSError as error:
            raise write_problem(out / name, error) from error
