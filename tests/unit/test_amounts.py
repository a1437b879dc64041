"""Amounts as people read them: two digits or more, and no noise."""

from __future__ import annotations

import pytest
from gpurig.common.amounts import energy_text, gib_text, seconds_text


@pytest.mark.parametrize(
    ("joules", "text"),
    [
        (0, "0 J"),
        (949.7, "950 J"),
        (999.6, "1.0 kJ"),
        (3_849, "3.8 kJ"),
        (38_210, "38 kJ"),
        (999_499, "999 kJ"),
        (1_234_567, "1.2 MJ"),
        (5.6e9, "5.6 GJ"),
        (5.6e12, "5600 GJ"),
    ],
)
def test_energy(joules, text):
    assert energy_text(joules) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0"), (3.24, "3.2"), (9.96, "10"), (412.4, "412"), (12400, "12,400")]
)
def test_seconds(seconds, text):
    assert seconds_text(seconds) == text


def test_memory_is_told_as_cards_are_sold():
    assert gib_text(24564 * 1024**2) == "24.0"
