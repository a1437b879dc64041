"""The check `custom`: a function of an installed package, by its entry point in the group `gpurig.checks`.

The function is called with an Answer and the suite's `parameters`, and returns True or False, a score from 0 to 1, a
text (why the answer fails; "" passes), or a Finding. It is code that runs with the rights of the job, so it runs only
where the command line allows it by name.
"""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

from pydantic import Field

from gpurig.common.errors import InputError, PrerequisiteError
from gpurig.evaljobs.checks.parameters import Scored
from gpurig.evaljobs.checks.similarity import judged
from gpurig.evaljobs.checks.subject import Answer, Finding, shown

GROUP = "gpurig.checks"


class Custom(Scored):
    """Parameters of `custom`.

    Attributes:
        name: of the entry point.
        parameters: for the function.
    """

    name: str = Field(min_length=1)
    parameters: dict[str, Any] = Field(default_factory=dict)


def entry_point(name: str) -> importlib.metadata.EntryPoint:
    """The one of that name.

    Raises:
        PrerequisiteError: no installed package has it.
    """
    for found in importlib.metadata.entry_points(group=GROUP, name=name):
        return found
    raise PrerequisiteError(
        f"no installed package has the check {shown(name)}",
        hint=f"install the one that has the entry point in the group {GROUP}",
    )


def custom(answer: Answer, parameters: Custom) -> Finding:
    """What the function says; an exception of its own is a failure with its message.

    Raises:
        InputError: the command line does not allow it. PrerequisiteError: no installed package has it.
    """
    name = parameters.name
    if name not in answer.resources.allowed:
        raise InputError(
            f"the suite's check custom runs code of an installed package ({name}), which nobody allowed",
            hint=f"where you trust it: --allow-check {name}",
        )
    found = entry_point(name)
    try:
        said = found.load()(answer, parameters.parameters)
    except Exception as error:  # noqa: BLE001 - somebody else's code may raise anything, and the run goes on
        return Finding(
            f"the check {shown(name)} failed: {type(error).__name__}: {shown(str(error), 200)[1:-1]}", score=0.0
        )
    return _finding(name, said, parameters.threshold)


def _finding(name: str, said: object, threshold: float | None) -> Finding:
    if isinstance(said, bool):
        return Finding("" if said else f"the check {shown(name)} says no")
    if isinstance(said, str):
        return Finding(said)
    if isinstance(said, Finding):
        return said
    if isinstance(said, int | float) and math.isfinite(said) and 0 <= said <= 1:
        return judged(name, float(said), threshold, "this answer")
    return Finding(
        f"the check {shown(name)} returned {shown(repr(said))}: neither true, a score 0 to 1, nor a text", score=0.0
    )
