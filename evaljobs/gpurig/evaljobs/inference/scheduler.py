"""Which tokens are computed next: pure, so that it can be tested without a model.

Every sequence has a part of the cache for itself (llama.cpp's streams), because with one cache for all every token
attends over the cells of all sequences. What prompts have in common is computed once all the same: a sequence is copied
from one that has the beginning already, which is a copy of memory, and cut where the prompts part.

Works are taken up in the order of their tokens. There the longest beginning that a prompt shares with any earlier one
is what it shares with the one just before it, and that one is in its sequence still: sequences that are done keep their
cells until another work takes their place. So every node of the prompts' prefix tree is computed once, with however few
sequences.

llama.cpp computes rows together where they are equally long and their sequences' numbers follow one another
(llama_batch_allocr::split_equal), so shorter rows are padded, and where nothing waits any more, sequences are moved
together.

Works of different groups (adapters) live side by side, and take turns: a step belongs to one group.

Where beginnings are kept beyond the run, a sequence comes to hold one by a load, as if it had been computed at once.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gpurig.evaljobs.inference.prefix_tree import common
from gpurig.evaljobs.inference.works import Copy, Group, Load, Prefix, Row, Step, Work

# A shorter beginning is computed again sooner than a whole sequence is copied.
_WORTH_COPYING = 8
# A kept beginning is loaded where it saves so many tokens.
_WORTH_LOADING = 64
# Rows are padded as long as this share of what is computed counts.
_WORTH_PADDING = 0.85
# Sequences that write wait for fewer tokens of new prompts than this: a call for a few tokens costs as much as one for
# many, until the processor and not the memory is what is waited for.
_WORTH_A_CALL = 192
# So many admissions later a work goes before all that came after it.
_PATIENCE = 8
# So many steps a group has in a row where others wait: to change adapters, llama.cpp plans its graphs anew (4 ms for 24
# layers on a CPU, llama_context::sched_reserve).
_TURN = 8


@dataclass
class _Sequence:
    """One sequence of the context.

    Attributes:
        cut: its last tokens can be forgotten.
        held: the tokens in its cells.
        group: that they were computed in.
        floor: it cannot be cut to fewer tokens than these.
        work: who has it; None where it is free.
        source: what it is to become a copy of, and how many tokens of it; None where that is done.
        branch: the number of the branch that comes next.
        written: the token to feed next.
        answered: the prompt has been computed to its end.
    """

    number: int
    cut: bool
    held: list[int] = field(default_factory=list)
    group: Group = ()
    floor: int = 0
    work: Work | None = None
    source: tuple[_Sequence, int] | None = None
    branch: int = 0
    written: int | None = None
    answered: bool = False

    @property
    def content(self) -> Sequence[int]:
        """What its cells will begin with, once what is under way is done."""
        return self.held if self.work is None or self.answered else self.work.prompt

    @property
    def doing(self) -> Literal["nothing", "copying", "prompt", "branch", "written", "told"]:
        """What it would do next; "told": its work waits for a token, or to be closed."""
        if self.work is None:
            return "nothing"
        if self.source is not None:
            return "copying"
        if self.answered and self.branch < len(self.work.branches):
            return "branch"
        if len(self.held) < len(self.work.prompt):
            return "prompt"
        return "told" if self.written is None else "written"

    def todo(self) -> tuple[int, Sequence[int]]:
        """Where what it feeds next begins, and all of it."""
        work, doing = self.work, self.doing
        if work is not None and doing == "branch":
            branch = work.branches[self.branch]
            if self.cut:
                return branch.start, branch.tokens
            return 0, (*work.prompt[: branch.start], *branch.tokens)
        if work is not None and doing == "prompt":
            return len(self.held), work.prompt[len(self.held) :]
        return len(self.held), () if self.written is None else (self.written,)


class Scheduler:
    """Decides step by step; the caller computes a step, then writes to or closes each work whose logits it got."""

    def __init__(
        self, *, sequences: int, cells: int, batch: int, share: bool = True, cut: bool = True, whole: bool = False
    ) -> None:
        """An empty cache.

        Args:
            sequences: how many the context has.
            cells: of each.
            batch: tokens of one step, at most; a branch that is longer makes a longer step.
            share: compute once what prompts have in common. Without it, and with one sequence, what is computed for a
                work depends on that work alone.
            cut: the last tokens of a sequence can be forgotten, which a recurrent model's memory cannot. Without it
                nothing is shared and nothing padded, and a branch is computed with the prompt before it.
            whole: what was loaded cannot be cut to fewer tokens, because what a sliding window has passed is not kept.
        """
        self._sequences = tuple(_Sequence(number, cut=cut) for number in range(sequences))
        self._cells, self._batch = cells, batch
        self._share, self._cut, self._whole = share and cut, cut, whole
        self._known: dict[Group, list[tuple[int, ...]]] = {}
        self._fresh: set[Prefix] = set()
        self._waiting: list[tuple[int, Group, tuple[int, ...], int, Work]] = []
        self._works: dict[str, _Sequence | None] = {}
        self._admitted = self._added = 0
        self._turn: Group | None = None
        self._steps = 0
        self._turns: dict[Group, int] = {}

    def __len__(self) -> int:
        """Works that are not closed."""
        return len(self._works)

    def add(self, work: Work) -> None:
        """Let a work wait for its turn.

        Raises:
            ValueError: it needs more cells than a sequence has, or its id is not unique.
        """
        if not work.prompt or work.need > self._cells:
            raise ValueError(f"{work.id} needs {work.need} cells, a sequence has {self._cells}")
        if work.id in self._works:
            raise ValueError(f"{work.id} is there already")
        self._works[work.id] = None
        # Whoever comes much later has to wait, whatever its first tokens are.
        age = self._admitted // (_PATIENCE * len(self._sequences))
        bisect.insort(self._waiting, (age, work.group, work.prompt, self._added, work))
        self._added += 1

    def know(self, prefix: Prefix, *, fresh: bool = False) -> None:
        """From now on a prefix may be loaded.

        Args:
            prefix: unknown so far.
            fresh: the next work with it loads it also where a sequence has it: so that it comes to be kept.
        """
        bisect.insort(self._known.setdefault(prefix.group, []), prefix.tokens)
        if fresh:
            self._fresh.add(prefix)

    def write(self, work: str, token: int) -> None:
        """The token that a work's answer goes on with."""
        sequence = self._works[work]
        if sequence is None or sequence.written is not None:
            raise ValueError(f"{work} has nothing to be answered")
        sequence.written = token

    def close(self, work: str) -> None:
        """A work is answered, or given up."""
        sequence = self._works.pop(work)
        if sequence is None:
            self._waiting = [entry for entry in self._waiting if entry[-1].id != work]
            return
        for other in self._sequences:
            if other.source is not None and other.source[0] is sequence:
                other.source = (sequence, min(other.source[1], len(sequence.held)))
        sequence.work, sequence.source, sequence.written = None, None, None

    def next_step(self) -> Step | None:
        """What to compute now; None where every work has been told of or there is none.

        The step counts as done with this call: a caller that fails to compute it starts over.
        """
        copies: list[Copy | Load] = list(self._copies())
        copies += self._admit()
        if not self._waiting and self._cut:
            copies += self._move_together()
        ready = self._whose_turn()
        for doing in ("branch", "prompt", "written"):
            candidates = [one for one in ready if one.doing == doing]
            if candidates:
                # What was written last is one token each: all of it together, whatever the sequences' numbers.
                group, length = (candidates, 1) if doing == "written" else self._group(candidates)
                copies += [
                    Copy(one.number, one.number, one.todo()[0]) for one in group if one.todo()[0] < len(one.held)
                ]
                return Step(tuple(copies), tuple(self._row(one, length) for one in group), self._turn or ())
        if copies:
            return Step(tuple(copies), ())
        return None

    def _whose_turn(self) -> list[_Sequence]:
        """The sequences with something to feed, of the group whose turn it is."""
        ready = [one for one in self._sequences if one.doing in ("branch", "prompt", "written")]
        groups = {one.group for one in ready}
        self._steps += 1
        if groups and (self._turn not in groups or self._steps >= self._turns[self._turn] + _TURN):
            # Whoever's turn is longest ago.
            self._turn = min(groups, key=lambda group: (self._turns.get(group, 0), group))
            self._turns[self._turn] = self._steps
        return [one for one in ready if one.group == self._turn]

    def _copies(self) -> Iterator[Copy]:
        """The copies that can be made by now."""
        for sequence in self._sequences:
            if sequence.source is not None:
                source, length = sequence.source
                if len(source.held) >= length:
                    sequence.source = None
                    sequence.held, sequence.floor = source.held[:length], source.floor
                    yield Copy(source.number, sequence.number, length)

    def _admit(self) -> Iterator[Copy | Load]:
        """Works get sequences."""
        if not self._worth_admitting():
            return
        sources = {id(one.source[0]) for one in self._sequences if one.source is not None}
        free = [one for one in self._sequences if one.work is None and id(one) not in sources]
        while self._waiting and free:
            work = self._waiting.pop(0)[-1]
            best, length = max(
                ((one, self._shared(one, work)) for one in self._sequences), key=lambda pair: (pair[1], -pair[0].number)
            )
            place = best if length and best in free else self._place(work.group, free)
            free.remove(place)
            self._works[work.id] = place
            self._admitted += 1
            place.work, place.branch, place.answered, place.written = work, 0, False, None
            place.group = work.group
            known = self._longest_known(work)
            prefix = Prefix(work.group, known)
            if len(known) >= length + _WORTH_LOADING or prefix in self._fresh:
                self._fresh.discard(prefix)
                yield Load(place.number, prefix)
                place.held, place.floor = list(known), len(known) if self._whole else 0
            elif place is best or length < _WORTH_COPYING:
                kept = length if place is best else 0
                yield Copy(place.number, place.number, kept)
                place.held, place.floor = place.held[:kept], place.floor if kept else 0
            elif len(best.held) >= length:
                yield Copy(best.number, place.number, length)
                place.held, place.floor = best.held[:length], best.floor
            else:
                yield Copy(place.number, place.number, 0)
                place.held, place.floor, place.source = [], best.floor, (best, length)

    def _groups(self) -> set[Group]:
        """Those of the works that have sequences."""
        return {one.group for one in self._sequences if one.work is not None}

    def _place(self, group: Group, free: Sequence[_Sequence]) -> _Sequence:
        """Where a work is best put: beside those of its group, since llama.cpp computes neighbours together."""
        if self._groups() <= {group}:
            return free[0]
        groups = {one.number: one.group for one in self._sequences if one.work is not None}
        for beside in (-1, 1):
            for one in free:
                if groups.get(one.number + beside) == group:
                    return one
        # In the middle of the longest gap there is room for more of either side.
        gaps: list[list[_Sequence]] = []
        for one in free:
            if gaps and gaps[-1][-1].number + 1 == one.number:
                gaps[-1].append(one)
            else:
                gaps.append([one])
        longest = max(gaps, key=len)
        return longest[len(longest) // 2]

    def _longest_known(self, work: Work) -> tuple[int, ...]:
        """The longest known prefix of the prompt and of all branches, before the tokens whose logits are wanted."""
        known = self._known.get(work.group, [])
        begin = work.prompt[: min(work.cut_to, len(work.prompt) - work.logits)]
        while place := bisect.bisect_right(known, begin):
            before = known[place - 1]
            length = common(before, begin)
            if length == len(before):
                return before
            # Whatever is longer than that and part of the prompt would stand behind it.
            begin = begin[:length]
        return ()

    def _shared(self, sequence: _Sequence, work: Work) -> int:
        """Tokens that the work's prompt has in common with a sequence, but for those whose logits are wanted."""
        if not self._share or sequence.group != work.group:
            return 0
        length = min(common(sequence.content, work.prompt), len(work.prompt) - work.logits)
        return length if sequence.floor <= min(length, work.cut_to) else 0

    def _worth_admitting(self) -> bool:
        """Whether new prompts are worth a call while others write."""
        if not self._waiting or not any(one.doing == "written" for one in self._sequences):
            return bool(self._waiting)
        free = sum(one.work is None for one in self._sequences)
        if 4 * free >= len(self._sequences) or free >= len(self._waiting):
            return free > 0
        following = [entry[-1] for entry in self._waiting[:free]]
        tokens = -max(self._shared(one, following[0]) for one in self._sequences) if following else 0
        tokens += sum(len(work.prompt) for work in following)
        for before, work in itertools.pairwise(following):
            tokens -= common(before.prompt, work.prompt) if before.group == work.group else 0
        return tokens >= _WORTH_A_CALL

    def _move_together(self) -> Iterator[Copy]:
        """Nothing waits: the sequences that write take the places of those that are done."""
        # Where several groups work, each has places of its own.
        if any(one.source is not None for one in self._sequences) or len(self._groups()) > 1:
            return
        for gap in self._sequences:
            if gap.work is not None:
                continue
            last = next((one for one in reversed(self._sequences) if one.work is not None), None)
            if last is None or last.number < gap.number:
                return
            gap.held, gap.group, gap.work, gap.branch = list(last.held), last.group, last.work, last.branch
            gap.written, gap.answered, gap.floor = last.written, last.answered, last.floor
            last.work, last.written = None, None
            if gap.work is not None:
                self._works[gap.work.id] = gap
            yield Copy(last.number, gap.number, len(gap.held))

    def _row(self, sequence: _Sequence, length: int) -> Row:
        """What a sequence feeds next, as a row of that length; the sequence is where it will be then."""
        work, doing = sequence.work, sequence.doing
        if work is None or doing not in ("prompt", "branch", "written"):
            raise AssertionError("only sequences with something to feed make rows")
        start, todo = sequence.todo()
        tokens = todo[:length]
        whole = len(tokens) == len(todo)
        number, keep = -1, start + len(tokens)
        # A prompt's end that a branch cut off is computed again, and its logits are known already.
        told = doing == "prompt" and sequence.answered
        wanted = len(work.prompt) - work.logits if doing == "prompt" else start
        scored = 0 if told else max(0, start + len(tokens) - max(start, wanted))
        if doing == "branch":
            number, keep, scored = sequence.branch, start, len(work.branches[sequence.branch].tokens)
            sequence.branch += 1
            # What it covered of the prompt is computed again, if anything follows at all.
            del sequence.held[start:]
        else:
            sequence.held.extend(tokens)
            sequence.answered = sequence.answered or (whole and doing == "prompt")
            sequence.written = None if doing == "written" else sequence.written
        return Row(
            work=work.id,
            sequence=sequence.number,
            start=start,
            tokens=tokens,
            padding=length - len(tokens),
            kind=doing,
            scored=scored,
            keep=keep,
            branch=number,
        )

    def _group(self, candidates: Sequence[_Sequence]) -> tuple[list[_Sequence], int]:
        """The first neighbours that are worth computing in one call, and the length of their rows."""
        group: list[_Sequence] = []
        best: tuple[list[_Sequence], int] = ([], 0)
        lengths: list[int] = []
        for sequence in candidates:
            if group and sequence.number != group[-1].number + 1:
                break
            group.append(sequence)
            lengths.append(len(sequence.todo()[1]))
            longest = min(max(lengths), self._batch // len(group))
            if sequence.doing == "branch" and longest < max(lengths):
                break
            counting = sum(min(length, longest) for length in lengths)
            fits = all(one.todo()[0] + longest <= self._cells for one in group)
            worth = _WORTH_PADDING if self._cut else 1
            if not longest or not fits or counting < worth * longest * len(group):
                break
            best = (list(group), longest)
        if best[0]:
            return best
        # A branch goes in one piece, because its sequence is cut back behind it.
        return [candidates[0]], lengths[0] if candidates[0].doing == "branch" else min(lengths[0], self._batch)
