"""The service on a real Ray cluster of this machine: two replicas, one killed under load (`make test-ray`)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import write_model
from tests.running import services

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_S = 240.0  # of a cluster, on a busy machine
CLIENTS = 8
TURNS = 200_000  # some 0.2 s a request, so that a replica under load is always at work
VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # all of it on the loopback address
PAIR = "/generate?seed={}&format=png"

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Cluster:
    """A head node that serves; its URLs, and the folder of models."""

    url: str
    metrics_url: str
    models: Path

    @property
    def replicas(self) -> list[int]:
        """Process ids of the replicas; those of other clusters have other models in their environment."""
        mark, found = f"COGAN_MODELS_DIR={self.models}".encode(), []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica"):
                    found += [int(folder.name)] if mark in (folder / "environ").read_bytes().split(b"\0") else []
        return found


def free_ports(number: int) -> list[int]:
    """Return ports that nobody has."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


def eventually(holds: Callable[[], bool], seconds: float = START_S) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def is_ready(url: str) -> bool:
    """Say whether a service answers that it is ready."""
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz", timeout=10).is_success
    return False


@contextmanager
def head_node(folder: Path, models: Path, dashboard: int, metrics: int) -> Iterator[None]:
    """Run `ray start --head` on the loopback address, and end all that it has started."""
    options = {"node-ip-address": "127.0.0.1", "port": free_ports(1)[0], "temp-dir": folder, "num-cpus": 4}
    options |= {"dashboard-host": "127.0.0.1", "dashboard-port": dashboard, "metrics-export-port": metrics}
    options |= {"include-dashboard": True, "object-store-memory": 100 * 2**20}
    paths = os.pathsep.join([str(ROOT / "docker/ray"), str(ROOT)])
    environment = os.environ | VARIABLES | {"PYTHONPATH": paths, "COGAN_MODELS_DIR": str(models)}
    command = [
        str(BIN / "ray"),
        "start",
        "--head",
        "--block",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
        finally:
            process.terminate()  # with --block it ends every process of the node
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Deploy docker/ray/config.yaml: two replicas of the tiny model, on ports of their own."""
    with tempfile.TemporaryDirectory(prefix="ray-") as name:  # short: it holds sockets
        folder = Path(name)
        models = folder / "models"
        write_model(models, turns=TURNS)
        port, dashboard, metrics = free_ports(3)
        config = yaml.safe_load((ROOT / "docker/ray/config.yaml").read_text())
        config["http_options"] |= {"host": "127.0.0.1", "port": port}
        (application,) = config["applications"]
        application["runtime_env"]["env_vars"] |= {"COGAN_MODELS_DIR": str(models), "COGAN_CACHE_BYTES": "0"}
        application["deployments"][0]["autoscaling_config"]["max_replicas"] = 2
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        found = Cluster(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics}", models)
        with head_node(folder / "t", models, dashboard, metrics):
            address = f"http://127.0.0.1:{dashboard}"
            deploy = [str(BIN / "serve"), "deploy", str(folder / "config.yaml"), "--address", address]
            environment = os.environ | VARIABLES
            eventually(lambda: subprocess.run(deploy, env=environment, check=False).returncode == 0)
            eventually(lambda: len(found.replicas) == 2 and is_ready(found.url))
            yield found


def test_it_answers_what_the_service_answers(cluster: Cluster) -> None:
    """Bytes and ETag are those of a process without Ray, and a GET with that ETag gets 304."""
    with services(cluster.models) as start:
        url = start().url
        for seed in range(4):
            alone, here = (httpx.get(base + PAIR.format(seed)) for base in (url, cluster.url))
            assert here.status_code == 200, here.text
            assert (here.content, here.headers["etag"]) == (alone.content, alone.headers["etag"])
    again = httpx.get(cluster.url + PAIR.format(0), headers={"If-None-Match": here.headers["etag"]})
    assert again.status_code == 200
    unchanged = httpx.get(cluster.url + PAIR.format(3), headers={"If-None-Match": here.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


def test_errors_are_the_services_own(cluster: Cluster) -> None:
    """A wrong request is answered with a problem that names the field, and model control is off."""
    wrong = httpx.post(f"{cluster.url}/generate", json={"seed": -1})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/seed")
    assert httpx.post(f"{cluster.url}/v2/repository/models/tiny/unload").status_code == 404


def test_the_metrics_of_every_replica_are_exported(cluster: Cluster) -> None:
    """Through the proxy one replica's are seen; Ray's own port has those of both, by the label `replica`."""

    def replicas() -> set[str]:
        families = text_string_to_metric_families(httpx.get(f"{cluster.metrics_url}/metrics").text)
        samples = (sample for family in families for sample in family.samples)
        return {sample.labels["replica"] for sample in samples if sample.name == "ray_cogan_model_info"}

    eventually(lambda: len(replicas()) == 2)


def test_a_new_version_is_served_by_every_replica(cluster: Cluster) -> None:
    """The health check looks at the models folder, so that no deployment is needed."""
    write_model(cluster.models, version="2", turns=TURNS)

    def served() -> set[str]:
        answers = [httpx.post(f"{cluster.url}/generate", json={"seed": 1}).json() for _ in range(20)]
        return {answer["version"] for answer in answers}

    eventually(lambda: served() == {"2"})


def test_a_replica_is_killed_under_load(cluster: Cluster) -> None:
    """What it was computing is lost, at most a request of each client; all else has the same bytes as ever."""
    expected = [httpx.get(cluster.url + PAIR.format(seed)).content for seed in range(4)]
    lost, answered, stop = list[str](), list[int](), threading.Event()

    def ask(first: int) -> None:
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            for number in iter(lambda: first + CLIENTS * len(answered), None):
                if stop.is_set():
                    return
                answer = client.get(PAIR.format(number % 4))
                if answer.status_code == 200:
                    assert answer.content == expected[number % 4]
                    answered.append(number)
                else:
                    lost.append(f"{answer.status_code} {answer.text:.200}")

    before = set(cluster.replicas)
    clients = [threading.Thread(target=ask, args=(first,)) for first in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        eventually(lambda: len(answered) > 30)
        os.kill(min(before), signal.SIGKILL)
        eventually(lambda: len(cluster.replicas) == 2 and set(cluster.replicas) != before)
        done = len(answered)
        eventually(lambda: len(answered) > done + 30)
    finally:
        stop.set()
        for client in clients:
            client.join()
    print(f"{len(answered)} answered, {len(lost)} lost: {lost}")
    assert len(lost) <= CLIENTS
    assert all(line.startswith("500 ") for line in lost)
