"""What the tests of the container files read: the files themselves, parsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Metric

from service.telemetry.metrics import Metrics, ServedModel

ROOT = Path(__file__).parents[2]
PARTS = {
    "counter": ["_total"],
    "histogram": ["_bucket", "_count", "_sum"],
    "summary": ["_count", "_sum"],
    "gauge": [""],
}


class ComposeLoader(yaml.SafeLoader):
    """Reads compose files, whose tag !reset drops what the file below says."""


ComposeLoader.add_constructor("!reset", lambda *_: None)


def collect_metrics() -> list[Metric]:
    """Return the metrics of a process that has served a request of each kind."""
    metrics = Metrics()
    metrics.watch_models(lambda: [ServedModel("m", "1", "sha256:0", "cpu", 0.1)], lambda: 0, lambda: True)
    metrics.requests.labels("/generate", "GET", 200).inc()
    metrics.of_model("m", "1").ran(1, 0.1, "cpu")
    return list(metrics.collect())


def sample_names(metric: Metric) -> set[str]:
    """Return the names of the samples that a metric may have."""
    return {metric.name + part for part in PARTS.get(metric.type, ())}


@pytest.fixture
def root() -> Path:
    """Return the repository's root, which every path in the container files is relative to."""
    return ROOT


@pytest.fixture
def compose() -> dict[str, Any]:
    """Return docker-compose.yml, parsed."""
    return read_yaml(ROOT / "docker-compose.yml")


@pytest.fixture
def gpu_compose() -> dict[str, Any]:
    """Return the override for GPUs, parsed."""
    return read_yaml(ROOT / "docker-compose.gpu.yml")


@pytest.fixture
def proxy_compose() -> dict[str, Any]:
    """Return the override with a proxy, parsed."""
    return read_yaml(ROOT / "docker-compose.proxy.yml")


@pytest.fixture
def scrape_config() -> dict[str, Any]:
    """Return the job of Prometheus that scrapes the service."""
    config = read_yaml(ROOT / "docker/prometheus/prometheus.yml")
    (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "cogan")
    return dict(job)


@pytest.fixture
def datasource() -> dict[str, Any]:
    """Return Grafana's only data source."""
    (source,) = read_yaml(ROOT / "docker/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    return dict(source)


@pytest.fixture
def dashboard() -> dict[str, Any]:
    """Return the dashboard, parsed."""
    return dict(json.loads((ROOT / "docker/grafana/dashboards/cogan.json").read_text()))


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse a file that holds one mapping."""
    document = yaml.load(path.read_text(), ComposeLoader)
    assert isinstance(document, dict), path
    return document
