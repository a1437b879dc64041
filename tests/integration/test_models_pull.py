"""`pull` against a hub that breaks off, lies, limits and refuses: one line, the right code, and the next pull heals."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import huggingface_hub
import pytest
from gpurig.common.errors import ApplianceError, InputError, PrerequisiteError, RemoteError, TransientError
from gpurig.common.models.catalogue import Catalogue, CatalogueFile, Entry
from gpurig.common.models.origin import read_origin
from gpurig.common.models.reference import HubReference
from gpurig.common.process import run
from gpurig.common.retrying import Patience
from standins.gitlab.faults import Kind
from standins.hub import Hub
from standins.pulling import FILE, NAME, REPO, Puller, digest, model_bytes

SILENCE_S = 0.4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return model_bytes(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return model_bytes(tmp_path_factory.mktemp("model"), seed=2)


@pytest.fixture
def hub(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with Hub() as server:
        server.commit(REPO, {FILE: data})
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def puller(tmp_path: Path, hub: Hub) -> Puller:
    return Puller.of_hub(tmp_path / "models", hub)


def in_place(puller: Puller, data: bytes) -> bool:
    """The model, its record, and nothing half made."""
    return (
        puller.files == [f"{NAME}.gguf", f"{NAME}.origin.json"]
        and (puller.folder / f"{NAME}.gguf").read_bytes() == data
    )


def test_a_model_comes_whole_with_a_record_of_what_it_is(puller: Puller, hub: Hub, data: bytes) -> None:
    done = puller.pull()
    assert in_place(puller, data)
    commit = next(iter(hub.repositories[REPO].commits))
    origin = read_origin(puller.folder, NAME)
    assert origin == done.origin
    assert (origin.revision, origin.license, origin.source) == (commit, "apache-2.0", f"hf:{REPO}/{FILE}")
    assert [(pin.sha256, pin.size_bytes) for pin in origin.files] == [(digest(data), len(data))]
    assert done.first_use
    assert done.fetched == len(data)
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


@pytest.mark.parametrize("kind", ["status", "reset", "cut", "not-http", "silence", "garbage"])
@pytest.mark.parametrize("number", range(4))
def test_whichever_request_fails_once_the_model_arrives_with_the_next_pull_at_the_latest(
    tmp_path: Path, hub: Hub, data: bytes, kind: Kind, number: int
) -> None:
    # In order: the card, the file's metadata, its address, its bytes.
    puller = Puller.of_hub(tmp_path / "models", hub, read_s=SILENCE_S)
    if number == 3:
        hub.fail(kind, storage=True, times=1)
    else:
        hub.fail(kind, skip=number, times=1)
    failure = None
    try:
        puller.pull()
    except RemoteError as error:
        failure = error
    if failure is not None:
        assert (failure.exit_code, "\n" in failure.message, bool(failure.hint)) == (5, False, True)
        assert f"{NAME}.gguf" not in puller.files
        puller.pull()
    assert in_place(puller, data)
    assert len([fault for fault in (*hub.server.faults, *hub.storage.faults) if fault.met]) == 1


@pytest.mark.parametrize("kind", ["status", "reset", "cut", "not-http", "silence", "garbage"])
def test_what_stays_broken_ends_in_one_line_and_leaves_no_model(tmp_path: Path, hub: Hub, kind: Kind) -> None:
    puller = Puller.of_hub(tmp_path / "models", hub, read_s=SILENCE_S)
    puller.patience = Patience(attempts=2)
    hub.fail(kind, storage=True)
    with pytest.raises(RemoteError) as caught:
        puller.pull()
    assert caught.value.hint
    assert [name for name in puller.files if not name.startswith(".")] == []


def test_a_connection_that_breaks_off_again_and_again_still_gets_there_because_every_time_is_progress(
    puller: Puller, hub: Hub, data: bytes
) -> None:
    puller.patience = Patience(attempts=2, first_s=1.0)
    hub.fail("cut", storage=True, times=12)
    puller.pull()
    assert in_place(puller, data)
    ranges = [exchange.request.headers.get("range") for exchange in hub.storage.log.exchanges]
    assert ranges[0] is None
    assert ranges[1] == f"bytes={len(data) // 2}-"
    assert len(set(ranges)) == len(ranges)


def test_the_next_pull_goes_on_where_the_last_one_was_given_up(puller: Puller, hub: Hub, data: bytes) -> None:
    puller.patience = Patience(attempts=1)
    hub.fail("cut", storage=True)
    with pytest.raises(TransientError):
        puller.pull()
    (partial,) = puller.partials
    assert partial.read_bytes() == data[: len(data) // 2]
    hub.heal()
    done = puller.pull()
    assert done.fetched == len(data) - len(data) // 2
    assert any("going on at" in line for line in puller.said)
    assert in_place(puller, data)


def test_a_partial_file_with_wrong_bytes_is_thrown_away_in_the_same_pull(puller: Puller, hub: Hub, data: bytes) -> None:
    puller.patience = Patience(attempts=1)
    hub.fail("cut", storage=True)
    with pytest.raises(TransientError):
        puller.pull()
    puller.partials[0].write_bytes(b"x" * 1000)
    hub.heal()
    puller.pull()
    assert in_place(puller, data)
    assert any("beginning again" in line for line in puller.said)


def test_a_server_without_ranges_is_begun_again(puller: Puller, hub: Hub, data: bytes) -> None:
    puller.patience = Patience(attempts=3)
    hub.ranges = False
    hub.fail("cut", storage=True, times=1)
    puller.pull()
    assert in_place(puller, data)


@pytest.mark.parametrize("lie", [-1000, 1000])
def test_a_length_that_is_a_lie_is_found_and_nothing_stays(puller: Puller, hub: Hub, data: bytes, lie: int) -> None:
    puller.patience = Patience(attempts=2)
    hub.announced_size = len(data) + lie
    with pytest.raises(RemoteError) as caught:
        puller.pull()
    assert caught.value.hint
    assert f"{NAME}.gguf" not in puller.files


def test_wrong_bytes_are_refused_and_the_next_pull_heals(puller: Puller, hub: Hub, data: bytes, other: bytes) -> None:
    right = digest(data)
    hub.blobs[right] = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(RemoteError, match=r"has sha256 .* its source announced sha256"):
        puller.pull()
    assert f"{NAME}.gguf" not in puller.files
    hub.blobs[right] = data
    puller.pull()
    assert in_place(puller, data)


def test_too_many_requests_are_waited_for_as_long_as_the_hub_asks(puller: Puller, hub: Hub, data: bytes) -> None:
    hub.server.respond = limited(hub, "17", times=2)
    puller.pull()
    assert puller.clock.naps[:2] == [17.0, 17.0]
    assert in_place(puller, data)


def test_a_hub_that_asks_for_an_hour_is_not_waited_for(puller: Puller, hub: Hub) -> None:
    hub.server.respond = limited(hub, "3600", times=99)
    with pytest.raises(TransientError, match="429") as caught:
        puller.pull()
    assert "HF_TOKEN" in caught.value.hint
    assert puller.clock.naps == []


def test_the_hubs_own_header_says_when_a_limit_ends(puller: Puller, hub: Hub, data: bytes) -> None:
    hub.server.respond = limited(hub, "", times=1, RateLimit='"api";r=0;t=55')
    puller.pull()
    assert puller.clock.naps == [55.0]
    assert in_place(puller, data)


def limited(hub: Hub, retry_after: str, *, times: int, **headers: str):
    """The hub's answers, the first of which are 429."""
    from standins.gitlab.wire import Response

    respond, left = hub.server.respond, [times]

    def answers(request):
        if request.method == "HEAD" and left[0] > 0:
            left[0] -= 1
            return Response(429, b"", {"Retry-After": retry_after, **headers}), ""
        return respond(request)

    return answers


@dataclass(frozen=True)
class Refusal:
    """What is asked of which repository, and what the refusal says."""

    says: str
    hint: str
    change: dict[str, object] = field(default_factory=dict)
    what: str = FILE
    token: str = ""


REFUSALS = {
    "gated": Refusal("gated", "HF_TOKEN", {"gated": True}),
    "gated, another's token": Refusal("gated", "HF_TOKEN", {"gated": True}, token="hf_wrong"),
    "private": Refusal("not there, or not for you", "HF_TOKEN", {"private": True}),
    "no file": Refusal("no such file", "name", what="absent.gguf"),
    "no revision": Refusal("no such revision", "@", what=f"{FILE}@{'0' * 40}"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_what_to_do(puller: Puller, hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    refusal = REFUSALS[name]
    for attribute, value in refusal.change.items():
        setattr(hub.repositories[REPO], attribute, value)
    if refusal.token:
        monkeypatch.setenv("HF_TOKEN", refusal.token)
    with pytest.raises(RemoteError) as caught:
        puller.pull(f"hf:{REPO}/{refusal.what}")
    assert refusal.says in caught.value.message
    assert refusal.hint in caught.value.hint
    assert "hf_wrong" not in caught.value.message + caught.value.hint
    assert caught.value.exit_code == 5
    assert puller.clock.naps == []


def test_a_gated_model_comes_with_the_right_token(
    puller: Puller, hub: Hub, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories[REPO].gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    puller.pull()
    assert in_place(puller, data)


def test_a_branch_that_moves_while_a_file_is_fetched_does_not_mix_two_files(
    puller: Puller, hub: Hub, data: bytes, other: bytes
) -> None:
    puller.patience = Patience(attempts=3)
    respond = hub.storage.respond

    def moves(request):
        hub.commit(REPO, {FILE: other})
        return respond(request)

    hub.storage.respond = moves
    hub.fail("cut", storage=True, times=1)
    puller.pull()
    assert in_place(puller, data)


def test_other_bytes_than_the_first_pull_got_are_refused_until_they_are_accepted(
    puller: Puller, hub: Hub, data: bytes, other: bytes
) -> None:
    puller.pull()
    (puller.folder / f"{NAME}.gguf").unlink()
    commit = hub.commit(REPO, {FILE: other})
    with pytest.raises(RemoteError, match=r"an earlier pull .* pinned sha256") as caught:
        puller.pull()
    assert "--repin" in caught.value.hint
    assert f"{NAME}.gguf" not in puller.files
    done = puller.pull(repin=True)
    assert (puller.folder / f"{NAME}.gguf").read_bytes() == other
    assert done.origin.revision == commit
    assert read_origin(puller.folder, NAME).files[0].sha256 == digest(other)


def test_a_damaged_model_is_fetched_again(puller: Puller, data: bytes) -> None:
    puller.pull()
    (puller.folder / f"{NAME}.gguf").write_bytes(data[:-1])
    done = puller.pull()
    assert done.fetched == len(data)
    assert in_place(puller, data)


def test_a_file_that_no_pull_made_is_not_replaced_and_is_taken_over_where_it_is_the_same(
    puller: Puller, data: bytes, other: bytes
) -> None:
    puller.folder.mkdir()
    target = puller.folder / f"{NAME}.gguf"
    target.write_bytes(other)
    with pytest.raises(InputError, match="no pull made it"):
        puller.pull()
    assert target.read_bytes() == other
    target.write_bytes(data)
    assert puller.pull().fetched == 0
    assert in_place(puller, data)


def test_what_is_no_model_is_refused_and_not_kept(puller: Puller, hub: Hub, data: bytes) -> None:
    hub.commit(REPO, {FILE: b"<html>" + data[:1000]})
    with pytest.raises(InputError, match="is no GGUF file"):
        puller.pull()
    assert puller.files == []
    hub.commit(REPO, {FILE: data[:-10_000]})
    with pytest.raises(InputError, match="truncated"):
        puller.pull()
    assert puller.files == []


def test_room_is_looked_for_before_a_byte_is_fetched(puller: Puller, hub: Hub, data: bytes) -> None:
    puller.free = len(data)
    with pytest.raises(PrerequisiteError, match="free") as caught:
        puller.pull()
    assert caught.value.exit_code == 4
    assert hub.storage.log.exchanges == []
    assert puller.files == []


def test_a_license_is_asked_for_before_a_byte_is_fetched(puller: Puller, hub: Hub, data: bytes) -> None:
    hub.repositories[REPO].license = "llama3.1"
    with pytest.raises(InputError, match=r"under the license llama3\.1") as caught:
        puller.pull()
    assert "--allow-license llama3.1" in caught.value.hint
    assert hub.storage.log.exchanges == []
    done = puller.pull(allowed_licenses=("llama3.1",))
    assert in_place(puller, data)
    assert "accepted" in done.notes[0]


ELSEWHERE = "else/where-GGUF"


def test_another_repository_with_the_same_file_is_judged_by_its_own_license(
    puller: Puller, hub: Hub, data: bytes
) -> None:
    puller.pull()
    hub.commit(ELSEWHERE, {FILE: data}, license="gemma")
    with pytest.raises(InputError, match="gemma"):
        puller.pull(f"hf:{ELSEWHERE}/{FILE}")
    # Nothing is fetched, so the record keeps saying where the bytes came from.
    done = puller.pull(f"hf:{ELSEWHERE}/{FILE}", allowed_licenses=("gemma",))
    assert (done.fetched, done.origin.source) == (0, f"hf:{REPO}/{FILE}")


def test_a_copy_keeps_the_commit_that_it_was_pulled_from(tmp_path: Path, puller: Puller, hub: Hub) -> None:
    commit = puller.pull().origin.revision
    other = Puller.of_hub(tmp_path / "other", hub)
    assert other.pull(str(puller.folder / f"{NAME}.gguf")).origin.revision == commit


def test_a_card_that_fails_once_is_asked_again(puller: Puller, hub: Hub, data: bytes) -> None:
    hub.fail("status", status=502, times=2, path="/api/.*")
    puller.pull()
    assert in_place(puller, data)


@pytest.mark.parametrize(("license_", "name", "says"), [(None, None, "not known"), ("other", "weird-1", "weird-1")])
def test_a_license_that_nobody_knows_is_not_taken_for_a_free_one(
    puller: Puller, hub: Hub, license_: str | None, name: str | None, says: str
) -> None:
    hub.repositories[REPO].license, hub.repositories[REPO].license_name = license_, name
    with pytest.raises(InputError, match=says):
        puller.pull()
    assert puller.pull(allowed_licenses=(name or "unknown",)).fetched > 0


def test_a_fine_tune_is_told_what_a_license_says_of_training_before_a_byte_is_fetched(puller: Puller, hub: Hub) -> None:
    hub.repositories[REPO].license = "llama3"
    with pytest.raises(InputError, match="forbids training"):
        puller.pull(purpose="finetune", allowed_licenses=("llama3",))
    assert hub.storage.log.exchanges == []
    hub.repositories[REPO].license = "gemma"
    done = puller.pull(purpose="finetune", allowed_licenses=("gemma",))
    assert any("Model Derivative" in note for note in done.notes)


def test_a_split_model_comes_whole(tmp_path: Path, puller: Puller, hub: Hub, data: bytes, other: bytes) -> None:
    parts = {f"big-0000{number}-of-00002.gguf": each for number, each in ((1, data), (2, other))}
    hub.commit(REPO, parts)
    done = puller.pull(f"hf:{REPO}/big-00001-of-00002.gguf", name="mine")
    assert puller.files == ["mine-00001-of-00002.gguf", "mine-00002-of-00002.gguf", "mine.origin.json"]
    assert [file.sha256 for file in done.files] == [digest(data), digest(other)]
    assert puller.pull(f"hf:{REPO}/big-00002-of-00002.gguf", name="mine").fetched == 0


def test_a_file_in_git_itself_is_pinned_by_what_it_was(puller: Puller, hub: Hub, data: bytes) -> None:
    hub.large_files = False
    done = puller.pull()
    assert done.first_use
    assert done.files[0].sha256 == digest(data)
    assert in_place(puller, data)


def test_the_catalogues_hash_is_what_counts(puller: Puller, hub: Hub, data: bytes, other: bytes) -> None:
    commit = next(iter(hub.repositories[REPO].commits))
    entry = Entry(
        "mine",
        HubReference(REPO, FILE, commit),
        (CatalogueFile(FILE, digest(other), len(data)),),
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


def test_two_pulls_at_once_both_end_with_the_model(tmp_path: Path, hub: Hub, data: bytes) -> None:
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
    assert sorted(fetched) == [0, len(data)]
    assert "another run is fetching this file; waiting for it" in pullers[1].said
    assert in_place(pullers[0], data)


def gpurig(*words: str, folder: Path, hub: Hub | None = None, **environ: str):
    command = [sys.executable, "-m", "gpurig.runner", "models", "pull", *words, "--dir", str(folder)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    address = {"HF_ENDPOINT": hub.url} if hub else {}
    return run(command, timeout_s=60, env={**env, **address, **environ})


def test_the_command_honours_the_hubs_variables_and_shows_no_token(tmp_path: Path, hub: Hub, data: bytes) -> None:
    what = f"hf:{REPO}/{FILE}"
    offline = gpurig(what, folder=tmp_path, hub=hub, HF_HUB_OFFLINE="1", HF_TOKEN="hf_secret")
    assert (offline.code, len(hub.requests)) == (4, 0)
    assert "HF_HUB_OFFLINE" in offline.stderr
    hub.fail("status", status=503, times=1, method="HEAD")
    done = gpurig(what, folder=tmp_path, hub=hub, HF_TOKEN="hf_secret")
    assert done.code == 0, done.stderr
    assert f"sha256 {digest(data)}" in done.stdout
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


def test_nobody_there_is_one_line(tmp_path: Path, puller: Puller, hub: Hub) -> None:
    puller.patience = Patience(attempts=2)
    hub.server.close()
    try:
        with pytest.raises(ApplianceError, match="cannot reach the hub") as caught:
            puller.pull()
    finally:
        # The fixture closes it too.
        hub.server = hub.storage
    assert caught.value.exit_code == 5
