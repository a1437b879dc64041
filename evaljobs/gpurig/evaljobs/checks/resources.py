"""What checks may use beside the answer itself; a run hands over what it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol


@dataclass(frozen=True)
class LintResult:
    """What GitLab says of a configuration."""

    valid: bool
    errors: tuple[str, ...] = ()


class Linter(Protocol):
    """GitLab's lint API."""

    def lint(self, content: str) -> LintResult:
        """What GitLab says of a configuration.

        Raises:
            RemoteError: GitLab refused or did not answer.
        """
        ...


@dataclass(frozen=True)
class Vectors:
    """Texts as one embedding model's vectors.

    Attributes:
        known: by text; float32 of length 1.
        problems: why a text has none, by text.
    """

    known: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    problems: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Resources:
    """Nothing by default: a check says in words what it lacks.

    Attributes:
        linter: None outside of a job, or without a token.
        vectors: by the model's name, of every text that the run's checks asked for.
        allowed: checks of installed packages that may run.
        memory: what checks made of it once for all answers.
    """

    linter: Linter | None = None
    vectors: Mapping[str, Vectors] = field(default_factory=lambda: MappingProxyType({}))
    allowed: frozenset[str] = frozenset()
    memory: dict[Any, Any] = field(default_factory=dict)
