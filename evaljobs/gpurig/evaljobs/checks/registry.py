"""How a suite's YAML names a check, and how one is run."""

from __future__ import annotations

import difflib
import functools
import math
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from gpurig.common.terminal import harmless, shorten
from gpurig.evaljobs.checks.catalogue import CHECKS
from gpurig.evaljobs.checks.kind import Check
from gpurig.evaljobs.checks.parameters import Parameters
from gpurig.evaljobs.checks.subject import Answer
from gpurig.evaljobs.records import CheckOutcome

_MOST_MESSAGE = 480


@dataclass(frozen=True)
class CheckSpec:
    """A check as a suite asks for it."""

    kind: str
    parameters: Parameters

    @property
    def label(self) -> str:
        """Which one of its kind, for a person: the text looked for, the pattern; may be empty."""
        value = getattr(self.parameters, CHECKS[self.kind].shorthand_field, None)
        if value is None or isinstance(value, dict):
            return ""
        return shorten(", ".join(value) if isinstance(value, tuple) else str(value), 200)

    @property
    def check(self) -> Check:
        """Its kind."""
        return CHECKS[self.kind]

    @functools.cached_property
    def as_data(self) -> dict[str, Any]:
        """Everything that decides its outcome, for hashing; a parameter with its default value is left out."""
        parameters = self.parameters.model_dump(mode="json", exclude_defaults=True)
        return {"check": self.kind, "version": self.check.version, **parameters}


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
            names = ", ".join(check.parameter_names)
            raise _problem((kind,), f"takes parameters by name ({names}), not {_kind_of(given)}")
        given = {check.shorthand: given}
    try:
        return CheckSpec(kind, check.parameters.model_validate(given, strict=True))
    except ValidationError as error:
        pairs = [((kind, *entry["loc"]), _message(check, entry)) for entry in error.errors()]
        raise PydanticCustomError("check", "{problems}", {"problems": pairs}) from error


def run_check(spec: CheckSpec, answer: Answer) -> CheckOutcome:
    """The outcome of one check on one answer."""
    finding = CHECKS[spec.kind].run(answer, spec.parameters)
    # The last word on every message: one harmless line, whatever it quotes.
    message = finding.message and harmless(" ".join(shorten(finding.message, _MOST_MESSAGE).split()))
    return CheckOutcome(
        check=spec.kind,
        label=spec.label,
        passed=finding.skipped or not message,
        skipped=finding.skipped,
        message=message,
        score=finding.score,
        weight=spec.parameters.weight,
        figures={name: value for name, value in finding.figures.items() if math.isfinite(value)},
    )


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
            return f"unknown parameter (known: {', '.join(check.parameter_names)})"
        case "tuple_type" if isinstance(entry["input"], dict):
            return "must be a text or a list of texts, not a mapping"
        case "string_type" | "tuple_type":
            return f"must be text, not {_kind_of(entry['input'])}: put it in quotes"
        case _:
            return str(entry["msg"]).removeprefix("Value error, ").replace("Input should be", "must be", 1)


def _kind_of(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), f"the number {value}")


def _problem(location: tuple[str | int, ...], message: str) -> PydanticCustomError:
    return PydanticCustomError("check", "{problems}", {"problems": [(location, message)]})
