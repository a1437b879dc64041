"""The scheduler, held against a cache that does what llama.cpp's does and forgives nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from gpurig.evaljobs.inference import scheduler as scheduler_module
from gpurig.evaljobs.inference.prefix_tree import common, tree_size
from gpurig.evaljobs.inference.scheduler import Scheduler
from gpurig.evaljobs.inference.works import Branch, Copy, Group, Prefix, Row, Step, Work
from hypothesis import given
from hypothesis import strategies as st

CELLS, BATCH = 48, 16
BASE, ONE, OTHER = (), (("a", 1.0),), (("a", 0.5), ("b", 1.0))


@dataclass
class Cache:
    """Sequences of tokens, as llama.cpp would hold them; what is fed is checked against what was asked."""

    sequences: list[list[int]]
    cut: bool = True
    computed: int = 0
    answers: dict[str, list[int]] = field(default_factory=dict)
    branches: dict[str, list[int]] = field(default_factory=dict)
    prompts: dict[str, list[int]] = field(default_factory=dict)
    groups: dict[int, Group] = field(default_factory=dict)
    whole: bool = False
    loads: int = 0

    def __post_init__(self) -> None:
        self.floors = [0] * len(self.sequences)

    def run(self, step: Step, works: dict[str, Work]) -> list[Row]:
        """Do a step; the rows whose last token's logits it gives."""
        for copy in step.copies:
            if not isinstance(copy, Copy):
                self.sequences[copy.target] = list(copy.prefix.tokens)
                self.groups[copy.target] = copy.prefix.group
                self.floors[copy.target] = len(copy.prefix.tokens) if self.whole else 0
                self.loads += 1
                continue
            assert copy.keep <= len(self.sequences[copy.source])
            assert self.cut or copy.keep == 0
            assert copy.keep == 0 or copy.keep >= self.floors[copy.source], "what was loaded cannot be cut"
            self.floors[copy.target] = self.floors[copy.source] if copy.keep else 0
            self.sequences[copy.target] = self.sequences[copy.source][: copy.keep]
            if copy.source in self.groups:
                self.groups[copy.target] = self.groups[copy.source]
        lengths = {len(row.tokens) + row.padding for row in step.rows}
        assert len(lengths) <= 1
        assert [row.sequence for row in step.rows] == sorted({row.sequence for row in step.rows})
        if len(step.rows) > 1:
            assert sum(lengths) * len(step.rows) <= max(BATCH, len(self.sequences))
        told = []
        for row in step.rows:
            held, work = self.sequences[row.sequence], works[row.work]
            assert step.group == work.group, "two groups in one step"
            assert not held or self.groups[row.sequence] == work.group, "cells of another group"
            self.groups[row.sequence] = work.group
            assert row.tokens
            assert row.start == len(held), "a gap, or cells that were not cut"
            assert row.start + len(row.tokens) + row.padding <= CELLS
            if row.kind == "branch":
                branch = work.branches[row.branch]
                assert [*held, *row.tokens] == [*work.prompt[: branch.start], *branch.tokens]
                assert row.scored == len(branch.tokens) <= len(row.tokens)
                self.branches.setdefault(work.id, []).append(row.branch)
            else:
                expected = [*work.prompt, *self.answers.get(work.id, [])]
                assert held + list(row.tokens) == expected[: row.start + len(row.tokens)]
                if row.scored and row.kind == "written":
                    assert row.start + len(row.tokens) == len(expected)
                elif row.scored:
                    end = row.start + len(row.tokens)
                    self.prompts.setdefault(work.id, []).extend(range(end - row.scored, end))
            # Of a prompt whose logits come in pieces the last piece tells.
            if row.scored and (row.kind != "prompt" or row.start + len(row.tokens) == len(work.prompt)):
                told.append(row)
            self.computed += len(row.tokens) * (row.kind == "prompt")
            assert self.cut or (not row.padding and row.keep in {0, row.start + len(row.tokens)})
            assert row.keep >= self.floors[row.sequence]
            self.sequences[row.sequence] = [*held, *row.tokens][: row.keep]
        return told


def run(
    works: Sequence[Work],
    *,
    sequences: int,
    quit_early: frozenset[str] = frozenset(),
    share: bool = True,
    cut: bool = True,
    whole: bool = False,
    prefixes: Sequence[Prefix] = (),
) -> Cache:
    """Answer every work with as many tokens as it has room for."""
    scheduler = Scheduler(sequences=sequences, cells=CELLS, batch=BATCH, share=share, cut=cut, whole=whole)
    for prefix in dict.fromkeys(prefixes):
        scheduler.know(prefix)
    known = {work.id: work for work in works}
    cache = Cache([[] for _ in range(sequences)], cut, whole=whole)
    for work in works:
        scheduler.add(work)
    for _ in range(100 * (1 + len(works))):
        step = scheduler.next_step()
        if step is None:
            break
        for row in cache.run(step, known):
            work, written = known[row.work], cache.answers.setdefault(row.work, [])
            if row.work in quit_early:
                scheduler.close(row.work)
            elif row.kind != "branch" and len(written) < work.room:
                written.append(1000 + len(written))
                scheduler.write(row.work, written[-1])
            elif len(written) == work.room and len(cache.branches.get(row.work, [])) == len(work.branches):
                scheduler.close(row.work)
    assert len(scheduler) == 0, "somebody starves"
    return cache


@st.composite
def works(draw: st.DrawFn) -> list[Work]:
    """Prompts that share beginnings."""
    stems = draw(st.lists(st.lists(st.integers(0, 3), max_size=24), min_size=1, max_size=3))
    made = []
    for number in range(draw(st.integers(0, 12))):
        prompt = (*draw(st.sampled_from(stems)), *draw(st.lists(st.integers(0, 3), min_size=1, max_size=12)))
        start = draw(st.integers(1, len(prompt)))
        branches = draw(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), max_size=3))
        made.append(
            Work(
                id=f"w{number}",
                prompt=prompt,
                room=draw(st.integers(0, 6)),
                branches=tuple(Branch(start, tuple(tokens)) for tokens in branches),
                group=draw(st.sampled_from([BASE, BASE, ONE, OTHER])),
                logits=draw(st.integers(1, len(prompt)) | st.just(1)),
            )
        )
    return made


@pytest.mark.parametrize(("share", "cut"), [(True, True), (False, True), (True, False)])
@given(made=works(), sequences=st.integers(1, 6))
def test_every_work_is_answered_with_its_own_tokens_and_every_branch_is_fed_once(share, cut, made, sequences):
    cache = run(made, sequences=sequences, share=share, cut=cut)
    assert cache.answers.keys() == {work.id for work in made}
    for work in made:
        assert len(cache.answers[work.id]) == work.room
        assert cache.branches.get(work.id, []) == list(range(len(work.branches)))
        assert cache.prompts[work.id] == list(range(len(work.prompt) - work.logits, len(work.prompt)))


@pytest.mark.parametrize(("cut", "whole"), [(True, False), (True, True), (False, False)])
@given(made=works(), sequences=st.integers(1, 6), lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_with_beginnings_that_are_loaded_every_work_is_answered_all_the_same(cut, whole, made, sequences, lengths):
    prefixes = [Prefix(work.group, work.prompt[:length]) for work in made for length in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler_module, "_WORTH_LOADING", 2)
        cache = run(made, sequences=sequences, cut=cut, whole=whole, prefixes=prefixes)
    for work in made:
        assert len(cache.answers[work.id]) == work.room
        assert cache.branches.get(work.id, []) == list(range(len(work.branches)))


def test_a_beginning_that_is_known_is_loaded_once_and_copied_then():
    stem = tuple(range(20))
    made = [Work(str(number), (*stem, 100 + number), room=2, group=ONE) for number in range(12)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler_module, "_WORTH_LOADING", 8)
        cache = run(made, sequences=3, prefixes=[Prefix(ONE, stem), Prefix(BASE, stem), Prefix(ONE, stem[:5])])
    assert (cache.loads, cache.computed) == (1, 12)
    assert run(made, sequences=3, prefixes=[Prefix(BASE, stem)]).loads == 0


@given(works(), st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=24).map(tuple), max_size=9, unique=True))
def test_the_longest_known_beginning_is_found(made, others):
    scheduler = Scheduler(sequences=1, cells=CELLS, batch=BATCH)
    known = {*others, *(work.prompt[:length] for work in made for length in (1, 5, 9))}
    for tokens in known:
        scheduler.know(Prefix(BASE, tokens))
    for work in made:
        most = min(work.cut_to, len(work.prompt) - work.logits)
        fitting = [tokens for tokens in known if len(tokens) <= most and work.prompt[: len(tokens)] == tokens]
        expected = max(fitting, key=len, default=()) if work.group == BASE else ()
        assert scheduler._longest_known(work) == expected


def test_a_fresh_beginning_is_loaded_once_also_where_a_sequence_has_it():
    stem = tuple(range(20))
    scheduler = Scheduler(sequences=2, cells=CELLS, batch=BATCH)
    cache = Cache([[], []])
    known = {str(number): Work(str(number), (*stem, 100 + number), room=0) for number in range(4)}
    for work in known.values():
        scheduler.add(work)
        if work.id == "1":
            scheduler.know(Prefix(BASE, stem), fresh=True)
        while len(scheduler):
            step = scheduler.next_step()
            assert step is not None
            for row in cache.run(step, known):
                scheduler.close(row.work)
    assert (cache.loads, cache.computed) == (1, 20 + 4)


@given(works(), st.integers(1, 6))
def test_whoever_is_given_up_early_takes_nobody_along(made, sequences):
    early = frozenset(work.id for work in made[::2])
    cache = run(made, sequences=sequences, quit_early=early)
    for work in made:
        assert len(cache.answers[work.id]) == (0 if work.id in early else work.room)


@given(works(), st.integers(1, 6))
def test_equal_works_make_equal_steps_in_whatever_order_they_come(made, sequences):
    one = run(made, sequences=sequences)
    distinct = {(work.group, work.prompt) for work in made}
    if len(distinct) == len(made):
        other = run(made[::-1], sequences=sequences)
        assert one.sequences == other.sequences
        assert one.computed == other.computed


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=20), max_size=30), st.integers(1, 6))
def test_every_node_of_the_prefix_tree_is_computed_once_with_however_few_sequences(prompts, sequences):
    made = [Work(str(number), tuple(prompt), room=2) for number, prompt in enumerate(prompts)]
    cache = run(made, sequences=sequences)
    # A prompt's last token is computed for its own logits; what is shorter than it is worth to copy is computed again.
    short = 7 * len(made)
    assert cache.computed <= tree_size(prompts) + len(made) + short


def test_a_shared_beginning_is_computed_once_for_more_works_than_sequences():
    stem = tuple(range(20))
    made = [Work(str(number), (*stem, 100 + number, 200), room=3) for number in range(40)]
    cache = run(made, sequences=4)
    assert cache.computed == tree_size([work.prompt for work in made]) == 20 + 40 * 2


@given(works(), st.data())
def test_alone_and_without_sharing_a_work_is_computed_in_the_same_rows_whatever_else_there_is(made, data):
    def rows(*some: Work) -> dict[str, list[tuple[str, int, tuple[int, ...]]]]:
        scheduler = Scheduler(sequences=1, cells=CELLS, batch=BATCH, share=False)
        found: dict[str, list[tuple[str, int, tuple[int, ...]]]] = {}
        for work in some:
            scheduler.add(work)
        while (step := scheduler.next_step()) is not None:
            for row in step.rows:
                found.setdefault(row.work, []).append((row.kind, row.start, tuple(row.tokens)))
                fed = [kind for kind, _, _ in found[row.work]]
                work = next(work for work in some if work.id == row.work)
                if fed.count("branch") == len(work.branches) and fed[-1] != "prompt":
                    scheduler.close(row.work)
                elif row.scored and row.kind == "prompt" and row.start + len(row.tokens) == len(work.prompt):
                    scheduler.write(row.work, 7)
        return found

    if made:
        one = data.draw(st.sampled_from(made))
        assert rows(one)[one.id] == rows(*made)[one.id]


def test_what_is_shared_on_several_levels_is_computed_once_on_each():
    made = [
        Work(f"{document}-{question}", (*range(10), *[50 + document] * 10, 100 + question), room=2)
        for document in range(5)
        for question in range(5)
    ]
    cache = run(made[::-1], sequences=3)
    assert cache.computed == 10 + 5 * 10 + 25


def test_a_beginning_is_computed_once_for_each_group_that_has_it():
    groups = [BASE, ONE, OTHER]
    made = [Work(str(number), (*range(20), 100 + number), room=2, group=groups[number % 3]) for number in range(30)]
    cache = run(made, sequences=4)
    assert cache.computed == 3 * 20 + 30


@given(st.lists(st.sampled_from([BASE, ONE, OTHER]), min_size=1, max_size=9), st.integers(1, 8))
def test_no_group_waits_longer_than_a_turn_of_each_of_the_others(groups, room):
    made = [Work(str(number), (number,), room=room, group=group) for number, group in enumerate(groups)]
    scheduler = Scheduler(sequences=len(made), cells=CELLS, batch=BATCH)
    for work in made:
        scheduler.add(work)
    left = {work.id: room for work in made}
    waited = dict.fromkeys(groups, 0)
    while (step := scheduler.next_step()) is not None:
        for group in {made[int(name)].group for name in left}:
            waited[group] = 0 if group == step.group else waited[group] + 1
            assert waited[group] <= 8 * (len(set(groups)) - 1)
        for row in step.rows:
            if left[row.work]:
                left[row.work] -= 1
                scheduler.write(row.work, 7)
            else:
                del left[row.work]
                scheduler.close(row.work)
    assert not left


@pytest.mark.parametrize("order", ["xyxyxyxy", "xxyyxxyy", "xyyyyxxx", "xxxxyyyy"])
def test_works_of_a_group_are_put_beside_each_other(order):
    scheduler = Scheduler(sequences=8, cells=CELLS, batch=BATCH)
    places: dict[str, set[int]] = {"x": set(), "y": set()}
    for number, name in enumerate(order):
        scheduler.add(Work(f"{name}{number}", (5 * number,), room=40, group=BASE if name == "x" else ONE))
        for _ in range(20):
            step = scheduler.next_step()
            if step is None:
                break
            for row in step.rows:
                places[row.work[0]].add(row.sequence)
                scheduler.write(row.work, 7)
    for found in places.values():
        assert len(found) == 4
        assert max(found) - min(found) == 3


def test_groups_that_take_turns_have_several_steps_in_a_row():
    scheduler = Scheduler(sequences=2, cells=CELLS, batch=BATCH)
    for name, group in (("x", BASE), ("y", ONE)):
        scheduler.add(Work(name, (1,), room=40, group=group))
    turns = []
    for _ in range(48):
        step = scheduler.next_step()
        assert step is not None
        turns.append(step.group)
        scheduler.write(step.rows[0].work, 7)
    assert turns == ([BASE] * 8 + [ONE] * 8) * 3


def test_rows_of_unequal_length_are_padded_rather_than_computed_apart():
    made = [Work(str(number), tuple([number] * length), room=1) for number, length in enumerate((8, 7, 8))]
    scheduler = Scheduler(sequences=3, cells=CELLS, batch=64)
    for work in made:
        scheduler.add(work)
    step = scheduler.next_step()
    assert step is not None
    assert [(len(row.tokens), row.padding, row.keep) for row in step.rows] == [(8, 0, 8), (7, 1, 7), (8, 0, 8)]


@pytest.mark.parametrize("group", [BASE, ONE])
def test_a_latecomer_does_not_wait_for_ever_for_those_whose_tokens_sort_before_its_own(group):
    scheduler = Scheduler(sequences=1, cells=CELLS, batch=BATCH)
    scheduler.add(Work("last", (9, 9), room=0, group=group))
    answered = []
    for number in range(200):
        scheduler.add(Work(f"first-{number}", (0, number), room=0))
        step = scheduler.next_step()
        while step is not None and not (step.rows and step.rows[0].scored):
            step = scheduler.next_step()
        assert step is not None
        answered.append(step.rows[0].work)
        scheduler.close(answered[-1])
        if answered[-1] == "last":
            break
    assert answered[-1] == "last"


def test_nothing_is_taken_that_has_no_room():
    scheduler = Scheduler(sequences=1, cells=CELLS, batch=BATCH)
    with pytest.raises(ValueError, match="needs 49 cells"):
        scheduler.add(Work("a", (1,) * CELLS, room=1))
    scheduler.add(Work("a", (1,), room=1))
    with pytest.raises(ValueError, match="there already"):
        scheduler.add(Work("a", (1,), room=1))


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_counts_the_equal_first_elements(one, other):
    length = common(one, other)
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]
