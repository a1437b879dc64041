"""A job's log: masked, limited, sent in parts while the job runs, and whole at its end."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable

from standins.runner.client import Client, GitLabError
from standins.runner.masking import Masker

_PART_BYTES = 1024 * 1024
_DEFAULT_INTERVAL_S = 3
_FINAL_TRIES = 10
_SILENCE_LIMIT_S = 30


class Trace:
    """The log of one job, sent by a thread of its own until `finish`."""

    def __init__(
        self, client: Client, job_id: int, token: str, *, masker: Masker, limit_bytes: int, on_abort: Callable[[], None]
    ) -> None:
        """Start sending; `on_abort` is called once when GitLab says that the job is over."""
        self._client, self._job_id, self._token = client, job_id, token
        self._masker = masker
        self._limit = limit_bytes
        self._on_abort = on_abort
        self._lock = threading.Lock()
        self._bytes = bytearray()
        self._sent = 0
        self._interval_s = _DEFAULT_INTERVAL_S
        self._ended = threading.Event()
        self._over = False
        self._heard = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name=f"trace-{job_id}")
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Add to the log, masked; what passes the limit is dropped, with a last line that says so."""
        with self._lock:
            self._append(self._masker.feed(data))

    def line(self, text: str) -> None:
        """Add a line of the runner's own."""
        self.write(text.encode() + b"\n")

    def finish(
        self, state: str, failure_reason: str, exit_code: int, pause: Callable[[float], None] = time.sleep
    ) -> None:
        """Send the rest and the final state; `pause` lets seconds pass between two tries.

        Raises:
            GitLabError: GitLab took it in none of ten tries.
        """
        self._ended.set()
        self._thread.join()
        with self._lock:
            self._append(self._masker.flush())
        final: dict[str, object] = {"state": state}
        if state == "failed":
            final |= {"failure_reason": failure_reason, **({"exit_code": exit_code} if exit_code else {})}
        for attempt in range(_FINAL_TRIES):
            try:
                while self._sent < len(self._bytes) and not self._over:
                    self._send()
                if self._over:
                    return
                checksum = f"crc32:{zlib.crc32(self._bytes):08x}"
                output = {"checksum": checksum, "bytesize": len(self._bytes)}
                status = self._client.update_job(self._job_id, self._token, checksum=checksum, output=output, **final)
            except GitLabError:
                status = 0
            if status in {200, 403, 404}:
                return
            if status == 412:
                self._sent = 0
            pause(min(2**attempt, 30))
        raise GitLabError(f"job {self._job_id}: the final state was not taken")

    def _append(self, data: bytes) -> None:
        room = self._limit - len(self._bytes)
        if room <= 0:
            return
        self._bytes += data[:room]
        if len(data) >= room:
            self._bytes += f"\nJob's log exceeded limit of {self._limit} bytes.\n".encode()

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            try:
                if self._sent < len(self._bytes):
                    self._send()
                elif time.monotonic() - self._heard > _SILENCE_LIMIT_S:
                    # Without output GitLab is told that the job lives, and says whether it should.
                    status = self._client.update_job(self._job_id, self._token, state="running")
                    self._over, self._heard = status == 403, time.monotonic()
            except GitLabError:
                continue
            if self._over:
                self._on_abort()
                return

    def _send(self) -> None:
        with self._lock:
            part = bytes(self._bytes[self._sent : self._sent + _PART_BYTES])
        answer = self._client.append_trace(self._job_id, self._token, self._sent, part)
        self._sent = answer.offset
        self._over, self._heard = answer.over, time.monotonic()
        self._interval_s = answer.interval_s or self._interval_s
