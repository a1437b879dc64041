"""Which part of a suite a run is about."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from gpurig.common.errors import InputError
from gpurig.evaljobs.options import read_shard
from gpurig.evaljobs.suites.selection import Selection, Shard, fits
from gpurig.evaljobs.suites.suite import GeneratorSpec, Sample, Suite
from gpurig.evaljobs.suites.trials import select_trials
from hypothesis import given
from hypothesis import strategies as st


def suite(count: int = 20, **fields: object) -> Suite:
    samples = tuple(
        Sample(id=f"s{number}", input="x", tags=("even",) if number % 2 == 0 else ("odd", "prime"))
        for number in range(count)
    )
    given_fields = {
        "name": "demo",
        "samples": samples,
        "generator": GeneratorSpec(model="m"),
        "path": Path("suite.yaml"),
    }
    return Suite.model_construct(**given_fields | fields)


def ids(the_suite: Suite, selection: Selection) -> list[str]:
    return [trial.id for trial in select_trials(the_suite, selection)]


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        ((), ["a", "b", "ab", "-"]),
        (("a",), ["a", "ab"]),
        (("a", "b"), ["a", "b", "ab"]),
        (("a,b",), ["ab"]),
        (("!a",), ["b", "-"]),
        (("!a", "!b"), ["-"]),
        (("b", "!a"), ["b"]),
        (("a,!b",), ["a"]),
        (("a,!b", "b,!a"), ["a", "b"]),
    ],
)
def test_tags_ask_for_any_of_them_and_against_each(wanted: tuple[str, ...], taken: list[str]) -> None:
    have = {"a": ("a",), "b": ("b",), "ab": ("a", "b"), "-": ()}
    assert [name for name, tags in have.items() if fits(tags, wanted)] == taken


def test_filters_apply_one_after_the_other_and_keep_the_suites_order() -> None:
    assert ids(suite(), Selection(only=("s4", "s2"))) == ["s2", "s4"]
    assert ids(suite(), Selection(tags=("odd",), limit=2)) == ["s1", "s3"]
    assert ids(suite(), Selection(tags=("odd",), limit=4, shard=Shard(2, 2))) == ["s3", "s7"]


def test_the_random_samples_are_the_same_on_every_machine() -> None:
    """These were drawn once; other ones would mean that no two machines can share a run."""
    assert ids(suite(), Selection(sample=5)) == ["s6", "s13", "s15", "s16", "s17"]
    assert ids(suite(), Selection(sample=5, seed=2)) != ids(suite(), Selection(sample=5))
    assert len(ids(suite(), Selection(sample=50))) == 20


def test_generators_are_selected_by_name_with_all_epochs() -> None:
    both = suite(1, generator=None, generators={"small": GeneratorSpec(model="m"), "large": GeneratorSpec(model="n")})
    assert ids(both, Selection(generators=("large",))) == ["s0@large"]
    assert ids(both, Selection()) == ["s0@small", "s0@large"]


@pytest.mark.parametrize(
    ("selection", "says", "hint"),
    [
        (Selection(only=("s99",)), 'has no sample "s99"', "its samples: s0, s1, s2"),
        (Selection(tags=("evn",)), 'has no tag "evn"; did you mean "even"?', "its tags: even, odd, prime"),
        (Selection(tags=("!evn",)), 'has no tag "evn"', "its tags: even"),
        (Selection(tags=("even,odd",)), "no sample of suite", "leave one of them out"),
        (Selection(only=("s1",), tags=("even",)), "no sample of suite", "leave one of them out"),
        (Selection(generators=("small",)), 'has no generator "small"', "it has no generators with names"),
        (Selection(limit=2, shard=Shard(1, 3)), "there are 2 samples for 3 shards", "parallel: 2"),
    ],
)
def test_what_a_suite_does_not_have_is_named_and_nothing_is_never_a_run(
    selection: Selection, says: str, hint: str
) -> None:
    with pytest.raises(InputError, match=r"suite|shards") as caught:
        select_trials(suite(), selection)
    assert says in caught.value.message
    assert hint in caught.value.hint


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 40), st.integers(0, 3))
def test_shards_share_out_every_sample_once_and_evenly(count: int, total: int, drawn: int, seed: int) -> None:
    the_suite, selection = suite(count), Selection(sample=drawn, seed=seed)
    whole = ids(the_suite, selection)
    if total > len(whole):
        return
    parts = [
        ids(the_suite, Selection(sample=drawn, seed=seed, shard=Shard(index, total))) for index in range(1, total + 1)
    ]
    assert sorted(name for part in parts for name in part) == sorted(whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    position = {name: number for number, name in enumerate(whole)}
    assert all(part == sorted(part, key=position.__getitem__) for part in parts)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_a_larger_random_part_holds_the_smaller_one(one: int, other: int, seed: int) -> None:
    small, large = sorted((one, other))
    the_suite = suite(30)
    assert set(ids(the_suite, Selection(sample=small, seed=seed))) <= set(
        ids(the_suite, Selection(sample=large, seed=seed))
    )


def test_a_random_part_does_not_depend_on_the_order_of_the_samples() -> None:
    the_suite = suite()
    turned = suite(samples=tuple(reversed(the_suite.samples)))
    assert set(ids(the_suite, Selection(sample=7))) == set(ids(turned, Selection(sample=7)))


@pytest.mark.parametrize(
    ("text", "environ", "shard"),
    [
        (None, {"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "4"}, None),
        ("1/1", {}, Shard(1, 1)),
        ("3/4", {"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "4"}, Shard(3, 4)),
        ("auto", {"CI_NODE_INDEX": "2", "CI_NODE_TOTAL": "4"}, Shard(2, 4)),
        ("auto", {"CI_NODE_TOTAL": "1"}, None),
        ("auto", {}, None),
    ],
)
def test_a_shard_is_read_from_the_option_and_from_gitlab_where_it_says_auto(
    text: str | None, environ: dict[str, str], shard: Shard | None
) -> None:
    assert read_shard(text, environ) == shard


@pytest.mark.parametrize("text", ["", "0/4", "5/4", "1", "1/0", "-1/2", "1/2/3", "a/b", " 1/2", "1/2\n"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write I/N"):
        read_shard(text, {})
