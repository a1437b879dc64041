"""Who may ask."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpurig.common.errors import InputError
from gpurig.common.files import read_text
from gpurig.evaljobs.serving.faults import ApiFault

KEY_VARIABLE = "GPURIG_SERVE_API_KEY"
_SHORTEST_KEY = 16


@dataclass(frozen=True)
class Access:
    """What a request must bring.

    Attributes:
        keys: any of them opens; none is needed where there are none.
        loopback: only this machine reaches the server.
    """

    keys: tuple[str, ...]
    loopback: bool

    def demand(self, headers: Mapping[str, str]) -> None:
        """Let a request in.

        Args:
            headers: its own, their names in lower case.

        Raises:
            ApiFault: it may not ask.
        """
        if not self.keys:
            # A web page whose name was made to point to this machine (DNS rebinding) sends its own name.
            if self.loopback and not _is_local(headers.get("host", "")):
                raise ApiFault(403, "Without an API key this server answers to its own addresses only.")
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            message = "You didn't provide an API key: it belongs into the header Authorization: Bearer KEY."
            raise ApiFault(401, message, code="missing_api_key", headers={"WWW-Authenticate": "Bearer"})
        digest = _digest(given.strip())
        # All are compared, whichever fits: the time tells nothing.
        if not sum(hmac.compare_digest(digest, _digest(key)) for key in self.keys):
            message = "Incorrect API key provided."
            raise ApiFault(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def read_keys(file: Path | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """API keys from a file (one a line, `#` begins a comment), or from the environment.

    Raises:
        InputError: the file has none, or one is too short or no plain text.
    """
    if file is not None:
        lines = [line.strip() for line in read_text(file).splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        where = str(file)
        if not keys:
            raise InputError(f"{file} holds no API key", hint="write one a line")
    else:
        where = KEY_VARIABLE
        keys = [environment[where].strip()] if environment.get(where, "").strip() else []
    if any(len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise InputError(
            f"an API key in {where} is not {_SHORTEST_KEY} or more plain characters",
            hint="openssl rand -hex 24 makes one",
        )
    return tuple(keys)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_local(host: str) -> bool:
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)


def _digest(key: str) -> bytes:
    # Of one length, so that the comparison does not tell the key's.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
