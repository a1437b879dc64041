"""`pull` of what is not for everybody: repositories that the hub refuses, and licenses that must be accepted."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from gpurig.common.errors import InputError, RemoteError
from standins.hub import Hub
from standins.pulling import FILE, REPO, Puller, in_place


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
    puller: Puller, hub: Hub, model_data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories[REPO].gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    puller.pull()
    assert in_place(puller, model_data)


def test_a_license_is_asked_for_before_a_byte_is_fetched(puller: Puller, hub: Hub, model_data: bytes) -> None:
    hub.repositories[REPO].license = "llama3.1"
    with pytest.raises(InputError, match=r"under the license llama3\.1") as caught:
        puller.pull()
    assert "--allow-license llama3.1" in caught.value.hint
    assert hub.storage.log.exchanges == []
    done = puller.pull(allowed_licenses=("llama3.1",))
    assert in_place(puller, model_data)
    assert "accepted" in done.notes[0]


ELSEWHERE = "else/where-GGUF"


def test_another_repository_with_the_same_file_is_judged_by_its_own_license(
    puller: Puller, hub: Hub, model_data: bytes
) -> None:
    puller.pull()
    hub.commit(ELSEWHERE, {FILE: model_data}, license="gemma")
    with pytest.raises(InputError, match="gemma"):
        puller.pull(f"hf:{ELSEWHERE}/{FILE}")
    # Nothing is fetched, so the record keeps saying where the bytes came from.
    done = puller.pull(f"hf:{ELSEWHERE}/{FILE}", allowed_licenses=("gemma",))
    assert (done.fetched, done.origin.source) == (0, f"hf:{REPO}/{FILE}")


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
