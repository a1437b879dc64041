"""The checks by name, and how a suite's YAML names one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from gpurig.evaljobs.checks import structure, text
from gpurig.evaljobs.checks.subject import Answer
from gpurig.evaljobs.records import CheckOutcome


@dataclass(frozen=True)
class Check:
    """A kind of check.

    Attributes:
        name: as suites write it.
        parameters: the model of its parameters.
        run: says why the answer fails, in one line; an empty text is a pass.
        shorthand: the parameter that `- name: value` sets; "" where there is none.
        version: raised when the same answer may come out differently, so that old outcomes are not reused.
    """

    name: str
    parameters: type[BaseModel]
    run: Callable[[Answer, Any], str]
    shorthand: str = ""
    version: int = 1


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        check.name: check
        for check in (
            Check("contains", text.Text, text.contains, shorthand="text"),
            Check("not-contains", text.Text, text.not_contains, shorthand="text"),
            Check("regex", text.Regex, text.regex, shorthand="pattern"),
            Check("yaml", structure.Document, structure.is_yaml),
            Check("gitlab-ci", structure.Document, structure.is_gitlab_ci),
        )
    }
)


@dataclass(frozen=True)
class CheckSpec:
    """A check as a suite asks for it."""

    kind: str
    parameters: BaseModel

    @property
    def label(self) -> str:
        """Which one of its kind, for a person: the text looked for, the pattern; may be empty."""
        shorthand = CHECKS[self.kind].shorthand
        return str(getattr(self.parameters, shorthand)) if shorthand else ""

    def as_data(self) -> dict[str, Any]:
        """Everything that decides its outcome, for hashing."""
        return {"check": self.kind, "version": CHECKS[self.kind].version, **self.parameters.model_dump()}


def parse_check(value: object) -> CheckSpec:
    """Read one entry of a suite's `checks`: `name`, `name: value` or `name: {parameter: value, …}`.

    Raises:
        PydanticCustomError: what is wrong; its context's "problems" are (location, message) pairs under the entry.
    """
    kind, given = _split(value)
    check = CHECKS.get(kind)
    if check is None:
        near = difflib.get_close_matches(kind, CHECKS, n=1)
        meant = f'; did you mean "{near[0]}"?' if near else ""
        raise _problem((), f'unknown check "{kind}"{meant} (known: {", ".join(CHECKS)})')
    if given is None:
        given = {}
    if not isinstance(given, dict):
        if not check.shorthand:
            names = ", ".join(check.parameters.model_fields)
            raise _problem((kind,), f"takes parameters by name ({names}), not {_kind_of(given)}")
        given = {check.shorthand: given}
    try:
        return CheckSpec(kind, check.parameters.model_validate(given, strict=True))
    except ValidationError as error:
        pairs = [((kind, *entry["loc"]), _message(check, entry)) for entry in error.errors()]
        raise PydanticCustomError("check", "{problems}", {"problems": pairs}) from error


def run_check(spec: CheckSpec, answer: Answer) -> CheckOutcome:
    """The outcome of one check on one answer."""
    message = CHECKS[spec.kind].run(answer, spec.parameters)
    return CheckOutcome(check=spec.kind, label=spec.label, passed=not message, message=message)


def _split(value: object) -> tuple[str, object]:
    if isinstance(value, str):
        return value, None
    if isinstance(value, dict) and len(value) == 1:
        ((kind, given),) = value.items()
        return str(kind), given
    if isinstance(value, dict) and len(value) > 1:
        raise _problem((), f"one check an entry, not {len(value)}: begin each with its own dash")
    raise _problem((), f'must be a check\'s name, or "name: parameters", not {_kind_of(value)}')


def _message(check: Check, entry: Any) -> str:
    match entry["type"]:
        case "missing":
            return f'is missing: "{check.name}" needs it'
        case "extra_forbidden":
            return f"unknown parameter (known: {', '.join(check.parameters.model_fields)})"
        case "string_type":
            return f"must be text, not {_kind_of(entry['input'])}: put it in quotes"
        case _:
            return str(entry["msg"]).removeprefix("Value error, ")


def _kind_of(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), f"the number {value}")


def _problem(location: tuple[str | int, ...], message: str) -> PydanticCustomError:
    return PydanticCustomError("check", "{problems}", {"problems": [(location, message)]})
