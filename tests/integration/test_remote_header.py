"""`models fit` of a file that is not here: only its header comes, and whatever the server does ends in one line."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import pytest
from gpurig.common.command import run_command
from gpurig.common.errors import EXIT_REMOTE, ApplianceError, InputError, RemoteError, TransientError
from gpurig.common.gguf import read_gguf
from gpurig.common.models.address import AddressFile
from gpurig.common.models.header import read_remote_header
from gpurig.common.models.hub import HubAccess, HubFile
from gpurig.common.models.reference import HubReference
from gpurig.provisioning.paths import Paths
from gpurig.runner.__main__ import cli
from gpurig.runner.fit_sources import find_header
from standins.clocks import FakeClock
from standins.hub import Hub
from standins.model_shapes import published_shapes, write_shape
from standins.remote_files import HollowFile, RemoteFiles
from standins.tiny_gguf import write_tiny_gguf

MODEL = "llama-3.1-8b"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shape(tmp_path_factory.mktemp("model") / f"{MODEL}.gguf", published_shapes()[MODEL])


@pytest.fixture
def server(model: Path) -> Iterator[RemoteFiles]:
    with RemoteFiles({"m.gguf": HollowFile.of(model)}) as running:
        yield running


def header(server: RemoteFiles, name: str = "m.gguf", read_s: float = 5.0):
    return read_remote_header(AddressFile(server.address(name), read_s=read_s), clock=FakeClock())


def test_of_a_file_of_gigabytes_a_few_megabytes_are_read(server: RemoteFiles, model: Path) -> None:
    found, here = header(server), read_gguf(model)
    assert here.size_bytes > 4 * 2**30
    assert (found.tensors, found.size_bytes) == (here.tensors, here.size_bytes)
    assert server.sent <= 2 * 2**20
    assert all(request.headers.get("range") for request in server.asked)


def test_a_header_that_is_longer_than_the_first_request_is_read_on(tmp_path: Path) -> None:
    texts = [f"token number {number}" for number in range(150_000)]
    vocabulary = struct.pack("<IQ", 8, len(texts)) + b"".join(
        struct.pack("<Q", len(one)) + one.encode() for one in texts
    )
    key, name = b"tokenizer.ggml.tokens", b"general.architecture"
    data = struct.pack("<4sIQQ", b"GGUF", 3, 0, 2)
    data += struct.pack("<Q", len(name)) + name + struct.pack("<IQ", 8, 5) + b"llama"
    data += struct.pack("<Q", len(key)) + key + struct.pack("<I", 9) + vocabulary
    with RemoteFiles({"v.gguf": HollowFile(data, len(data))}) as server:
        found = header(server, "v.gguf")
    assert list(found.metadata["tokenizer.ggml.tokens"]) == texts
    assert server.sent == len(data) > 2 * 2**20


def test_a_redirection_to_another_server_is_followed(server: RemoteFiles) -> None:
    with RemoteFiles(redirects={"here.gguf": server.address("m.gguf") + "?Signature=secret"}) as first:
        assert len(header(first, "here.gguf").tensors) == len(header(server).tensors)


def test_a_server_that_knows_no_ranges_is_read_until_the_header_is_there(tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path / "tiny.gguf")
    with RemoteFiles({"t.gguf": HollowFile.of(tiny)}, ranges=False) as server:
        assert header(server, "t.gguf").tensors == read_gguf(tiny).tensors


def test_the_hub_is_asked_for_a_part_too(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    data = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    with Hub() as hub:
        hub.commit("owner/name", {"tiny.gguf": data})
        found = read_remote_header(HubFile(HubReference("owner/name", "tiny.gguf"), HubAccess(endpoint=hub.url)))
        asked = [exchange.request.headers.get("range") for exchange in hub.storage.log.exchanges]
    huggingface_hub.close_session()
    assert len(found.tensors) == len(read_gguf(tmp_path / "tiny.gguf").tensors)
    assert asked == [f"bytes=0-{min(2**20, len(data)) - 1}"]


@dataclass(frozen=True)
class Trouble:
    kind: type[ApplianceError]
    words: str


TROUBLES = {
    "nothing there": Trouble(RemoteError, "404"),
    "a fault of the server": Trouble(TransientError, "500"),
    "too many requests": Trouble(TransientError, "429"),
    "a login page": Trouble(RemoteError, "web page"),
    "no HTTP": Trouble(TransientError, "broke off"),
    "a connection that closes": Trouble(TransientError, "broke off"),
    "half an answer": Trouble(TransientError, "broke off"),
    "silence": Trouble(TransientError, "in time"),
    "a length that is too short": Trouble(InputError, "truncated"),
    "a length that is shorter than the header": Trouble(InputError, "does not fit"),
    "no length": Trouble(RemoteError, "how long"),
    "no GGUF": Trouble(InputError, "no GGUF file"),
    "endless redirections": Trouble(RemoteError, "without end"),
}


@pytest.mark.parametrize("what", TROUBLES)
def test_whatever_the_server_does_ends_in_one_line_that_says_what(what: str, server: RemoteFiles) -> None:
    file = server.files["m.gguf"]
    faults = {
        "a fault of the server": {"kind": "status", "status": 500},
        "too many requests": {"kind": "status", "status": 429},
        "a login page": {"kind": "garbage"},
        "no HTTP": {"kind": "not-http"},
        "a connection that closes": {"kind": "reset"},
        "half an answer": {"kind": "cut"},
        "silence": {"kind": "silence"},
    }
    if what == "nothing there":
        server.files.clear()
    elif what == "a length that is too short":
        file.told = str(2**20)
    elif what == "a length that is shorter than the header":
        file.told = "8000"
    elif what == "no length":
        file.told = "*"
    elif what == "no GGUF":
        file.head = b"<html>" * 1000
    elif what == "endless redirections":
        server.redirects = {"m.gguf": server.address("m.gguf")}
    else:
        server.fail(**faults[what])  # type: ignore[arg-type]
    with pytest.raises(TROUBLES[what].kind) as caught:
        header(server, read_s=0.4)
    assert TROUBLES[what].words in caught.value.message
    assert caught.value.hint


def test_a_source_that_sends_a_byte_now_and_then_is_given_up(server: RemoteFiles) -> None:
    class Aging(FakeClock):
        def monotonic(self) -> float:
            self.sleep(50.0)
            return super().monotonic()

    class Dripping(AddressFile):
        def open(self, *given, **named):
            import contextlib

            inner = super().open(*given, **named)

            @contextlib.contextmanager
            def slowly():
                with inner as body:
                    pieces = (chunk[at : at + 1] for chunk in body.chunks for at in range(1000))
                    yield type(body)(body.start, pieces, body.total)

            return slowly()

    with pytest.raises(TransientError, match="bytes came in"):
        read_remote_header(Dripping(server.address("m.gguf")), clock=Aging())


def test_the_parts_of_a_split_model_are_one_model(tmp_path: Path) -> None:
    from dataclasses import replace

    shape = published_shapes()["llama-3.2-1b"]
    half = len(shape.tensors) // 2
    files = {}
    for number, tensors in enumerate((shape.tensors[:half], shape.tensors[half:])):
        part = replace(shape, tensors=tensors, top={"split.no": number, "split.count": 2})
        name = f"m-0000{number + 1}-of-00002.gguf"
        files[name] = HollowFile.of(write_shape(tmp_path / name, part))
    paths = Paths(tmp_path, "gpurig")
    with RemoteFiles(files) as server:
        remote = find_header(server.address("m-00002-of-00002.gguf"), paths=paths, environ={})
    here = find_header(str(tmp_path / "m-00001-of-00002.gguf"), paths=paths, environ={})
    assert [tensor.name for tensor in remote.gguf.tensors] == [name for name, _ in shape.tensors]
    assert (remote.name, remote.path, here.gguf.tensors) == ("m", None, remote.gguf.tensors)
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(InputError, match="m-00002-of-00002"):
        find_header(str(tmp_path / "m-00001-of-00002.gguf"), paths=paths, environ={})


def test_the_command_judges_a_file_at_an_address_and_shows_no_secret_of_it(
    server: RemoteFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = server.address("m.gguf") + "?token=secret"
    arguments = ["models", "fit", address, "--vram", "8GB", "--root", str(tmp_path), "--json"]
    assert run_command(cli, program="gpurig", arguments=arguments) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert (document["verdict"]["answer"], document["exact"], document["model"]) == ("fits", None, "m")
    assert "secret" not in shown.out + shown.err
    server.files.clear()
    assert run_command(cli, program="gpurig", arguments=arguments) == EXIT_REMOTE
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 2
    assert "secret" not in shown.err
