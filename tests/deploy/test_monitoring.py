"""Alerts and dashboard: every query is PromQL, and asks only for what the code counts."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import Gauge, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from api.middleware.observability import Metrics as ApiMetrics
from api.store_watch import MEMORY_WARNING
from worker.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes" / "components" / "monitoring"
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
GIVEN_BY_PROMETHEUS = {"instance", "job", "namespace", "pod"}
RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
BOARD = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
AUTOSCALING = sorted((ROOT / "deploy").glob("kubernetes/overlays/*/*/scaled-object.yaml"))


@cache
def counted() -> dict[str, set[str]]:
    """Every series that the code can report, and its labels."""
    found = {}
    for owner in (Metrics(), ApiMetrics()):
        for metric in vars(owner).values():
            if isinstance(metric, MetricWrapperBase):
                labels = {*metric._labelnames, *GIVEN_BY_PROMETHEUS}
                assert metric._type is not None, f"{metric._name} is of no kind"
                for suffix in SUFFIXES[metric._type]:
                    name = metric._name + suffix
                    found[name] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


def queries() -> dict[str, str]:
    found = {alert["alert"]: alert["expr"] for alert in ALERTS}
    for panel in PANELS:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for path in AUTOSCALING:
        for trigger in yaml.safe_load(path.read_text())["spec"]["triggers"]:
            if trigger["type"] == "prometheus":
                found[path.parent.name] = trigger["metadata"]["query"]
    return found


QUERIES = queries()
GAUGES = {m._name for m in vars(Metrics()).values() if isinstance(m, Gauge)}


def selectors(node: Any) -> Iterator[Any]:
    """All selectors of series below a node of a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    else:
        for name in ("lhs", "rhs", "expr", "args"):
            below = getattr(node, name, None)
            for each in below if isinstance(below, list) else [below]:
                if each is not None:
                    yield from selectors(each)


def groupings(query: str) -> set[str]:
    """Labels that a query groups by."""
    lists = re.findall(r"\b(?:by|ignoring|on)\s*\(([^)]*)\)", query)
    return {label.strip() for labels in lists for label in labels.split(",")}


def test_there_is_something_to_check() -> None:
    assert len(ALERTS) > 8 and len(PANELS) > 10 and len(AUTOSCALING) == 2
    assert len(QUERIES) > 30


@pytest.mark.parametrize("name", QUERIES)
def test_query_asks_for_what_the_code_counts(name: str) -> None:
    query = QUERIES[name].replace("$__rate_interval", "5m")
    found = list(selectors(promql_parser.parse(query)))
    assert found
    labels = set()
    for selector in found:
        assert selector.name in counted()
        labels |= counted()[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in counted()[selector.name]
    assert groupings(query) <= labels


def test_a_query_for_an_unknown_series_would_be_seen() -> None:
    (selector,) = selectors(promql_parser.parse("sum(rate(customedit_jobs[5m])) > 1"))
    assert selector.name not in counted()


def test_alerts_are_complete_and_have_a_runbook() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"]["summary"].endswith(".")
        page_name, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert page_name == "docs/operations.md"
        assert anchor in anchors, alert["alert"]
        assert alert["alert"] in page


def test_alerts_name_outcomes_and_kinds_that_the_code_knows() -> None:
    rooms = [path for path in (ROOT / "worker").glob("*.py") if path.name != "metrics.py"]
    text = "".join(path.read_text() for path in rooms)
    for alert in ALERTS:
        for selector in selectors(promql_parser.parse(alert["expr"])):
            for matcher in selector.matchers.matchers:
                if matcher.name in ("outcome", "kind"):
                    assert all(f'"{value}"' in text for value in matcher.value.split("|"))


def test_what_alerts_wait_for_is_there_before_it_happens() -> None:
    """Or Prometheus would miss the first: a series that begins at 1 has not increased."""
    shown = generate_latest(Metrics().registry).decode()
    waited = 0
    for alert in ALERTS:
        for selector in selectors(promql_parser.parse(alert["expr"])):
            for matcher in selector.matchers.matchers:
                if selector.name.startswith("customedit_http") or matcher.name == "le":
                    continue
                for value in matcher.value.split("|"):
                    series = rf'^{selector.name}{{.*{matcher.name}="{value}".*}} 0\.0$'
                    later = selector.name in GAUGES  # set every few seconds
                    assert later or re.search(series, shown, re.MULTILINE), (selector.name, value)
                    waited += 1
    assert waited > 5


def test_the_api_warns_of_memory_where_the_alert_does() -> None:
    (alert,) = (alert for alert in ALERTS if alert["alert"] == "CustomeditRedisMemory")
    assert f"> {MEMORY_WARNING} * " in alert["expr"]


def test_the_operators_rules_are_the_plain_ones() -> None:
    rule = yaml.safe_load((FOLDER / "prometheus-rule.yaml").read_text())
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == RULES


def test_panels_do_not_overlap_and_fit_the_board() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["description"] for panel in PANELS)
