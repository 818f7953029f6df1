"""The alerts watch metrics that the service has, and Prometheus takes them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docker.conftest import collect_metrics, read_yaml, sample_names

Document = dict[str, Any]
OF_PROMETHEUS = {"up"}


@pytest.fixture
def rules(root: Path) -> list[Document]:
    """Return the alerts."""
    groups = read_yaml(root / "docker/prometheus/alerts.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def served_samples() -> set[str]:
    """Return the names of all samples that /metrics may have."""
    return {name for metric in collect_metrics() for name in sample_names(metric)}


def test_every_alert_watches_metrics_that_there_are(rules: list[Document]) -> None:
    """A renamed metric fails here, not as an alert that never comes."""
    served = served_samples() | OF_PROMETHEUS
    for rule in rules:
        names = set(re.findall(r"\b(?:cogan|process)_\w+|\bup\b", rule["expr"]))
        assert names, rule["alert"]
        assert names <= served, rule["alert"]


def test_every_label_and_reason_is_one_that_there_is(rules: list[Document]) -> None:
    """An alert on a label that no sample has is as silent as one on no metric."""
    samples = [sample for metric in collect_metrics() for sample in metric.samples]
    known = {label for sample in samples for label in sample.labels} | {"job", "instance"}
    reasons = {sample.labels["reason"] for sample in samples if sample.name == "cogan_rejected_total"} | {"up"}
    for rule in rules:
        for selector in re.findall(r"\{([^}]*)\}", rule["expr"]):
            labels = dict(re.findall(r'(\w+)[=!~]+"([^"]*)"', selector))
            assert labels.keys() <= known, rule["alert"]
            assert set(labels.get("reason", "up").split("|")) <= reasons, rule["alert"]


def test_every_alert_says_how_urgent_it_is_and_what_it_means(rules: list[Document], root: Path) -> None:
    """Whoever is woken reads a sentence, and finds the alert in docs/operations.md."""
    manual = (root / "docs/operations.md").read_text()
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in manual


def test_prometheus_reads_them_where_they_are_mounted(compose: Document, root: Path) -> None:
    """The file named by the configuration is mounted beside it."""
    config = read_yaml(root / "docker/prometheus/prometheus.yml")
    mounts = [mount.split(":")[:2] for mount in compose["services"]["prometheus"]["volumes"]]
    for name in config["rule_files"]:
        assert [f"./docker/prometheus/{name}", f"/etc/prometheus/{name}"] in mounts


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Prometheus' own checker."""
    command = ["promtool", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")


@needs_promtool
@pytest.mark.parametrize("values", ["_x5 1x40", "0x5 1x40", "7x5 8x40"])
def test_the_first_defect_of_a_route_is_told(root: Path, tmp_path: Path, values: str) -> None:
    """The count of a route may begin with it; and an old one is told no more."""
    labels = {"severity": "ticket", "instance": "a", "route": "/generate"}
    summary = "/generate failed; the log has the cause at level error"
    alert = {"exp_labels": labels, "exp_annotations": {"summary": summary}}
    series = 'cogan_http_requests_total{code="500", instance="a", route="/generate"}'
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values}],
        "alert_rule_test": [
            {"alertname": "CoganDefect", "eval_time": "7m", "exp_alerts": [alert]},
            {"alertname": "CoganDefect", "eval_time": "30m", "exp_alerts": []},
        ],
    }
    rules, file = root / "docker/prometheus/alerts.yml", tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(rules)], "tests": [test]}))
    run = promtool("test", "rules", str(file))
    assert run.returncode == 0, run.stdout + run.stderr


@needs_promtool
def test_promtool_accepts_them(root: Path) -> None:
    """Prometheus' own checker takes the configuration with its rules."""
    checked = promtool("check", "config", str(root / "docker/prometheus/prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert re.search(r"SUCCESS: \d+ rules found", checked.stdout)
