"""Who may read the metrics: passwords that are checked, and a configuration that is read again when it changes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpurig.common.errors import ApplianceError
from gpurig.runner.exporter.web.web_config import WebConfig, load_web_config, make_context

if TYPE_CHECKING:
    import ssl

# bcrypt uses no more of a password, and its library refuses longer ones.
_PASSWORD_BYTES = 72


class Gatekeeper:
    """Checks HTTP basic authentication.

    A wrong password costs one bcrypt whether its user exists or not, so that the time tells no user names. A right one
    is remembered, keyed-hashed, because a scrape must not cost a tenth of a second.
    """

    def __init__(self, users: Mapping[str, str]) -> None:
        """Take the users' bcrypt hashes; none means that everybody may."""
        self._users = {name: value.encode() for name, value in users.items()}
        self._key = os.urandom(32)
        self._right: set[bytes] = set()
        # One at a time: who guesses passwords keeps one core busy, not all.
        self._lock = threading.Lock()
        if self._users:
            import bcrypt  # noqa: PLC0415 - an exporter without users stays small

            self._check = bcrypt.checkpw
            cost = max(int(value.split(b"$")[2]) for value in self._users.values())
            self._nobodys = bcrypt.hashpw(os.urandom(16).hex().encode(), bcrypt.gensalt(cost))

    def allows(self, authorization: str | None) -> bool:
        """Whether a request with this `Authorization` header is answered.

        Args:
            authorization: the header's value; None where there is none.
        """
        if not self._users:
            return True
        given = _credentials(authorization or "")
        if given is None:
            return False
        name, password = given
        mark = hashlib.blake2b(name.encode() + b"\0" + password, key=self._key).digest()
        if mark in self._right:
            return True
        known = self._users.get(name)
        with self._lock:
            try:
                fits = self._check(password[:_PASSWORD_BYTES], known or self._nobodys)
            except ValueError:
                return False
        if known is not None and fits:
            self._right.add(mark)
            return True
        return False


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None


@dataclass(frozen=True)
class Rules:
    """A configuration in use.

    Attributes:
        context: the TLS side; None for plain HTTP.
    """

    config: WebConfig
    gatekeeper: Gatekeeper
    context: ssl.SSLContext | None


class WebAccess:
    """The rules of a web configuration file, which follow it: a renewed certificate needs no restart."""

    def __init__(self, path: Path, *, say: Callable[[str], None]) -> None:
        """Read it.

        Args:
            path: the file.
            say: called with one line when it was read again, or cannot be.

        Raises:
            InputError, PrerequisiteError: it cannot be used.
        """
        self._path = path
        self._say = say
        self._lock = threading.Lock()
        self._rules = _load(path)
        self._seen = _prints(self._rules.config)

    def rules(self) -> Rules:
        """The rules now; those from before where the files have become unusable, which is said once."""
        with self._lock:
            prints = _prints(self._rules.config)
            if prints != self._seen:
                self._seen = prints
                try:
                    self._rules = _load(self._path)
                    self._seen = _prints(self._rules.config)
                    self._say(f"read {self._path} again")
                except ApplianceError as error:
                    self._say(f"{error.message}; what was read before stays in force")
            return self._rules


def _load(path: Path) -> Rules:
    config = load_web_config(path)
    return Rules(config, Gatekeeper(config.users), make_context(config) if config.tls else None)


def _prints(config: WebConfig) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when one of the files does."""
    found: list[tuple[int, int, int] | None] = []
    for path in config.files:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
