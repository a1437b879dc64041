"""A dashboard as Grafana's JSON model.

The model is what Grafana 10.0 writes (schemaVersion 38); newer ones bring it up to date when they load it.
https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from dashboard.model import Column, Dashboard, Panel, Query, Row, State, Variable

Json = dict[str, Any]

SCHEMA_VERSION = 38
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_PAGE_WIDTH = 24
# Of one moment, not over time.
_INSTANT = {"table", "bargauge"}


def render(dashboard: Dashboard) -> Json:
    """The JSON model."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.text,
        "tags": ["gpurig", "gpu", "ci"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [_data_source(), *(_variable(one) for one in dashboard.variables)]},
        "panels": _laid_out(dashboard.rows),
    }


def _data_source() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
    }


def _variable(one: Variable) -> Json:
    return {
        "name": one.name,
        "label": one.label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": one.query,
        "query": {"query": one.query, "refId": one.name},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "allValue": ".*",
        "hide": 0,
        "includeAll": True,
        "multi": True,
        "options": [],
        # When the time range changes: a project of last week is a choice when last week is shown.
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 3 if one.numeric else 1,
    }


def _laid_out(rows: Sequence[Row]) -> list[Json]:
    """Headings and panels, from left to right and from top to bottom."""
    placed: list[Json] = []
    top = 0
    for row in rows:
        heading = {"type": "row", "title": row.title, "collapsed": False, "panels": []}
        placed.append(_placed(heading, len(placed) + 1, {"x": 0, "y": top, "w": _PAGE_WIDTH, "h": 1}))
        top += 1
        left = tallest = 0
        for panel in row.panels:
            if left + panel.width > _PAGE_WIDTH:
                top, left, tallest = top + tallest, 0, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            placed.append(_placed(_panel(panel), len(placed) + 1, place))
            left += panel.width
            tallest = max(tallest, panel.height)
        top += tallest
    return placed


def _placed(panel: Json, number: int, place: Json) -> Json:
    return {"id": number, "gridPos": place, **panel}


def _panel(panel: Panel) -> Json:
    rendered: Json = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "targets": [_target(panel, query, name) for query, name in zip(panel.queries, _names(panel), strict=True)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
    }
    if panel.kind == "table":
        rendered["transformations"] = _transformations(panel)
    return rendered


def _options(panel: Panel) -> Json:
    options = _OPTIONS[panel.kind]
    if not panel.sort_by:
        return options
    return {**options, "sortBy": [{"displayName": panel.sort_by.lstrip("-"), "desc": panel.sort_by.startswith("-")}]}


def _names(panel: Panel) -> str:
    return string.ascii_uppercase[: len(panel.queries)]


def _target(panel: Panel, query: Query, name: str) -> Json:
    instant = panel.kind in _INSTANT
    return {
        "refId": name,
        "datasource": _SOURCE,
        "editorMode": "code",
        "expr": query.expression,
        "format": "table" if panel.kind == "table" else "time_series",
        "instant": instant,
        "range": not instant,
        "legendFormat": query.legend,
    }


def _defaults(panel: Panel) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "mappings": _mappings(panel.states),
        "thresholds": _thresholds(panel.bad_at),
        "custom": _custom(panel),
    }
    for key, value in (("min", panel.minimum), ("max", panel.maximum), ("noValue", panel.none or None)):
        if value is not None:
            defaults[key] = value
    return defaults


def _custom(panel: Panel) -> Json:
    if panel.kind == "timeseries":
        return {
            "drawStyle": "line",
            "lineInterpolation": "stepAfter" if panel.steps else "linear",
            "lineWidth": 1,
            "fillOpacity": 40 if panel.stacked else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    if panel.kind == "state-timeline":
        return {"lineWidth": 0, "fillOpacity": 80}
    return {}


def _thresholds(bad_at: float | None) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    if bad_at is not None:
        steps.append({"color": "red", "value": bad_at})
    return {"mode": "absolute", "steps": steps}


def _mappings(states: Sequence[State]) -> list[Json]:
    if not states:
        return []
    options = {
        str(one.value): {"text": one.text, "color": one.color, "index": index} for index, one in enumerate(states)
    }
    return [{"type": "value", "options": options}]


def _overrides(panel: Panel) -> list[Json]:
    if panel.kind == "table":
        return [_of_column(column) for column in panel.columns if column.unit or column.states]
    return [
        {
            "matcher": {"id": "byFrameRefID", "options": name},
            "properties": [
                {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}},
                {"id": "custom.fillOpacity", "value": 0},
            ],
        }
        for query, name in zip(panel.queries, _names(panel), strict=True)
        if query.dashed
    ]


def _of_column(column: Column) -> Json:
    properties: list[Json] = [{"id": "unit", "value": column.unit}] if column.unit else []
    if column.states:
        properties += [
            {"id": "mappings", "value": _mappings(column.states)},
            {"id": "custom.cellOptions", "value": {"type": "color-text"}},
        ]
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}


def _transformations(panel: Panel) -> list[Json]:
    """One row for each set of labels, then the columns in their order; the time and other values go."""
    fields = [_field(panel, column.field) for column in panel.columns]
    values = [_field(panel, name) for name in _names(panel)]
    organize = {
        "excludeByName": dict.fromkeys(["Time", *(one for one in values if one not in fields)], True),
        "indexByName": {name: index for index, name in enumerate(fields)},
        "renameByName": {name: column.title for name, column in zip(fields, panel.columns, strict=True)},
    }
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]


def _field(panel: Panel, name: str) -> str:
    """What Grafana calls a label, or the value of the query of that letter, in a result."""
    if name not in string.ascii_uppercase:
        return name
    return f"Value #{name}" if len(panel.queries) > 1 else "Value"


_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_TOOLTIP = {"mode": "multi", "sort": "desc"}
_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_OPTIONS: dict[str, Json] = {
    "timeseries": {"legend": _LEGEND, "tooltip": _TOOLTIP},
    "stat": {
        "reduceOptions": _LAST,
        "orientation": "auto",
        "textMode": "auto",
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
    },
    "table": {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": ["sum"], "fields": ""}},
    "bargauge": {
        "reduceOptions": _LAST,
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "showUnfilled": True,
        "minVizWidth": 0,
        "minVizHeight": 10,
    },
    "state-timeline": {
        "mergeValues": True,
        "showValue": "never",
        "alignValue": "left",
        "rowHeight": 0.9,
        "legend": _LEGEND,
        "tooltip": {"mode": "single", "sort": "none"},
    },
}
