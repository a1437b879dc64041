"""The `gpurig-job` command: the programs inside a job image."""

from __future__ import annotations

import sys

from gpurig.common.command import run_command
from gpurig.common.lazy import LazyCommand
from gpurig.common.program import make_program

_HERE = "gpurig.evaljobs.commands"

COMMANDS = {
    "generate": LazyCommand(f"{_HERE}.stages:generate", "Let the generator answer every sample of a suite."),
    "check": LazyCommand(f"{_HERE}.stages:check", "Run the suite's checks over the generations."),
    "grade": LazyCommand(f"{_HERE}.stages:grade", "Let the grader judge every generation."),
    "calibrate": LazyCommand(f"{_HERE}.calibrate:calibrate", "Say how far a suite's grader agrees with people."),
    "merge": LazyCommand(f"{_HERE}.merge:merge", "Put the parts of a run together that jobs with --shard made."),
    "compare": LazyCommand(f"{_HERE}.compare:compare", "Compare two runs of a suite, sample by sample."),
    "report": LazyCommand(f"{_HERE}.report:report", "Compute the results, apply the gate, write the reports."),
    "eval": LazyCommand(f"{_HERE}.stages:eval_", "All four stages, one after the other."),
    "validate": LazyCommand(f"{_HERE}.suites:validate", "Check a suite without running it."),
    "convert": LazyCommand(f"{_HERE}.suites:convert", "Make a suite of promptfoo's configuration or of OpenAI evals."),
    "schema": LazyCommand(f"{_HERE}.suites:schema", "Print the JSON Schema of suite.yaml, for editors."),
    "quantize": LazyCommand(f"{_HERE}.quantize:quantize", "Quantize an F16 model, and say what that costs."),
    "imatrix": LazyCommand(f"{_HERE}.quantize:imatrix", "Compute a model's importance matrix from a text."),
    "divergence": LazyCommand(
        f"{_HERE}.quantize:divergence",
        "Compare the predictions of models with a reference's, as llama-perplexity --kl-divergence does.",
    ),
    "score": LazyCommand(f"{_HERE}.score:score", "Score what others wrote: choices of questions, and whole texts."),
    "serve": LazyCommand(f"{_HERE}.serve:serve", "Serve a model with OpenAI's interface."),
    "with-model": LazyCommand(f"{_HERE}.serve:with_model", "Run a command beside a server of a model."),
    "lm-eval": LazyCommand(f"{_HERE}.lm_eval:lm_eval", "Evaluate a model with lm-evaluation-harness."),
    "memory": LazyCommand(f"{_HERE}.memory:memory", "Show what llama.cpp would allocate for a model."),
    "selfcheck": LazyCommand(f"{_HERE}.selfcheck:selfcheck", "Prove that this image can run jobs on its backend."),
}


cli = make_program("gpurig-job", "Evaluate language models inside a CI job: generate, check, grade, report.", COMMANDS)


def main() -> None:
    """The console script."""
    sys.exit(run_command(cli, program="gpurig-job"))


if __name__ == "__main__":
    main()
