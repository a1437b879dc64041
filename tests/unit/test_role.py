"""What GitLab's answers say of the role of a token's owner."""

from __future__ import annotations

from typing import Any

import pytest
from gpurig.provisioning.role import Said, look_at_role, scopes_of
from gpurig.provisioning.settings import RunnerType
from hypothesis import given
from hypothesis import strategies as st

TOKEN = {"user_id": 7, "scopes": ["api"]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from(["access_level", "is_admin", "id"]), inner, max_size=3),
)
ANSWERS = st.builds(Said, st.sampled_from([0, 200, 401, 403, 404, 500]), st.none() | st.dictionaries(st.text(), JSON))


@given(
    kind=st.sampled_from(["project", "group", "instance"]),
    member=ANSWERS,
    user=ANSWERS,
    place=ANSWERS,
    level=st.none() | st.sampled_from([0, 5, 10, 15, 20, 30, 40, 50, 60]),
    admin=st.booleans(),
)
def test_nobody_is_refused_for_an_answer_that_does_not_tell_and_nobody_let_in_by_one(
    kind: RunnerType, member: Said, user: Said, place: Said, level: int | None, *, admin: bool
) -> None:
    member = Said(200, {"access_level": level}) if level is not None else member
    user = Said(200, {"is_admin": True}) if admin else user

    def ask(path: str) -> Said:
        return user if path == "/user" else member if "/members/all/7" in path else place

    role = look_at_role(ask, kind, "lab/llm", TOKEN)
    needed = {"project": 40, "group": 50, "instance": 61}[kind]
    told = (user.document or {}).get("is_admin") is True and user.status == 200
    high = isinstance((member.document or {}).get("access_level"), int) and member.status == 200
    if role.verdict == "enough":
        assert told or (high and (member.document or {})["access_level"] >= needed)
    if role.verdict == "too low":
        assert role.message
        assert role.hint
        asked = user if kind == "instance" else member
        assert asked.status in {404, 200}


@pytest.mark.parametrize("token", [None, {}, {"user_id": "7"}])
def test_a_token_whose_owner_is_not_told_is_not_judged(token: Any) -> None:
    def ask(path: str) -> Said:
        raise AssertionError(path)

    assert look_at_role(ask, "project", "42", token).verdict == "unknown"


@pytest.mark.parametrize(
    ("token", "scopes"),
    [
        ({"scopes": ["b", "a"]}, ("a", "b")),
        ({"scopes": []}, ()),
        ({"scopes": ["granular"]}, None),
        ({"scopes": ["api"], "granular_scopes": [{}]}, None),
        ({"scopes": "api"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_scopes_are_known_only_where_gitlab_lists_them(token: Any, scopes: Any) -> None:
    assert scopes_of(token) == scopes
