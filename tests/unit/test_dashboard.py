"""The Grafana dashboard: made from code, of what the exporter has, in Grafana's own words."""

from __future__ import annotations

import itertools
import json
import re
import string
import sys
from collections.abc import Iterator

import pytest
from standins.deploy import DEPLOY, REPOSITORY, impossible_values, known_metrics, load_rules
from standins.promql import inspect, without_variables

sys.path.insert(0, str(REPOSITORY / "scripts"))

import make_dashboard
from dashboard.gpurig import DASHBOARD
from dashboard.model import Column, Dashboard, Panel, Query, Row
from dashboard.rendering import render
from gpurig.runner.exporter.exposition.catalogue import METRICS

FILE = DEPLOY / "grafana/dashboards/gpurig.json"
MODEL = json.loads(FILE.read_text(encoding="utf-8"))
PANELS = [panel for row in DASHBOARD.rows for panel in row.panels]
KNOWN = known_metrics()
VARIABLES = {one.name: ".*" for one in DASHBOARD.variables}


def _inspect(query: Query):
    return inspect(without_variables(query.expression, duration="5m", **VARIABLES), KNOWN)


each_panel = pytest.mark.parametrize("panel", PANELS, ids=[panel.title for panel in PANELS])


def test_the_file_is_what_the_code_makes():
    assert FILE.read_text(encoding="utf-8") == make_dashboard.text(), "run scripts/make_dashboard.py"


@each_panel
def test_a_panel_asks_for_names_labels_and_values_that_the_exporter_has(panel):
    for query in panel.queries:
        found = _inspect(query)
        assert found.faults == ()
        assert impossible_values(found) == []


@each_panel
def test_a_panel_names_its_series_and_columns_by_labels_that_they_have(panel):
    labels = [_inspect(query).labels or frozenset() for query in panel.queries]
    for query, mine in zip(panel.queries, labels, strict=True):
        assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= mine
        assert bool(query.legend) != (panel.kind == "table")
    values = set(string.ascii_uppercase[: len(panel.queries)])
    assert {column.field for column in panel.columns} <= values | frozenset().union(*labels)
    if panel.kind == "table":
        # A label that is no column would be an unnamed one.
        assert frozenset().union(*labels) <= {column.field for column in panel.columns}
        assert panel.sort_by.lstrip("-") in {column.title for column in panel.columns}
        # Rows are put together by the labels that all queries have: each of them tells its rows apart by these.
        shared = frozenset.intersection(*labels)
        assert sum(mine == shared for mine in labels) >= len(labels) - 2


@each_panel
def test_series_of_a_panel_have_different_names(panel):
    legends = [query.legend for query in panel.queries if query.legend]
    assert len(set(legends)) == len(legends)
    for query in panel.queries:
        labels = _inspect(query).labels or frozenset()
        told = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        # The card's number stands for its UUID, the box for the scrape job, the job for what it belongs to; a panel
        # has one clock and one limit of the memory.
        assert not query.legend or labels - told <= {"job", "uuid", "pipeline_id", "runner", "clock", "limit"}


def test_every_metric_is_on_the_dashboard():
    recorded = {rule.name: inspect(rule.expression, KNOWN).metrics for rule in load_rules() if not rule.alert}
    shown = {name for panel in PANELS for query in panel.queries for name in _inspect(query).metrics}
    shown |= {name for one in shown & set(recorded) for name in recorded[one]}
    assert {metric.name for metric in METRICS} - shown == set()


def test_the_choices_at_the_top_are_labels_of_metrics():
    for one in DASHBOARD.variables:
        metric, matchers, label = re.fullmatch(r"label_values\((\w+)(\{.*\})?, (\w+)\)", one.query).groups()
        found = inspect(without_variables(metric + (matchers or ""), duration="5m", **VARIABLES), KNOWN)
        assert found.faults == ()
        assert label in found.labels


def _without(written: object, read: object, path: str = "") -> Iterator[str]:
    """What Grafana's model did not keep."""
    if isinstance(written, dict):
        for key, value in written.items():
            if not isinstance(read, dict) or key not in read:
                yield f"{path}.{key}"
            else:
                yield from _without(value, read[key], f"{path}.{key}")
    elif isinstance(written, list):
        assert isinstance(read, list)
        for one, other in itertools.zip_longest(written, read):
            yield from _without(one, other, f"{path}[]")
    elif written != read:
        yield path


def _kept(model: dict) -> set[str]:
    """The paths that are lost when Grafana's own model of version 10.1 reads a dashboard and writes it again."""
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard as Grafanas

    plugins.register_default_plugins()
    return set(_without(model, json.loads(json.dumps(Grafanas.from_json(model), cls=JSONEncoder))))


def test_grafanas_own_model_knows_every_key():
    # What Grafana shows in its list of variables; the model does not have it.
    assert _kept(MODEL) == {".templating.list[].definition"}


@pytest.mark.parametrize(
    ("path", "key"), [(("panels", 1, "options"), "grafMode"), (("panels", 1, "fieldConfig", "defaults"), "units")]
)
def test_grafanas_own_model_finds_a_wrong_key(path, key):
    model = json.loads(FILE.read_text(encoding="utf-8"))
    place = model
    for step in path:
        place = place[step]
    place[key] = "x"
    assert any(one.endswith(f".{key}") for one in _kept(model))


def _units(panel: dict) -> Iterator[str]:
    yield panel["fieldConfig"]["defaults"]["unit"]
    for override in panel["fieldConfig"]["overrides"]:
        yield from (one["value"] for one in override["properties"] if one["id"] == "unit")


def test_units_are_ones_that_grafana_has():
    from grafana_foundation_sdk.models import units

    known = {value for value in vars(units).values() if isinstance(value, str)}
    used = {unit for panel in MODEL["panels"] if panel["type"] != "row" for unit in _units(panel)}
    assert used <= known


_UNIT_OF_NAME = {
    "bytes": {"bytes"},
    "celsius": {"celsius"},
    "watts": {"watt"},
    "joules": {"joule"},
    "hertz": {"hertz"},
    "seconds": {"s"},
}


@each_panel
def test_a_units_panel_is_its_metrics(panel):
    """One metric as it is, or its increase, has the unit of its name; a rate of joules is watts."""
    if panel.kind == "table" or panel.unit in {"none", "short", "percentunit"}:
        return
    for query in panel.queries:
        [name] = _inspect(query).metrics
        words = name.removesuffix("_total").replace(":", "_").split("_")
        if "rate(" in query.expression or name.endswith(":rate5m"):
            assert (panel.unit, "joules" in words) in {("watt", True), ("cps", False)}, name
        else:
            assert any(panel.unit in _UNIT_OF_NAME.get(word, set()) for word in words), (panel.unit, name)


def test_panels_have_numbers_of_their_own_and_do_not_lie_upon_each_other():
    numbers = [panel["id"] for panel in MODEL["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in MODEL["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        squares = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not squares & taken, panel["title"]
        taken |= squares


def test_every_question_goes_to_the_data_source_that_was_chosen():
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in MODEL["panels"]:
        if panel["type"] != "row":
            assert [panel["datasource"], *(one["datasource"] for one in panel["targets"])] == [chosen] * (
                1 + len(panel["targets"])
            )
    first, *others = MODEL["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    assert [one["datasource"] for one in others] == [chosen] * len(others)


def test_a_table_shows_its_columns_in_order_and_no_other_value():
    panel = Panel(
        "t",
        (Query("gpurig_gpu_info"), Query("gpurig_gpu_up"), Query("gpurig_gpu_power_watts")),
        kind="table",
        columns=(Column("name", "Name"), Column("C", "Power", "watt"), Column("B", "State")),
        sort_by="-Power",
    )
    model = render(Dashboard("u", "d", "", (), (Row("r", (panel,)),)))["panels"][1]
    organize = model["transformations"][-1]["options"]
    assert organize["renameByName"] == {"name": "Name", "Value #C": "Power", "Value #B": "State"}
    assert organize["indexByName"] == {"name": 0, "Value #C": 1, "Value #B": 2}
    assert set(organize["excludeByName"]) == {"Time", "Value #A"}
    assert [one["matcher"]["options"] for one in model["fieldConfig"]["overrides"]] == ["Power"]
    assert model["options"]["sortBy"] == [{"displayName": "Power", "desc": True}]
    assert all(one["instant"] and one["format"] == "table" for one in model["targets"])


def test_a_number_turns_red_where_it_is_bad():
    panel = Panel("p", (Query("up", "up"),), kind="stat", bad_at=1)
    model = render(Dashboard("u", "d", "", (), (Row("r", (panel,)),)))["panels"][1]
    steps = model["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(one["value"], one["color"]) for one in steps] == [(None, "green"), (1, "red")]
