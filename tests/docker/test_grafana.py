"""The provisioned dashboard reads metrics that the service has, from the data source that is provisioned."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.docker.conftest import collect_metrics, sample_names

Document = dict[str, Any]


def served_metrics() -> dict[str, set[str]]:
    """Return the service's own metrics, each with the names of the samples that it may have."""
    return {metric.name: sample_names(metric) for metric in collect_metrics() if metric.name.startswith("cogan_")}


def queries(dashboard: Document) -> Iterator[str]:
    """Yield every expression that the dashboard sends to Prometheus."""
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["query"]["query"] for variable in dashboard["templating"]["list"])


def sources(document: object) -> Iterator[Document]:
    """Yield every data source named anywhere in a dashboard."""
    if isinstance(document, dict):
        if isinstance(document.get("datasource"), dict):
            yield document["datasource"]
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            yield from sources(part)


def test_every_query_reads_metrics_that_the_service_has(dashboard: Document) -> None:
    """A renamed metric fails here, not as an empty graph."""
    served = set().union(*served_metrics().values())
    for query in queries(dashboard):
        names = set(re.findall(r"\bcogan_\w+", query))
        assert names, query
        assert names <= served, query


def test_every_metric_of_the_service_is_shown(dashboard: Document) -> None:
    """A new metric is given its place on the dashboard, at least by one of its parts."""
    shown = set(re.findall(r"\bcogan_\w+", " ".join(queries(dashboard))))
    missing = [name for name, samples in served_metrics().items() if not shown & samples]
    assert missing == []


def test_panels_have_their_own_numbers_and_places(dashboard: Document) -> None:
    """No two panels share an id or a square of the grid, and none leaves it."""
    panels = dashboard["panels"]
    assert max(Counter(panel["id"] for panel in panels).values()) == 1
    places = [panel["gridPos"] for panel in panels]
    squares: Counter[tuple[int, int]] = Counter()
    for place in places:
        assert place["x"] + place["w"] <= 24, place
        columns = range(place["x"], place["x"] + place["w"])
        squares.update(itertools.product(columns, range(place["y"], place["y"] + place["h"])))
    assert max(squares.values()) == 1


def test_queries_of_a_panel_have_their_own_letters(dashboard: Document) -> None:
    """Grafana tells the queries of a panel apart by their letter."""
    for panel in dashboard["panels"]:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters), panel["title"]


def test_every_panel_says_what_it_shows(dashboard: Document) -> None:
    """A panel has a title and a sentence under it."""
    assert all(panel["title"] and panel["description"].endswith(".") for panel in dashboard["panels"])


def test_the_dashboard_reads_the_provisioned_source(dashboard: Document, datasource: Document) -> None:
    """Every data source named in the dashboard is the one that is provisioned, by its uid."""
    wanted = {"type": datasource["type"], "uid": datasource["uid"]}
    named = list(sources(dashboard))
    assert named
    assert all(source == wanted for source in named)


def test_the_source_is_prometheus_in_the_compose_network(datasource: Document, compose: Document) -> None:
    """The data source's address is a service of the compose file."""
    host = re.fullmatch(r"http://(\w+):9090", datasource["url"])
    assert host
    assert compose["services"][host[1]]["image"].startswith("prom/prometheus:")


def test_grafana_finds_what_is_mounted(compose: Document, root: Path) -> None:
    """The folder of dashboards named by the provisioning is mounted there, and so is the home dashboard."""
    grafana = compose["services"]["grafana"]
    read_only = [mount.split(":") for mount in grafana["volumes"] if mount.endswith(":ro")]
    mounts = {target: root / source for source, target, _ in read_only}
    for part in ("datasources", "dashboards"):
        assert list(mounts[f"/etc/grafana/provisioning/{part}"].glob("*.yml"))
    provisioning = (root / "docker/grafana/provisioning/dashboards/cogan.yml").read_text()
    folder = re.search(r"path: (\S+)", provisioning)
    assert folder
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder[1]
    assert (mounts[folder[1]] / home.name).exists()
