"""From lm-evaluation-harness' words to ours, without the harness."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gpurig.common.errors import EXIT_PREREQUISITE, EXIT_REMOTE, EXIT_USAGE, InputError
from gpurig.common.gguf import read_gguf
from gpurig.evaljobs.commands.lm_eval import _model_arguments, _translated
from gpurig.evaljobs.harness.chat import Chat
from gpurig.evaljobs.harness.generation import Generation, generation
from gpurig.evaljobs.options import ModelOptions
from gpurig.evaljobs.records import Sampling
from standins.tiny_gguf import write_tiny_gguf


def asked(end: str = "</s>", **arguments: object) -> Generation:
    return generation({"until": [], "max_gen_toks": 32, "do_sample": False, **arguments}, end=end, seed=5)


def test_greedy_is_greedy_whatever_else_is_said() -> None:
    found = asked(temperature=0.7, top_p=0.9)
    assert found.sampling.temperature == 0.0
    assert found.sampling.max_tokens == 32


def test_sampling_is_from_all_tokens_unless_the_task_says_otherwise() -> None:
    assert asked(do_sample=True).sampling == Sampling(
        temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, max_tokens=32, seed=5
    )
    found = asked(do_sample=True, temperature=0.5, top_k=20, top_p=0.8, min_p=0.1, repetition_penalty=1.1, seed=9)
    assert found.sampling == Sampling(
        temperature=0.5, top_k=20, top_p=0.8, min_p=0.1, repeat_penalty=1.1, max_tokens=32, seed=9
    )
    assert asked(do_sample=True, top_k=-1).sampling.top_k == 0


def test_penalties_are_kept_apart_from_the_sampling() -> None:
    found = asked(frequency_penalty=0.5, presence_penalty=1)
    assert (found.shaping.frequency_penalty, found.shaping.presence_penalty) == (0.5, 1.0)


def test_an_answer_ends_at_every_text_of_until_and_at_the_end_of_text() -> None:
    assert asked(until=["\n\n", "", "Q:", "\n\n"]).stop == ("\n\n", "Q:", "</s>")
    assert asked(end="").stop == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_beams": 4}, "num_beams=4 is not known"),
        ({"typical_p": 0.5}, "typical_p=0.5 is not known"),
        ({"until": [3]}, "until holds 3"),
        ({"max_gen_toks": 0}, "max_tokens"),
        ({"do_sample": True, "temperature": -1.0}, "temperature"),
        ({"do_sample": True, "top_p": 2.0}, "top_p"),
    ],
)
def test_what_is_not_done_here_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        asked(**arguments)


def test_what_changes_nothing_is_taken() -> None:
    assert asked(num_beams=1, use_cache=True, typical_p=None) == asked()


TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% if mood %} ({{ mood }}){% endif %}"
    "{{ '\\n' }}{% endfor %}"
)
HISTORY = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because "}]


def chat(folder: Path, template: str = TEMPLATE, **arguments: object) -> Chat:
    gguf = read_gguf(write_tiny_gguf(folder / "tiny.gguf", chat_template=template))
    return Chat(gguf, file=None, arguments=arguments)


def test_a_conversation_may_be_gone_on_with(tmp_path: Path) -> None:
    end = "{% if add_generation_prompt %}[assistant]{% endif %}"
    assert chat(tmp_path, TEMPLATE + end).prompt(HISTORY[:1], go_on=False) == "[user]Why?\n[assistant]"
    # What the template writes behind the last message is not there.
    assert chat(tmp_path, TEMPLATE + end).prompt(HISTORY, go_on=True) == "[user]Why?\n[assistant]Because "
    assert chat(tmp_path, mood="calm").prompt(HISTORY[:1], go_on=False) == "[user]Why? (calm)\n"


def test_a_template_that_loses_the_last_message_cannot_go_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="changes what an answer begins with"):
        chat(tmp_path, "{{ messages[0].content }}").prompt(HISTORY, go_on=True)


def test_a_file_takes_the_place_of_the_template(tmp_path: Path) -> None:
    gguf = read_gguf(write_tiny_gguf(tmp_path / "tiny.gguf", chat_template=TEMPLATE))
    file = tmp_path / "other.jinja"
    file.write_text("{{ messages | length }}")
    assert Chat(gguf, file=file, arguments={}).prompt(HISTORY, go_on=False) == "2"
    file.write_text("{% if %}")
    with pytest.raises(InputError, match=r"other\.jinja"):
        Chat(gguf, file=file, arguments={})


def test_a_model_without_template_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no chat template"):
        chat(tmp_path, "").prompt(HISTORY, go_on=False)


def test_the_options_about_models_reach_the_model() -> None:
    options = ModelOptions(folders=(Path("a b"), Path("c")), no_download=True, threads=2, exact=True)
    found = _model_arguments("name,with=signs", options)
    assert json.loads(json.dumps(found)) == {
        "model": "name,with=signs",
        "models_dir": ["a b", "c"],
        "no_download": True,
        "threads": 2,
        "exact": True,
    }
    cached = _model_arguments("m", ModelOptions(prefix_cache=Path("kept"), prefix_limit_gib=2.0))
    assert cached == {"model": "m", "prefix_cache": "kept", "prefix_limit_gib": 2.0}
    assert _model_arguments("m", ModelOptions()) == {"model": "m"}


class FakeHubError(OSError):
    """As huggingface_hub's are."""

    __module__ = "huggingface_hub.errors"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("Tasks not found: x"), EXIT_USAGE, "Tasks not found: x"),
        (KeyError("no metric"), EXIT_USAGE, "no metric"),
        (RuntimeError(), EXIT_USAGE, "RuntimeError"),
        (FileNotFoundError(2, "No such file", "tasks.yaml"), EXIT_USAGE, "tasks.yaml"),
        (PermissionError(13, "Permission denied", "out"), EXIT_PREREQUISITE, "Permission denied"),
        (OSError(28, "No space left on device"), EXIT_PREREQUISITE, "No space left"),
        (ConnectionError("no hub"), EXIT_REMOTE, "no hub"),
        (FakeHubError("403"), EXIT_REMOTE, "403"),
    ],
)
def test_the_harness_errors_end_with_the_code_of_whose_turn_it_is(error: Exception, code: int, text: str) -> None:
    found = _translated(error)
    assert found.exit_code == code
    assert found.message == f"lm-evaluation-harness: {found.message.partition(': ')[2]}"
    assert text in found.message
    assert found.hint
