"""The exporter's web configuration: TLS and users, in the format of Prometheus' exporter-toolkit.

Format: github.com/prometheus/exporter-toolkit, docs/web-configuration.md. What Python's TLS cannot do, or this server
does not, is refused by its key's name and never ignored: a setting that looks as if it protects must.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gpurig.common.errors import ApplianceError, InputError
from gpurig.common.files import read_bytes, read_text
from gpurig.provisioning.listen import is_loopback

T = TypeVar("T")

_HINT = "docs/metrics.md shows one; the format is that of Prometheus' exporter-toolkit"
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
# Cost 14 takes about a second, and every step doubles it: a scrape would time out.
_COST = range(4, 15)

VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_HEADERS = (
    *("Content-Security-Policy", "Strict-Transport-Security", "X-Content-Type-Options", "X-Frame-Options"),
    "X-XSS-Protection",
)
_TLS_KEYS = frozenset({"cert_file", "key_file", "client_auth_type", "client_ca_file", "min_version", "max_version"})
# Keys of the format that are refused with a reason of their own.
_UNSUPPORTED = {
    "tls_server_config.cert": "write the certificate into a file, and name it in cert_file",
    "tls_server_config.key": "write the key into a file, and name it in key_file",
    "tls_server_config.client_ca": "write the certificates into a file, and name it in client_ca_file",
    "tls_server_config.cipher_suites": "this server uses the ciphers of the system's OpenSSL",
    "tls_server_config.prefer_server_cipher_suites": "this server uses the ciphers of the system's OpenSSL",
    "tls_server_config.curve_preferences": "this server uses the curves of the system's OpenSSL",
    "tls_server_config.client_allowed_sans": "sign the clients' certificates by an authority of their own",
    "rate_limit": "limit the rate in a proxy before the exporter",
}


@dataclass(frozen=True)
class Tls:
    """How connections are encrypted, and whether clients prove who they are.

    Attributes:
        certificate, key: PEM files.
        client_ca: who signed the clients' certificates; None where `client_auth` asks for none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3


@dataclass(frozen=True)
class WebConfig:
    """A web configuration file that was found good.

    Attributes:
        path: the file.
        users: their passwords' bcrypt hashes.
        headers: what every answer carries besides.
    """

    path: Path
    tls: Tls | None = None
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def protects(self) -> bool:
        """Nobody reads the metrics on the way, and nobody unknown asks for them."""
        return self.tls is not None and (bool(self.users) or self.tls.client_auth is ssl.CERT_REQUIRED)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that it is made of."""
        tls = self.tls
        return (self.path, *(one for one in (tls.certificate, tls.key, tls.client_ca) if one)) if tls else (self.path,)


def load_web_config(path: Path) -> WebConfig:
    """Read a web configuration and the files that it names.

    Raises:
        InputError: the file, or one that it names, is not there or not right; the message names file and key, and
            never holds a value. PrerequisiteError: one may not be read.
    """
    reader = _Reader(path)
    document = reader.table(_parsed(path), "")
    reader.known(document, "", {"tls_server_config", "http_server_config", "basic_auth_users"})
    tls = None
    if document.get("tls_server_config") is not None:
        tls = _tls(reader, reader.table(document["tls_server_config"], "tls_server_config"))
    http = reader.table(document.get("http_server_config") or {}, "http_server_config")
    reader.known(http, "http_server_config", {"http2", "headers"})
    if not isinstance(http.get("http2", True), bool):
        raise reader.problem("http_server_config.http2", "must be true or false")
    config = WebConfig(path, tls, _users(reader, document), _headers(reader, http))
    if tls is not None:
        make_context(config)
    return config


def _parsed(path: Path) -> Any:
    import yaml  # noqa: PLC0415 - an exporter without a web configuration stays small

    try:
        return yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        # What YAML says of it quotes the file, and with it hashes.
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{path} is no YAML{where}", hint=_HINT) from None


class _Reader:
    """Judges values by their place in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def problem(self, key: str, what: str, hint: str = _HINT) -> InputError:
        return InputError(f"{self.path}: {key} {what}" if key else f"{self.path} {what}", hint=hint)

    def table(self, value: Any, key: str) -> Mapping[Any, Any]:
        if value is None and not key:
            return {}
        if not isinstance(value, Mapping):
            raise self.problem(key, "must be a mapping of keys to values")
        return value

    def known(self, table: Mapping[Any, Any], key: str, names: set[str] | frozenset[str]) -> None:
        for name in table:
            full = f"{key}.{name}" if key else str(name)
            if full in _UNSUPPORTED:
                raise self.problem(full, "is not supported here", hint=_UNSUPPORTED[full])
            if name not in names:
                raise self.problem(full[:100], "is no key of this format", hint=f"known: {', '.join(sorted(names))}")

    def text(self, table: Mapping[Any, Any], key: str, name: str) -> str:
        value = table.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.problem(f"{key}.{name}", f"must be text, not {type(value).__name__}")
        return value

    def choice(self, table: Mapping[Any, Any], key: str, name: str, choices: Mapping[str, T]) -> T:
        """What the value stands for; the first one where it is not given."""
        value = self.text(table, key, name) or next(iter(choices))
        if value not in choices:
            raise self.problem(f"{key}.{name}", "must be one of " + ", ".join(choices))
        return choices[value]

    def file(self, table: Mapping[Any, Any], key: str, name: str) -> Path | None:
        """A path as exporter-toolkit reads it: from the configuration's folder on."""
        value = self.text(table, key, name)
        return self.path.parent / value if value else None


def _tls(reader: _Reader, table: Mapping[Any, Any]) -> Tls:
    key = "tls_server_config"
    reader.known(table, key, _TLS_KEYS)
    certificate, private = reader.file(table, key, "cert_file"), reader.file(table, key, "key_file")
    for name, path in (("cert_file", certificate), ("key_file", private)):
        if path is None:
            raise reader.problem(f"{key}.{name}", "is missing")
    tls = Tls(
        certificate=certificate or Path(),
        key=private or Path(),
        client_ca=reader.file(table, key, "client_ca_file"),
        client_auth=reader.choice(table, key, "client_auth_type", CLIENT_AUTH),
        minimum=reader.choice(table, key, "min_version", VERSIONS),
        maximum=reader.choice(table, key, "max_version", dict(reversed(VERSIONS.items()))),
    )
    if tls.minimum > tls.maximum:
        raise reader.problem(f"{key}.min_version", "is above max_version")
    if (tls.client_ca is None) != (tls.client_auth is ssl.CERT_NONE):
        raise reader.problem(
            f"{key}.client_ca_file",
            "and a client_auth_type that verifies belong together",
            hint="client_auth_type: RequireAndVerifyClientCert, and client_ca_file: clients-ca.pem",
        )
    return tls


def _users(reader: _Reader, document: Mapping[Any, Any]) -> dict[str, str]:
    users = reader.table(document.get("basic_auth_users") or {}, "basic_auth_users")
    for name, value in users.items():
        if not isinstance(name, str) or not name or ":" in name or not name.isprintable():
            raise reader.problem("basic_auth_users", "holds a user name that is empty, no text, or has a colon")
        found = _BCRYPT.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise reader.problem(
                f"basic_auth_users.{name[:60]}",
                "is no bcrypt hash",
                hint="make one: htpasswd -nBC 10 USER, and write what stands after the colon",
            )
        if int(found[1]) not in _COST:
            raise reader.problem(f"basic_auth_users.{name[:60]}", f"has a cost outside {_COST[0]} to {_COST[-1]}")
    return dict(users)


def _headers(reader: _Reader, http: Mapping[Any, Any]) -> dict[str, str]:
    headers = reader.table(http.get("headers") or {}, "http_server_config.headers")
    reader.known(headers, "http_server_config.headers", set(_HEADERS))
    for name in headers:
        if not reader.text(headers, "http_server_config.headers", name).isprintable():
            raise reader.problem(f"http_server_config.headers.{name}", "must be one line of text")
    return {str(name): str(value) for name, value in headers.items() if value}


@contextlib.contextmanager
def _told(path: Path, key: str, named: Path) -> Iterator[None]:
    """Put the key before what is wrong with the file that it names."""
    try:
        yield
    except ApplianceError as error:
        raise type(error)(f"{path}: tls_server_config.{key}: {error.message}", hint=error.hint) from error
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM").replace("_", " ").lower()
        raise InputError(
            f"{path}: tls_server_config.{key}: {named} cannot be used ({reason})",
            hint="certificate and key are PEM files that belong together, the key without a password",
        ) from error


def make_context(config: WebConfig) -> ssl.SSLContext:
    """The TLS side of a server.

    Raises:
        InputError: a file is not there, no PEM, or the key is not the certificate's. PrerequisiteError: no permission.
    """
    tls = config.tls
    if tls is None:
        raise InputError(f"{config.path} has no tls_server_config", hint=_HINT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = tls.minimum, tls.maximum
    context.set_alpn_protocols(["http/1.1"])
    with _told(config.path, "cert_file", tls.certificate):
        # Read first, and by itself: what OpenSSL says of a pair tells neither whether, nor which file is wrong.
        read_bytes(tls.certificate)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(tls.certificate)
    with _told(config.path, "key_file", tls.key):
        read_bytes(tls.key)
        # A key with a password is refused: there is nobody to ask.
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    if tls.client_ca is not None:
        with _told(config.path, "client_ca_file", tls.client_ca):
            read_bytes(tls.client_ca)
            context.load_verify_locations(tls.client_ca)
        context.verify_mode = tls.client_auth
    return context


def check_exposure(address: str, path: Path | None, *, insecure: bool, options: tuple[str, str, str]) -> None:
    """Metrics that other machines can read are encrypted and for known clients, unless the user says otherwise.

    Args:
        address: the IP address to listen on.
        path: the web configuration.
        insecure: the user says otherwise.
        options: the names of the options for the address, the configuration and that permission.

    Raises:
        InputError: they are not, or the web configuration is not right. PrerequisiteError: it may not be read.
    """
    config = load_web_config(path) if path else None
    if is_loopback(address) or insecure or (config is not None and config.protects):
        return
    listen, web_config, permission = options
    why = (
        f"{path} has no TLS, or neither users nor required client certificates" if path else f"{web_config} is missing"
    )
    raise InputError(
        f"{listen} {address} lets other machines read the metrics, and {why}",
        hint=f"{web_config} FILE with tls_server_config and basic_auth_users (docs/metrics.md); "
        f"or {permission}, where a proxy or a firewall protects them",
    )
