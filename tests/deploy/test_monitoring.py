"""Prometheus' files and Grafana's: valid, in agreement with each other, on metrics that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from node.metrics import METRICS
from node.snapshot import HARMLESS
from node.status import ForeignFate

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "sapo.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

KNOWN = {row.name: set(row.labels) for row in METRICS} | {"up": set()}
OF_PROMETHEUS = {"job", "instance"}
WORDS = {"sum", "count", "min", "max", "avg", "rate", "increase", "deriv", "sqrt", "vector"}
WORDS |= {"by", "on", "without", "unless", "and", "or", "bool"}
"""Of PromQL, as far as it is used here."""

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="alert rules were NOT tested: no promtool (Debian package prometheus)",
)


def queries() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of all alerts and panels."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$job", ".*")


def promtool(*words: str, cwd: Path) -> None:
    done = subprocess.run(["promtool", *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_configuration(tmp_path: Path) -> None:
    for name in ("relay", "node1", "node2", "node3"):
        (tmp_path / f"{name}-token").write_text("token")
    shutil.copy(PROMETHEUS / "alerts.yaml", tmp_path)
    text = (PROMETHEUS / "prometheus.yaml").read_text()
    (tmp_path / "prometheus.yaml").write_text(text.replace("/run/secrets", str(tmp_path)))
    promtool("check", "config", "--lint-fatal", "prometheus.yaml", cwd=tmp_path)


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", "alerts.test.yaml", cwd=PROMETHEUS)


def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    rests = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fires == rests == {rule["alert"] for rule in RULES}


@needs_promtool
def test_every_query_of_the_dashboard_parses(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:query{number}", "expr": expr}
        for number, (_, expr) in enumerate(queries())
    ]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": rules}]}))
    promtool("check", "rules", "all.yaml", cwd=tmp_path)


@pytest.mark.parametrize(("where", "expr"), list(queries()))
def test_a_query_asks_for_metrics_and_labels_that_exist(where: str, expr: str) -> None:
    bare = re.sub(r'"[^"]*"', '""', expr)
    selectors = re.sub(r"\b(?:by|on|without)\s*\([^)]*\)|\[[^]]*\]", "", bare)
    names = set(
        re.findall(r"(?<![\w{,.])[a-z][a-z_]*(?!\s*[=!]~?\")\b", re.sub(r"{[^}]*}", "", selectors))
    )
    metrics = names - WORDS
    assert metrics and metrics <= set(KNOWN), metrics - set(KNOWN)
    labels = {label for name in metrics for label in KNOWN[name]} | OF_PROMETHEUS
    asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", bare))
    for group in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", bare):
        asked |= {name.strip() for name in group.split(",")}
    assert asked <= labels, asked - labels


def test_a_rule_about_refusals_knows_which_are_harmless() -> None:
    (expr,) = [rule["expr"] for rule in RULES if rule["alert"] == "SapoRefusesEverything"]
    (reasons,) = re.findall(r'reason!~"([^"]*)"', expr)
    assert set(reasons.split("|")) == set(HARMLESS)


def test_values_of_labels_in_queries_are_such_as_occur() -> None:
    given = set(re.findall(r'(\w+)="([^"]*)"', " ".join(expr for _, expr in queries())))
    fates = {("fate", fate.value) for fate in ForeignFate}
    assert given <= fates | {("evaluation", "first"), ("evaluation", "last"), ("state", "fresh")}


def test_each_alert_says_what_and_where_and_is_explained() -> None:
    explained = (DEPLOY.parent / "docs" / "troubleshooting.md").read_text()
    for rule in RULES:
        assert "$labels.instance" in rule["annotations"]["summary"], rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert f"`{rule['alert']}`" in explained, rule["alert"]


def test_panels_lie_beside_and_below_each_other() -> None:
    places: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] >= 0 and at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & places, panel["title"]
        places |= cells


def test_panels_are_such_as_grafana_shows() -> None:
    for panel in PANELS:
        assert panel["type"] in ("timeseries", "stat") and panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"] and len({target["refId"] for target in panel["targets"]}) == len(
            panel["targets"]
        )


def test_the_dashboard_asks_the_source_that_is_provisioned() -> None:
    provisioned = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    )
    (source,) = provisioned["datasources"]
    asked = [panel["datasource"] for panel in PANELS]
    asked += [target["datasource"] for panel in PANELS for target in panel["targets"]]
    asked += [one["datasource"] for one in DASHBOARD["templating"]["list"]]
    assert all(one == {"type": source["type"], "uid": source["uid"]} for one in asked)
