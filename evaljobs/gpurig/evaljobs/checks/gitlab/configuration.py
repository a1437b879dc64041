"""A .gitlab-ci.yml as GitLab sees it: `default`, `extends` and `!reference` resolved, hidden jobs apart.

GitLab's rules are those of its CI/CD YAML reference: hashes are merged deeply and lists replaced by `extends` (at most
11 levels), `!reference` reaches 10 levels deep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gpurig.evaljobs.checks.subject import shown
from gpurig.evaljobs.suites.source import Reference

DEFAULT_STAGES = ("build", "test", "deploy")
GLOBAL_KEYWORDS = frozenset(
    (
        "default",
        "include",
        "stages",
        "variables",
        "workflow",
        "image",
        "services",
        "cache",
        "before_script",
        "after_script",
        "spec",
        "types",
    )
)
# What a job takes from `default`, or from the top of the file as it was written before there was `default`.
_INHERITED = (
    "after_script",
    "artifacts",
    "before_script",
    "cache",
    "hooks",
    "id_tokens",
    "image",
    "interruptible",
    "retry",
    "services",
    "tags",
    "timeout",
)
_EXTENDS_LEVELS, _REFERENCE_LEVELS = 11, 10
# What extends and references may write out together: a few lines of them could come to more than any memory holds.
_MAX_VALUES = 200_000


class _TooMuchError(Exception):
    """More than `_MAX_VALUES`."""


@dataclass(frozen=True)
class Job:
    """A job that runs, its parents merged in.

    Attributes:
        own: what it says itself, before `default`.
        keywords: everything that holds for it.
    """

    name: str
    own: Mapping[str, Any]
    keywords: Mapping[str, Any]

    @property
    def stage(self) -> str:
        """Its stage's name."""
        return str(self.keywords.get("stage", "test"))


@dataclass(frozen=True)
class Configuration:
    """A whole file.

    Attributes:
        stages: in order, with .pre and .post.
        jobs: those that run, by name.
        templates: hidden jobs' names.
        open: it includes other files, so that what it names may be defined there.
        problems: what could not be resolved.
        data: as it was written.
    """

    stages: tuple[str, ...]
    jobs: Mapping[str, Job]
    templates: frozenset[str]
    open: bool
    problems: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


def read_configuration(data: Mapping[Any, Any]) -> Configuration:
    """Resolve a configuration; what is wrong with it is among its problems."""
    texts = {str(key): value for key, value in data.items()}
    try:
        return _Resolver(texts).configuration()
    except _TooMuchError:
        problem = f"what extends and !reference write out comes to more than {_MAX_VALUES} values"
        return Configuration((), {}, frozenset(), open=True, problems=(problem,), data=texts)


def with_references(data: Mapping[Any, Any]) -> dict[str, Any]:
    """A configuration with every `!reference` written out; one that names nothing stays the list that it is."""
    texts = {str(key): value for key, value in data.items()}
    try:
        return _Resolver(texts).written_out()
    except _TooMuchError:
        return texts


class _Resolver:
    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._open = "include" in data
        self._problems: list[str] = []
        self._merged: dict[str, dict[str, Any]] = {}
        self._ancestors: dict[str, int] = {}
        self._values = 0

    def configuration(self) -> Configuration:
        found = {
            name: value for name, value in self._data.items() if name not in GLOBAL_KEYWORDS and isinstance(value, dict)
        }
        jobs = {}
        inherited = self._defaults()
        for name in found:
            if name.startswith("."):
                continue
            own = self._references(self._extended(name, ()), name)
            takes = _inherits(own)
            keywords = {key: value for key, value in inherited.items() if takes(key)} | own
            jobs[name] = Job(name, own, keywords)
        return Configuration(
            stages=self._stages(),
            jobs=jobs,
            templates=frozenset(name for name in found if name.startswith(".")),
            open=self._open,
            problems=tuple(dict.fromkeys(self._problems)),
            data=self._data,
        )

    def written_out(self) -> dict[str, Any]:
        return {name: self._references(value, name) for name, value in self._data.items()}

    def _stages(self) -> tuple[str, ...]:
        written = self._data.get("stages", self._data.get("types"))
        named = [str(one) for one in written] if isinstance(written, list) and written else [*DEFAULT_STAGES]
        return (".pre", *(one for one in named if one not in {".pre", ".post"}), ".post")

    def _defaults(self) -> dict[str, Any]:
        default = self._data.get("default")
        sources = (self._data, default if isinstance(default, dict) else {})
        taken = {key: source[key] for source in sources for key in _INHERITED if key in source}
        resolved: dict[str, Any] = self._references(taken, "default")
        return resolved

    def _extended(self, name: str, below: tuple[str, ...]) -> dict[str, Any]:
        """A job with its parents merged in; GitLab merges hashes deeply and replaces lists."""
        job = self._data.get(name)
        if not isinstance(job, dict):
            return {}
        if name in self._merged:
            return self._merged[name]
        merged: dict[str, Any] = {}
        ancestors = 0
        for parent in _names(job.get("extends")):
            if parent in (*below, name):
                self._problems.append(f"{_named(name)}: extends goes in a circle over {_named(parent)}")
            elif len(below) > _EXTENDS_LEVELS:
                ancestors = _EXTENDS_LEVELS + 1
            elif isinstance(self._data.get(parent), dict):
                merged = self._merge(merged, self._extended(parent, (*below, name)))
                ancestors = max(ancestors, self._ancestors.get(parent, 0) + 1)
            elif not self._open:
                self._problems.append(f"{_named(name)}: extends {_named(parent)}, which does not exist")
        if ancestors > _EXTENDS_LEVELS:
            self._problems.append(f"{_named(name)}: extends is deeper than {_EXTENDS_LEVELS} levels")
        merged = self._merge(merged, {str(key): value for key, value in job.items()})
        merged.pop("extends", None)
        self._merged[name], self._ancestors[name] = merged, ancestors
        return merged

    def _merge(self, base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
        self._count(len(base) + len(over))
        merged = dict(base)
        for key, value in over.items():
            below = merged.get(key)
            merged[key] = self._merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        return merged

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > _MAX_VALUES:
            raise _TooMuchError

    def _references(self, value: Any, where: str, level: int = 0) -> Any:
        """`value` with every !reference replaced by what it names; one in a list is written out there."""
        self._count(1)
        if isinstance(value, Reference):
            return self._referenced(value, where, level)
        if isinstance(value, dict):
            return {key: self._references(held, where, level) for key, held in value.items()}
        if not isinstance(value, list):
            return value
        found: list[Any] = []
        for held in value:
            resolved = self._references(held, where, level)
            if isinstance(held, Reference) and isinstance(resolved, list):
                found += resolved
            else:
                found.append(resolved)
        return found

    def _referenced(self, reference: Reference, where: str, level: int) -> Any:
        path = [str(part) for part in reference]
        shown_path = f"!reference [{', '.join(path)}]"
        if level >= _REFERENCE_LEVELS:
            deep = f"is nested deeper than {_REFERENCE_LEVELS} levels"
            self._problems.append(f"{_named(where)}: {shown(shown_path)} {deep}")
            return [*reference]
        here: Any = self._extended(path[0], ()) if path and path[0] not in GLOBAL_KEYWORDS else self._data.get(path[0])
        for part in path[1:]:
            here = here.get(part) if isinstance(here, dict) else None
        if not path or here is None:
            if not self._open:
                self._problems.append(f"{_named(where)}: {shown(shown_path)} names nothing")
            return [*reference]
        return self._references(here, where, level + 1)


def _inherits(own: Mapping[str, Any]) -> Callable[[str], bool]:
    """Which keywords a job takes from `default` (`inherit:default`)."""
    inherit = own.get("inherit")
    which = inherit.get("default", True) if isinstance(inherit, dict) else True
    # A trigger job runs nothing.
    if "trigger" in own:
        return lambda _: False
    return (lambda key: key in which) if isinstance(which, list) else (lambda _: bool(which))


def _names(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (one for one in value if isinstance(one, str))


def _named(name: str) -> str:
    return shown(name, 60)
