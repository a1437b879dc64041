"""The exporter's web configuration: what it takes, what it refuses and in which words, who is let in."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml
from gpurig.common.errors import InputError
from gpurig.provisioning.listen import is_loopback
from gpurig.runner.exporter.web.web_access import Gatekeeper, WebAccess
from gpurig.runner.exporter.web.web_config import check_exposure, load_web_config
from hypothesis import given
from hypothesis import strategies as st
from standins.gitlab import certificates

HASH = bcrypt.hashpw(b"opensesame", bcrypt.gensalt(4)).decode()
OPTIONS = ("--listen", "--web-config", "--insecure")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, server.crt, server.key, and other.key, which is not the certificate's."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("pem")
    certificates.make(folder, "127.0.0.1")
    shutil.copy(folder / "ca.key", folder / "other.key")
    return folder


def write(folder: Path, document: Any) -> Path:
    path = folder / "web.yml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


TLS = {"cert_file": "server.crt", "key_file": "server.key"}


def test_a_whole_configuration_is_read_and_its_paths_start_at_its_folder(pem: Path) -> None:
    path = write(
        pem,
        {
            "tls_server_config": {
                **TLS,
                "client_auth_type": "RequireAndVerifyClientCert",
                "client_ca_file": str(pem / "ca.pem"),
                "min_version": "TLS13",
            },
            "http_server_config": {"http2": False, "headers": {"X-Frame-Options": "deny"}},
            "basic_auth_users": {"prometheus": HASH},
        },
    )
    config = load_web_config(path)
    assert config.files == (path, pem / "server.crt", pem / "server.key", pem / "ca.pem")
    assert config.protects
    assert HASH not in repr(config)


@pytest.mark.parametrize("text", ["", "{}", "basic_auth_users:\n", "http_server_config: {http2: true}"])
def test_an_empty_configuration_is_one_that_protects_nothing(tmp_path: Path, text: str) -> None:
    assert not load_web_config(write(tmp_path, text)).protects


WRONG = [
    ("- a list", "must be a mapping"),
    ("tls: {}", "tls is no key of this format"),
    ("tls_server_config: yes", "tls_server_config must be a mapping"),
    ({"tls_server_config": {"cert_file": "server.crt"}}, "tls_server_config.key_file is missing"),
    ({"tls_server_config": {**TLS, "cert_file": 7}}, "tls_server_config.cert_file must be text, not int"),
    ({"tls_server_config": {**TLS, "cert_file": "none.crt"}}, "tls_server_config.cert_file: cannot read"),
    ({"tls_server_config": {**TLS, "key_file": "other.key"}}, "tls_server_config.key_file: .*key values mismatch"),
    ({"tls_server_config": {**TLS, "cert_file": "web.yml"}}, "tls_server_config.cert_file: .*cannot be used"),
    ({"tls_server_config": {**TLS, "min_version": "TLS10"}}, "min_version must be one of TLS12, TLS13"),
    ({"tls_server_config": {**TLS, "min_version": "TLS13", "max_version": "TLS12"}}, "is above max_version"),
    ({"tls_server_config": {**TLS, "client_auth_type": "RequireAnyClientCert"}}, "client_auth_type must be one of"),
    ({"tls_server_config": {**TLS, "client_ca_file": "ca.pem"}}, "client_ca_file and a client_auth_type"),
    ({"tls_server_config": {**TLS, "client_auth_type": "RequireAndVerifyClientCert"}}, "client_ca_file and a client"),
    ({"tls_server_config": {**TLS, "cipher_suites": ["x"]}}, "tls_server_config.cipher_suites is not supported here"),
    ({"rate_limit": {"burst": 1}}, "rate_limit is not supported here"),
    ({"http_server_config": {"http2": "no"}}, "http2 must be true or false"),
    ({"http_server_config": {"headers": {"Server": "x"}}}, "headers.Server is no key of this format"),
    ({"http_server_config": {"headers": {"X-Frame-Options": "a\r\nb"}}}, "must be one line"),
    ({"basic_auth_users": [1]}, "basic_auth_users must be a mapping"),
    ({"basic_auth_users": {"me": "plainsecret"}}, "basic_auth_users.me is no bcrypt hash"),
    ({"basic_auth_users": {"a:b": HASH}}, "holds a user name"),
    ({"basic_auth_users": {"me": HASH.replace("$04$", "$31$")}}, "basic_auth_users.me has a cost outside 4 to 14"),
]


@pytest.mark.parametrize(("document", "said"), WRONG)
def test_what_is_wrong_is_told_by_file_and_key_and_never_by_value(pem: Path, document: Any, said: str) -> None:
    path = write(pem, document)
    with pytest.raises(InputError, match=said) as caught:
        load_web_config(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert "plainsecret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("text", ["users: {a: b", "a: b: plainsecret", "x: !!python/object:os.system y", "\x00"])
def test_what_is_no_yaml_is_told_by_its_line_alone(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"web\.yml") as caught:
        load_web_config(write(tmp_path, text))
    assert "plainsecret" not in caught.value.message


def test_a_key_with_a_password_is_refused_without_asking(pem: Path, tmp_path: Path) -> None:
    from gpurig.common.process import run

    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-in", str(pem / "server.key"), "-aes128", "-passout", "pass:x", "-out", str(locked)]
    assert run(command, timeout_s=30).code == 0
    path = write(tmp_path, {"tls_server_config": {"cert_file": str(pem / "server.crt"), "key_file": str(locked)}})
    with pytest.raises(InputError, match="key_file"):
        load_web_config(path)


def basic(name: str, password: str | bytes) -> str:
    secret = password if isinstance(password, bytes) else password.encode()
    return "Basic " + base64.b64encode(name.encode() + b":" + secret).decode()


def test_the_right_password_is_let_in_and_every_other_is_not() -> None:
    gate = Gatekeeper({"prometheus": HASH})
    assert gate.allows(basic("prometheus", "opensesame"))
    assert gate.allows(basic("prometheus", "opensesame"))
    for wrong in (
        None,
        "",
        "Basic",
        "Basic !!!",
        "Bearer x",
        basic("prometheus", "wrong"),
        basic("nobody", "opensesame"),
        basic("", ""),
        basic("prometheus", b"\x00"),
        basic("prometheus", b"\xff\xfe"),
        basic("prometheus", "x" * 100_000),
        "Basic " + base64.b64encode(b"nocolon").decode(),
        "Basic " + base64.b64encode(b"\xff:x").decode(),
    ):
        assert not gate.allows(wrong), wrong


def test_without_users_everybody_is_let_in() -> None:
    assert Gatekeeper({}).allows(None)


def test_hashes_of_htpasswd_and_passwords_longer_than_bcrypt_reads_are_taken() -> None:
    long = "a" * 80
    made = bcrypt.hashpw(long[:72].encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")
    assert Gatekeeper({"me": made}).allows(basic("me", long))


def test_a_wrong_password_costs_the_same_work_whether_its_user_exists_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    real = bcrypt.checkpw

    def counted(password: bytes, hashed: bytes) -> bool:
        checked.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    gate = Gatekeeper({"low": HASH, "high": bcrypt.hashpw(b"x", bcrypt.gensalt(5)).decode()})
    assert not gate.allows(basic("high", "wrong"))
    assert not gate.allows(basic("nobody", "wrong"))
    assert not gate.allows(basic("nobody", "wrong"))
    # A bcrypt for each, the nobody's at the highest cost among the users'.
    assert [one.split(b"$")[2] for one in checked] == [b"05", b"05", b"05"]
    assert gate.allows(basic("low", "opensesame"))
    assert gate.allows(basic("low", "opensesame"))
    assert len(checked) == 4


@given(header=st.text(max_size=200))
def test_no_header_whatsoever_lets_in_or_breaks(header: str) -> None:
    gate = Gatekeeper({})
    gate._users = {"prometheus": HASH.encode()}
    gate._check, gate._nobodys = (lambda *_: False), HASH.encode()
    assert not gate.allows(header)
    assert not gate.allows(f"Basic {header}")


def test_a_configuration_that_changed_is_in_force_and_one_that_broke_is_told_once(pem: Path, tmp_path: Path) -> None:
    for name in ("server.crt", "server.key"):
        shutil.copy(pem / name, tmp_path / name)
    said: list[str] = []
    path = write(tmp_path, {"tls_server_config": TLS, "basic_auth_users": {"me": HASH}})
    access = WebAccess(path, say=said.append)
    before = access.rules()
    assert access.rules() is before
    (tmp_path / "server.crt").write_text("broken")
    assert access.rules() is before
    assert access.rules() is before
    assert len(said) == 1
    assert "tls_server_config.cert_file" in said[0]
    shutil.copy(pem / "server.crt", tmp_path / "server.crt")
    after = access.rules()
    assert after is not before
    path.unlink()
    assert access.rules() is after
    assert len(said) == 3


def test_other_machines_read_only_with_tls_and_users_or_by_an_explicit_word(pem: Path) -> None:
    check_exposure("127.0.0.1", None, insecure=False, options=OPTIONS)
    check_exposure("::1", None, insecure=False, options=OPTIONS)
    check_exposure("0.0.0.0", None, insecure=True, options=OPTIONS)  # noqa: S104 - what the rule is about
    whole = write(pem, {"tls_server_config": TLS, "basic_auth_users": {"me": HASH}})
    check_exposure("192.0.2.1", whole, insecure=False, options=OPTIONS)
    with pytest.raises(InputError, match=r"--listen 192\.0\.2\.1 .* --web-config is missing") as caught:
        check_exposure("192.0.2.1", None, insecure=False, options=OPTIONS)
    assert "--insecure" in caught.value.hint
    for half in ({"tls_server_config": TLS}, {"basic_auth_users": {"me": HASH}}, {}):
        with pytest.raises(InputError, match="has no TLS, or neither users"):
            check_exposure("::", write(pem, half), insecure=False, options=OPTIONS)


@pytest.mark.parametrize(
    ("address", "loopback"), [("127.0.0.2", True), ("::1", True), ("::", False), ("10.0.0.1", False)]
)
def test_loopback_is_told_from_what_others_reach(address: str, *, loopback: bool) -> None:
    assert is_loopback(address) is loopback
