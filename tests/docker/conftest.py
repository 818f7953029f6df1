"""What the tests of the container files read: the files themselves, parsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


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
    document = yaml.safe_load(path.read_text())
    assert isinstance(document, dict), path
    return document
