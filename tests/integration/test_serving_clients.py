"""Whole harnesses run beside a server, where `make clients` has installed them: the dev extra is no place for them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gpurig.common.process import Finished, run
from standins.missing import missing
from standins.serving import write_served

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples/harnesses"
CLIENTS = REPOSITORY / "build/clients"
# The programs' own switches for what they would ask of the Internet.
QUIET = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "HF_HUB_OFFLINE": "1",
    "REQUEST_TIMEOUT_MS": "60000",
}
# promptfoo sends one thing with its telemetry off: that it is off.
TELLS_THAT_IT_TELLS_NOTHING = {"CONNECT r.promptfoo.app:443 HTTP/1.1"}
INSPECT_LOG = ("--log-format", "json", "--log-dir", "logs", "--display", "none")


class Proxy:
    """A proxy that opens no connection, and remembers which hosts it was asked for."""

    def __init__(self) -> None:
        """Listen on a free port."""
        self.hosts: set[str] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:{1}".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    self.hosts.add(connection.recv(200).decode(errors="replace").split("\r\n")[0])
                    # Closed without a word, a client would try again for ever.
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def close(self) -> None:
        """No more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


class Beside:
    """Programs beside a tiny model that is served as "judge", behind a proxy that nobody should ask."""

    def __init__(self, folder: Path, proxy: Proxy) -> None:
        """Copy the examples."""
        shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
        self.folder, self.proxy = folder, proxy
        self._model = write_served(folder / "tiny.gguf", context=2048)

    def __call__(self, *command: str) -> Finished:
        job = [sys.executable, "-m", "gpurig.evaljobs", "with-model", str(self._model), "--name", "judge", "--"]
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        path = os.pathsep.join([str(CLIENTS / "bin"), str(CLIENTS / "node_modules/.bin"), os.environ["PATH"]])
        own = {"PROMPTFOO_CONFIG_DIR": str(self.folder / "own"), "PATH": path}
        environment = {**os.environ, **QUIET, **dict.fromkeys(names, self.proxy.url), **own}
        return run([*job, *command], timeout_s=600, cwd=self.folder, env=environment)

    def json(self, pattern: str) -> Any:
        """The one file that the program wrote there."""
        (path,) = self.folder.glob(pattern)
        return json.loads(path.read_text())


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    """Ends a test whose program asked for anything but the server."""
    proxy = Proxy()
    yield Beside(tmp_path, proxy)
    proxy.close()
    assert proxy.hosts <= TELLS_THAT_IT_TELLS_NOTHING


def demand(name: str, where: Path) -> None:
    """Skip where `make clients` has not installed it."""
    if not (CLIENTS / where).exists():
        missing(f"{name} is not installed", f"GPURIG_REQUIRE_{name.upper().replace('-', '_')}")


@pytest.fixture
def inspect(beside: Beside) -> Beside:
    demand("inspect", Path("bin/inspect"))
    return beside


@pytest.fixture
def promptfoo(beside: Beside) -> Beside:
    demand("promptfoo", Path("node_modules/.bin/promptfoo"))
    return beside


def test_inspect_ai_calls_a_tool_and_is_scored_for_every_sample(inspect: Beside) -> None:
    arguments = ("--model", "openai-api/openai/judge", "--max-connections", "8", "--epochs", "2", *INSPECT_LOG)
    done = inspect("inspect", "eval", "inspect_task.py", *arguments)
    assert done.code == 0, done.stdout + done.stderr
    log = inspect.json("logs/*.json")
    assert log["status"] == "success", log["error"]
    assert log["results"]["completed_samples"] == 8
    for sample in log["samples"]:
        asked, called, told, answered = sample["messages"]
        (call,) = called["tool_calls"]
        assert call["function"] == "last_line"
        assert call["arguments"]["job"] in {"build", "unit", "lint", "image"}
        assert (told["role"], told["tool_call_id"]) == ("tool", call["id"])
        assert told.get("error") is None
        cause = json.loads(answered["content"])["cause"]
        assert cause in {"network", "code"}
        assert sample["scores"]["includes"]["value"] == ("C" if cause == sample["target"] else "I")
        assert asked["role"] == "user"


def test_inspect_ai_reads_log_probabilities(inspect: Beside) -> None:
    task = EXAMPLES.joinpath("inspect_task.py").read_text().replace("max_tokens=300", "max_tokens=300, logprobs=True")
    (inspect.folder / "inspect_task.py").write_text(task)
    done = inspect(
        "inspect", "eval", "inspect_task.py", "--model", "openai-api/openai/judge", "--limit", "1", *INSPECT_LOG
    )
    assert done.code == 0, done.stdout + done.stderr
    (sample,) = inspect.json("logs/*.json")["samples"]
    assert sample["output"]["choices"][0]["logprobs"]["content"]


def test_a_model_that_is_not_served_fails_inspect_ais_eval_set(inspect: Beside) -> None:
    arguments = ("--model", "openai-api/openai/other", "--retry-attempts", "1", "--retry-wait", "1", *INSPECT_LOG)
    done = inspect("inspect", "eval-set", "inspect_task.py", *arguments)
    assert done.code == 1
    assert "this server has: judge" in inspect.json("logs/*why-did-it-fail*.json")["error"]["message"]


def verdict(reason: str, *, passed: bool) -> dict[str, Any]:
    """A grader that can give no other verdict."""
    properties = {"reason": {"const": reason}, "pass": {"const": passed}, "score": {"const": int(passed)}}
    return held_to({"type": "object", "properties": properties, "required": list(properties)}, name="verdict")


def held_to(schema: dict[str, Any], *, name: str = "answer") -> dict[str, Any]:
    """A provider whose answers follow a schema."""
    form = {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}
    return {"id": "openai:chat:judge", "config": {"max_tokens": 300, "temperature": 0, "response_format": form}}


def suite(*asserts: dict[str, Any], grader: dict[str, Any]) -> dict[str, Any]:
    """Three prompts that cannot be answered but with {"word": "yes"}, or with yes."""
    answer = {"type": "object", "properties": {"word": {"const": "yes"}}, "required": ["word"]}
    by_grammar = {
        "id": "openai:chat:judge",
        "label": "grammar",
        "config": {"max_tokens": 30, "passthrough": {"grammar": 'root ::= "{\\"word\\": \\"yes\\"}"'}},
    }
    return {
        "prompts": ["Say {{word}}"],
        "providers": [held_to(answer), by_grammar],
        "defaultTest": {"options": {"provider": grader}, "assert": list(asserts)},
        "tests": [{"vars": {"word": word}} for word in ("one", "two", "three")],
    }


def evaluated(promptfoo: Beside, config: dict[str, Any]) -> tuple[Finished, Any]:
    (promptfoo.folder / "suite.json").write_text(json.dumps(config))
    done = promptfoo("promptfoo", "eval", "-c", "suite.json", "--no-cache", "--no-table", "-o", "out.json")
    return done, promptfoo.json("out.json")["results"]


def test_promptfoos_assertions_hold_where_a_grammar_holds_the_answers(promptfoo: Beside) -> None:
    asserts = (
        {"type": "is-json", "value": {"type": "object", "required": ["word"]}},
        {"type": "contains", "value": "yes"},
        {"type": "equals", "value": {"word": "yes"}},
        {"type": "llm-rubric", "value": "is polite"},
    )
    done, results = evaluated(promptfoo, suite(*asserts, grader=verdict("it is", passed=True)))
    assert done.code == 0, done.stdout + done.stderr
    assert results["stats"]["successes"] == 6
    for result in results["results"]:
        assert result["response"]["tokenUsage"]["completion"] > 0
        assert [one["pass"] for one in result["gradingResult"]["componentResults"]] == [True] * 4
        assert result["gradingResult"]["componentResults"][3]["reason"] == "it is"


def test_promptfoos_exit_code_for_a_failed_assertion_is_passed_on(promptfoo: Beside) -> None:
    rubric = {"type": "llm-rubric", "value": "is polite"}
    done, results = evaluated(promptfoo, suite(rubric, grader=verdict("it is not", passed=False)))
    assert done.code == 100
    assert results["stats"] | {"successes": 0, "failures": 6, "errors": 0} == results["stats"]


def test_promptfoo_keeps_what_the_server_refused_but_calls_it_no_failure(promptfoo: Beside) -> None:
    config = suite({"type": "is-json"}, grader=verdict("", passed=True))
    config |= {"providers": ["openai:chat:other"], "tests": [{"vars": {"word": "one"}}]}
    done, results = evaluated(promptfoo, config)
    # Its own decision, which docs/serving.md warns of: from 404 on it asks no more, and ends with 0.
    assert done.code == 0
    assert results["stats"]["successes"] == 0
    assert results["results"]
    assert all("this server has: judge" in result["error"] for result in results["results"])
    script = 'process.exit(+!require("./out.json").results.stats.successes)'
    assert promptfoo("node", "-e", script).code == 1


def test_the_promptfoo_example_is_answered_and_graded(promptfoo: Beside) -> None:
    done = promptfoo("promptfoo", "eval", "-c", "promptfoo.yaml", "--no-cache", "--no-table", "-o", "out.json")
    results = promptfoo.json("out.json")["results"]
    assert done.code == (0 if results["stats"]["successes"] == 2 else 100), done.stderr
    for result in results["results"]:
        assert result["response"]["output"]["cause"] in {"network", "code"}
        is_json, named, *rubric = result["gradingResult"]["componentResults"]
        assert is_json["pass"]
        assert named["pass"] == (result["response"]["output"]["cause"] in named["assertion"]["value"])
        for one in rubric:
            assert "graderError" not in (one.get("metadata") or {}), one


def test_lm_evaluation_harness_generates_on_the_server(beside: Beside) -> None:
    demand("lm-eval", Path("bin/lm-eval"))
    told = "model=judge,base_url=$OPENAI_BASE_URL/completions,tokenizer_backend=None,tokenized_requests=False"
    command = (
        f"lm-eval run --model local-completions --model_args {told},num_concurrent=4 --include_path . --tasks causes"
    )
    done = beside("sh", "-c", f"{command} --output_path out --log_samples")
    assert done.code == 0, done.stdout + done.stderr
    (samples,) = beside.folder.glob("out/judge/samples_causes_*.jsonl")
    answers = [json.loads(line) for line in samples.read_text().splitlines()]
    assert len(answers) == 4
    assert all(answer["resps"][0][0] for answer in answers)
    results = beside.json("out/judge/results_*.json")["results"]["causes"]
    assert results["exact_match,none"] == sum(answer["exact_match"] for answer in answers) / 4
