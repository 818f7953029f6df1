"""The container's command as SageMaker, Vertex AI and Hugging Face start it: their arguments, variables, ports, paths.

Each service runs in a network and a file system of its own, where ports 8000 and 8080 and /opt/ml/model are free.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import SpaceCard

from service.api.clouds import PREDICT, adopt_platform
from service.errors import SettingsError
from service.settings import Settings
from service.supervisor import GRACE_S
from tests.conftest import write_model
from tests.running import START, killed

ROOT = Path(__file__).parents[3]
TOOLS = ("unshare", "nsenter", "ip", "curl")
ISOLATED = [
    *["unshare", "--map-root-user", "--net", "--mount", "sh", "-c"],
    'ip link set lo up; eval "$1"; shift; exec "$@"',
    "-",
]
UNPACK = "mount -t tmpfs none /opt && mkdir -p /opt/ml && cp -r {} /opt/ml/model"
VERTEX = {  # as in Vertex AI's "Custom container requirements"
    "AIP_MODE": "PREDICTION",
    "AIP_MODE_VERSION": "1.0.0",
    "AIP_FRAMEWORK": "CUSTOM_CONTAINER",
    "AIP_PROJECT_NUMBER": "123",
    "AIP_ENDPOINT_ID": "456",
    "AIP_DEPLOYED_MODEL_ID": "789",
    "AIP_HTTP_PORT": "8080",
    "AIP_HEALTH_ROUTE": "/v1/endpoints/456/deployedModels/789",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/456/deployedModels/789:predict",
}
SPACE = {"SPACE_ID": "somebody/cogan", "SPACE_HOST": "somebody-cogan.hf.space", "SYSTEM": "spaces"}


def can_isolate() -> bool:
    """Say whether this machine lets a process have a network of its own."""
    if any(shutil.which(tool) is None for tool in TOOLS) or Path(sys.executable).resolve().is_relative_to("/opt"):
        return False
    return subprocess.run([*ISOLATED, "true", "true"], capture_output=True, check=False).returncode == 0


isolated = pytest.mark.skipif(not can_isolate(), reason="no network and file system of its own for a process here")


class Container:
    """A service with the variables of the image and of the platform, and its answers to requests from within."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self._port = process, port

    def ask(self, path: str, body: Any = None, *options: str) -> tuple[int, dict[str, str], bytes]:
        """Send a request to its port; return status, headers and body. Status 0: nobody answers."""
        given = [] if body is None else ["-H", "Content-Type: application/json", "--data", json.dumps(body)]
        command = ["nsenter", "-t", str(self.process.pid), "-U", "-n", "--preserve-credentials", "curl", "-s", "-i"]
        url = f"http://127.0.0.1:{self._port}{path}"
        answer = subprocess.run([*command, *given, *options, url], capture_output=True, check=False).stdout
        head, _, content = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(status.split()[1]) if status else 0, headers, content

    def wait_until(self, path: str) -> None:
        """Wait until a path answers 200."""
        end = time.monotonic() + START
        while self.ask(path)[0] != 200:
            assert time.monotonic() < end
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.1)


@pytest.fixture
def contain(tmp_path: Path) -> Iterator[Callable[..., Container]]:
    """Return what starts the container's command; the image has the model `tiny`."""
    write_model(tmp_path / "image")
    image = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "COGAN_HOST": "0.0.0.0", "COGAN_MODELS_DIR": f"{tmp_path}/image"}
    started = []

    def start(variables: Mapping[str, str], port: int, *arguments: str, before: str = "true") -> Container:
        command = [*ISOLATED, before, sys.executable, "-m", "service", *arguments]
        process = subprocess.Popen(command, env=image | dict(variables), cwd=ROOT, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return Container(process, port)

    yield start
    for process in started:
        with killed(process):
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=START)


def seconds_of_ping(service: Container) -> float:
    """Return how long the answer of /ping takes."""
    asked = time.monotonic()
    assert service.ask("/ping")[0] == 200
    return time.monotonic() - asked


@isolated
def test_sagemaker(contain: Callable[..., Container], tmp_path: Path) -> None:
    """Its argument, port, routes and model folder; SIGTERM ends it within 30 s, and what was accepted is answered."""
    write_model(tmp_path / "archive", name="archived")
    service = contain({}, 8080, "serve", before=UNPACK.format(tmp_path / "archive"))
    service.wait_until("/ping")
    assert any(seconds_of_ping(service) < 2 for _ in range(5))  # a busy machine may halt one
    status, _, answer = service.ask("/invocations", {"seed": 7})
    assert (status, json.loads(answer)["model"]) == (200, "archived")
    status, headers, sheet = service.ask("/invocations", {"seed": 7}, "-H", "Accept: image/png")
    assert (status, headers["content-type"], sheet[:4]) == (200, "image/png", b"\x89PNG")
    assert sheet == service.ask("/generate?seed=7&format=png")[2]
    assert service.ask("/invocations", {"seed": -1})[0] == 422
    answers = list[int]()
    clients = [
        threading.Thread(target=lambda n=n: answers.append(service.ask("/invocations", {"seed": n})[0]))
        for n in range(8)
    ]
    for client in clients:
        client.start()
    service.process.terminate()
    told = time.monotonic()
    assert service.process.wait(30) == 0
    assert time.monotonic() - told < 30
    for client in clients:
        client.join()
    assert set(answers) <= {200, 0}  # 0: not yet connected


@isolated
def test_sagemaker_without_an_archive(contain: Callable[..., Container]) -> None:
    """Without a model of its own an endpoint serves what is in the image."""
    service = contain({}, 8080, "serve")
    service.wait_until("/ping")
    assert json.loads(service.ask("/invocations", {"seed": 7})[2])["model"] == "tiny"


def test_the_longest_stop_is_within_sagemakers_30_s() -> None:
    """By default a supervisor kills what has not stopped by then."""
    fields = Settings.model_fields
    assert fields["drain_delay_s"].default + fields["deadline_s"].default + GRACE_S < 30


@isolated
def test_vertex_ai(contain: Callable[..., Container], tmp_path: Path) -> None:
    """Its port, routes and URL of models; each instance is a request of /generate, answered in order."""
    write_model(tmp_path / "store", name="stored")
    service = contain(VERTEX | {"AIP_STORAGE_URI": f"file://{tmp_path}/store"}, 8080)
    service.wait_until(VERTEX["AIP_HEALTH_ROUTE"])
    instances = [{"seed": 7}, {"seeds": [1, 2], "domains": ["edge"]}]
    status, headers, body = service.ask(VERTEX["AIP_PREDICT_ROUTE"], {"instances": instances})
    assert (status, headers["content-type"]) == (200, "application/json")
    assert list(json.loads(body)) == ["predictions"]
    assert json.loads(body)["predictions"] == [json.loads(service.ask("/generate", one)[2]) for one in instances]
    assert json.loads(body)["predictions"][0]["model"] == "stored"
    service.process.terminate()
    assert service.process.wait(START) == 0


@isolated
def test_a_space_of_hugging_face(contain: Callable[..., Container]) -> None:
    """The port of its front matter, and the hub's page may show it in a frame."""
    card = SpaceCard.load(ROOT / "docker/space/README.md")
    assert (card.data.sdk, card.data.license) == ("docker", "mit")
    service = contain(SPACE, card.data.app_port)
    service.wait_until("/readyz")
    status, headers, _ = service.ask("/generate?seed=7")
    assert status == 200
    assert headers["content-security-policy"] == "frame-ancestors https://huggingface.co"
    assert "x-frame-options" not in headers


@pytest.fixture
def vertex(connect: Callable[..., httpx.AsyncClient], tiny_model: Callable[..., Path]) -> httpx.AsyncClient:
    """Return a client of an app with Vertex AI's prediction route."""
    tiny_model()
    return connect(aliases=f"/p={PREDICT}", max_pairs=4, max_frames=4)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("instances", "status", "pointer"),
    [
        ([], 422, "/instances"),
        ([{"seed": 1}, {"seed": -1}], 422, "/instances/1/seed"),
        ([{"seed": 1}, {"model": "other"}], 404, "/instances/1/model"),
        ([{"seed": 1, "format": "png"}], 422, "/instances/0/format"),
        ([{"seed": 1, "count": 5}], 413, "/instances/0/count"),
        ([{"seed": 1, "count": 3}, {"seed": 2, "count": 2}], 413, "/instances"),
        ([{"latents": [[0.0] * 8] * 5}], 413, "/instances"),
    ],
)
async def test_a_wrong_instance_is_named(
    vertex: httpx.AsyncClient, instances: list[Any], status: int, pointer: str
) -> None:
    """Errors are those of /generate, with the place of the instance; all together have its limits."""
    async with vertex:
        answer = await vertex.post("/p", json={"instances": instances})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (status, pointer)


@pytest.mark.anyio
async def test_parameters_are_refused_rather_than_ignored(vertex: httpx.AsyncClient) -> None:
    """Clients send null or an empty object if there are none."""
    async with vertex:
        for parameters in (None, dict[str, Any]()):
            body = {"instances": [{"seed": 1}], "parameters": parameters}
            assert (await vertex.post("/p", json=body)).status_code == 200
        wrong = await vertex.post("/p", json={"instances": [{"seed": 1}], "parameters": {"truncation": 0.5}})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/parameters")


@pytest.mark.anyio
async def test_an_alias_is_its_route(
    connect: Callable[..., httpx.AsyncClient], tiny_model: Callable[..., Path]
) -> None:
    """Health needs no key under any path, images need one under each, and without aliases the paths are unknown."""
    tiny_model()
    key = "a-key-of-sixteen-characters"
    async with connect(aliases="/ping=/readyz,/invocations=/generate", api_keys=key) as client:
        assert (await client.get("/ping")).status_code == 200
        assert (await client.post("/invocations", json={"seed": 1})).status_code == 401
        given = {"X-API-Key": key}
        assert (await client.post("/invocations", json={"seed": 1}, headers=given)).status_code == 200
    async with connect(aliases="/api/v1/pairs=/generate") as client:
        random = await client.post("/api/v1/pairs", json={})
        again = await client.get(random.url.join(random.headers["content-location"]))
        assert (again.status_code, again.json()) == (200, random.json())
    async with connect() as client:
        assert (await client.get("/ping")).status_code == 404
        assert (await client.post(PREDICT, json={"instances": [{}]})).status_code == 404


@pytest.mark.parametrize("settings", [{"aliases": "/ping=/ready"}, {"aliases": "/ping=/readyz", "health_port": 0}])
def test_an_alias_of_no_route_is_refused(
    connect: Callable[..., httpx.AsyncClient], settings: dict[str, object]
) -> None:
    """A misspelt route, and one of the health port, would be a path that is never found."""
    with pytest.raises(SettingsError, match=r"COGAN_ALIASES = '/ping=/readyz?': there is no route"):
        connect(**settings)


def test_an_alias_takes_no_routes_place(connect: Callable[..., httpx.AsyncClient]) -> None:
    """A route would be gone under its own path; that path itself may be named, as platforms do."""
    with pytest.raises(
        SettingsError, match=r"'/generate=/translate': '/generate' is a route itself; allowed is a path"
    ):
        connect(aliases="/generate=/translate")
    connect(aliases="/readyz=/readyz")


def test_what_is_set_by_hand_stays() -> None:
    """A platform's variables fill in what the container's owner has left open."""
    environment = {"AIP_HTTP_PORT": "8081", "COGAN_PORT": "9000"} | VERTEX
    adopt_platform(None, environment)
    assert environment["COGAN_PORT"] == "9000"
    assert environment["COGAN_ALIASES"].startswith(f"{VERTEX['AIP_HEALTH_ROUTE']}=/readyz,")


@pytest.mark.parametrize("path", ["", "no-slash", "/a,b", "/a=b"])
def test_a_wrong_route_is_named(path: str) -> None:
    """The error has the variable, its value and what is allowed."""
    with pytest.raises(SettingsError, match=rf"AIP_HEALTH_ROUTE = '{path}': allowed is a path that begins with '/'"):
        adopt_platform(None, VERTEX | {"AIP_HEALTH_ROUTE": path})
