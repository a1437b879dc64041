"""promptfoo's prompts as prompt files, and its providers as generators."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.evaljobs.converting.draft import Draft, dump, unique_id
from gpurig.evaljobs.converting.promptfoo_files import Found
from gpurig.evaljobs.suites.template import GENERATOR_NAMES, GRADER_NAMES, TemplateFault, check_template, template_names

# promptfoo's own defaults for OpenAI's models, which most configurations were written for.
_SAMPLING = {"temperature": 0, "max_tokens": 1024}
_SAMPLING_KEYS = {
    "temperature": "temperature",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_new_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
}
_NO_MODEL = ("exec:", "file://", "python:", "javascript:", "http", "webhook", "websocket", "browser", "echo", "mcp")


@dataclass(frozen=True)
class PromptFile:
    """A prompt of the suite to be.

    Attributes:
        system: what a chat's system message says.
    """

    name: str
    system: str = ""


def prompts_of(config: Found, draft: Draft) -> list[PromptFile]:
    """Write every prompt into the draft; one that cannot be carried over is remarked."""
    found = config.at("prompts")
    if isinstance(found.data, dict):  # the older form: file by label
        entries = [(found.at(name), str(name).removeprefix("file://")) for name in found.data]
        texts = [(entry, label, str(entry.data)) for entry, label in entries]
    else:
        entries = [(found.at(index), "") for index in range(len(found.data))] if isinstance(found.data, list) else []
        entries = entries or ([(found, "")] if found.data is not None else [])
        texts = [one for entry, _ in entries for one in _named_texts(entry, draft)]
    taken: set[str] = set()
    return [made for entry, label, text in texts for made in _prompt(entry, label, text, draft, taken)]


def _named_texts(entry: Found, draft: Draft) -> Iterator[tuple[Found, str, str]]:
    """A prompt's entry, its label, and its text or the file that holds it; a text file may hold several."""
    label, text = "", entry.data
    if isinstance(entry.data, dict):
        label = str(entry.data.get("label") or entry.data.get("id") or "")
        text = entry.data.get("raw") or entry.data.get("file") or entry.data.get("id")
    if not isinstance(text, str):
        draft.remarks.append(entry.remark("it is no text and no file"))
        return
    looks = re.fullmatch(r"[^\s{}]+\.(?:txt|md|j2|json|ya?ml|js|ts|py|csv)(?::\w+)?", text)
    if not text.startswith("file://") and not looks:
        yield entry, label, text
        return
    name = text.removeprefix("file://")
    files = sorted(entry.path.parent.glob(name)) if "*" in name else [entry.path.parent / name]
    usable = [file for file in files if file.is_file() and file.suffix in {".txt", ".md", ".j2", ".json"}]
    if not usable or len(usable) < len(files):
        draft.remarks.append(entry.remark("prompts are read from .txt, .md, .j2 and .json files that are there"))
    for file in usable:
        content = read_text(file)
        parts = re.split(r"^---[ \t]*$", content, flags=re.MULTILINE) if file.suffix == ".txt" else [content]
        for part in parts:
            yield entry, label or file.stem, part.strip("\n")


def _prompt(entry: Found, label: str, text: str, draft: Draft, taken: set[str]) -> Iterator[PromptFile]:
    dialogue = _dialogue(text)
    if dialogue is None:
        draft.remarks.append(entry.remark("its dialogue has more than a plain system message and a user's"))
        return
    system, body = dialogue
    try:
        names = template_names(body)
        variables = sorted(names - {*GENERATOR_NAMES})
        check_template(body, (*GENERATOR_NAMES, *variables))
    except TemplateFault as error:
        draft.remarks.append(entry.remark(f"its template: {error}"))
        return
    clash = sorted(names & ({*GRADER_NAMES} - {"input"}))
    if clash:
        draft.remarks.append(entry.remark(f'it names "{clash[0]}", which means something else in a suite'))
        return
    name = unique_id(label, taken, f"prompt-{len(taken) + 1}").replace("/", "-")
    head = f"---\n{dump({'variables': variables})}---\n" if variables or body.startswith("---") else ""
    draft.files[f"prompts/{name}.md"] = f"{head}{body}\n"
    yield PromptFile(name, system)


def _dialogue(text: str) -> tuple[str, str] | None:
    """The system message and the prompt; a text that is no dialogue is all prompt. None: more than that."""
    try:
        messages = json.loads(text) if text.lstrip().startswith("[") else None
    except ValueError:
        messages = None
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        return "", text
    contents = [one.get("content") for one in messages]
    match [one.get("role") for one in messages], contents:
        case ["user"], [str(asked)]:
            return "", asked
        case ["system", "user"], [str(system), str(asked)] if not re.search(r"\{[{%]", system):
            return system, asked
    return None


def generators_of(config: Found, draft: Draft, prompts: list[PromptFile], model: str | None) -> dict[str, Any]:
    """`generator` or `generators`: every provider with every prompt.

    Raises:
        InputError: no provider names a model and none is given, or no prompt can be carried over.
    """
    if not prompts:
        first = f": {draft.remarks[0]}" if draft.remarks else ""
        raise InputError(f"{config.path}: no prompt can be carried over{first}", hint="write one in the file itself")
    models = list(_models(config, draft, model))
    if not models:
        raise InputError(f"{config.path}: no provider of it names a model", hint="give one: --model NAME")
    made: dict[str, Any] = {}
    taken: set[str] = set()
    for (label, spec), prompt in ((one, prompt) for one in models for prompt in prompts):
        wanted = "-".join([*([label] if len(models) > 1 else []), *([prompt.name] if len(prompts) > 1 else [])])
        name = re.sub(r"[^A-Za-z0-9._-]", "-", unique_id(wanted, taken, "generator"))
        system = {"system": prompt.system} if prompt.system else {}
        made[name] = {"model": spec["model"], "prompt": {"name": prompt.name}, **system, **_rest(spec)}
    return {"generator": next(iter(made.values()))} if len(made) == 1 else {"generators": made}


def _rest(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "model"}


def _models(config: Found, draft: Draft, model: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """A label and a generator's keys for every provider."""
    found = config.at("providers") if config.data.get("providers") is not None else config.at("targets")
    if model is not None:
        if found.data is not None:
            draft.remarks.append(found.remark(f"--model {model} takes its place", changed=True))
        yield model, {"model": model, "sampling": dict(_SAMPLING)}
        return
    for entry, name, label, settings in _providers(found):
        if not name or name.startswith(_NO_MODEL):
            draft.remarks.append(entry.remark("it names no model"))
            continue
        short = PurePosixPath(name.replace(":", "/")).name
        draft.remarks.append(
            entry.remark(f'the model is now "{short}", a GGUF file: name one that you have', changed=True)
        )
        yield label or short, {"model": short, **_settings(entry, settings, draft)}


def _providers(found: Found) -> Iterator[tuple[Found, str, str, dict[str, Any]]]:
    """Every provider: where, its id, its label, its settings; there are four ways to write one."""
    entries = [found.at(index) for index in range(len(found.data))] if isinstance(found.data, list) else [found]
    for entry in entries:
        if isinstance(entry.data, str):
            yield entry, entry.data, "", {}
        elif isinstance(entry.data, dict) and isinstance(entry.data.get("id"), str):
            settings = entry.data.get("config")
            yield (
                entry,
                entry.data["id"],
                str(entry.data.get("label") or ""),
                settings if isinstance(settings, dict) else {},
            )
        elif isinstance(entry.data, dict):
            for name in entry.data:
                below = entry.at(name).data
                yield entry.at(name), str(name), "", _mapping(_mapping(below).get("config"))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _settings(entry: Found, settings: dict[str, Any], draft: Draft) -> dict[str, Any]:
    sampling: dict[str, Any] = dict(_SAMPLING)
    made: dict[str, Any] = {"sampling": sampling}
    for key, value in settings.items():
        if key in _SAMPLING_KEYS and isinstance(value, int | float) and not isinstance(value, bool):
            sampling[_SAMPLING_KEYS[key]] = value
        elif key == "stop" and isinstance(value, str | list) and value:
            made["stop"] = [value] if isinstance(value, str) else value
        else:
            draft.remarks.append(entry.at("config", key).remark("a generator has no such setting"))
    return made
