"""The step that makes the runner's service and the containers match the plan, keeping what runs for a successor."""

from __future__ import annotations

import functools

from gpurig.common.errors import PrerequisiteError
from gpurig.provisioning.container_spec import ContainerSpec
from gpurig.provisioning.containers import FoundContainer
from gpurig.runner.serving import hand_over, say_drain, start_service
from gpurig.runner.up_run import UpRun

PREVIOUS = "-previous"


def start(run: UpRun) -> str:
    """Create and start what is missing, stopped, or made from something else."""
    said = [hand_over(run), start_service(run), *(_converge(run, spec) for spec in run.plan.containers)]
    done = [one for one in said if one]
    if not done:
        return "unchanged"
    run.changes.append("start")
    return ", ".join(done)


def _converge(run: UpRun, spec: ContainerSpec) -> str:
    image_id = run.image_ids[spec.image]
    current = _current(run, spec, image_id)
    if current is None:
        _create(run, spec, image_id)
        return f"started {spec.name}"
    if current.spec == spec.digest(image_id):
        if current.running:
            return ""
        run.undo.push(f"stopping {spec.name}", functools.partial(run.engine.stop, current.id, wait_s=10))
        run.engine.start(current.id)
        return f"started {spec.name} again"
    _replace(run, spec, image_id, current)
    return f"replaced {spec.name}"


def _current(run: UpRun, spec: ContainerSpec, image_id: str) -> FoundContainer | None:
    """The container that serves now, after what a killed run left half done has been put right."""
    mine = {one.name: one for one in run.engine.find(spec.instance) if one.role == spec.role}
    current, previous = mine.get(spec.name), mine.get(spec.name + PREVIOUS)
    if previous is None:
        if current is not None and current.status in {"created", "dead"}:
            run.engine.remove(current.id)
            return None
        return current
    if current is not None and current.running and current.spec == spec.digest(image_id):
        # Killed after the successor was started: `tidy` removes the old one.
        return current
    if current is not None:
        run.engine.remove(current.id)
    run.engine.rename(previous.id, spec.name)
    return FoundContainer(previous.id, spec.name, previous.role, previous.spec, previous.status, previous.ports)


def _create(run: UpRun, spec: ContainerSpec, image_id: str) -> None:
    # By name: an engine may have made it although its answer was an error.
    run.undo.push(f"removing {spec.name}", functools.partial(_remove_by_name, run, spec))
    container_id = run.engine.create(spec, image_id)
    run.engine.start(container_id)


def _remove_by_name(run: UpRun, spec: ContainerSpec) -> None:
    for one in run.engine.find(spec.instance):
        if one.name == spec.name and one.role == spec.role:
            run.engine.remove(one.id)


def _replace(run: UpRun, spec: ContainerSpec, image_id: str, current: FoundContainer) -> None:
    if spec.role == "runner":
        say_drain(run)

    def bring_back() -> None:
        if run.engine.status(current.id) == "gone":
            raise PrerequisiteError(f"the container {spec.name} that was there is gone")
        if run.engine.owner_of(spec.name + PREVIOUS) is not None:
            run.engine.rename(current.id, spec.name)
        if current.running:
            run.engine.start(current.id)

    run.undo.push(f"bringing the old {spec.name} back", bring_back)
    run.engine.stop(current.id, wait_s=run.drain_s)
    run.engine.rename(current.id, spec.name + PREVIOUS)
    _create(run, spec, image_id)
