"""Where the exporter listens; apart from the settings, so that the exporter's process stays small."""

from __future__ import annotations

import ipaddress

METRICS_LISTEN = "127.0.0.1:9476"


def split_listen(value: str) -> tuple[str, int]:
    """An address and a port: "127.0.0.1:9476", "[::1]:9476".

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("write ADDRESS:PORT, for example 127.0.0.1:9476, or off")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(bare)
    except ValueError as error:
        raise ValueError("the address before the port must be an IP address, for example 127.0.0.1") from error
    return bare, int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches `address`, an IP address."""
    return ipaddress.ip_address(address).is_loopback
