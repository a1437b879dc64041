"""`pull` against a hub that breaks off, lies and limits: one line, the right code, and the next pull heals."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpurig.common.errors import ApplianceError, RemoteError, TransientError
from gpurig.common.retrying import Patience
from standins.gitlab.faults import Kind
from standins.hub import Hub
from standins.pulling import FILE, NAME, REPO, Puller, digest, in_place

SILENCE_S = 0.4


@pytest.mark.parametrize("kind", ["status", "reset", "cut", "not-http", "silence", "garbage"])
@pytest.mark.parametrize("number", range(4))
def test_whichever_request_fails_once_the_model_arrives_with_the_next_pull_at_the_latest(
    tmp_path: Path, hub: Hub, model_data: bytes, kind: Kind, number: int
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
    assert in_place(puller, model_data)
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
    puller: Puller, hub: Hub, model_data: bytes
) -> None:
    puller.patience = Patience(attempts=2, first_s=1.0)
    hub.fail("cut", storage=True, times=12)
    puller.pull()
    assert in_place(puller, model_data)
    ranges = [exchange.request.headers.get("range") for exchange in hub.storage.log.exchanges]
    assert ranges[0] is None
    assert ranges[1] == f"bytes={len(model_data) // 2}-"
    assert len(set(ranges)) == len(ranges)


def test_the_next_pull_goes_on_where_the_last_one_was_given_up(puller: Puller, hub: Hub, model_data: bytes) -> None:
    puller.patience = Patience(attempts=1)
    hub.fail("cut", storage=True)
    with pytest.raises(TransientError):
        puller.pull()
    (partial,) = puller.partials
    assert partial.read_bytes() == model_data[: len(model_data) // 2]
    hub.heal()
    done = puller.pull()
    assert done.fetched == len(model_data) - len(model_data) // 2
    assert any("going on at" in line for line in puller.said)
    assert in_place(puller, model_data)


def test_a_partial_file_with_wrong_bytes_is_thrown_away_in_the_same_pull(
    puller: Puller, hub: Hub, model_data: bytes
) -> None:
    puller.patience = Patience(attempts=1)
    hub.fail("cut", storage=True)
    with pytest.raises(TransientError):
        puller.pull()
    puller.partials[0].write_bytes(b"x" * 1000)
    hub.heal()
    puller.pull()
    assert in_place(puller, model_data)
    assert any("beginning again" in line for line in puller.said)


def test_a_server_without_ranges_is_begun_again(puller: Puller, hub: Hub, model_data: bytes) -> None:
    puller.patience = Patience(attempts=3)
    hub.ranges = False
    hub.fail("cut", storage=True, times=1)
    puller.pull()
    assert in_place(puller, model_data)


@pytest.mark.parametrize("lie", [-1000, 1000])
def test_a_length_that_is_a_lie_is_found_and_nothing_stays(
    puller: Puller, hub: Hub, model_data: bytes, lie: int
) -> None:
    puller.patience = Patience(attempts=2)
    hub.announced_size = len(model_data) + lie
    with pytest.raises(RemoteError) as caught:
        puller.pull()
    assert caught.value.hint
    assert f"{NAME}.gguf" not in puller.files


def test_wrong_bytes_are_refused_and_the_next_pull_heals(
    puller: Puller, hub: Hub, model_data: bytes, other_data: bytes
) -> None:
    right = digest(model_data)
    hub.blobs[right] = model_data[:-1] + bytes([model_data[-1] ^ 1])
    with pytest.raises(RemoteError, match=r"has sha256 .* its source announced sha256"):
        puller.pull()
    assert f"{NAME}.gguf" not in puller.files
    hub.blobs[right] = model_data
    puller.pull()
    assert in_place(puller, model_data)


def test_too_many_requests_are_waited_for_as_long_as_the_hub_asks(puller: Puller, hub: Hub, model_data: bytes) -> None:
    hub.server.respond = limited(hub, "17", times=2)
    puller.pull()
    assert puller.clock.naps[:2] == [17.0, 17.0]
    assert in_place(puller, model_data)


def test_a_hub_that_asks_for_an_hour_is_not_waited_for(puller: Puller, hub: Hub) -> None:
    hub.server.respond = limited(hub, "3600", times=99)
    with pytest.raises(TransientError, match="429") as caught:
        puller.pull()
    assert "HF_TOKEN" in caught.value.hint
    assert puller.clock.naps == []


def test_the_hubs_own_header_says_when_a_limit_ends(puller: Puller, hub: Hub, model_data: bytes) -> None:
    hub.server.respond = limited(hub, "", times=1, RateLimit='"api";r=0;t=55')
    puller.pull()
    assert puller.clock.naps == [55.0]
    assert in_place(puller, model_data)


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


def test_a_branch_that_moves_while_a_file_is_fetched_does_not_mix_two_files(
    puller: Puller, hub: Hub, model_data: bytes, other_data: bytes
) -> None:
    puller.patience = Patience(attempts=3)
    respond = hub.storage.respond

    def moves(request):
        hub.commit(REPO, {FILE: other_data})
        return respond(request)

    hub.storage.respond = moves
    hub.fail("cut", storage=True, times=1)
    puller.pull()
    assert in_place(puller, model_data)


def test_a_card_that_fails_once_is_asked_again(puller: Puller, hub: Hub, model_data: bytes) -> None:
    hub.fail("status", status=502, times=2, path="/api/.*")
    puller.pull()
    assert in_place(puller, model_data)


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
