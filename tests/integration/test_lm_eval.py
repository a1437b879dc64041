"""lm-evaluation-harness' own command line with our model, beside its `hf` model on the same weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from gpurig.common.errors import EXIT_PREREQUISITE, EXIT_USAGE
from gpurig.common.process import Finished
from standins.reference import Reference
from standins.twin_models import Twins, random_twins, trained_twins

# 640 tokens are the trained twin's context: these are longer.
LONG = "".join(f"job-{number}:\n  stage: test\n  script:\n    - pytest -q tests/{number}\n" for number in range(60))
CHOICES = [
    {"question": "stages: [build, test]\n\ntest:\n  stage:", "choices": ["test", "build", "deploy", "4"], "answer": 0},
    {"question": "Which image has Python?", "choices": ["python:3.12", "café", "東京 🚀", "alpine"], "answer": 0},
    {"question": "", "choices": ["stages:", "nothing", "a"], "answer": 0},
    {"question": LONG + "Which stage?", "choices": ["test", "deploy everything to production", "x"], "answer": 0},
    {"question": "<task>Run the tests\n<ci>", "choices": ["test:\n  script:\n    - pytest", "no"], "answer": 0},
]
TEXTS = ["test:\n  stage: test\n  script:\n    - make test\n", "Naïve café, 東京 🚀\n", LONG + LONG, "x"]
PROMPTS = [
    "<task>Write a GitLab CI job that runs pytest in Python 3.12\n<ci>",
    "stages:\n  - build\n  - test\n",
    "<s>test:\n  script:\n",
    LONG + "deploy:\n",
]
_PERPLEXITIES = ["word_perplexity", "byte_perplexity", "bits_per_byte"]


@dataclass(frozen=True)
class Run:
    """What the harness wrote.

    Attributes:
        results: by task and metric, without standard errors.
        samples: by task, in the order of the documents.
    """

    results: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, Sequence[Mapping[str, Any]]]

    def answers(self, task: str) -> list[list[Any]]:
        """What the model answered: of every document, of every request."""
        return [[answer for (answer,) in sample["resps"]] for sample in self.samples[task]]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks whose data sets are files."""
    folder = tmp_path_factory.mktemp("tasks")
    shared: dict[str, Any] = {"dataset_path": "json", "test_split": "test"}
    _task(
        folder,
        "ci_choice",
        CHOICES,
        {
            **shared,
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
    )
    _task(
        folder,
        "ci_perplexity",
        [{"text": text} for text in TEXTS],
        {
            **shared,
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": name} for name in _PERPLEXITIES],
        },
    )
    _task(
        folder,
        "ci_writing",
        [{"prompt": prompt, "target": "x"} for prompt in PROMPTS],
        {
            **shared,
            "output_type": "generate_until",
            "doc_to_text": "{{prompt}}",
            "doc_to_target": "{{target}}",
            "generation_kwargs": {"until": ["\n\n", "deploy"], "max_gen_toks": 48, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
    )
    return folder


def _task(folder: Path, name: str, documents: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(f"{json.dumps(document)}\n" for document in documents))
    task = {"task": name, "dataset_kwargs": {"data_files": {"test": str(data)}}, **settings}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


def _read(out: Path) -> Run:
    (results,) = out.rglob("results_*.json")
    found = json.loads(results.read_text())["results"]
    samples = {}
    for file in out.rglob("samples_*.jsonl"):
        task = file.name.removeprefix("samples_").rpartition("_")[0]
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        samples[task] = sorted(lines, key=lambda sample: int(sample["doc_id"]))
    return Run(
        {
            task: {
                name.partition(",")[0]: value
                for name, value in metrics.items()
                if isinstance(value, float) and "stderr" not in name
            }
            for task, metrics in found.items()
        },
        samples,
    )


def _ours(reference: Reference, model: str | Path, *words: str | Path, **env: str) -> Finished:
    return reference.run("-m", "gpurig.evaljobs", "lm-eval", model, *words, **env)


def _both(reference: Reference, twins: Twins, tasks: Path, to: Path, *words: str) -> tuple[Run, Run]:
    """The harness' `hf` model, and ours."""
    common = ("--include_path", tasks, "--log_samples", *words)
    theirs = reference.run(
        "-m",
        "lm_eval",
        "run",
        *("--model", "hf", "--model_args", f"pretrained={twins.folder},dtype=float32", "--device", "cpu"),
        *("--output_path", to / "hf", *common),
    )
    assert theirs.code == 0, theirs.stderr
    ours = _ours(reference, twins.gguf, "--output_path", to / "gpurig", *common)
    assert ours.code == 0, ours.stderr
    return _read(to / "hf"), _read(to / "gpurig")


@pytest.fixture(scope="module", params=[trained_twins, random_twins])
def both(
    request: pytest.FixtureRequest, reference: Reference, tasks: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("both")
    twins: Twins = request.param(folder)
    return _both(reference, twins, tasks, folder, "--tasks", "ci_choice,ci_perplexity,ci_writing")


def _close(one: float, other: float) -> bool:
    return abs(one - other) < 1e-3


def test_every_choice_has_the_log_likelihood_that_hf_gives_it(both: tuple[Run, Run]) -> None:
    theirs, ours = (run.answers("ci_choice") for run in both)
    assert len(theirs) == len(ours) == len(CHOICES)
    for sample, (expected, found) in enumerate(zip(theirs, ours, strict=True)):
        assert len(expected) == len(CHOICES[sample]["choices"])  # type: ignore[arg-type]  # a list
        for (value, greedy), (our_value, our_greedy) in zip(expected, found, strict=True):
            assert _close(float(value), float(our_value)), sample
            assert greedy == our_greedy, sample
    assert both[0].results["ci_choice"] == both[1].results["ci_choice"]
    assert set(both[1].results["ci_choice"]) == {"acc", "acc_norm"}


def test_every_text_has_the_rolling_log_likelihood_that_hf_gives_it(both: tuple[Run, Run]) -> None:
    theirs, ours = (run.answers("ci_perplexity") for run in both)
    assert len(theirs) == len(ours) == len(TEXTS)
    for (expected,), (found,) in zip(theirs, ours, strict=True):
        assert _close(float(expected), float(found))
    for name in _PERPLEXITIES:
        one, other = (run.results["ci_perplexity"][name] for run in both)
        assert abs(one - other) < 1e-6 * one


def _readable(text: str) -> str:
    """Without bytes that are no UTF-8 and what stands beside them: tokenizers gives up control characters there too."""
    return re.sub("[\x00-\x1f\ufffd]*\ufffd[\x00-\x1f\ufffd]*", "\ufffd", text)


def test_the_likeliest_text_is_the_one_that_hf_writes(both: tuple[Run, Run]) -> None:
    theirs, ours = (run.answers("ci_writing") for run in both)
    assert [_readable(text) for (text,) in theirs] == [_readable(text) for (text,) in ours]
    assert any(text for (text,) in ours)
    assert not any("deploy" in text or "\n\n" in text for (text,) in ours)


def test_chat_templates_make_the_prompts_that_hf_makes(reference: Reference, tasks: Path, tmp_path: Path) -> None:
    # With examples as turns, and a system message.
    twins = trained_twins(tmp_path)
    words = ("--tasks", "ci_choice,ci_writing", "--apply_chat_template", "--system_instruction", "Be brief.")
    both = _both(reference, twins, tasks, tmp_path, *words, "--num_fewshot", "1")
    for task in ("ci_choice", "ci_writing"):
        theirs, ours = ([sample["arguments"] for sample in run.samples[task]] for run in both)
        assert theirs == ours
        assert "<task>system: Be brief." in str(ours)
        assert "<task>assistant: " in str(ours)
    for expected, found in zip(*(run.answers("ci_choice") for run in both), strict=True):
        assert all(_close(float(one[0]), float(other[0])) for one, other in zip(expected, found, strict=True))
    assert both[0].answers("ci_writing") == both[1].answers("ci_writing")


PYTHON_USER = r"""
import json, sys
from gpurig.evaljobs.harness import register
register(); register()
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from gpurig.evaljobs.inference.context import Context

lm = get_model("gpurig")(sys.argv[1], max_length=200)
exact = get_model("gpurig")(sys.argv[1], max_length=200, exact=True)
def ask(kind, *arguments, lm=lm):
    requests = [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]
    return getattr(lm, kind)(requests, disable_tqdm=True)
words = ("a", "b", "a", "a b", "stage: test")
prompt = "<task>Write a job\n<ci>"
sampled = {"do_sample": True, "temperature": 1.5, "max_gen_toks": 12, "until": []}
found = {
    "repeats": ask("generate_until", *[(prompt, sampled)] * 3),
    "again": ask("generate_until", *[(prompt, sampled)] * 3),
    "seeded": ask("generate_until", *[(prompt, {**sampled, "seed": 7})] * 2),
    "cold": ask("generate_until", (prompt, {**sampled, "top_k": 1}), (prompt, {"until": [], "max_gen_toks": 12})),
    "one text as until": ask("generate_until", (prompt, {"until": "script", "max_new_tokens": 60})),
    "no question": [ask(kind) for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until")],
    "empty": ask("loglikelihood", ("", "test")),
    "begin": ask("loglikelihood", ("<s>", "test")),
    "together": ask("loglikelihood", *[(prompt, word) for word in words]),
    "exact": ask("loglikelihood", *[(prompt, word) for word in words], lm=exact),
    "exact, alone": [ask("loglikelihood", (prompt, word), lm=exact)[0] for word in words],
}
fed = []
compute = Context.compute
def counted(self, step):
    fed.extend(len(row.tokens) for row in step.rows)
    return compute(self, step)
Context.compute = counted
examples = "stages: [build, test]\n" * 12
choices = [f" {word}" for word in words[:2] + words[3:]]
questions = [(f"{examples}job-{number}:\n  stage:", choice) for number in range(10) for choice in choices]
ask("loglikelihood", *questions)
found["fed"] = sum(fed)
# The last token is not fed.
sequences = [lm.tok_encode(context + choice)[:-1] for context, choice in questions]
found["asked"] = sum(map(len, sequences))
found["distinct"] = len({tuple(tokens[: end + 1]) for tokens in sequences for end in range(len(tokens))})
Context.compute = compute
for name, wrong in (("no cache", {"cache": "f64"}), ("no file", {"chat_template": "no.jinja"})):
    try:
        get_model("gpurig")(sys.argv[1], **wrong)
    except Exception as error:
        found[name] = [type(error).__name__, str(error)]
try:
    lm.chat_template("tool")
except Exception as error:
    found["no template"] = [type(error).__name__, str(error)]
for name, kind, arguments in (
    ("beams", "generate_until", (prompt, {"num_beams": 4})),
    ("no temperature", "generate_until", (prompt, {"do_sample": True, "temperature": -1.0})),
    ("no room", "generate_until", (prompt, {"max_gen_toks": 200})),
    ("too long", "loglikelihood", (prompt, "word " * 300)),
    ("nothing", "loglikelihood", (prompt, "")),
):
    try:
        ask(kind, arguments)
    except Exception as error:
        found[name] = [type(error).__name__, str(error)]
lm.close(); lm.close()
print(json.dumps(found))
"""


def test_a_python_program_uses_the_model_as_any_other_of_the_harness(reference: Reference, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PYTHON_USER)
    finished = reference.run(program, trained_twins(tmp_path).gguf)
    assert finished.code == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])

    # Repeats of a question are different draws, the same ones in every run.
    assert found["repeats"] == found["again"]
    assert len(set(found["repeats"])) == 3
    assert len(set(found["seeded"])) == 1
    # One candidate is no choice.
    assert found["cold"][0] == found["cold"][1]
    (cut,) = found["one text as until"]
    assert cut
    assert "script" not in cut
    assert found["no question"] == [[], [], []]
    # Nothing before it is what BOS before it is.
    assert found["empty"] == found["begin"]
    for (one, greedy), (other, other_greedy) in zip(found["together"], found["exact"], strict=True):
        assert abs(one - other) < 1e-4
        assert greedy == other_greedy
    # To the last bit, whatever else is asked.
    assert found["exact"] == found["exact, alone"]
    # Few-shot examples and the choices' question are computed once.
    assert found["asked"] > 4 * found["distinct"]
    assert found["fed"] < 1.2 * found["distinct"]
    assert found["beams"] == ["InputError", "the generation argument num_beams=4 is not known here"]
    assert found["no temperature"][0] == "InputError"
    assert "temperature" in found["no temperature"][1]
    assert found["no room"] == ["InputError", "an answer of 200 tokens leaves no room in a context of 200"]
    assert found["too long"][0] == "InputError"
    assert "the model's context 200" in found["too long"][1]
    assert found["nothing"][0] == "InputError"
    assert found["no cache"] == ["InputError", '"f64" is no type of KV cache']
    assert found["no file"] == ["InputError", "cannot read no.jinja: No such file or directory"]
    assert found["no template"] == ["InputError", 'the model has no chat template "tool"']


# What is wrong, the exit code, and what the error says.
WRONG = [
    ("demo-generator --tasks no-such-task", EXIT_USAGE, "Tasks not found: no-such-task"),
    ("demo-generator", EXIT_USAGE, "No tasks specified"),
    ("demo-generator --tasks ci_choice --no-such-option", EXIT_USAGE, "--no-such-option"),
    ("no-such-model --no-download --tasks ci_choice", EXIT_PREREQUISITE, "no-such-model"),
    ("./no.gguf --tasks ci_choice", EXIT_USAGE, 'there is no model file "./no.gguf"'),
    ("--tasks ci_choice demo-generator", EXIT_USAGE, "MODEL comes first"),
    ("demo-generator --model hf --tasks ci_choice", EXIT_USAGE, "--model is filled in"),
    ("demo-generator --model_args colour=red --tasks ci_choice", EXIT_USAGE, "colour"),
    ("demo-generator --apply_chat_template --tasks ci_choice", EXIT_USAGE, "has no chat template"),
    ("demo-generator --gen_kwargs max_gen_toks=640 --tasks ci_writing", EXIT_USAGE, "no room"),
    ("demo-generator --config no-such-file.yaml", EXIT_USAGE, "no-such-file.yaml"),
]
# All of them in one process: the harness alone takes seconds to load.
WRONG_PROGRAM = """
import contextlib, io, json, sys
from gpurig.common.command import run_command
from gpurig.evaljobs.__main__ import cli

found = {}
for line in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        words = ["lm-eval", *line.split(), "--include_path", sys.argv[1]]
        code = run_command(cli, program="gpurig-job", arguments=words)
    found[line] = code, said.getvalue()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def refused(reference: Reference, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    program = tmp_path_factory.mktemp("wrong") / "program.py"
    program.write_text(WRONG_PROGRAM)
    finished = reference.run(program, tasks, stdin=json.dumps([line for line, *_ in WRONG]))
    assert finished.code == 0, finished.stderr
    found: Mapping[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(("line", "code", "message"), WRONG)
def test_what_is_wrong_is_one_line_and_the_right_exit_code(
    refused: Mapping[str, Any], line: str, code: int, message: str
) -> None:
    found, said = refused[line]
    assert found == code, said
    assert "Traceback" not in said
    assert message in " ".join(said.splitlines()[-2:])
