"""What prompts have in common: nodes of their prefix tree."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from gpurig.evaljobs.inference.works import Prefix

# Fewer tokens are computed beside others in one call: a file for them gains nothing (docs/inference.md).
WORTH_KEEPING = 128


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first elements are the same."""
    low, high = 0, min(len(one), len(other))
    # Slices are compared at C's speed, elements one by one are not.
    while low < high:
        middle = (low + high + 1) // 2
        if list(one[low:middle]) == list(other[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low


def tree_size(prompts: Iterable[Sequence[int]]) -> int:
    """Nodes of the prompts' prefix tree: the fewest tokens that have to be computed for all of them."""
    ordered = sorted(tuple(prompt) for prompt in prompts)
    before: tuple[int, ...] = ()
    size = 0
    for prompt in ordered:
        size += len(prompt) - common(before, prompt)
        before = prompt
    return size


def worth_keeping(prompts: Iterable[Prefix], known: Iterable[Prefix] = ()) -> list[Prefix]:
    """The beginnings that two prompts share and no other one comes close to, the shortest first.

    They are nodes of the prompts' prefix tree, each with enough tokens more than the one before it on its branch. A
    prompt's last token is in none: its logits are wanted, so that it is computed in any case.

    Args:
        prompts: what is asked, whole.
        known: beginnings that are kept already.
    """
    found = set()
    for one, other in itertools.pairwise(sorted(prompts)):
        if one.group == other.group:
            length = min(common(one.tokens, other.tokens), len(one.tokens) - 1, len(other.tokens) - 1)
            found.add(Prefix(one.group, one.tokens[:length]))
    had, kept = set(known), []
    # Sorted, what begins a prefix comes before it: this is the branch down to it.
    branch: list[Prefix] = []
    for prefix in sorted(found | had):
        while branch and not _begins(branch[-1], prefix):
            branch.pop()
        before = len(branch[-1].tokens) if branch else 0
        if prefix in had:
            branch.append(prefix)
        elif len(prefix.tokens) - before >= WORTH_KEEPING:
            branch.append(prefix)
            kept.append(prefix)
    return sorted(kept, key=lambda prefix: (len(prefix.tokens), prefix))


def _begins(one: Prefix, other: Prefix) -> bool:
    return one.group == other.group and other.tokens[: len(one.tokens)] == one.tokens
