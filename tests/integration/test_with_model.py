"""`gpurig-job serve` and `with-model` as programs: what a command finds, how both end."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess  # noqa: TID251 - programs that are signalled while they run
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gpurig.common.process import Finished, run
from gpurig.common.waiting import wait_for
from standins.serving import write_served
from standins.tiny_lora import write_lora
from standins.tiny_shapes import with_position_table, write_random

pytest.importorskip("llama_cpp", reason="the eval extra is not installed")
JOB = [sys.executable, "-m", "gpurig.evaljobs"]
ASK = """
import os, sys, urllib.request
url, key = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
asked = urllib.request.Request(url + "/models", headers={"Authorization": "Bearer " + key})
print(url, urllib.request.urlopen(asked).read().decode(), os.environ["NO_PROXY"])
sys.exit(7)
"""
# Tells that it runs by the file, and ends in its own way when it is asked to.
WAIT = """
import pathlib, signal, sys, time
def end(number, frame):
    print("told", number, flush=True)
    sys.exit(40 + number)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[1]).write_text("x")
time.sleep(300)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_served(tmp_path_factory.mktemp("served") / "tiny.gguf")


def test_beginnings_are_kept_for_the_servers_next_start(path: Path) -> None:
    folder = path.with_name("kept")
    ask = f"""
import json, os, urllib.request
for text in ("ab", "cd"):
    body = {{"model": "tiny", "prompt": {"q v w z k " * 40!r} + text, "max_tokens": 4, "temperature": 0}}
    headers = {{"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}}
    url = os.environ["OPENAI_BASE_URL"] + "/completions"
    asked = urllib.request.Request(url, json.dumps(body).encode(), headers)
    print(json.loads(urllib.request.urlopen(asked).read())["choices"][0]["text"].encode())
"""
    words = (str(path), "--name", "tiny", "--prefix-cache", str(folder), "--", sys.executable, "-c", ask)
    first, second = with_model(*words), with_model(*words)
    assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
    assert first.stdout == second.stdout
    assert first.stderr.startswith("prompts' beginnings: 0 tokens loaded, ")
    assert second.stderr.endswith(" tokens loaded, 0 computed\n")
    assert len(list(folder.iterdir())) == 1


def test_adapters_are_served_beside_the_model(path: Path) -> None:
    lora = write_lora(path.with_name("lora.gguf"), path)
    adapters = ("--adapter", f"style={lora}", "--adapter", f"weak={lora}:0.5")
    done = with_model(str(path), "--name", "tiny", *adapters, "--", sys.executable, "-c", ASK)
    assert done.code == 7, done.stderr
    data = json.loads(done.stdout.partition(" ")[2].rpartition(" ")[0])["data"]
    assert [model["id"] for model in data][:3] == ["tiny", "tiny:style", "tiny:weak"]
    twice = with_model(str(path), "--adapter", f"a={lora}", "--adapter", f"a={lora}:0.5", "--", "true")
    assert (twice.code, 'there are two adapters "a"' in twice.stderr) == (2, True)


def with_model(*words: str) -> Finished:
    return run([*JOB, "with-model", *words], timeout_s=120)


def test_a_command_finds_the_server_and_its_exit_code_is_passed_on(path: Path) -> None:
    done = with_model(str(path), "--name", "tiny", "--", sys.executable, "-c", ASK)
    assert done.code == 7, done.stderr
    url, _, rest = done.stdout.partition(" ")
    data, _, proxy = rest.rpartition(" ")
    assert [model["id"] for model in json.loads(data)["data"]] == ["tiny", str(path)]
    assert "127.0.0.1" in proxy.split(",")[-1]
    with pytest.raises(OSError):  # noqa: PT011 - whatever the system says of a closed port
        urllib.request.urlopen(f"{url}/models", timeout=5)  # noqa: S310 - it is http
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["no-such-model", "--no-download", "--", "true"], 4, 'no model "no-such-model"'),
        (["./none.gguf", "--", "true"], 2, "there is no model file"),
        (["{path}", "--", "no-such-command"], 4, "no-such-command is not installed"),
        (["{path}", "--", "sh", "-c", "kill -9 $$"], 137, ""),
        (["{path}"], 2, "Missing argument"),
        (["{path}", "--chat-template", "{path}", "--", "true"], 2, "is not UTF-8 text"),
        (["{path}", "--adapter", "style", "--", "true"], 2, '--adapter "style" is not NAME=PATH'),
        (["{path}", "--adapter", "a={path}:0.5", "--", "true"], 2, "is no LoRA adapter, but a model"),
        (["{path}", "--adapter", "a=./none.gguf", "--", "true"], 2, "there is no model file"),
        (["{path}", "--adapter", "a={path}", "--embeddings", "--", "true"], 2, "for a server that writes"),
        (["{path}", "--prefix-cache", "{path}.kept", "--embeddings", "--", "true"], 2, "for a server that writes"),
        (["{path}", "--prefix-cache", "{path}", "--", "true"], 2, "is a file"),
        (["{path}", "--prefix-cache", "{path}/x", "--", "true"], 4, "cannot write"),
        (["{path}", "--prefix-cache", "x", "--prefix-cache-limit", "0", "--", "true"], 2, "--prefix-cache-limit"),
        (["{path}", "--embeddings", "--max-tokens", "3", "--", "true"], 2, "for a server that writes"),
    ],
)
def test_exit_codes_say_whose_turn_it_is(path: Path, words: list[str], code: int, said: str) -> None:
    done = with_model(*(word.format(path=path) for word in words))
    assert done.code == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def started(*words: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*JOB, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **options,  # type: ignore[call-overload] # passed on
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command_and_its_end_is_ours(path: Path, tmp_path: Path, number: signal.Signals) -> None:
    runs = tmp_path / "runs"
    with started("with-model", str(path), "--", sys.executable, "-c", WAIT, str(runs)) as process:
        assert wait_for(runs.exists, timeout_s=60)
        process.send_signal(number)
        assert process.wait(60) == 40 + number
        assert process.stdout is not None
        assert process.stdout.read() == f"told {number.value}\n".encode()


# A session of its own, whose terminal is standard input: what a login shell has.
ON_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_ctrl_c_on_a_terminal_reaches_the_command_once(path: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    ours, theirs = pty.openpty()
    words = [*JOB, "with-model", str(path), "--", sys.executable, "-c", WAIT, str(runs)]
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, *words], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        try:
            assert wait_for(runs.exists, timeout_s=60)
            os.write(ours, b"\x03")
            said, errors = process.communicate(timeout=60)
        finally:
            process.kill()
            os.close(ours)
            os.close(theirs)
    assert (process.returncode, said, errors) == (42, b"told 2\n", b"")


def test_serve_answers_until_it_is_told_to_stop(path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with started("serve", str(path), "--port", str(port)) as process:
        health = f"http://127.0.0.1:{port}/health"
        assert wait_for(lambda: answers(health) or process.poll() is not None, timeout_s=60)
        again = run([*JOB, "serve", str(path), "--port", str(port)], timeout_s=60)
        assert (again.code, "cannot listen" in again.stderr) == (4, True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert said.startswith(f"serving {path} at http://127.0.0.1:{port}/v1")
        assert said.count("\n") == 1


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - it is http
            return bool(answer.status == 200)
    except OSError:
        return False


def test_an_open_address_without_a_key_is_refused(path: Path) -> None:
    everywhere = "0.0.0.0"  # noqa: S104 - it is refused
    done = run([*JOB, "serve", str(path), "--host", everywhere], timeout_s=60)
    assert done.code == 2
    assert "hint: give --api-key-file" in done.stderr


def test_a_chat_template_that_is_none_is_refused_before_the_model_is_loaded(path: Path, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% for message in messages %}\n{{ message.content }")
    done = with_model(str(path), "--chat-template", str(template), "--", "true")
    assert (done.code, done.stderr.splitlines()[0].endswith(": line 2 of the template: unexpected '}'")) == (2, True)


# Prompts of about 12 and 300 tokens, and what came of them: the tokens, or the status.
LENGTHS = """
import json, os, sys, urllib.error, urllib.request
def ask(path, **body):
    headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
    data = json.dumps({"model": "tiny", "temperature": 0, **body}).encode()
    try:
        answer = urllib.request.urlopen(urllib.request.Request(os.environ["OPENAI_BASE_URL"] + path, data, headers))
    except urllib.error.HTTPError as error:
        return error.code
    return json.load(answer)
short, long = (ask("/completions", prompt="hello " * times, max_tokens=8) for times in (2, 50))
print([one if isinstance(one, int) else one["usage"]["completion_tokens"] for one in (short, long)])
if "--json" in sys.argv:
    texts = {"a": {"type": "string", "minLength": 150, "maxLength": 160}}
    schema = {"type": "object", "properties": texts, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    words = [{"role": "user", "content": "hello " * 20}]
    answer = ask("/chat/completions", messages=words, max_tokens=700, response_format=form)
    written = json.loads(answer["choices"][0]["message"]["content"])
    print(answer["usage"]["total_tokens"] > 256, len(written["a"]) >= 150)
"""


def test_a_context_longer_than_the_training_is_warned_of_and_answers_follow_their_schema_beyond_it(
    tmp_path: Path,
) -> None:
    path = write_served(tmp_path / "tiny.gguf", context=256)
    done = with_model(str(path), "--name", "tiny", "--context", "1024", "--", sys.executable, "-c", LENGTHS, "--json")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == ["[8, 8]", "True True"]
    warning = "gpurig-job: warning: a context of 1024, and tiny.gguf was trained for 256"
    assert done.stderr.startswith(warning)
    assert done.stderr.count("\n") == 1
    assert with_model(str(path), "--name", "tiny", "--context", "256", "--", "true").stderr == ""


def test_a_model_with_a_table_of_positions_is_refused_a_longer_context_and_its_server_survives_long_prompts(
    tmp_path: Path,
) -> None:
    path = write_random(tmp_path / "table.gguf", with_position_table(positions=64))
    done = with_model(str(path), "--context", "65", "--", "true")
    assert done.code == 2
    assert "table.gguf has 64 positions and no more, and the context shall be 65" in done.stderr
    done = with_model(str(path), "--name", "tiny", "--", sys.executable, "-c", LENGTHS)
    assert (done.code, done.stdout) == (0, "[8, 400]\n"), done.stderr


# Asks for more than is computed in the moment that is left, tells that it did, and then what came of each request.
CUT = """
import collections, concurrent.futures, json, sys, threading, urllib.error, urllib.request
def ask(number, stream):
    body = {"model": "tiny", "prompt": f"hello {number}", "max_tokens": 400, "stream": stream}
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(sys.argv[1] + "/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            if stream:
                answer.readline()
                begun.release()
            return "whole" if b"[DONE]" in answer.read() or not stream else "cut"
    except urllib.error.HTTPError as error:
        return f"{error.code} {json.load(error)['error']['code']}"
    except Exception as error:
        return type(error).__name__
begun = threading.Semaphore(0)
with concurrent.futures.ThreadPoolExecutor(60) as pool:
    answers = [pool.submit(ask, number, number % 2 == 0) for number in range(60)]
    begun.acquire()
    print("begun", flush=True)
    print(json.dumps(collections.Counter(answer.result() for answer in answers)))
"""


def test_what_does_not_end_in_the_grace_is_answered_with_503_and_told_in_few_lines(tmp_path: Path) -> None:
    path = write_served(tmp_path / "tiny.gguf")
    command = [*JOB, "serve", str(path), "--name", "tiny", "--port", "0", "--grace", "0", "--threads", "1", "--exact"]
    log = tmp_path / "log"
    with log.open("w") as stream, subprocess.Popen(command, stderr=stream) as server:
        try:
            assert wait_for(lambda: "API key" in log.read_text(), timeout_s=60, interval_s=0.05)
            url = log.read_text().split(" at ")[1].split(": ")[0]
            with subprocess.Popen([sys.executable, "-c", CUT, url], stdout=subprocess.PIPE, text=True) as client:
                assert client.stdout is not None
                assert client.stdout.readline() == "begun\n"
                server.send_signal(signal.SIGTERM)
                answered = json.loads(client.stdout.read())
            assert server.wait(60) == 0
        finally:
            server.kill()
    assert answered.pop("503 server_stopping") >= 20
    assert set(answered) <= {"whole", "cut", "IncompleteRead"}
    assert "Traceback" not in log.read_text()
    assert len(log.read_text().splitlines()) < 40
