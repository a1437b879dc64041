"""`down`: the runner stops after its jobs, and with `--unregister` nothing stays but the models."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from gpurig.provisioning.containers import Engine
from gpurig.provisioning.instances import instances
from gpurig.provisioning.paths import Paths
from gpurig.provisioning.plan import runner_name
from gpurig.provisioning.settings import check_name, wait_of
from gpurig.provisioning.state import Lost, State, load_state, save_state
from gpurig.runner.pruning import release_images, remove_images
from gpurig.runner.renewing import delete_lost, forget
from gpurig.runner.serving import has_unit, remove_service
from gpurig.runner.up_run import with_rotated
from gpurig.runner.world import World

Say = Callable[[str, str], None]


def take_down(
    world: World,
    *,
    name: str,
    root: Path,
    docker_host: str | None,
    unregister: bool,
    say: Say,
    drain_s: int | None = None,
    images: bool = False,
) -> None:
    """Stop and remove the containers; with `unregister` also the runners in GitLab, and the files.

    With `images`, too, those that this instance had built go, but for what another instance of the box uses.

    Every part is done when it is found done: running it again goes on where it stopped.

    Raises:
        PrerequisiteError: the engine or the disk refuses. RemoteError: GitLab does; the files stay then, because the
        tokens in them are the only way to delete the runners.
    """
    check_name(name)
    paths = Paths(root=root, name=name)
    with contextlib.ExitStack() as locks:
        if world.disk.read(paths.state) is not None:
            locks.enter_context(world.disk.lock(paths.config_dir))
        state = with_rotated(load_state(world.disk, paths), world.disk.read(paths.config))
        engine = world.engine(docker_host or str(state.settings.get("docker_host") or ""))
        wait_s = wait_of(state.settings) if drain_s is None else drain_s
        there = _stop_service(world, paths, wait_s, say)
        there |= _stop(engine, name, wait_s, say)
        if not there:
            say("stop", "no container was there")
        if jobs := engine.remove_jobs(name):
            # The runner had to be killed: nobody would take their result.
            say("stop", f"removed {jobs} container(s) of jobs that did not end in time")
        if not unregister:
            say("files", f"kept: gpurig up starts it again ({paths.config_dir})")
            return
        tokens = [one.token for one in (*state.registrations, *state.retired)]
        _unregister(world, paths, state, say)
        volumes = engine.remove_volumes(tokens) if tokens else 0
        box_id = world.box(paths).box_id
        if images:
            removed = remove_images(engine, state.images, name, box_id, instances(world.disk, paths.root))
            say("images", f"removed {', '.join(removed)}" if removed else "none was to be removed")
        else:
            release_images(engine, state.images, box_id)
        _remove_files(world, paths, volumes, say)


def _stop_service(world: World, paths: Paths, wait_s: int, say: Say) -> bool:
    """Stop and remove the runner's service; whether there was one."""
    if not has_unit(world, paths.name, str(paths.root)):
        return False
    name = runner_name(paths.name)
    if not world.services.find(name).ended:
        say("stop", f"stopping the service {name} after its running jobs, at most {wait_s} s")
    world.services.stop(name, wait_s=wait_s)
    world.services.disable(name)
    say("stop", f"removed the service {remove_service(world, paths.name, str(paths.root))}")
    return True


def _stop(engine: Engine, name: str, drain_s: int, say: Say) -> bool:
    """Stop and remove the containers; whether there was one."""
    found = sorted(engine.find(name), key=lambda one: one.role != "runner")
    for one in found:
        jobs = engine.jobs(name) if one.role == "runner" and one.running else ()
        if jobs:
            say("stop", f"waiting for {len(jobs)} running job(s) to end, at most {drain_s} s")
        engine.stop(one.id, wait_s=drain_s if one.role == "runner" else 10)
        engine.remove(one.id)
        say("stop", f"removed the container {one.name}")
    return bool(found)


def _unregister(world: World, paths: Paths, state: State, say: Say) -> None:
    # The copy: what `--tls-ca-file` named may be gone.
    ca_file = None if world.disk.missing(paths.ca_file) else paths.ca_file
    for one in (*state.registrations, *state.retired):
        lost = forget(world.gitlab(one.url, ca_file), one, world.now())
        state = state.model_copy(
            update={
                "registrations": tuple(other for other in state.registrations if other != one),
                "retired": tuple(other for other in state.retired if other != one),
            }
        )
        save_state(world.disk, paths, state)
        say(*(("note", lost.told()) if lost else ("gitlab", f"deleted the runner #{one.id} at {one.url}")))
    kind = str(state.settings.get("runner_type") or "project")
    unanswered = (Lost(url=one.url, runner_type=kind, description=one.description) for one in state.intents)
    for lost in (*state.lost, *unanswered):
        deleted = delete_lost(world.gitlab(lost.url, ca_file), lost, known=())
        if deleted is None:
            say("note", lost.told())
        elif deleted:
            say("gitlab", f"deleted an unused runner at {lost.url}")


def _remove_files(world: World, paths: Paths, volumes: int, say: Say) -> None:
    disk = world.disk
    there = disk.read(paths.state) is not None or disk.read(paths.config) is not None
    # The state last: until then another `down` knows what to do.
    for path in (paths.ca_file.parent, paths.metrics_web.parent, paths.config, paths.system_id, paths.state):
        disk.remove(path)
    disk.remove(paths.metrics_data)
    for folder in (paths.config_dir, paths.models, paths.data_dir):
        disk.remove_empty(folder)
    if volumes:
        say("files", f"removed {volumes} cache volume(s) of jobs")
    say("files", f"removed {paths.config_dir}" if there else "no file was there")
    if not disk.missing(paths.models):
        say("files", f"kept the models: {paths.models}")
