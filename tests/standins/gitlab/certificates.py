"""A certificate authority of our own, and a server's certificate by it, through the openssl program."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from gpurig.common import process

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def make(folder: Path, host: str, *, days: int = 2) -> tuple[Path, Path]:
    """Make both for `host` (a name or an address); with negative `days` the server's has expired.

    Returns:
        The authority's certificate, and the server's key with its certificate in one file.
    """
    try:
        name = f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        name = f"DNS:{host}"
    authority, server = folder / "ca.pem", folder / "server.pem"
    _openssl(
        *("req", "-x509", *_KEY, "-days", "2", "-subj", "/CN=Stand-in CA"),
        *("-keyout", folder / "ca.key", "-out", authority),
    )
    _openssl("req", *_KEY, "-subj", f"/CN={host}", "-keyout", folder / "server.key", "-out", folder / "server.csr")
    (folder / "extensions").write_text(f"subjectAltName={name}\nextendedKeyUsage=serverAuth\n", encoding="utf-8")
    _openssl(
        *("x509", "-req", "-in", folder / "server.csr", "-CA", authority, "-CAkey", folder / "ca.key"),
        *("-CAcreateserial", "-days", str(days), "-extfile", folder / "extensions", "-out", folder / "server.crt"),
    )
    server.write_bytes((folder / "server.key").read_bytes() + (folder / "server.crt").read_bytes())
    return authority, server


def _openssl(*arguments: str | Path) -> None:
    done = process.run(["openssl", *map(str, arguments)], timeout_s=60)
    if done.code != 0:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")
