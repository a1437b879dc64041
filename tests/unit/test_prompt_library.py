"""The prompt library: files with a version and a hash, what they may take in, and where they may come from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from gpurig.common.errors import InputError
from gpurig.evaljobs.engine import Completion, Request
from gpurig.evaljobs.stages import StageOutcome, generate, run_stages
from gpurig.evaljobs.store import GENERATIONS, GRADES, read_records
from gpurig.evaljobs.suites.library import Library, prompt_ref, prompt_variables
from gpurig.evaljobs.suites.suite import load_suite
from gpurig.evaljobs.suites.template import TemplateFault
from gpurig.evaljobs.suites.trials import trials_of
from gpurig.evaljobs.summary import RunFacts, summarize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standins.eval_box import EvalBox
from standins.scripted_engine import ScriptedProvider, by_hash

TRANSLATE = """\
---
version: 3
description: GitHub to GitLab
variables: {language: which one the answer is in}
---
{% include "parts/role.md" %}
Write in {{ language }}: {{ input }}
"""


@pytest.fixture
def box(tmp_path: Path) -> EvalBox:
    box = EvalBox(tmp_path)
    write(tmp_path, "translate.md", TRANSLATE)
    write(tmp_path, "parts/role.md", "---\nversion: 1\n---\nYou are\n  an engineer.\n")
    box.data["generator"]["prompt"] = {"name": "translate"}
    box.data["vars"] = {"language": "German"}
    box.save()
    return box


def write(folder: Path, name: str, text: str) -> None:
    path = folder / "prompts" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def prompt_of(folder: Path, **wanted: str) -> str:
    return Library(folder).prompt(wanted)


def test_a_prompt_file_is_taken_by_name_and_by_path_with_what_it_includes(box: EvalBox) -> None:
    by_name = prompt_of(box.root, name="translate")
    assert by_name == "You are\n  an engineer.\nWrite in {{ language }}: {{ input }}"
    by_file = prompt_of(box.root, file="prompts/translate.md")
    assert by_file == by_name
    ref = prompt_ref(by_name)
    assert ref == prompt_ref(by_file)
    assert ref is not None
    assert (ref.name, ref.version, ref.sha256) == ("translate", "3", hashlib.sha256(by_name.encode()).hexdigest())
    assert prompt_variables(by_name) == ("language",)


def test_version_and_hash_are_in_records_and_results(box: EvalBox) -> None:
    box.data["grader"]["prompt"] = {"file": "prompts/grade.txt"}
    write(box.root, "grade.txt", "---\nversion: '1.2'\n---\n{{ output }}")
    box.save()
    run_stages(box.settings())
    ref = box.records(GENERATIONS)[1]["template"]
    assert (ref["name"], ref["version"], len(ref["sha256"])) == ("translate", "3", 64)
    assert box.records(GRADES)[1]["template"]["version"] == "1.2"
    suite = box.suite()
    facts = RunFacts(started="", finished="")
    results = summarize(suite, trials_of(suite), read_records(box.out, suite), facts)
    assert json.loads(results.to_json())["generators"][0]["prompt"] == ref


def test_a_declared_variable_is_named_without_vars_and_every_sample_must_have_it(box: EvalBox) -> None:
    asked: list[str] = []

    def note(request: Request) -> Completion:
        asked.append(request.prompt)
        return by_hash(request)

    generate(box.settings(ScriptedProvider(answer=note)))
    assert asked[0] == "You are\n  an engineer.\nWrite in German: job 0"
    del box.data["vars"]
    box.data["samples"][0]["vars"] = {"language": "French"}
    box.save()
    with pytest.raises(InputError) as caught:
        load_suite(box.root)
    said = [line.split(": ", 1)[1] for line in caught.value.details]
    assert said == [f'samples[{n}].vars: the prompt "translate" wants the variable "language"' for n in range(1, 5)]


def test_another_version_of_the_same_text_asks_no_model_and_the_records_follow(box: EvalBox) -> None:
    generate(box.settings())
    write(box.root, "translate.md", TRANSLATE.replace("version: 3", "version: 4"))
    provider = ScriptedProvider()
    assert generate(box.settings(provider)) == StageOutcome(reused=5, done=0, failed=0)
    assert provider.asked == []
    template = read_records(box.out, box.suite()).generations["s0"].template
    assert template is not None
    assert template.version == "4"


def test_a_change_in_an_included_file_is_asked_again(box: EvalBox) -> None:
    generate(box.settings())
    before = box.suite().sha256
    write(box.root, "parts/role.md", "You are a poet.")
    assert box.suite().sha256 != before
    assert generate(box.settings()) == StageOutcome(reused=0, done=5, failed=0)


def test_the_suites_own_prompts_have_names_as_well(box: EvalBox) -> None:
    box.data["prompts"] = {"short": "{{ input }}!", "long": {"file": "prompts/translate.md"}}
    box.data["generator"]["prompt"] = {"name": "short"}
    box.save()
    prompt = box.suite().named_generators[""].prompt
    assert prompt == "{{ input }}!"
    assert prompt_ref(prompt) is not None
    box.data["generator"]["prompt"] = {"name": "long"}
    box.save()
    assert "engineer" in str(box.suite().named_generators[""].prompt)


def test_a_template_that_only_speaks_of_include_includes_nothing(tmp_path: Path) -> None:
    text = '{% raw %}{% include "x" %}{% endraw %}{# {% include "x" %} #}{{ "{% include \'x\' %}" }} include "x"'
    write(tmp_path, "a.md", text)
    assert prompt_of(tmp_path, name="a") == text


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "---\nversion: 1\n---\nx\ny\n")
    plain = prompt_of(tmp_path, name="a")
    (tmp_path / "prompts" / "a.md").write_bytes(b"\xef\xbb\xbf---\r\nversion: 1\r\n---\r\nx\r\ny\r\n")
    assert prompt_of(tmp_path, name="a") == plain == "x\ny"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("---\nversion: 1\nno end", "prompts/a.md:1: what begins with --- must end with a line ---"),
        ("---\nversion: 1.5\n---\n", "prompts/a.md:2: version: must be text: put it in quotes"),
        ("---\nauthor: me\n---\n", "prompts/a.md:2: author: unknown key (known: version, description, variables)"),
        ("---\n\nvariables: [a b]\n---\n", "prompts/a.md:3: variables: must be letters, digits and _ only"),
        ("---\nvariables: [input]\n---\n", 'prompts/a.md:2: variables: "input" has a meaning of its own'),
        ("---\nvariables: x\n---\n", "prompts/a.md:2: variables: must be a list of names"),
        ("---\n- x\n---\n", "prompts/a.md:2: must be a mapping"),
        ("---\na: [\n---\n", "prompts/a.md:"),
        ("---\nversion: 1\n---\nx\n{{ input }\n", "prompts/a.md:5: unexpected '}'"),
        ("x\n{% include 'nowhere.md' %}", "prompts/a.md:2: there is no file nowhere.md"),
        ("{% include '../secret.md' %}", "prompts/a.md:1: ../secret.md lies outside of prompts/"),
        ("{% include '/etc/hostname' %}", "prompts/a.md:1: /etc/hostname lies outside of prompts/"),
        ("{% include 'link.md' %}", "prompts/a.md:1: link.md lies outside of prompts/"),
        ("{% include 'a.md' %}", "prompts include each other in a circle: prompts/a.md → prompts/a.md"),
        ("{% include name %}", 'prompts/a.md:1: only the form {% include "FILE" %} is taken'),
        ("{% include 'b.md' ignore missing %}", 'only the form {% include "FILE" %} is taken'),
        ("{% include 'bomb0.md' %}", "over 1,048,576 characters, its includes in it"),
    ],
)
def test_what_is_wrong_in_a_prompt_file_names_it_and_the_line(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, "a.md", text)
    for level in range(30):
        write(tmp_path, f"bomb{level}.md", f"{{% include 'bomb{level + 1}.md' %}}" * 2)
    write(tmp_path, "bomb30.md", "x" * 1000)
    (tmp_path / "secret.md").write_text("secret")
    (tmp_path / "prompts" / "link.md").symlink_to(tmp_path / "secret.md")
    with pytest.raises(TemplateFault) as caught:
        prompt_of(tmp_path, name="a")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ({"name": "nope"}, 'there is no prompt "nope" under `prompts` or in prompts/ (known: parts/role, translate)'),
        ({"name": "../suite"}, 'there is no prompt "../suite"'),
        ({"name": "twice"}, 'two files are the prompt "twice": twice.md and twice.txt'),
        ({"file": "../outside.md"}, "../outside.md lies outside of "),
        ({"file": "prompts"}, "there is no file "),
        ({"file": "prompts/translate.md", "name": "x"}, "must be the template's text, {file: …} or {name: …}"),
        ({"path": "x"}, "must be the template's text, {file: …} or {name: …}"),
        (7, "must be the template's text, {file: …} or {name: …}"),
        ({"name": "unknown"}, 'the template names "inptu"; did you mean "input"?'),
        ({"name": "extends"}, "include works in prompt files alone"),
        ("{% include 'translate.md' %}", "include works in prompt files alone"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_a_mistake_of_the_suite(box: EvalBox, prompt: object, says: str) -> None:
    box.data["generator"]["prompt"] = prompt
    box.save()
    (box.root.parent / "outside.md").write_text("x")
    if prompt == {"name": "twice"}:
        write(box.root, "twice.md", "")
        write(box.root, "twice.txt", "")
    if prompt == {"name": "unknown"}:
        write(box.root, "unknown.md", "{{ inptu }}")
    if prompt == {"name": "extends"}:
        write(box.root, "extends.md", "{% extends 'translate.md' %}")
    with pytest.raises(InputError) as caught:
        load_suite(box.root)
    assert f"suite.yaml:5: generator.prompt: {says}" in caught.value.message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="{}%#\"'-\n abcinlude", max_size=60) | st.text(max_size=40))
def test_any_text_is_a_prompt_or_a_fault_never_a_crash(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prompts" / "a.md"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        prompt_of(tmp_path, name="a")
    except TemplateFault:
        return
