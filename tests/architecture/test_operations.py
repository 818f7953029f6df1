"""docs/operations.md leaves nothing out: every setting, metric, status and code."""

from __future__ import annotations

import re
from pathlib import Path

from service.errors import OtherError, RequestError
from service.settings import Settings
from service.telemetry.metrics import Metrics

MANUAL = (Path(__file__).parents[2] / "docs/operations.md").read_text()


def _leaves(error: type[RequestError]) -> list[type[RequestError]]:
    return [leaf for child in error.__subclasses__() for leaf in (child, *_leaves(child))]


def test_every_setting_has_its_purpose() -> None:
    """A new setting is given its place among the purposes."""
    assert [name for name in Settings.model_fields if f"`COGAN_{name.upper()}`" not in MANUAL] == []


def test_every_metric_has_its_meaning_and_no_other() -> None:
    """The manual has the metrics that /metrics has."""
    described = set(re.findall(r"`(cogan_[a-z_]+)`", MANUAL))
    metrics = Metrics()
    metrics.watch_models(list, int, bool)
    families = [family for family in metrics.collect() if family.name.startswith("cogan_")]
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert described == names


def test_every_status_says_what_to_do() -> None:
    """Each error of the service is in a line with its status."""
    rows = [line.split("|") for line in MANUAL.splitlines() if line.startswith("| ")]
    for error in _leaves(RequestError):
        status = "any" if error is OtherError else str(error.status)
        found = [row for row in rows if f"`{error.code}`" in row[2] and status in row[1]]
        assert found, (error.status, error.code)
