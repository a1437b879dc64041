"""Whole harnesses run beside a server, where they are installed: they are too large for the dev extra."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from gpurig.common.process import Finished, run
from standins.missing import missing
from standins.serving import write_served

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate

@task
def answered():
    samples = [Sample(input=f"hello {number}", target="no such answer") for number in range(6)]
    return Task(dataset=samples, solver=[generate(max_tokens=8, logprobs=True)], scorer=match())
"""
SUITE = {
    "prompts": ["Say {{word}}"],
    "providers": [{"id": "openai:chat:judge", "config": {"max_tokens": 8}}],
    "tests": [{"vars": {"word": word}} for word in ("one", "two", "three")],
}


def program(name: str) -> str:
    """A program of PATH."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed", f"GPURIG_REQUIRE_{name.upper()}")
    return found


def beside_model(folder: Path, *command: str) -> Finished:
    path = write_served(folder / "tiny.gguf")
    argv = [sys.executable, "-m", "gpurig.evaljobs", "with-model", str(path), "--name", "judge", "--", *command]
    quiet = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "PROMPTFOO_CONFIG_DIR": str(folder)}
    return run(argv, timeout_s=600, cwd=folder, env={**os.environ, **quiet})


def test_inspect_ai_evaluates_on_the_server(tmp_path: Path) -> None:
    inspect = program("inspect")
    (tmp_path / "task.py").write_text(TASK)
    model = ("--model", "openai-api/openai/judge", "--log-format", "json", "--log-dir", "logs", "--display", "none")
    done = beside_model(tmp_path, inspect, "eval", "task.py", *model)
    assert done.code == 0, done.stdout + done.stderr
    (log,) = (tmp_path / "logs").glob("*.json")
    data = json.loads(log.read_text())
    assert data["status"] == "success"
    assert len(data["samples"]) == 6
    for sample in data["samples"]:
        assert sample["output"]["choices"][0]["logprobs"]["content"]


def test_promptfoo_evaluates_on_the_server(tmp_path: Path) -> None:
    promptfoo = program("promptfoo")
    (tmp_path / "promptfooconfig.json").write_text(json.dumps(SUITE))
    config = ("-c", "promptfooconfig.json", "--no-cache", "--no-table", "-o", "out.json")
    done = beside_model(tmp_path, promptfoo, "eval", *config)
    assert done.code == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    assert results["stats"]["successes"] == 3
    assert all(result["response"]["tokenUsage"]["completion"] > 0 for result in results["results"])
