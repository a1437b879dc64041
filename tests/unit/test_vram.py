"""Memory classes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from gpurig.provisioning.vram import CLASSES_GB, GIB, vram_class_gb, vram_classes_gb
from hypothesis import given
from hypothesis import strategies as st

_SIZES = Path(__file__).parents[1] / "fixtures" / "memory-sizes.csv"
CARDS = list(csv.DictReader(_SIZES.read_text().splitlines()))


@pytest.mark.parametrize("card", CARDS, ids=[f"{card['name']}-{card['reported_bytes']}" for card in CARDS])
def test_a_card_belongs_to_the_class_it_is_sold_as(card: dict[str, str]) -> None:
    assert vram_class_gb(int(card["reported_bytes"])) == int(card["sold_gb"])


@pytest.mark.parametrize(
    ("mib", "size"),
    [(16384, 16), (33280, 32), (9984, 10), (20096, 20), (40448, 40), (4864, 5), (19968, 20), (49152, 48)],
)
def test_a_part_of_a_card_belongs_to_a_class_that_it_can_hold(mib: int, size: int) -> None:
    assert vram_class_gb(mib * 2**20) == size


def test_a_processors_carve_out_of_half_a_gigabyte_has_no_class() -> None:
    assert vram_class_gb(512 * 2**20) is None
    assert vram_classes_gb(512 * 2**20) == ()


def test_a_size_between_classes_gets_the_one_below() -> None:
    assert vram_class_gb(100 * GIB) == 96
    assert vram_class_gb(29 * GIB) == 24


@given(st.integers(min_value=0, max_value=600 * GIB))
def test_no_class_promises_more_than_seven_percent_above_what_is_there(size: int) -> None:
    own = vram_class_gb(size)
    assert own is None or size >= own * GIB * 0.93


@given(st.integers(min_value=0, max_value=600 * GIB), st.integers(min_value=0, max_value=600 * GIB))
def test_more_memory_never_gives_a_smaller_class(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert (vram_class_gb(small) or 0) <= (vram_class_gb(large) or 0)


@given(st.integers(min_value=2 * GIB, max_value=600 * GIB))
def test_a_gpu_carries_every_class_up_to_its_own(size: int) -> None:
    carried = vram_classes_gb(size)
    assert carried == CLASSES_GB[: len(carried)]
    assert carried[-1] == vram_class_gb(size)
