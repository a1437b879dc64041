"""What the stage `check` gives to the checks."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from gpurig.common.errors import PrerequisiteError
from gpurig.evaljobs.checks import Answer, CheckSpec
from gpurig.evaljobs.records import Generation
from gpurig.evaljobs.suites.suite import Sample


def answer_to(sample: Sample, generation: Generation, folder: Path) -> Answer:
    """What the checks see of an answer."""
    return Answer(
        generation.output,
        input=sample.input,
        reference=sample.reference,
        tags=sample.tags,
        vars=sample.vars,
        prompt_tokens=generation.prompt_tokens,
        completion_tokens=generation.completion_tokens,
        seconds=generation.seconds,
        folder=folder,
    )


def check_packages(specs: Sequence[CheckSpec]) -> dict[str, str]:
    """The versions that decide how these checks come out: GitLab's schema, for one, comes with check-jsonschema.

    Raises:
        PrerequisiteError: one is not installed.
    """
    return {name: _version(name) for name in sorted({name for spec in specs for name in spec.check.packages})}


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise PrerequisiteError(
            f"{package} is not installed", hint="install gpurig with its eval extra: pip install gpurig[eval]"
        ) from error
