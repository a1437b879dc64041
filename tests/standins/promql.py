"""What a PromQL expression asks for, and which labels its result has, held against known metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import promql_parser as promql

Labels = frozenset[str]

# Prometheus adds these to every series of a target.
TARGET_LABELS: Labels = frozenset({"job", "instance"})

_SET_OPERATORS = {"and", "or", "unless"}
_KEEPS_SERIES = {"topk", "bottomk", "limitk"}


@dataclass(frozen=True)
class Inspected:
    """What was found out about an expression.

    Attributes:
        labels: those that every series of the result has; None for a scalar.
        metrics: names of the metrics that it reads.
        matchers: (metric, label, operator, value) of each matcher.
        faults: what it asks for that does not exist, and joins that never find a partner; empty for a good one.
    """

    labels: Labels | None
    metrics: frozenset[str]
    matchers: tuple[tuple[str, str, str, str], ...]
    faults: tuple[str, ...]


def inspect(expression: str, known: Mapping[str, Labels]) -> Inspected:
    """Look at an expression.

    Args:
        expression: PromQL, without Grafana's variables for durations.
        known: the metrics that there are, each with its labels, those of the target included.
    """
    try:
        tree = promql.parse(expression)
    except ValueError as error:
        return Inspected(None, frozenset(), (), (f"{error}: {expression}",))
    walk = _Walk(known)
    labels = walk.labels(tree)
    return Inspected(labels, frozenset(walk.metrics), tuple(walk.matchers), tuple(walk.faults))


@dataclass
class _Walk:
    known: Mapping[str, Labels]
    metrics: set[str] = field(default_factory=set)
    matchers: list[tuple[str, str, str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def labels(self, node: promql.Expr) -> Labels | None:
        found: Labels | None = None
        match node:
            case promql.NumberLiteral() | promql.StringLiteral():
                pass
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                found = self.labels(node.expr)
            case promql.MatrixSelector():
                found = self._selector(node.vector_selector)
            case promql.VectorSelector():
                found = self._selector(node)
            case promql.Call():
                found = self._call(node)
            case promql.AggregateExpr():
                found = self._aggregate(node)
            case promql.BinaryExpr():
                found = self._binary(node)
            case _:
                self.faults.append(f"cannot judge {type(node).__name__}: {node}")
        return found

    def _selector(self, node: promql.VectorSelector) -> Labels:
        name = node.name or ""
        self.metrics.add(name)
        if name not in self.known:
            self.faults.append(f"no metric {name or node}")
        labels = self.known.get(name, TARGET_LABELS)
        for matcher in node.matchers.matchers:
            self.matchers.append((name, matcher.name, str(matcher.op).removeprefix("MatchOp."), matcher.value))
            if name in self.known and matcher.name not in labels:
                self.faults.append(f"{name} has no label {matcher.name}")
        return labels

    def _call(self, node: promql.Call) -> Labels | None:
        arguments = [self.labels(one) for one in node.args]
        if node.func.return_type == promql.ValueType.Scalar:
            return None
        if node.func.name == "absent":
            [selector] = node.args
            assert isinstance(selector, promql.VectorSelector)
            return frozenset(one.name for one in selector.matchers.matchers if one.op == promql.MatchOp.Equal)
        if node.func.name in {"label_replace", "label_join", "histogram_quantile", "absent_over_time"}:
            self.faults.append(f"cannot judge {node.func.name}")
        return next((one for one in arguments if one is not None), frozenset())

    def _aggregate(self, node: promql.AggregateExpr) -> Labels:
        inner = self.labels(node.expr) or frozenset()
        named = frozenset(node.modifier.labels) if node.modifier else frozenset()
        if strange := named - inner:
            self.faults.append(f"no label {', '.join(sorted(strange))} to aggregate by: {node}")
        if str(node.op) in _KEEPS_SERIES:
            return inner
        if node.modifier is None:
            return frozenset()
        return named if node.modifier.type == promql.AggModifierType.By else inner - named

    def _binary(self, node: promql.BinaryExpr) -> Labels | None:
        left, right = self.labels(node.lhs), self.labels(node.rhs)
        if left is None or right is None:
            return left if right is None else right
        operator = str(node.op)
        matching = node.modifier.matching if node.modifier else None
        named = frozenset(matching.labels) if matching else frozenset()
        on = matching is not None and matching.type == promql.LabelModifierType.Include
        if strange := named - (left & right if on else left | right):
            self.faults.append(f"no label {', '.join(sorted(strange))} to join by: {node}")
        if not on and (different := (left ^ right) - named):
            self.faults.append(f"labels differ, so nothing matches ({', '.join(sorted(different))}): {node}")
        if operator in _SET_OPERATORS:
            return left & right if operator == "or" else left
        card = node.modifier.card if node.modifier else promql.VectorMatchCardinality.OneToOne
        if card == promql.VectorMatchCardinality.OneToOne:
            return named if on else left - named
        many, one = (left, right) if card == promql.VectorMatchCardinality.ManyToOne else (right, left)
        copied = frozenset(node.modifier.group_labels or ()) if node.modifier else frozenset()
        if strange := copied - one:
            self.faults.append(f"no label {', '.join(sorted(strange))} to copy: {node}")
        return many | copied


_DURATIONS = re.compile(r"\$__(rate_interval|interval|range)\b")


def without_variables(expression: str, *, duration: str, **values: str) -> str:
    """A panel's expression with Grafana's variables filled in: durations with `duration`, others by name."""
    filled = _DURATIONS.sub(duration, expression)
    return re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda found: values[found[1] or found[2]], filled)
