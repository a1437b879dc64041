"""One job from its payload to its final state."""

from __future__ import annotations

import contextlib
import logging
import shlex
import socket as sockets
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.utils import socket as streams

from standins.runner import container as containers
from standins.runner import services, sources
from standins.runner.client import VERSION, Client, GitLabError
from standins.runner.masking import Masker
from standins.runner.payload import Payload
from standins.runner.trace import Trace

_LOG = logging.getLogger("runner")
_STEP_LIMIT_S = 300
_ON_TERM = "trap 'exit 1' TERM"


class Job:
    """Runs one job; `abort` may come from another thread."""

    def __init__(self, payload: Payload, client: Client, engine: docker.DockerClient) -> None:
        """Nothing happens yet."""
        self._payload, self._client, self._engine = payload, client, engine
        self._container: Any = None
        self._aborted = threading.Event()
        self._timed_out = False
        self._guard = threading.Lock()
        features = payload.body.get("features") or {}
        self._reasons = set(features.get("failure_reasons") or ())
        self._trace = Trace(
            client,
            payload.id,
            payload.token,
            masker=Masker(payload.masked, features.get("token_mask_prefixes") or ()),
            limit_bytes=payload.entry.output_limit_bytes,
            on_abort=self.abort,
        )

    def abort(self) -> None:
        """End it now."""
        self._aborted.set()
        self._kill()

    def run(self) -> None:
        """Run it to its end; every failure becomes the job's final state."""
        payload = self._payload
        _LOG.info("job=%d project=%d: received", payload.id, payload.project_id)
        code, reason = 0, ""
        try:
            code = self._run()
            reason = "script_failure" if code else ""
            self._raise_if_ended()
            self._trace.line(f"ERROR: Job failed: exit code {code}" if code else "Job succeeded")
        except containers.SystemFailure as error:
            code, reason = 0, error.reason
            self._trace.line(f"ERROR: Job failed (system failure): {error}")
        except (GitLabError, DockerException, OSError) as error:
            code, reason = 0, "runner_system_failure"
            self._trace.line(f"ERROR: Job failed (system failure): {error}")
        except Exception as error:  # noqa: BLE001 - a bug here must not leave the job running for ever
            _LOG.critical("job=%d", payload.id, exc_info=True)
            code, reason = 0, "runner_system_failure"
            self._trace.line(f"PANIC: {error!r}")
        if reason not in self._reasons and reason not in {"", "script_failure", "runner_system_failure"}:
            reason = {"image_pull_failure": "runner_system_failure"}.get(reason, "script_failure")
        self._trace.finish("failed" if reason else "success", reason, code)
        _LOG.info("job=%d: %s", payload.id, reason or "success")

    def _run(self) -> int:
        payload, say = self._payload, self._trace.line
        say(f"Running with gitlab-runner {VERSION} (stand-in)")
        say(f"  on {payload.entry.name} {payload.entry.short_token}, system ID: {payload.system_id}")
        with tempfile.TemporaryDirectory(prefix=f"job-{payload.id}-") as folder:
            project = Path(folder) / "project"
            image = containers.choose_image(self._engine, payload)
            say(f"Using Docker executor with image {image} ...")
            say("Getting source from Git repository")
            sources.clone(payload, project)
            say(f"Checking out {payload.body['git_info']['sha'][:8]} as detached HEAD...")
            sources.download(self._client, payload, project, say)
            volumes = containers.binds(self._engine, payload)
            with (
                services.running(self._engine, payload, volumes, say) as hosts,
                self._build_container(containers.specification(payload, image, volumes, hosts)) as container,
            ):
                container.put_archive("/", sources.pack(project, payload.files, payload))
                main, after = _scripts(payload)
                code = self._execute(container, main, payload.timeout_s)
                if after and not self._aborted.is_set():
                    say("Running after_script")
                    self._execute(container, after, _STEP_LIMIT_S)
                if self._aborted.is_set() and not self._timed_out:
                    return code
                results = Path(folder) / "results"
                results.mkdir()
                if payload.body.get("artifacts"):
                    sources.fetch(container, payload, results)
                    self._upload(results / project_name(payload), failed=code != 0)
        return code

    @contextlib.contextmanager
    def _build_container(self, specification: dict[str, Any]) -> Iterator[Any]:
        payload = self._payload
        name = f"{containers.container_name(payload)}-{payload.id:08x}-build"
        api: Any = self._engine.api
        created = api.create_container_from_config(specification, name)
        container = self._engine.containers.get(created["Id"])
        with self._guard:
            self._container = container
        try:
            yield container
        finally:
            with self._guard:
                self._container = None
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)

    def _execute(self, container: Any, script: str, limit_s: int) -> int:
        """Start the container, feed it the script, copy its output to the log; the exit code."""
        connection = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        # docker-py hands out no other way to close one direction of the connection.
        raw = connection._sock
        timer = threading.Timer(limit_s, self._time_out)
        try:
            container.start()
            timer.start()
            if self._aborted.is_set():
                self._kill()
            raw = connection._sock
            # A script longer than the socket's buffer must not wait for output that nobody reads yet.
            writer = threading.Thread(target=_send, args=(raw, script.encode()))
            writer.start()
            frames: Any = streams.frames_iter
            for _, data in frames(connection, tty=False):
                self._trace.write(data)
            writer.join()
        finally:
            timer.cancel()
            connection.close()
            raw.close()
        return int(container.wait()["StatusCode"])

    def _raise_if_ended(self) -> None:
        if self._timed_out:
            raise containers.SystemFailure(
                f"execution took longer than {self._payload.timeout_s} seconds", "job_execution_timeout"
            )
        if self._aborted.is_set():
            raise containers.SystemFailure("aborted: terminated")

    def _time_out(self) -> None:
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        with self._guard, contextlib.suppress(APIError):
            if self._container is not None:
                self._container.kill()

    def _upload(self, folder: Path, *, failed: bool) -> None:
        payload = self._payload
        for wanted in payload.body["artifacts"]:
            when = wanted.get("when") or "on_success"
            if when != "always" and (when == "on_failure") != failed:
                continue
            paths = sources.collect(folder, wanted)
            kind, form = wanted["artifact_type"], wanted["artifact_format"] or "zip"
            if not paths:
                self._trace.line(f"WARNING: {', '.join(wanted['paths'])}: no matching files ({kind})")
                continue
            base = wanted.get("name") or ("artifacts" if kind == "archive" else kind)
            target = folder.parent / f"{base}.{ {'zip': 'zip', 'gzip': 'gz', 'raw': 'txt'}[form] }"
            if form == "zip":
                sources.archive(folder, paths, target)
            elif form == "gzip":
                sources.compress(paths, target)
            else:
                target.write_bytes(paths[0].read_bytes())
            self._trace.line(f"Uploading {len(paths)} file(s) as {kind}...")
            self._client.upload(
                payload.id, payload.token, target, kind=kind, form=form, expire_in=wanted.get("expire_in") or ""
            )


def project_name(payload: Payload) -> str:
    """The project folder's last part."""
    return payload.project_dir.rpartition("/")[2]


def _send(connection: sockets.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(data)
        connection.shutdown(sockets.SHUT_WR)


def _scripts(payload: Payload) -> tuple[str, str]:
    """The script, and the after_script or ""."""
    steps = {step["name"]: step["script"] for step in payload.body["steps"]}
    after = steps.get("after_script")
    return _script(steps["script"], payload), _script(after, payload) if after else ""


def _script(commands: list[str], payload: Payload) -> str:
    """One script that shows and runs the commands, with nothing on their standard input, up to the first failure."""
    lines = ["set -o errexit", f"cd {shlex.quote(payload.project_dir)}"]
    for command in commands:
        shown = command.strip().partition("\n")
        lines.append(f"echo {shlex.quote('$ ' + shown[0] + (' # collapsed multi-line command' if shown[2] else ''))}")
        lines.append(command)
    options = 'case "$(set -o)" in *"pipefail"*) set -o pipefail;; esac; set -o errexit\nset +o noclobber\n'
    evaluated = f"eval {shlex.quote(chr(10).join(lines))}"
    # The legacy form makes 1 of every exit code under bash (gitlab-runner issue 27668) [shells/bash.go].
    form = f": | {evaluated}" if payload.entry.legacy_bash_eval else f"({_ON_TERM}; {evaluated}) < /dev/null"
    return f"{_ON_TERM}\n{options}{form}\nexit 0\n"
