"""Pushing to a real registry: who may, what is sent again and what not, and a token that shows nowhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest
from gpurig.common.errors import PrerequisiteError, RemoteError
from gpurig.images.build import ensure_image
from gpurig.images.context import ContextFile
from gpurig.images.plan import Transport, plan_image
from gpurig.images.push import Pushed, push_image
from gpurig.images.registry import Login, Place, parse_place
from standins.gitlab import certificates
from standins.registry import USER, Registry, registry

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def own_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def image(engine: docker.DockerClient) -> Iterator[str]:
    """A small image, which is nothing else's."""
    plan = plan_image(
        "gpurig-test",
        title="test",
        dockerfile="Dockerfile",
        files=(
            ContextFile("Dockerfile", b"FROM scratch\nCOPY a /a\nCOPY b /b\n"),
            ContextFile("a", str(time.time_ns()).encode()),
            ContextFile("b", b"b" * 10_000),
        ),
        build_args={},
        labels={},
        transport=Transport(),
    )
    yield ensure_image(engine, plan).tag
    engine.images.remove(plan.tag, force=True)


def _push(engine: docker.DockerClient, image: str, where: Registry, **login: str) -> Pushed:
    given = {"username": USER, "password": where.password, **login}
    return push_image(engine, image, parse_place(f"{where.host}/team/app"), login=Login(**given))


def test_an_image_is_there_by_its_content_and_by_the_name_that_moves(engine, image, own_registry):
    seen = []
    place = parse_place(f"{own_registry.host}/team/app")
    pushed = push_image(
        engine, image, place, login=Login(USER, own_registry.password), on_layer=lambda layer: seen.append(layer.state)
    )
    version = image.rpartition(":")[2]
    assert pushed.names == tuple(f"{own_registry.host}/team/app/gpurig-test:{tag}" for tag in (version, "latest"))
    manifests = [own_registry.manifest("team/app/gpurig-test", tag) for tag in (version, "latest")]
    assert manifests[0] == manifests[1]
    assert manifests[0]["config"]["digest"] == engine.images.get(image).id
    assert [layer.state for layer in pushed.layers] == ["sent", "sent"]
    assert pushed.digest in own_registry.blobs()
    assert "sent" in seen
    # Nothing of the registry's name stays on the engine.
    assert engine.images.get(image).tags == [image]


def test_a_second_push_sends_no_layer(engine, image, own_registry):
    _push(engine, image, own_registry)
    before = own_registry.blobs()
    again = _push(engine, image, own_registry)
    assert {layer.state for layer in again.layers} == {"present"}
    assert own_registry.blobs() == before


def test_a_name_that_the_image_had_before_stays(engine, image, own_registry):
    full = f"{own_registry.host}/team/app/gpurig-test"
    engine.images.get(image).tag(full, "latest")
    try:
        _push(engine, image, own_registry)
        assert sorted(engine.images.get(image).tags) == sorted([image, f"{full}:latest"])
    finally:
        engine.images.remove(f"{full}:latest")


@pytest.mark.parametrize("login", [{"password": "wrong"}, {"username": "nobody"}])
def test_a_wrong_login_is_said_in_one_line(engine, image, own_registry, login):
    with pytest.raises(RemoteError) as caught:
        _push(engine, image, own_registry, **login)
    assert caught.value.message.endswith(f"{own_registry.host} does not accept the login")
    assert "--token-file" in caught.value.hint
    assert engine.images.get(image).tags == [image]


def test_no_login_at_all_is_said_in_one_line(engine, image, own_registry, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(RemoteError, match="does not accept the login"):
        push_image(engine, image, parse_place(f"{own_registry.host}/team/app"), login=None)


def test_an_image_that_is_not_there_is_a_missing_prerequisite(engine):
    with pytest.raises(PrerequisiteError, match="has no image gpurig-test:none"):
        push_image(engine, "gpurig-test:none", Place("127.0.0.1:1", ""), login=None)


class _GitLabs(HTTPServer):
    """A registry that sends its clients to GitLab for a token, as GitLab's does, and a GitLab that gives an answer."""

    def __init__(self, address: str, status: int, body: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.path.startswith("/jwt/auth")
                data = body.encode() if asked else b""
                self.send_response(status if asked else 401)
                realm = f'Bearer realm="http://{self.headers["Host"]}/jwt/auth",service="container_registry"'
                self.send_header("WWW-Authenticate", realm)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__((address, 0), Handler)


@contextlib.contextmanager
def _gitlab(address: str, status: int, body: str) -> Iterator[str]:
    with _GitLabs(address, status, body) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{address}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (
            401,
            '{"errors":[{"code":"UNAUTHORIZED","message":"HTTP Basic: Access denied"}]}',
            "does not accept the login",
        ),
        (
            403,
            '{"errors":[{"code":"DENIED","message":"access forbidden"}]}',
            "does not let this login write to team/app",
        ),
        (404, '{"message":"404 Not Found"}', "has no registry for team/app"),
    ],
)
def test_what_gitlab_answers_is_said_in_one_line(engine, image, status, body, what):
    with _gitlab("127.0.0.1", status, body) as host, pytest.raises(RemoteError) as caught:
        push_image(engine, image, parse_place(f"{host}/team/app"), login=Login("u", "p"))
    assert f"{host} {what}" in caught.value.message
    assert caught.value.hint


# Engines take 127.0.0.1 without TLS, and the bridge's address not.


def test_a_registry_without_tls_is_said_in_one_line(engine, image, bridge_address):
    with _gitlab(bridge_address, 200, "{}") as host, pytest.raises(PrerequisiteError) as caught:
        push_image(engine, image, parse_place(f"{host}/team/app"), login=Login("u", "p"))
    assert f"{host} speaks HTTP" in caught.value.message


def test_an_unknown_certificate_authority_is_said_in_one_line(engine, image, bridge_address, tmp_path):
    _, server = certificates.make(tmp_path, bridge_address)
    with (
        registry(tmp_path / "r", certificate=(server, server), address=bridge_address) as secure,
        pytest.raises(PrerequisiteError) as caught,
    ):
        _push(engine, image, secure)
    assert f"does not trust the certificate of {secure.host}" in caught.value.message
    assert f"/etc/docker/certs.d/{secure.host}/ca.crt" in caught.value.hint


def test_a_registry_that_is_not_there_is_said_in_one_line(engine, image):
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1:1 refuses connections"):
        push_image(engine, image, parse_place("127.0.0.1:1/team/app"), login=Login("u", "p"))
