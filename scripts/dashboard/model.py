"""The words of a dashboard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["timeseries", "stat", "table", "bargauge", "state-timeline"]


@dataclass(frozen=True)
class Query:
    """What a panel asks Prometheus.

    Attributes:
        expression: PromQL, with the dashboard's variables.
        legend: names the series, with labels as {{label}}; "" in a table.
        dashed: draw it as a limit of the others.
        empty_is_good: it has series only when something is wrong.
    """

    expression: str
    legend: str = ""
    dashed: bool = False
    empty_is_good: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        field: a label, or "A", "B", … for the value of that query.
        title: what stands above it.
        unit: of its values; "" for a label.
        states: as a panel's.
    """

    field: str
    title: str
    unit: str = ""
    states: tuple[State, ...] = ()


@dataclass(frozen=True)
class State:
    """How a value is shown that is one of a few."""

    value: int
    text: str
    color: str


@dataclass(frozen=True)
class Panel:
    """A panel.

    Attributes:
        title: what it shows.
        queries: what it asks; all at one moment for a table or a bar gauge, over time otherwise.
        unit: Grafana's name of the unit (the category's id in its list of units).
        kind: how it is drawn.
        width: in 24ths of the page.
        height: in Grafana's rows of 30 pixels.
        text: what helps to read it.
        minimum, maximum: ends of the axis; by the data where None.
        columns: of a table, in their order.
        sort_by: the title of the column that a table is sorted by, with "-" before it for the highest first.
        states: for values that are one of a few.
        bad_at: from where a value is shown in red.
        stacked: series upon each other.
        steps: a value holds until the next one.
        none: what is shown where there is no series.
    """

    title: str
    queries: tuple[Query, ...]
    unit: str = "none"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    text: str = ""
    minimum: float | None = None
    maximum: float | None = None
    columns: tuple[Column, ...] = ()
    sort_by: str = ""
    states: tuple[State, ...] = ()
    bad_at: float | None = None
    stacked: bool = False
    steps: bool = False
    none: str = ""


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of the page: values of a label.

    Attributes:
        name: as expressions use it.
        label: as the page shows it.
        query: Grafana's label_values(…).
        numeric: sort as numbers.
    """

    name: str
    label: str
    query: str
    numeric: bool = False


@dataclass(frozen=True)
class Dashboard:
    """All of it."""

    uid: str
    title: str
    text: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...] = field(default_factory=tuple)
