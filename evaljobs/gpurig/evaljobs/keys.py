"""Keys: what makes a record still the right one. The same key is never computed twice (docs/formats.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from gpurig.evaljobs.checks.files import Digests
from gpurig.evaljobs.models import ModelFile
from gpurig.evaljobs.records import Generation, Sampling, effective_adapters
from gpurig.evaljobs.suites.suite import GeneratorSpec, Sample, Suite, digest

# Raised when this code computes something else from the same inputs.
_GENERATION, _CHECK, _GRADE, _SCORE = 2, 1, 3, 1


def generation_key(
    *,
    model: ModelFile,
    exact: bool,
    prompt_sha256: str,
    sampling: Sampling,
    stop: tuple[str, ...],
    context: int,
    packages: Mapping[str, str],
) -> str:
    """Over everything that changes a generated answer. Threads are not in it: they do not (docs/formats.md)."""
    return digest(
        {
            "generation": _GENERATION,
            "model": model.ref.sha256,
            "prompt": prompt_sha256,
            "sampling": sampling.model_dump(mode="json"),
            "stop": list(stop),
            "context": context,
            "packages": dict(packages),
            **_adapters(model),
            **_together(exact=exact),
        }
    )


def check_key(basis: str, packages: Mapping[str, str]) -> str:
    """Over the answer, the checks with their versions, and the packages that they use."""
    return digest({"check": _CHECK, "basis": basis, "packages": dict(packages)})


def grade_key(
    *,
    model: ModelFile,
    exact: bool,
    prompt_sha256: str,
    verdicts: Mapping[str, float],
    context: int,
    packages: Mapping[str, str],
) -> str:
    """Over everything that changes a verdict or its score; the answer is in the prompt."""
    return digest(
        {
            "grade": _GRADE,
            "model": model.ref.sha256,
            "prompt": prompt_sha256,
            "verdicts": dict(verdicts),
            "context": context,
            "packages": dict(packages),
            **_adapters(model),
            **_together(exact=exact),
        }
    )


def _adapters(model: ModelFile) -> dict[str, list[list[str | float]]]:
    """What the model answers with; nothing where it answers alone, as before there were adapters."""
    found = effective_adapters(model.ref.adapters)
    return {"adapters": [[sha256, scale] for sha256, scale in found]} if found else {}


def _together(*, exact: bool) -> dict[str, bool]:
    """What is computed together with others may come out a little different."""
    return {} if exact else {"together": True}


def generation_basis(spec: GeneratorSpec, sample: Sample) -> str:
    """Over what the suite asks of a generator for a sample; the epoch is in the record, and its seed in the key."""
    asked = sample.model_dump(mode="json", include={"id", "input", "tags", "vars"})
    return digest({"generator": spec.model_dump(mode="json"), "sample": asked})


def score_key(
    *, model: ModelFile, exact: bool, item: Mapping[str, object], how: Mapping[str, object], packages: Mapping[str, str]
) -> str:
    """Over everything that changes log-likelihoods: the line, and how it is computed (context, overlap, cache type)."""
    return digest(
        {
            "score": _SCORE,
            "model": model.ref.sha256,
            "item": dict(item),
            **how,
            "packages": dict(packages),
            **_adapters(model),
            **_together(exact=exact),
        }
    )


def check_basis(suite: Suite, sample: Sample, generation: Generation, digests: Digests) -> str:
    """Over an answer, the sample, and its checks with their versions and files.

    What few checks look at is in it only where one of them does, so that nothing is done again for want of it.
    The files are as `digests`, of this run, sees them.
    """
    specs = suite.checks_of(sample)
    uses = {use for spec in specs for use in spec.check.uses}
    more: dict[str, Any] = {}
    if "vars" in uses:
        more["vars"] = sample.model_dump(mode="json", include={"tags", "vars"})
    if "usage" in uses:
        more["usage"] = generation.model_dump(mode="json", include={"prompt_tokens", "completion_tokens", "seconds"})
    if files := {name: digests.of(suite.folder / name) for spec in specs for name in spec.parameters.files()}:
        more["files"] = files
    return digest(
        {
            "output": _sha256(generation.output),
            "input": sample.input,
            "reference": sample.reference,
            "checks": [spec.as_data for spec in specs],
            **more,
        }
    )


def grade_basis(suite: Suite, sample: Sample, output: str) -> str:
    """Over an answer, the sample, and what the suite tells the grader; the passing score is no part of a verdict."""
    grader = suite.grader.model_dump(mode="json", exclude={"pass_score", "calibration"}) if suite.grader else {}
    return digest(
        {
            "output": _sha256(output),
            "grader": grader,
            "sample": sample.model_dump(mode="json", exclude={"checks", "threshold", "pass_score"}),
        }
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
