"""promptfooconfig.yaml as a suite: prompts and providers become generators, tests samples, assertions checks.

The format is that of https://www.promptfoo.dev/docs/configuration/reference/, as far as it meets what a suite can say.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurig.common.errors import InputError
from gpurig.evaljobs.converting.assertions import NoCheckError, convert_assertion
from gpurig.evaljobs.converting.draft import Draft, DraftSample, Remark, unique_id
from gpurig.evaljobs.converting.promptfoo_files import Found, loaded_tests
from gpurig.evaljobs.converting.promptfoo_prompts import generators_of, prompts_of
from gpurig.evaljobs.suites.source import read_source
from gpurig.evaljobs.suites.template import render

MAX_SAMPLES = 100_000
# What a test's sample has no place for, and why.
_TEST_KEYS = {
    "options": "a suite has no such options",
    "metadata": "samples have tags, and no other metadata",
    "providers": "every sample is asked of every generator",
    "prompts": "every sample is asked of every generator",
    "assertScoringFunction": "a sample's score is the mean of its checks by their weights",
    "providerOutput": "answers are generated",
    "provider": "every sample is asked of every generator",
}
_GRADER_PROMPT = """\
Judge an answer by a rubric.
Rubric: {{ vars.rubric }}
Question: {{ input }}
Answer: {{ output }}
Does the answer meet the rubric? Verdict:
"""
_GRADER_FILE = "grade"


@dataclass(frozen=True)
class ConvertOptions:
    """What the file does not say.

    Attributes:
        model: the generator's, in the place of every provider.
        grader_model: who judges rubrics; None: they are not carried over.
    """

    model: str | None = None
    grader_model: str | None = None


def convert_promptfoo(path: Path, options: ConvertOptions) -> Draft:
    """Read a configuration of promptfoo's and make a suite of it.

    Raises:
        InputError: it cannot be read, or holds nothing that can be asked.
    """
    source = read_source(path)
    if not isinstance(source.data, dict) or not {"prompts", "tests", "scenarios"} & set(source.data):
        raise InputError(f"{path}:1: no configuration of promptfoo's", hint="it has prompts, providers and tests")
    return _Conversion(Found(path, source, (), source.data), options).made()


class _Conversion:
    def __init__(self, config: Found, options: ConvertOptions) -> None:
        self._config = config
        self._options = options
        self._draft = Draft(config.path, {"version": 1, "name": "", "description": ""})
        self._taken: set[str] = set()
        self._rubrics: list[Remark] = []
        self._checks: list[Any] = []

    def made(self) -> Draft:
        data, draft = self._config.data, self._draft
        draft.head["name"] = unique_id(self._config.path.resolve().parent.name, set(), "suite").replace("/", "-")
        draft.head["description"] = str(data.get("description") or "")
        prompts = prompts_of(self._config, draft)
        draft.head |= generators_of(self._config, draft, prompts, self._options.model)
        self._top_keys()
        defaults = self._defaults()
        for test in self._tests():
            self._test(test, defaults)
        if not draft.samples:
            raise InputError(f"{self._config.path}: it has no tests that can be carried over", hint=_hint(draft))
        self._grade()
        if self._checks:
            draft.head["checks"] = self._checks
        # promptfoo fails where one test does.
        draft.head["gate"] = [{"metric": "pass_rate", "min": 1.0}]
        draft.head = {key: value for key, value in draft.head.items() if value != ""}
        draft.remarks = list(dict.fromkeys(draft.remarks))
        return draft

    def _top_keys(self) -> None:
        """The keys that are no prompts, providers or tests."""
        known = {"description", "prompts", "providers", "targets", "tests", "scenarios", "defaultTest"}
        for key, value in self._config.data.items():
            if key == "evaluateOptions" and isinstance(value, dict):
                self._evaluate_options(value)
            elif key not in known | {"assertionTemplates"}:
                self._draft.remarks.append(self._config.at(key).remark("a suite has no such key"))

    def _evaluate_options(self, value: Mapping[str, Any]) -> None:
        for name, held in value.items():
            if name == "repeat" and isinstance(held, int) and held > 1:
                self._draft.head["epochs"] = held
            elif name not in {"maxConcurrency", "delay", "showProgressBar", "cache", "repeat", "timeoutMs"}:
                self._draft.remarks.append(
                    self._config.at("evaluateOptions", name).remark("a suite has no such option")
                )

    def _defaults(self) -> Found:
        """`defaultTest`; its variables and threshold become the suite's."""
        found = self._config.at("defaultTest")
        if found.data is None:
            return Found(found.path, found.source, found.where, {})
        if not isinstance(found.data, dict):
            self._draft.remarks.append(found.remark("it stands in another file"))
            return Found(found.path, found.source, found.where, {})
        given = found.data.get("vars")
        plain = {name: value for name, value in (given if isinstance(given, dict) else {}).items() if _scalar(value)}
        if plain:
            self._draft.head["vars"] = plain
        for name in set(given if isinstance(given, dict) else {}) - set(plain):
            self._draft.remarks.append(found.at("vars", name).remark("variables are text, numbers, true or false"))
        if isinstance(found.data.get("threshold"), int | float):
            self._draft.head["threshold"] = found.data["threshold"]
        for key in found.data.keys() - {"vars", "assert", "threshold", "description"}:
            why = _TEST_KEYS.get(key, "a suite has no such key")
            self._draft.remarks.append(found.at(key).remark(why))
        return found

    def _tests(self) -> Iterator[Found]:
        """Every test, those of other files and of scenarios among them."""
        yield from loaded_tests(self._config.at("tests"), self._draft)
        scenarios = self._config.at("scenarios")
        for index in range(len(scenarios.data) if isinstance(scenarios.data, list) else 0):
            scenario = scenarios.at(index)
            rows = scenario.at("config").data if isinstance(scenario.data, dict) else None
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                self._draft.remarks.append(scenario.remark("its config is no list of rows"))
                continue
            for row in rows:
                for test in loaded_tests(scenario.at("tests"), self._draft):
                    variables = {**(row.get("vars") or {}), **(test.data.get("vars") or {})}
                    yield Found(test.path, test.source, test.where, {**row, **test.data, "vars": variables})

    def _test(self, test: Found, defaults: Found) -> None:
        remarks = [test.at(key).remark(why) for key, why in _TEST_KEYS.items() if key in test.data]
        unknown = test.data.keys() - {*_TEST_KEYS, "vars", "assert", "threshold", "description"}
        remarks += [test.at(key).remark("a sample has no such key") for key in sorted(unknown)]
        variables = test.data.get("vars") or {}
        if not isinstance(variables, dict):
            self._draft.remarks.append(test.remark("its variables stand in another file"))
            return
        wrong = [name for name, value in variables.items() if not (_scalar(value) or _scalars(value))]
        if wrong:
            self._draft.remarks.append(test.remark(f'its variable "{wrong[0]}" is no text, number, true or false'))
            return
        described = str(test.data.get("description") or "")
        # A list of values stands for as many tests, in every combination.
        ways = [
            [(name, one) for one in (value if isinstance(value, list) else [value])]
            for name, value in variables.items()
        ]
        for combination in itertools.product(*ways):
            values = dict(combination)
            if len(self._draft.samples) >= MAX_SAMPLES:
                raise InputError(
                    f"{test.path}: over {MAX_SAMPLES:,} samples", hint="its lists of values are multiplied"
                )
            sample = self._sample(values, described)
            sample.remarks += remarks
            self._assertions(sample, test, defaults, values)
            if isinstance(test.data.get("threshold"), int | float):
                sample.data["threshold"] = test.data["threshold"]
            self._draft.samples.append(sample)

    def _sample(self, values: dict[str, Any], described: str) -> DraftSample:
        number = len(self._draft.samples) + 1
        asked = values.get("input")
        if not isinstance(asked, str):
            asked = "\n".join(f"{name}: {value}" for name, value in values.items()) if len(values) != 1 else None
            asked = str(next(iter(values.values()))) if asked is None else asked
        data: dict[str, Any] = {"id": unique_id(described, self._taken, f"test-{number}"), "input": asked}
        rest = {name: value for name, value in values.items() if name != "input"}
        if rest:
            data["vars"] = rest
        return DraftSample(data, description=described)

    def _assertions(self, sample: DraftSample, test: Found, defaults: Found, values: dict[str, Any]) -> None:
        checks: list[Any] = []
        rubrics: list[str] = []
        known = {**(self._draft.head.get("vars") or {}), **values}
        for holder in (defaults, test):
            remarks = self._draft.remarks if holder is defaults else sample.remarks
            for found in self._listed(holder.at("assert"), remarks):
                try:
                    made = convert_assertion(_with_variables(found.data, known))
                except NoCheckError as error:
                    remarks.append(found.remark(str(error)))
                    continue
                # One of all samples without a variable in it is the suite's.
                goes_to = self._checks if holder is defaults and not _is_template(found.data.get("value")) else checks
                if made.check is not None and made.check not in goes_to:
                    goes_to.append(made.check)
                if made.rubric:
                    rubrics.append(made.rubric)
                    self._rubrics.append(found.remark("give --grader-model: a rubric needs a grader"))
                remarks += [found.remark(note, changed=True) for note in made.notes]
        if checks:
            sample.data["checks"] = checks
        if rubrics:
            sample.data.setdefault("vars", {})["rubric"] = "\n".join(rubrics)

    def _listed(self, found: Found, remarks: list[Remark]) -> Iterator[Found]:
        """The assertions of a list, those of sets without a threshold and of templates in their places."""
        for index in range(len(found.data) if isinstance(found.data, list) else 0):
            one = found.at(index)
            reference = one.data.get("$ref") if isinstance(one.data, dict) else None
            if isinstance(reference, str) and reference.startswith("#/assertionTemplates/"):
                one = self._config.at("assertionTemplates", reference.rsplit("/", 1)[-1])
            if not isinstance(one.data, dict):
                remarks.append(found.at(index).remark("it is no mapping"))
            elif one.data.get("type") == "assert-set":
                if "threshold" in one.data:
                    remarks.append(one.remark("sets with a threshold of their own are not there"))
                else:
                    yield from self._listed(one.at("assert"), remarks)
            else:
                yield one

    def _grade(self) -> None:
        """Rubrics become the grader's, where there is one and every sample has one: it judges all of them."""
        have = [sample for sample in self._draft.samples if "rubric" in sample.data.get("vars", {})]
        if not self._rubrics:
            return
        if self._options.grader_model and len(have) == len(self._draft.samples):
            self._draft.files[f"prompts/{_GRADER_FILE}.md"] = _GRADER_PROMPT
            self._draft.head["grader"] = {
                "model": self._options.grader_model,
                "prompt": {"name": _GRADER_FILE},
                "verdicts": {"yes": 1.0, "no": 0.0},
            }
            return
        why = "a grader judges every sample, and only some have a rubric" if self._options.grader_model else None
        self._draft.remarks += [
            Remark(one.path, one.line, one.field, why or one.reason, one.text) for one in dict.fromkeys(self._rubrics)
        ]
        for sample in have:
            del sample.data["vars"]["rubric"]
            if not sample.data["vars"]:
                del sample.data["vars"]


def _with_variables(given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """An assertion with the variables in its value in their places."""

    def placed(value: Any) -> Any:
        if isinstance(value, str) and _is_template(value):
            try:
                return render(value, values, what="value")
            except InputError as error:
                raise NoCheckError(f"its value is a template: {error.message}") from error
        return [placed(one) for one in value] if isinstance(value, list) else value

    return {**given, "value": placed(given.get("value"))}


def _is_template(value: Any) -> bool:
    if isinstance(value, list):
        return any(_is_template(one) for one in value)
    return isinstance(value, str) and bool(re.search(r"\{\{|\{%", value))


def _scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) and not (isinstance(value, str) and value.startswith("file://"))


def _scalars(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_scalar(one) for one in value)


def _hint(draft: Draft) -> str:
    lost = [remark for remark in draft.remarks if not remark.changed]
    return str(lost[0]) if lost else "a test has vars and assert"
