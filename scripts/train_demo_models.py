"""Make the two bundled models: `python scripts/train_demo_models.py all`.

Training needs the `train` extra; the other commands need only `eval`. `evaluate` measures what the model card says. A
recipe is tuned on what `development` measures, so that those figures stay honest. Everything follows from the seeds;
other versions of PyTorch or another CPU round differently and give other weights of the same quality.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "evaljobs" / "gpurig" / "evaljobs" / "assets" / "models"
SUITE = ROOT / "examples" / "ci-jobs"


def main() -> int:
    """Run one command."""
    sys.path.insert(0, str(Path(__file__).parent))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("suite", "generator", "grader", "development", "evaluate", "all"))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "demo-models", help="checkpoints and llama.cpp")
    parser.add_argument("--models", type=Path, default=MODELS, help="where the GGUF files are written, or read")
    parser.add_argument("--threads", type=int, default=2, help="each computes a part of every batch")
    parser.add_argument("--seed", type=int, help="of the training, instead of the recipe's")
    arguments = parser.parse_args()
    wanted = ("suite", "generator", "grader", "evaluate") if arguments.command == "all" else (arguments.command,)
    for command in wanted:
        if command == "suite":
            _suite()
        elif command == "development":
            _development(arguments.models)
        elif command == "evaluate":
            _evaluate(arguments.models)
        else:
            _train(command, arguments.work, arguments.models, arguments.threads, arguments.seed)
    return 0


def _suite() -> None:
    from demo_models import suite_builder  # noqa: PLC0415 - needs nothing but PyYAML

    suite_builder.write(SUITE)
    print(f"wrote {SUITE / 'samples.yaml'} and {SUITE / 'calibration.jsonl'}")


def _train(which: str, work: Path, models: Path, threads: int, seed: int | None) -> None:
    from demo_models import recipes  # noqa: PLC0415 - needs PyTorch

    models.mkdir(parents=True, exist_ok=True)
    recipes.make(which, work, models, threads, seed)


def _development(models: Path) -> None:
    from demo_models import suite_builder  # noqa: PLC0415

    _measure_grader("development", suite_builder.development_rows(), models)


def _evaluate(models: Path) -> None:
    from demo_models import evaluation  # noqa: PLC0415 - needs llama.cpp
    from gpurig.evaljobs.suites.suite import load_suite  # noqa: PLC0415

    _measure_grader("held-out", evaluation.read_calibration(SUITE / "calibration.jsonl"), models)
    run = evaluation.measure_suite(load_suite(SUITE), models)
    print(
        f"suite of {run.samples}: {run.passed} passed, {run.checked} with every check, {run.exact} exactly the "
        f"reference; grader agrees with the checks on {run.agreed} ({run.seconds:.1f} s)"
    )
    for failure in run.failures:
        print(f"  {failure}")


def _measure_grader(which: str, rows: list[dict[str, str]], models: Path) -> None:
    from demo_models import evaluation  # noqa: PLC0415 - needs llama.cpp
    from gpurig.evaljobs.suites.suite import load_suite  # noqa: PLC0415

    grader = evaluation.measure_grader(load_suite(SUITE), rows, models)
    print(
        f"grader on {grader.rows} {which} answers: true positives {grader.true_positives:.3f}, "
        f"true negatives {grader.true_negatives:.3f}, kappa {grader.kappa:.3f} ({grader.seconds:.1f} s)"
    )
    for why, (missed, count) in grader.missed.items():
        print(f"  {why:22} {missed:3d} of {count:3d} missed")


if __name__ == "__main__":
    sys.exit(main())
