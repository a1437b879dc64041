"""The runner as a service of systemd: made to match the plan, handed over from and to its container, taken away.

A unit's file changes only while its process is down, but for how long it may take to stop. So a process that runs was
started from what the file says, whatever run was killed in between, and nothing else has to be remembered.
"""

from __future__ import annotations

import functools

from gpurig.provisioning.plan import runner_name
from gpurig.provisioning.service_spec import render_unit, same_process, unit_owner, unit_path
from gpurig.provisioning.services import FoundService
from gpurig.runner.up_run import UpRun
from gpurig.runner.world import World


def hand_over(run: UpRun) -> str:
    """End the runner that the plan does not want: its container where it shall be a service, and the other way round.

    Before the other one starts: two processes with the same tokens would take twice the jobs.
    """
    if run.plan.service is None:
        return _leave_service(run)
    return _leave_container(run)


def _leave_container(run: UpRun) -> str:
    done = []
    for one in run.engine.find(run.settings.name):
        if one.role == "runner" and one.running:
            say_drain(run)
            run.undo.push(f"starting {one.name} again", functools.partial(run.engine.start, one.id))
            run.engine.stop(one.id, wait_s=run.drain_s)
            done.append(f"stopped the container {one.name}")
    return ", ".join(done)


def _leave_service(run: UpRun) -> str:
    name = runner_name(run.settings.name)
    if not has_unit(run.world, run.settings.name, str(run.paths.root)):
        return ""
    services = run.world.services
    seen = services.find(name)
    if seen.gone and not seen.enabled:
        return ""
    _stop(run, name, seen)
    if seen.enabled:
        run.undo.push(f"enabling the service {name} again", functools.partial(services.enable, name))
        services.disable(name)
    return f"stopped the service {name}"


def start_service(run: UpRun) -> str:
    """Write, enable and start the service where it differs; what was done, "" for nothing."""
    spec = run.plan.service
    if spec is None:
        return ""
    disk, services = run.world.disk, run.world.services
    before, text = disk.read(spec.path), render_unit(spec)
    seen = services.find(spec.name)
    if before == text and seen.running and seen.enabled and not seen.stale:
        return ""
    restart = not seen.running or before is None or not same_process(before, spec)
    reload = before != text or seen.stale
    if reload and run.plan.reload_takes_gpus and run.engine.jobs(spec.instance):
        # They would lose their GPUs.
        restart = True
    if restart and not seen.gone:
        _stop(run, spec.name, seen)
    if reload:
        # In this order, because it is undone from the last to the first.
        run.undo.push("reading the unit files again", services.reload)
        run.write(spec.path, text, mode=0o644)
        services.reload()
        _give_gpus_back(run)
    if not seen.enabled:
        run.undo.push(f"disabling the service {spec.name}", functools.partial(services.disable, spec.name))
        services.enable(spec.name)
    if restart:
        run.undo.push(f"stopping the service {spec.name}", functools.partial(services.stop, spec.name, wait_s=10))
        services.start(spec.name)
    verb = "started" if before is None else "restarted" if restart else "changed"
    return f"{verb} the service {spec.name}"


def _stop(run: UpRun, name: str, seen: FoundService) -> None:
    say_drain(run)
    if not seen.gone:
        run.undo.push(f"starting the service {name} again", functools.partial(run.world.services.start, name))
    run.world.services.stop(name, wait_s=run.drain_s)


def say_drain(run: UpRun) -> None:
    """Tell the user what is waited for."""
    jobs = run.engine.jobs(run.settings.name)
    if jobs:
        run.say("start", f"waiting for {len(jobs)} running job(s) to end, at most {run.drain_s} s")


def _give_gpus_back(run: UpRun) -> None:
    """After a reload that took the GPUs away from running containers: ours get them again by being started anew."""
    if not run.plan.reload_takes_gpus:
        return
    for one in run.engine.find(run.settings.name):
        if one.role == "exporter" and one.running:
            run.engine.stop(one.id, wait_s=10)
            run.engine.start(one.id)


def has_unit(world: World, instance: str, root: str) -> bool:
    """Whether the runner of an instance has a unit file, and it is that instance's."""
    return unit_owner(world.disk.read(unit_path(runner_name(instance))) or "") == (instance, root)


def remove_service(world: World, instance: str, root: str) -> str:
    """Remove the unit of a service that is stopped and disabled; its name, "" where there was none.

    Without daemon-reload, which may cost other containers their GPUs: systemd forgets it at the next one, or at boot.
    """
    if not has_unit(world, instance, root):
        return ""
    name = runner_name(instance)
    world.disk.remove(unit_path(name))
    return name
