"""A GPU's energy: a total that only grows, from the card's own counter or from its power, and what it takes idle.

Everything here is pure: a state and a reading give the next state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpurig.runner.exporter.devices.figures import Figures

# No card takes as much; a counter that grew faster was misread.
_IMPOSSIBLE_WATTS = 10_000.0
# Thirty years of that.
_IMPOSSIBLE_JOULES = 1e13
# The length of a stretch of idling whose mean counts as the idle power.
_IDLE_STRETCH_S = 60.0
# What an idle card takes of its power limit, until it was seen idle: an RTX 4090 5 %, an H100 10 %, a T4 14 %.
_IDLE_SHARE = 0.1


@dataclass(frozen=True)
class Energy:
    """What is known of a GPU's energy.

    Attributes:
        joules: the total since gpurig first saw the card.
        told: whether the card told counter or power at all; else the total says nothing.
        counter_joules: the card's counter at its last reading; None where it has none.
        counter_at: when that was, on the monotonic clock; None where that was before a restart of the exporter.
        watts, watts_at: the last reading of its power, likewise.
        idle_watts: the lowest mean power over a minute of idling; None before the first such minute.
        idle_s, idle_joules: the minute of idling that goes on now.
    """

    joules: float = 0.0
    told: bool = False
    counter_joules: float | None = None
    counter_at: float | None = None
    watts: float | None = None
    watts_at: float | None = None
    idle_watts: float | None = None
    idle_s: float = 0.0
    idle_joules: float = 0.0

    @property
    def lasting(self) -> tuple[float, bool, float | None, float | None]:
        """What outlives the exporter: total, whether it is told, the card's counter, the idle power."""
        return self.joules, self.told, self.counter_joules, self.idle_watts

    def idle_power_watts(self, power_limit_watts: float | None) -> float:
        """What the card takes when nothing runs: measured, else a tenth of its power limit, else 0."""
        if self.idle_watts is not None:
            return self.idle_watts
        return _IDLE_SHARE * power_limit_watts if power_limit_watts is not None and power_limit_watts > 0 else 0.0


@dataclass(frozen=True)
class EnergyStep:
    """What a reading added.

    Attributes:
        joules: None where it is not known.
        seconds: the time in which they were taken; None where the exporter did not see all of it: they are the card's,
            and no job's.
    """

    joules: float | None = None
    seconds: float | None = None


_NOTHING = EnergyStep()


def advance(energy: Energy, figures: Figures, now: float, *, longest_gap_s: float) -> tuple[Energy, EnergyStep]:
    """The state after a reading.

    A counter that fell began anew with the driver, so all of it is new. Without a counter the power is integrated by
    the trapezoidal rule.

    Args:
        energy: the state before.
        figures: the reading.
        now: when, on the monotonic clock.
        longest_gap_s: power is not integrated over a longer time, and no job gets its energy.
    """
    counter, watts = _sane(figures.energy_joules, _IMPOSSIBLE_JOULES), _sane(figures.power_watts, _IMPOSSIBLE_WATTS)
    if counter is not None:
        step = _counted(energy, counter, now, longest_gap_s)
        energy = replace(energy, counter_joules=counter, counter_at=now)
    elif energy.counter_at is not None and now - energy.counter_at <= longest_gap_s:
        # Its next value covers this time as well.
        step = _NOTHING
    else:
        step = _integrated(energy, watts, now, longest_gap_s)
        if step.joules is not None:
            # What is counted now must not come again with the counter's next value.
            energy = replace(energy, counter_joules=None, counter_at=None)
    told = energy.told or counter is not None or watts is not None
    total = energy.joules + (step.joules or 0.0)
    return _idled(replace(energy, joules=total, told=told, watts=watts, watts_at=now), figures, step), step


def _sane(value: float | None, most: float) -> float | None:
    return value if value is not None and 0 <= value <= most else None


def _counted(energy: Energy, counter: float, now: float, longest_gap_s: float) -> EnergyStep:
    before = energy.counter_joules
    if before is None:
        return _NOTHING
    grown = counter - before if counter >= before else counter
    if energy.counter_at is None:
        return EnergyStep(grown)
    seconds = max(0.0, now - energy.counter_at)
    if grown > _IMPOSSIBLE_WATTS * max(seconds, 1.0):
        return _NOTHING
    return EnergyStep(grown, seconds if seconds <= longest_gap_s else None)


def _integrated(energy: Energy, watts: float | None, now: float, longest_gap_s: float) -> EnergyStep:
    if watts is None or energy.watts is None or energy.watts_at is None:
        return _NOTHING
    seconds = now - energy.watts_at
    if not 0 <= seconds <= longest_gap_s:
        return _NOTHING
    return EnergyStep((energy.watts + watts) / 2 * seconds, seconds)


def _idled(energy: Energy, figures: Figures, step: EnergyStep) -> Energy:
    """With the step added to the minute of idling, where the card idles."""
    if figures.utilization_ratio is None:
        idle = figures.processes is not None and not figures.processes
    else:
        idle = figures.utilization_ratio <= 0
    if not idle or (step.joules is not None and step.seconds is None):
        return replace(energy, idle_s=0.0, idle_joules=0.0) if energy.idle_s else energy
    if step.joules is None or step.seconds is None:
        return energy
    seconds, joules = energy.idle_s + step.seconds, energy.idle_joules + step.joules
    if seconds < _IDLE_STRETCH_S:
        return replace(energy, idle_s=seconds, idle_joules=joules)
    mean = joules / seconds
    lowest = mean if energy.idle_watts is None else min(energy.idle_watts, mean)
    return replace(energy, idle_watts=lowest, idle_s=0.0, idle_joules=0.0)
