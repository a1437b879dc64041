"""Samples of OpenAI evals (JSON Lines with `input` and `ideal`) as a suite.

The classes are those of github.com/openai/evals, evals/elsuite/basic: `match` asks whether the answer begins with one
of the ideals, `includes` whether it holds one, `fuzzy_match` whether one holds the other after both were normalized.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from gpurig.common.errors import InputError
from gpurig.evaljobs.converting.draft import Draft, DraftSample, Remark, unique_id
from gpurig.evaljobs.converting.promptfoo_files import Found
from gpurig.evaljobs.suites.datasets import DatasetSpec, read_rows

EvalClass = Literal["match", "includes", "fuzzy_match"]
_CHECKS: dict[EvalClass, str] = {"match": "starts-with", "includes": "contains", "fuzzy_match": "contains"}
_LABELS = {"system": "System", "user": "User", "assistant": "Assistant"}


def convert_openai_evals(path: Path, *, model: str, kind: EvalClass) -> Draft:
    """Read samples of OpenAI evals and make a suite of them.

    Args:
        path: a file of JSON Lines.
        model: the generator's; samples name none.
        kind: the class that the eval's registry entry names.

    Raises:
        InputError: it cannot be read, or holds no sample.
    """
    source = read_rows(path, "jsonl", DatasetSpec(file=path.name))
    whole = Found(path, source, (), source.data)
    name = unique_id(path.parent.name if path.stem == "samples" else path.stem, set(), "suite").replace("/", "-")
    generator: dict[str, Any] = {"model": model, "sampling": {"temperature": 0}}
    draft = Draft(path, {"version": 1, "name": name, "generator": generator})
    systems = {system for row in source.data if (system := _system(row)) is not None}
    shared = systems.pop() if len(systems) == 1 and all(_system(row) is not None for row in source.data) else ""
    if shared:
        generator["system"] = shared
    if kind == "fuzzy_match":
        text = "fuzzy_match compares without punctuation and articles, and in both directions; contains does not"
        draft.remarks.append(Remark(path, 1, "the class", text, changed=True))
    for index in range(len(source.data)):
        sample = _sample(whole.at(index), index + 1, kind, shared, draft)
        if sample is not None:
            draft.samples.append(sample)
    if not draft.samples:
        raise InputError(f"{path}: no sample of it can be carried over", hint=str(draft.remarks[-1]))
    return draft


def _sample(found: Found, number: int, kind: EvalClass, shared: str, draft: Draft) -> DraftSample | None:
    asked, ideal = found.data.get("input"), found.data.get("ideal")
    ideals = ideal if isinstance(ideal, list) else [ideal]
    if not ideals or not all(isinstance(one, str) and one for one in ideals):
        draft.remarks.append(found.remark("ideal is no text and no list of texts"))
        return None
    text, flattened = _asked(asked, shared)
    if text is None:
        draft.remarks.append(found.remark("input is no text and no list of messages with texts"))
        return None
    parameters: dict[str, Any] = {"text": ideals if len(ideals) > 1 else ideals[0]}
    if kind != "match" and len(ideals) > 1:
        parameters["match"] = "any"
    if kind == "fuzzy_match":
        parameters["ignore_case"] = True
    short = list(parameters) == ["text"]
    check = {_CHECKS[kind]: parameters["text"] if short else parameters}
    sample = DraftSample({"id": f"sample-{number}", "input": text, "reference": ideals[0], "checks": [check]})
    if flattened:
        sample.remarks.append(found.at("input").remark("the dialogue became one text", changed=True))
    known = {"input", "ideal"}
    sample.remarks += [found.at(key).remark("a sample has no such key") for key in found.data if key not in known]
    return sample


def _system(row: Any) -> str | None:
    """What a sample's first message says where that is the system's and is all of it."""
    messages = row.get("input") if isinstance(row, dict) else None
    if not isinstance(messages, list) or len(messages) < 2 or not all(isinstance(one, dict) for one in messages):
        return None
    first = messages[0]
    plain = first.get("role") == "system" and "name" not in first and isinstance(first.get("content"), str)
    return first["content"] if plain else None


def _asked(asked: Any, shared: str) -> tuple[str | None, bool]:
    """What is asked, in one text, and whether a dialogue was made one."""
    if isinstance(asked, str):
        return asked or None, False
    if not isinstance(asked, list) or not asked or not all(isinstance(one, dict) for one in asked):
        return None, False
    messages = asked[1:] if shared else asked
    if not messages or not all(isinstance(one.get("content"), str) for one in messages):
        return None, False
    if len(messages) == 1:
        return messages[0]["content"], messages[0].get("role") != "user" and not shared
    return "\n".join(f"{_speaker(one)}: {one['content']}" for one in messages) + "\nAssistant:", True


def _speaker(message: dict[str, Any]) -> str:
    """Few-shot examples are system messages with a name: example_user, example_assistant."""
    name = str(message.get("name") or "").removeprefix("example_")
    return _LABELS.get(name) or _LABELS.get(str(message.get("role")), "User")
