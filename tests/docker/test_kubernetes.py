"""The Kubernetes manifests fit the image, the service's settings and one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

Document = dict[str, Any]


@pytest.fixture
def manifests(root: Path) -> dict[str, Document]:
    """Return the manifests by their kind."""
    documents = yaml.safe_load_all((root / "docker/kubernetes/cogan.yaml").read_text())
    return {document["kind"]: document for document in documents}


@pytest.fixture
def pod(manifests: dict[str, Document]) -> Document:
    """Return what the deployment says of a pod."""
    return dict(manifests["Deployment"]["spec"]["template"])


def test_a_pod_runs_as_the_user_of_the_image(pod: Document, root: Path) -> None:
    """The pod's user is the image's, it is not root, and its file system is read-only."""
    context = pod["spec"]["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in (root / "Dockerfile").read_text()
    assert context["runAsNonRoot"] is True
    (container,) = pod["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_probes_ask_what_they_mean(pod: Document) -> None:
    """Traffic waits for readiness; after the start only a process that is stuck is a reason to restart."""
    (container,) = pod["spec"]["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert asked == {"startup": "/livez", "readiness": "/readyz", "liveness": "/livez"}


def test_settings_exist_and_leave_time_to_finish(pod: Document) -> None:
    """The variables are fields of the settings, and a pod is killed only after drain delay and deadline."""
    (container,) = pod["spec"]["containers"]
    chosen = {entry["name"].removeprefix("COGAN_").lower(): entry["value"] for entry in container["env"]}
    assert chosen.keys() <= Settings.model_fields.keys()
    settings = Settings.model_validate(chosen)
    assert pod["spec"]["terminationGracePeriodSeconds"] > settings.drain_delay_s + settings.deadline_s


def test_no_variable_is_made_from_the_service_name(pod: Document) -> None:
    """Kubernetes would set COGAN_PORT=tcp://... for a Service named cogan."""
    assert pod["spec"]["enableServiceLinks"] is False


def test_the_parts_name_one_another(manifests: dict[str, Document], pod: Document) -> None:
    """The Service and the deployment select the pods by their labels; the autoscaler names the deployment."""
    labels = pod["metadata"]["labels"]
    deployment = manifests["Deployment"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert manifests["Service"]["spec"]["selector"] == labels
    target = manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"]
