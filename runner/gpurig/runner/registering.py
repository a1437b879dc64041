"""The step that makes GitLab's runners match the plan, so that no crash leaves one that nobody knows.

Before a runner is asked for, the intention is on disk; when the answer is there, its id and token are. What an
interrupted run left is found by its description, where the user's token may list runners.
"""

from __future__ import annotations

import functools

from gpurig.common.errors import RemoteError
from gpurig.provisioning.plan import Entry
from gpurig.provisioning.runners import RefusedError
from gpurig.provisioning.state import Intent, Registration, State
from gpurig.runner.up_run import UpRun


def register(run: UpRun) -> str:
    """Create the runners that are missing; those that nobody wants any more are retired, and deleted at the end."""
    _prepare(run)
    missing = [entry for entry in run.plan.entries if not _serves(run, entry)]
    if missing:
        run.gitlab().check_token()
    for intent in run.state.intents:
        _settle(run, intent)
    for entry in missing:
        _create(run, entry)
    _retire_unwanted(run)
    if not missing:
        return "unchanged"
    made = [one for entry in missing if (one := run.state.registration(entry.key))]
    run.changes.append("register")
    return f"created {len(made)} runner(s) in GitLab: " + ", ".join(f"#{one.id}" for one in made)


def _prepare(run: UpRun) -> None:
    disk, paths = run.world.disk, run.paths
    run.make_directory(paths.config_dir, mode=0o700)
    run.locks.enter_context(disk.lock(paths.config_dir))
    if disk.read(paths.system_id) is None:
        # The runner's process writes it, whatever becomes of this run.
        run.undo.push(f"removing {paths.system_id}", functools.partial(disk.remove, paths.system_id))
    # Another run may have ended between the plan and the lock.
    run.load()
    if disk.read(paths.state) is None:

        def remove_empty_state() -> None:
            if run.state.empty:
                disk.remove(paths.state)

        run.undo.push(f"removing {paths.state}", remove_empty_state)


def _serves(run: UpRun, entry: Entry) -> bool:
    registration = run.state.registration(entry.key)
    return (
        registration is not None
        and registration.spec == entry.runner.digest()
        and run.gitlab().accepts(registration.token)
    )


def _create(run: UpRun, entry: Entry) -> None:
    intent = Intent(key=entry.key, url=entry.runner.url, description=entry.runner.description)
    run.undo.push("looking for a runner whose creation was not answered", functools.partial(_settle, run, intent))
    run.save(run.state.model_copy(update={"intents": (*run.state.intents, intent)}))
    try:
        made = run.gitlab().create(entry.runner)
    except RefusedError:
        run.state = _without_intent(run.state, intent)
        run.save(run.state)
        raise
    registration = Registration(
        key=entry.key,
        spec=entry.runner.digest(),
        url=entry.runner.url,
        id=made.id,
        token=made.token,
        description=entry.runner.description,
        tags=entry.runner.tags,
        obtained_at=run.world.now(),
        expires_at=made.expires_at,
    )
    before = run.state.registration(entry.key)
    run.undo.push(f"deleting the runner #{made.id}", functools.partial(_uncreate, run, registration, before))
    others = tuple(one for one in run.state.registrations if one.key != entry.key)
    retired = (*run.state.retired, before) if before else run.state.retired
    run.save(
        _without_intent(run.state, intent).model_copy(
            update={"registrations": _in_order(*others, registration), "retired": retired}
        )
    )


def _uncreate(run: UpRun, registration: Registration, before: Registration | None) -> None:
    run.gitlab(registration.url).delete(registration.token)
    kept = tuple(one for one in run.state.registrations if one.id != registration.id)
    retired = tuple(one for one in run.state.retired if one != before)
    run.save(
        run.state.model_copy(
            update={"registrations": _in_order(*kept, before) if before else kept, "retired": retired},
        )
    )


def _retire_unwanted(run: UpRun) -> None:
    wanted = {entry.key for entry in run.plan.entries}
    unwanted = tuple(one for one in run.state.registrations if one.key not in wanted)
    if not unwanted:
        return
    before = run.state
    # Pushed first: a write that fails may have happened.
    run.undo.push("keeping the runners that were there", functools.partial(run.save, before))
    run.save(
        before.model_copy(
            update={
                "registrations": tuple(one for one in before.registrations if one.key in wanted),
                "retired": (*before.retired, *unwanted),
            }
        )
    )


def _settle(run: UpRun, intent: Intent) -> None:
    """Find out whether GitLab made the runner of an intention, and delete it: its token is lost."""
    if intent not in run.state.intents:
        return
    known = {one.id for one in (*run.state.registrations, *run.state.retired)}
    found = run.gitlab(intent.url).find(run.settings.runner_type, intent.description)
    if found is None:
        note = f'GitLab may still have an unused runner "{intent.description}": look, and delete it there'
        if note not in run.notes:
            run.notes.append(note)
        return
    for runner_id in found:
        if runner_id not in known:
            run.gitlab(intent.url).delete_by_id(runner_id)
    run.save(_without_intent(run.state, intent))


def _in_order(*registrations: Registration) -> tuple[Registration, ...]:
    """By entry, so that a state that was taken back is the state that was."""
    return tuple(sorted(registrations, key=lambda one: one.key))


def _without_intent(state: State, intent: Intent) -> State:
    return state.model_copy(update={"intents": tuple(one for one in state.intents if one != intent)})


def tidy(run: UpRun) -> str:
    """What cannot be taken back, after everything new is proven: delete what was replaced."""
    run.undo.forget()
    removed = _remove_old_containers(run)
    removed += _delete_retired(run)
    if run.state.intents:
        # The user was told; telling it at every run would help nobody.
        run.save(run.state.model_copy(update={"intents": ()}))
    if not removed:
        return "unchanged"
    run.changes.append("tidy")
    return "removed " + ", ".join(removed)


def _delete_retired(run: UpRun) -> list[str]:
    removed = []
    jobs = run.engine.jobs(run.settings.name) if run.state.retired else ()
    for one in run.state.retired:
        if any(job.runner and job.runner in one.token for job in jobs):
            run.notes.append(f"runner #{one.id} still runs a job: the next `gpurig up` deletes it")
            continue
        try:
            run.gitlab(one.url).delete(one.token)
        except RemoteError:
            if one.url == run.settings.url:
                raise
            # An instance that was left for another may be gone for good: it must not keep this one from working.
            run.notes.append(f"runner #{one.id} at {one.url} could not be deleted: delete it there")
        run.save(run.state.model_copy(update={"retired": tuple(other for other in run.state.retired if other != one)}))
        removed.append(f"runner #{one.id}")
    return removed


def _remove_old_containers(run: UpRun) -> list[str]:
    wanted = {spec.name for spec in run.plan.containers}
    removed = []
    for one in run.engine.find(run.settings.name):
        if one.name not in wanted:
            run.engine.stop(one.id, wait_s=10)
            run.engine.remove(one.id)
            removed.append(f"container {one.name}")
    return removed
