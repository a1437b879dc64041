"""The process: reads config.toml, asks for jobs, runs them, reads config.toml again when it changes."""

from __future__ import annotations

import logging
import re
import secrets
import signal
import threading
from pathlib import Path
from typing import Any

import docker

from standins.runner import config as configs
from standins.runner.client import Client, GitLabError
from standins.runner.job import Job
from standins.runner.payload import Payload

_LOG = logging.getLogger("runner")
_TICK_S = 0.5


def system_id(path: Path) -> str:
    """The id beside config.toml, made once; it tells two processes with the same token apart."""
    if path.is_file() and re.fullmatch(r"[sr]_[0-9a-zA-Z]{12}", path.read_text(encoding="utf-8").strip()):
        return path.read_text(encoding="utf-8").strip()
    made = f"r_{secrets.token_hex(6)}"
    path.write_text(made, encoding="utf-8")
    return made


def _engine(hosts: set[str]) -> docker.DockerClient:
    """The engine that `host` names; the environment's or the usual one where it is silent."""
    if len(hosts) > 1:
        raise configs.ConfigError("this runner has one engine for all its entries")
    address = next(iter(hosts), "")
    return docker.DockerClient(base_url=address, timeout=600) if address else docker.from_env(timeout=600)


class Service:
    """Runs until a signal: SIGQUIT finishes the jobs first, SIGTERM and SIGINT abort them."""

    def __init__(self, path: Path) -> None:
        """Read the configuration.

        Raises:
            configs.ConfigError: it is not one.
        """
        self._path = path
        self._stamp: Any = None
        self._config = configs.load(path)
        self._remember()
        self._system_id = system_id(path.parent / ".runner_system_id")
        self._clients: dict[str, Client] = {}
        self._engine = _engine({str(entry.docker.get("host") or "") for entry in self._config.entries})
        self._wake = threading.Event()
        self._stopping = False
        self._guard = threading.Lock()
        self._jobs: dict[Job, tuple[str, int]] = {}
        self._threads: list[threading.Thread] = []

    def stop(self, number: int, _: object = None) -> None:
        """What a signal does."""
        _LOG.info("%s: stopping", signal.Signals(number).name)
        self._stopping = True
        self._wake.set()
        if number != signal.SIGQUIT:
            for job in list(self._jobs):
                # Not in the handler: a lock that the interrupted thread holds would never come free.
                threading.Thread(target=job.abort).start()

    def run(self) -> None:
        """Ask for jobs until a signal; return when all are finished."""
        _LOG.info("Configuration loaded, system ID %s, %d runners", self._system_id, len(self._config.entries))
        due = 0.0
        while not self._stopping:
            if due <= 0:
                due = self._config.check_interval_s
                self._reload()
                for entry in self._config.entries:
                    self._ask(entry)
            if self._wake.wait(_TICK_S):
                # A job ended: the next one may be waiting for it.
                self._wake.clear()
                due = 0.0
            due -= _TICK_S
        for thread in self._threads:
            thread.join()
        self._engine.close()

    def _ask(self, entry: configs.Entry) -> None:
        client = self._clients.setdefault(entry.token, Client(entry, self._system_id))
        while not self._stopping:
            slot = self._free_slot(entry)
            if slot is None:
                return
            try:
                body = client.request_job()
            except GitLabError as error:
                _LOG.warning("runner=%s: %s", entry.short_token, error)
                return
            if body is None:
                return
            job = Job(Payload(body, entry, self._system_id, slot), client, self._engine)
            with self._guard:
                self._jobs[job] = (entry.token, slot)
            thread = threading.Thread(target=self._work, args=(job,), name=f"job-{body['id']}")
            self._threads = [*(known for known in self._threads if known.is_alive()), thread]
            thread.start()

    def _free_slot(self, entry: configs.Entry) -> int | None:
        with self._guard:
            used = {slot for token, slot in self._jobs.values() if token == entry.token}
            if len(self._jobs) >= self._config.concurrent or (entry.limit and len(used) >= entry.limit):
                return None
            return next(number for number in range(len(used) + 1) if number not in used)

    def _work(self, job: Job) -> None:
        try:
            job.run()
        except GitLabError as error:
            _LOG.error("%s", error)
        finally:
            with self._guard:
                del self._jobs[job]
            self._wake.set()

    def _remember(self) -> None:
        about = self._path.stat()
        self._stamp = (about.st_mtime_ns, about.st_size, about.st_ino)

    def _reload(self) -> None:
        before = self._stamp
        try:
            self._remember()
            if before == self._stamp:
                return
            self._config = configs.load(self._path)
        except (OSError, configs.ConfigError) as error:
            _LOG.error("keeping the old configuration: %s", error)
            return
        self._clients = {}
        _LOG.info("Configuration loaded again, %d runners", len(self._config.entries))
