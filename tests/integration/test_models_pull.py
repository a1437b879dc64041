"""`pull` from a hub: what comes, what it is pinned by, and what is not taken for a model."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from gpurig.common.errors import InputError, PrerequisiteError, RemoteError
from gpurig.common.models.catalogue import Catalogue, CatalogueFile, Entry
from gpurig.common.models.origin import read_origin
from gpurig.common.models.reference import HubReference
from gpurig.common.process import run
from standins.hub import Hub
from standins.pulling import FILE, NAME, REPO, Puller, digest, in_place


def test_a_model_comes_whole_with_a_record_of_what_it_is(puller: Puller, hub: Hub, model_data: bytes) -> None:
    done = puller.pull()
    assert in_place(puller, model_data)
    commit = next(iter(hub.repositories[REPO].commits))
    origin = read_origin(puller.folder, NAME)
    assert origin == done.origin
    assert (origin.revision, origin.license, origin.source) == (commit, "apache-2.0", f"hf:{REPO}/{FILE}")
    assert [(pin.sha256, pin.size_bytes) for pin in origin.files] == [(digest(model_data), len(model_data))]
    assert done.first_use
    assert done.fetched == len(model_data)
    assert "pull: " in puller.shown.getvalue()
    assert "\r" not in puller.shown.getvalue()


def test_a_second_pull_fetches_nothing_and_asks_the_hub_for_nothing(puller: Puller, hub: Hub) -> None:
    puller.pull()
    asked = len(hub.requests)
    done = puller.pull()
    assert (done.fetched, done.first_use, len(hub.requests)) == (0, False, asked)


def test_the_token_stays_with_the_hub_and_goes_not_to_its_storage(
    puller: Puller, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    puller.pull()
    assert {exchange.request.headers.get("authorization") for exchange in hub.server.log.exchanges} == {
        "Bearer hf_right"
    }
    assert [exchange.request.headers.get("authorization") for exchange in hub.storage.log.exchanges] == [None]


def test_other_bytes_than_the_first_pull_got_are_refused_until_they_are_accepted(
    puller: Puller, hub: Hub, model_data: bytes, other_data: bytes
) -> None:
    puller.pull()
    (puller.folder / f"{NAME}.gguf").unlink()
    commit = hub.commit(REPO, {FILE: other_data})
    with pytest.raises(RemoteError, match=r"an earlier pull .* pinned sha256") as caught:
        puller.pull()
    assert "--repin" in caught.value.hint
    assert f"{NAME}.gguf" not in puller.files
    done = puller.pull(repin=True)
    assert (puller.folder / f"{NAME}.gguf").read_bytes() == other_data
    assert done.origin.revision == commit
    assert read_origin(puller.folder, NAME).files[0].sha256 == digest(other_data)


def test_a_damaged_model_is_fetched_again(puller: Puller, model_data: bytes) -> None:
    puller.pull()
    (puller.folder / f"{NAME}.gguf").write_bytes(model_data[:-1])
    done = puller.pull()
    assert done.fetched == len(model_data)
    assert in_place(puller, model_data)


def test_a_file_that_no_pull_made_is_not_replaced_and_is_taken_over_where_it_is_the_same(
    puller: Puller, model_data: bytes, other_data: bytes
) -> None:
    puller.folder.mkdir()
    target = puller.folder / f"{NAME}.gguf"
    target.write_bytes(other_data)
    with pytest.raises(InputError, match="no pull made it"):
        puller.pull()
    assert target.read_bytes() == other_data
    target.write_bytes(model_data)
    assert puller.pull().fetched == 0
    assert in_place(puller, model_data)


def test_what_is_no_model_is_refused_and_not_kept(puller: Puller, hub: Hub, model_data: bytes) -> None:
    hub.commit(REPO, {FILE: b"<html>" + model_data[:1000]})
    with pytest.raises(InputError, match="is no GGUF file"):
        puller.pull()
    assert puller.files == []
    hub.commit(REPO, {FILE: model_data[:-10_000]})
    with pytest.raises(InputError, match="truncated"):
        puller.pull()
    assert puller.files == []


def test_room_is_looked_for_before_a_byte_is_fetched(puller: Puller, hub: Hub, model_data: bytes) -> None:
    puller.free = len(model_data)
    with pytest.raises(PrerequisiteError, match="free") as caught:
        puller.pull()
    assert caught.value.exit_code == 4
    assert hub.storage.log.exchanges == []
    assert puller.files == []


def test_a_copy_keeps_the_commit_that_it_was_pulled_from(tmp_path: Path, puller: Puller, hub: Hub) -> None:
    commit = puller.pull().origin.revision
    other = Puller.of_hub(tmp_path / "other", hub)
    assert other.pull(str(puller.folder / f"{NAME}.gguf")).origin.revision == commit


def test_a_split_model_comes_whole(
    tmp_path: Path, puller: Puller, hub: Hub, model_data: bytes, other_data: bytes
) -> None:
    parts = {f"big-0000{number}-of-00002.gguf": each for number, each in ((1, model_data), (2, other_data))}
    hub.commit(REPO, parts)
    done = puller.pull(f"hf:{REPO}/big-00001-of-00002.gguf", name="mine")
    assert puller.files == ["mine-00001-of-00002.gguf", "mine-00002-of-00002.gguf", "mine.origin.json"]
    assert [file.sha256 for file in done.files] == [digest(model_data), digest(other_data)]
    assert puller.pull(f"hf:{REPO}/big-00002-of-00002.gguf", name="mine").fetched == 0


def test_a_file_in_git_itself_is_pinned_by_what_it_was(puller: Puller, hub: Hub, model_data: bytes) -> None:
    hub.large_files = False
    done = puller.pull()
    assert done.first_use
    assert done.files[0].sha256 == digest(model_data)
    assert in_place(puller, model_data)


def test_the_catalogues_hash_is_what_counts(puller: Puller, hub: Hub, model_data: bytes, other_data: bytes) -> None:
    commit = next(iter(hub.repositories[REPO].commits))
    entry = Entry(
        "mine",
        HubReference(REPO, FILE, commit),
        (CatalogueFile(FILE, digest(other_data), len(model_data)),),
        "Apache-2.0",
        4096,
        "none",
        ("generator",),
        4,
    )
    puller.catalogue = Catalogue({"mine": entry})
    with pytest.raises(RemoteError, match="the catalogue says sha256"):
        puller.pull("mine")
    assert hub.storage.log.exchanges == []


def test_two_pulls_at_once_both_end_with_the_model(tmp_path: Path, hub: Hub, model_data: bytes) -> None:
    started, go = threading.Event(), threading.Event()
    respond = hub.storage.respond

    def slow(request):
        started.set()
        assert go.wait(20)
        return respond(request)

    hub.storage.respond = slow
    pullers = [Puller.of_hub(tmp_path / "models", hub) for _ in range(2)]
    fetched: list[int] = []

    def work(puller: Puller) -> None:
        fetched.append(puller.pull().fetched)

    first = threading.Thread(target=work, args=(pullers[0],))
    first.start()
    assert started.wait(20)

    class Waits:
        """Lets the first pull go on as soon as the second one waits for it."""

        def monotonic(self) -> float:
            return 0.0

        def sleep(self, seconds: float) -> None:
            go.set()
            first.join(20)

    pullers[1].clock = Waits()  # type: ignore[assignment]  # a clock
    work(pullers[1])
    first.join(20)
    assert sorted(fetched) == [0, len(model_data)]
    assert "another run is fetching this file; waiting for it" in pullers[1].said
    assert in_place(pullers[0], model_data)


def gpurig(*words: str, folder: Path, hub: Hub | None = None, **environ: str):
    command = [sys.executable, "-m", "gpurig.runner", "models", "pull", *words, "--dir", str(folder)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    address = {"HF_ENDPOINT": hub.url} if hub else {}
    return run(command, timeout_s=60, env={**env, **address, **environ})


def test_the_command_honours_the_hubs_variables_and_shows_no_token(tmp_path: Path, hub: Hub, model_data: bytes) -> None:
    what = f"hf:{REPO}/{FILE}"
    offline = gpurig(what, folder=tmp_path, hub=hub, HF_HUB_OFFLINE="1", HF_TOKEN="hf_secret")
    assert (offline.code, len(hub.requests)) == (4, 0)
    assert "HF_HUB_OFFLINE" in offline.stderr
    hub.fail("status", status=503, times=1, method="HEAD")
    done = gpurig(what, folder=tmp_path, hub=hub, HF_TOKEN="hf_secret")
    assert done.code == 0, done.stderr
    assert f"sha256 {digest(model_data)}" in done.stdout
    assert "pinned from now on" in done.stdout
    # No telemetry: the card, the metadata twice, the address, the bytes.
    assert [exchange.template for exchange in hub.requests] == ["api", "", "resolve", "resolve", "blob"]
    assert "trying again in 1 s" in done.stderr
    assert "hf_secret" not in done.stdout + done.stderr + offline.stdout + offline.stderr
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 80


def test_a_proxy_is_used_where_the_environment_names_one(tmp_path: Path, hub: Hub) -> None:
    done = gpurig(
        f"hf:{REPO}/{FILE}",
        folder=tmp_path,
        HF_ENDPOINT="http://hub.invalid",
        HTTP_PROXY=hub.url,
        http_proxy=hub.url,
        NO_PROXY="127.0.0.1",
        no_proxy="127.0.0.1",
    )
    assert done.code == 0, done.stderr
    assert {exchange.request.headers["host"] for exchange in hub.server.log.exchanges} == {"hub.invalid"}
