"""The Kubernetes manifests fit their schemas, the image, the service's settings and one another."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import CliApp

from service.settings import Settings
from service.synthesize import Synthesis
from tests.docker.conftest import collect_metrics, sample_names
from tests.docker.schemas import Document, validate

FOLDER = Path(__file__).parents[2] / "docker/kubernetes"
FILES = sorted(FOLDER.rglob("*.yaml"))


def read(name: str) -> dict[str, Document]:
    """Return the documents of a file by their kind."""
    return {document["kind"]: document for document in yaml.safe_load_all((FOLDER / name).read_text())}


def containers(document: Any) -> list[Document]:
    """Return all containers that a document describes, at whatever depth."""
    if isinstance(document, list):
        return [found for item in document for found in containers(item)]
    if not isinstance(document, dict):
        return []
    own = [*document.get("containers", ()), *document.get("initContainers", ())]
    return [*own, *(found for item in document.values() for found in containers(item))]


@pytest.fixture
def base() -> dict[str, Document]:
    """Return what every cluster gets, by kind."""
    return read("base/cogan.yaml")


@pytest.fixture
def pod(base: dict[str, Document]) -> Document:
    """Return what the deployment says of a pod."""
    return dict(base["Deployment"]["spec"]["template"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_every_manifest_is_valid(file: Path, tmp_path: Path) -> None:
    """Those who define a kind accept the manifest, and it has no field that they do not know."""
    documents = list(yaml.safe_load_all(file.read_text()))
    assert documents
    for document in documents:
        validate(document, tmp_path)


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("base/cogan.yaml", ["Deployment", "spec", "template", "spec"]),
        ("autoscale-keda/autoscaler.yaml", ["ScaledObject", "spec", "advanced"]),
        ("monitoring/monitor.yaml", ["ServiceMonitor", "spec", "selector"]),
        ("kserve/runtime.yaml", ["ServingRuntime", "spec"]),
        ("kserve/service.yaml", ["InferenceService", "spec", "predictor", "model"]),
    ],
)
def test_a_field_that_does_not_exist_is_refused(file: str, path: list[str], tmp_path: Path) -> None:
    """A misspelt field would be dropped by a cluster without a word."""
    documents = copy.deepcopy(read(file))
    place: Any = documents
    for name in path:
        place = place[name]
    place["misspelt"] = 1
    with pytest.raises(AssertionError):
        validate(documents[path[0]], tmp_path)


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("kustomization.yaml")), ids=lambda file: file.parent.name)
def test_a_kustomization_names_what_exists(file: Path) -> None:
    """Its resources are files beside it, or folders with a kustomization of their own."""
    for resource in yaml.safe_load(file.read_text())["resources"]:
        path = file.parent / resource
        assert path.is_file() or (path / "kustomization.yaml").is_file(), resource


def test_one_autoscaler_at_a_time() -> None:
    """Two would fight over the number of replicas: each overlay has its own, and the base has none."""
    overlays = {file.parent.name for file in FILES if "scaleTargetRef" in file.read_text()}
    assert overlays == {"autoscale-cpu", "autoscale-keda"}
    for overlay in overlays:
        (target,) = (document["spec"]["scaleTargetRef"] for document in read(f"{overlay}/autoscaler.yaml").values())
        assert target["name"] == read("base/cogan.yaml")["Deployment"]["metadata"]["name"]
        assert target.get("kind", "Deployment") == "Deployment"


def test_a_pod_runs_as_the_user_of_the_image(pod: Document, root: Path) -> None:
    """The pod's user is the image's, it is not root, and its file systems are read-only."""
    context = pod["spec"]["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in (root / "Dockerfile").read_text()
    assert context["runAsNonRoot"] is True
    for container in containers(pod):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_probes_ask_what_they_mean(pod: Document) -> None:
    """Traffic waits for readiness; after the start only a process that is stuck is a reason to restart."""
    (container,) = pod["spec"]["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert asked == {"startup": "/livez", "readiness": "/readyz", "liveness": "/livez"}


def test_settings_exist_in_every_manifest() -> None:
    """A COGAN_ variable is a field of the settings, and its value is allowed."""
    chosen = [container.get("env", ()) for file in FILES for container in containers(list(read_all(file)))]
    assert len(chosen) >= 2
    for variables in chosen:
        names = {entry["name"].removeprefix("COGAN_").lower() for entry in variables}
        assert names <= Settings.model_fields.keys()
        Settings.model_validate(
            {e["name"].removeprefix("COGAN_").lower(): e["value"] for e in variables if "value" in e}
        )


def read_all(file: Path) -> list[Document]:
    """Return all documents of a file."""
    return list(yaml.safe_load_all(file.read_text()))


def test_a_pod_has_time_to_finish(pod: Document) -> None:
    """A pod is killed only after drain delay and deadline."""
    (container,) = pod["spec"]["containers"]
    chosen = {entry["name"].removeprefix("COGAN_").lower(): entry.get("value") for entry in container["env"]}
    deadline = Settings.model_fields["deadline_s"].default
    assert pod["spec"]["terminationGracePeriodSeconds"] > float(chosen["drain_delay_s"]) + deadline


def test_no_variable_is_made_from_the_service_name(pod: Document) -> None:
    """Kubernetes would set COGAN_PORT=tcp://... for a Service named cogan."""
    assert pod["spec"]["enableServiceLinks"] is False
    assert read("kserve/service.yaml")["InferenceService"]["spec"]["predictor"]["enableServiceLinks"] is False


def test_the_parts_name_one_another(base: dict[str, Document], pod: Document) -> None:
    """Everything that selects pods selects them by their labels, and the monitor selects the Service."""
    labels = pod["metadata"]["labels"]
    deployment = base["Deployment"]["spec"]
    assert deployment["selector"]["matchLabels"] == labels
    assert base["Service"]["spec"]["selector"] == labels
    assert base["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert base["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    for spread in pod["spec"]["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"] == labels
    monitor = read("monitoring/monitor.yaml")["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"] == base["Service"]["metadata"]["labels"]
    assert monitor["endpoints"][0]["port"] == base["Service"]["spec"]["ports"][0]["name"]
    assert "replicas" not in deployment


def test_what_the_autoscaler_asks_for_exists() -> None:
    """Its queries name metrics of the service, and busy threads are a share of those that a pod has."""
    metric_names = {name for metric in collect_metrics() for name in sample_names(metric)}
    triggers = read("autoscale-keda/autoscaler.yaml")["ScaledObject"]["spec"]["triggers"]
    for trigger in triggers:
        named = set(re.findall(r"cogan_\w+", trigger["metadata"]["query"]))
        assert named
        assert named <= metric_names
    (pod_cpus,) = (
        int(container["resources"]["limits"]["cpu"])
        for container in read("base/cogan.yaml")["Deployment"]["spec"]["template"]["spec"]["containers"]
    )
    assert float(triggers[0]["metadata"]["threshold"]) == pytest.approx(0.7 * pod_cpus)


def test_the_parts_of_an_indexed_job_are_all_shards(root: Path) -> None:
    """Each pod makes the part of its index, of as many as there are, by a command that the service knows."""
    job = yaml.safe_load((root / "docker/kubernetes/synthesize.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed"
    own = set[int]()
    for index in range(spec["completions"]):
        script = container["command"][-1].replace("exec python -m service.synthesize", "printf '%s\\n'")
        command = subprocess.run(
            ["sh", "-c", script], env={"JOB_COMPLETION_INDEX": str(index)}, capture_output=True, text=True, check=True
        )
        synthesis = CliApp.run(Synthesis, command.stdout.split())
        assert not own & set(synthesis.own)
        own |= set(synthesis.own)
    assert own == set(synthesis.numbers)
    assert synthesis.to == container["volumeMounts"][0]["mountPath"]
    assert pod["volumes"][0]["name"] == container["volumeMounts"][0]["name"]
