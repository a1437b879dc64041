"""A kind of check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpurig.evaljobs.checks.parameters import Parameters
from gpurig.evaljobs.checks.subject import Answer, Finding


@dataclass(frozen=True)
class Embeds:
    """What an embedding model computes for a check before any answer is looked at; `parameters.model` names it.

    Attributes:
        texts: of one answer.
        shared: for all answers, given the suite's folder.
    """

    texts: Callable[[Answer, Any], Sequence[str]]
    shared: Callable[[Path, Any], Sequence[str]] = lambda _, __: ()


# What a check looks at beside the answer, the question and the reference; it is part of the record's key then.
Uses = Literal["vars", "usage"]


@dataclass(frozen=True)
class Check:
    """A kind of check.

    Attributes:
        name: as suites write it.
        group: the heading under which docs/checks.md has it.
        parameters: the model of its parameters.
        run: how an answer did; pure, or as pure as its resources are.
        passes: where it passes, for docs/checks.md (Markdown, no full stop).
        shorthand: the parameter that `- name: value` sets; "" where there is none.
        version: raised when the same answer may come out differently, so that old outcomes are not reused.
        packages: whose versions decide how it comes out.
        embeds: which texts it wants as vectors; None where it wants none.
        uses: what else of the sample ("vars": with its tags) or of the record ("usage") decides it.
    """

    name: str
    group: str
    parameters: type[Parameters]
    run: Callable[[Answer, Any], Finding]
    passes: str
    shorthand: str = ""
    version: int = 1
    packages: tuple[str, ...] = ()
    uses: tuple[Uses, ...] = ()
    embeds: Embeds | None = None

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Its parameters as suites write them."""
        return tuple(field.alias or name for name, field in self.parameters.model_fields.items())

    @property
    def shorthand_field(self) -> str:
        """The attribute of `parameters` that the shorthand sets; "" where there is none."""
        fields = self.parameters.model_fields.items()
        return next((name for name, field in fields if (field.alias or name) == self.shorthand), "")
