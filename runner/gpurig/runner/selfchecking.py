"""A self-check that ran in a container: what it found, or why it failed, in the job's own words."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from gpurig.common.errors import PrerequisiteError
from gpurig.provisioning.container_spec import ContainerSpec
from gpurig.provisioning.containers import RunResult

_PROGRAM = "gpurig-job: "
_HINT = "hint: "
_SHOWN_CHARACTERS = 500


def findings(spec: ContainerSpec, result: RunResult) -> dict[str, Any]:
    """What `gpurig-job selfcheck --json` printed.

    Raises:
        PrerequisiteError: it failed, or printed something else.
    """
    if result.code != 0:
        raise _failure(spec, result)
    # llama.cpp's own lines may stand around it.
    for start in re.finditer(r"^\{", result.output, re.MULTILINE):
        with contextlib.suppress(ValueError):
            document, _ = json.JSONDecoder().raw_decode(result.output, start.start())
            return dict(document)
    raise PrerequisiteError(
        f"the self-check in {spec.image} said something that is no self-check", hint=_by_hand_hint(spec)
    )


def _failure(spec: ContainerSpec, result: RunResult) -> PrerequisiteError:
    lines = [line.strip() for line in result.output.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith(_PROGRAM)]
    if not errors:
        said = lines[-1][:_SHOWN_CHARACTERS] if lines else "it said nothing"
        return PrerequisiteError(
            f"the self-check in a job container failed with exit code {result.code}: {said}", hint=_by_hand_hint(spec)
        )
    reason = lines[errors[-1]].removeprefix(_PROGRAM)[:_SHOWN_CHARACTERS]
    hints = [line.removeprefix(_HINT) for line in lines[errors[-1] + 1 :] if line.startswith(_HINT)]
    return PrerequisiteError(
        f"the self-check in a job container failed with exit code {result.code}: {reason}",
        hint="; ".join([*hints[:1], _by_hand_hint(spec)]),
    )


def _by_hand_hint(spec: ContainerSpec) -> str:
    return f"see it whole: docker run --rm {by_hand(spec)}"


def by_hand(spec: ContainerSpec) -> str:
    """The arguments of `docker run` that come closest to a self-check."""
    wired = spec.wiring
    options = [f"--gpus '{wired.gpus}'"] if wired.gpus else []
    options += [f"--device {path}" for path in wired.devices]
    options += [f"--group-add {gid}" for gid in wired.group_add]
    return " ".join([*options, spec.image, *spec.command])
