"""The clients of Triton, KServe and MLServer work as they are."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient as Client

from service.engine.onnx_model import OnnxModel
from service.http.access import BINARY_HEADER
from tests.conftest import LATENT_DIM, write_model
from tests.running import Service, services

LATENTS = np.random.default_rng(5).normal(size=(3, LATENT_DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one model of three domains."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, ("digit", "edge", "ink"))
    return folder


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[Client]:
    """Return Triton's client, of up to four connections, of one running service of these models, with model control."""
    with services(models) as start, Client(address(start(model_control=True)), concurrency=4) as client:
        yield client


def address(service: Service) -> str:
    """Return host and port."""
    return str(service.url).removeprefix("http://")


def latent(values: Any = LATENTS, binary: bool = True) -> triton.InferInput:
    """Make Triton's input."""
    tensor = triton.InferInput("latent", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def test_triton_reads_health_and_metadata(client: Client) -> None:
    """A client learns from the service alone what to send and what to expect."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("nobody")
    server = client.get_server_metadata()
    assert (server["name"], "model_configuration" in server["extensions"]) == ("cogan", True)
    assert client.get_model_metadata("tiny") == {
        "name": "tiny",
        "versions": ["1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "latent", "datatype": "FP32", "shape": [-1, LATENT_DIM]}],
        "outputs": [
            {"name": "digit", "datatype": "UINT8", "shape": [-1, 8, 6, 1]},
            {"name": "edge", "datatype": "UINT8", "shape": [-1, 10, 9, 3]},
            {"name": "ink", "datatype": "UINT8", "shape": [-1, 12, 12, 1]},
        ],
    }


def test_triton_reads_the_configuration(client: Client) -> None:
    """The configuration has what Triton's load generators read: a batch size, and tensors without the batch axis."""
    for config in (client.get_model_config("tiny"), client.get_model_config("tiny", "1")):
        assert (config["name"], config["platform"], config["max_batch_size"]) == ("tiny", "onnxruntime_onnx", 64)
        assert config["input"] == [{"name": "latent", "data_type": "TYPE_FP32", "dims": [LATENT_DIM]}]
        assert config["output"][1] == {"name": "edge", "data_type": "TYPE_UINT8", "dims": [10, 9, 3]}
        assert "dynamic_batching" in config
    with pytest.raises(triton.InferenceServerException, match="no model 'nobody'"):
        client.get_model_config("nobody")


def test_triton_infers_what_the_model_computes(client: Client, models: Path) -> None:
    """As JSON and as bytes, in and out, the images are bit for bit those of the model."""
    model = OnnxModel(models / "tiny/1/model.onnx")
    expected = model.run({"latent": LATENTS})
    for binary_in, binary_out, version in itertools.product((True, False), (True, False), ("", "1")):
        wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("ink", "digit")]
        result = client.infer("tiny", [latent(binary=binary_in)], version, wanted, request_id="mine")
        response = result.get_response()
        assert (response["id"], response["model_name"], response["model_version"]) == ("mine", "tiny", "1")
        assert response["parameters"] == {"digest": model.digest}
        assert [output["name"] for output in response["outputs"]] == ["ink", "digit"]
        for name in ("ink", "digit"):
            assert np.array_equal(result.as_numpy(name), expected[name])
            assert result.as_numpy(name).dtype == np.uint8


def test_triton_parameters_that_mean_nothing_here_are_ignored(client: Client) -> None:
    """Priorities, sequences and a client's own parameters do not change the response."""
    plain = client.infer("tiny", [latent()])
    full = client.infer(
        "tiny",
        [latent()],
        priority=2,
        sequence_id=7,
        sequence_start=True,
        timeout=10_000_000,
        parameters={"trace": "on"},
        headers={"X-Custom": "1"},
        query_params={"more": "1"},
    )
    assert np.array_equal(full.as_numpy("edge"), plain.as_numpy("edge"))


def test_triton_infers_asynchronously(client: Client) -> None:
    """Requests in flight at the same time get their own responses."""
    pending = [client.async_infer("tiny", [latent(LATENTS[i : i + 1])], request_id=str(i)) for i in range(3)]
    whole = client.infer("tiny", [latent()]).as_numpy("digit")
    for i, one in enumerate(pending):
        result = one.get_result()
        assert result.get_response()["id"] == str(i)
        assert np.array_equal(result.as_numpy("digit"), whole[i : i + 1])


def test_the_documents_example_runs(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """What docs/inference_protocol.md shows generates images, word for word but for the port."""
    tiny_model(name="digit_edge")
    document = (Path(__file__).parents[3] / "docs/inference_protocol.md").read_text()
    example = re.findall(r"```python\n(.*?)```", document, re.DOTALL)[0]
    program = example.replace("localhost:8000", address(start()))
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "{'digit': (4, 8, 6, 1), 'edge': (4, 10, 9, 3)}\n"


def test_triton_reads_errors(client: Client) -> None:
    """What is wrong arrives as the message of the client's exception, with the status."""
    with pytest.raises(triton.InferenceServerException, match=r"/inputs/0/shape: allowed is \[rows, 8\]") as caught:
        client.infer("tiny", [latent(np.zeros((1, 7), np.float32))])
    assert caught.value.status() == "422"
    with pytest.raises(triton.InferenceServerException, match="no model 'nobody'") as caught:
        client.infer("nobody", [latent()])
    assert caught.value.status() == "404"
    with pytest.raises(triton.InferenceServerException, match="at most 64 rows") as caught:
        client.infer("tiny", [latent(np.zeros((65, LATENT_DIM), np.float32))])
    assert caught.value.status() == "413"


def test_triton_is_refused_by_name_what_would_change_the_meaning(client: Client) -> None:
    """Shared memory and classification are 501, and the message names them."""
    shared = triton.InferInput("latent", [1, LATENT_DIM], "FP32")
    shared.set_shared_memory("region", 32)
    into = triton.InferRequestedOutput("digit")
    into.set_shared_memory("region", 48)
    classes = triton.InferRequestedOutput("digit", class_count=3)
    for inputs, outputs, named in (
        ([shared], None, "shared memory"),
        ([latent()], [into], "shared memory"),
        ([latent()], [classes], "classification"),
    ):
        with pytest.raises(triton.InferenceServerException, match=named) as caught:
            client.infer("tiny", inputs, outputs=outputs)
        assert caught.value.status() == "501"


def test_triton_finds_no_shared_memory(client: Client) -> None:
    """Nothing is registered, so a status is empty and there is nothing to unregister; to register is refused."""
    assert client.get_system_shared_memory_status() == []
    assert client.get_cuda_shared_memory_status("region") == []
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    client.unregister_system_shared_memory("region")
    registrations: list[Callable[[], object]] = [
        lambda: client.register_system_shared_memory("region", "/key", 32),
        lambda: client.register_cuda_shared_memory("region", b"handle", 0, 32),
    ]
    for register in registrations:
        with pytest.raises(triton.InferenceServerException, match="shared memory is not supported") as caught:
            register()
        assert caught.value.status() == "501"


def test_triton_may_not_change_logs_or_traces(client: Client) -> None:
    """Settings of logs and traces are refused by name."""
    for call in (
        client.get_log_settings,
        lambda: client.update_log_settings({"log_info": True}),
        client.get_trace_settings,
        lambda: client.update_trace_settings("tiny", {"trace_level": ["TIMESTAMPS"]}),
    ):
        with pytest.raises(triton.InferenceServerException, match="log and trace settings") as caught:
            call()
        assert caught.value.status() == "501"


def test_triton_counts_requests_and_runs(client: Client, models: Path) -> None:
    """Requests that succeeded and failed, rows and runs are counted for each model."""
    write_model(models, name="counted")
    client.load_model("counted")
    for _ in range(2):
        client.infer("counted", [latent()])
    with pytest.raises(triton.InferenceServerException, match="failed on this request"):
        client.infer("counted", [latent(np.full((1, LATENT_DIM), 60, np.float32))])  # on which a tiny model fails
    for found in (client.get_inference_statistics("counted", "1"), client.get_inference_statistics()):
        stats = next(one for one in found["model_stats"] if one["name"] == "counted")
        assert (stats["version"], stats["inference_count"]) == ("1", 6)
        assert stats["last_inference"] > 1_700_000_000_000
        assert stats["execution_count"] == sum(b["compute_infer"]["count"] for b in stats["batch_stats"])
        spent = stats["inference_stats"]
        assert (spent["success"]["count"], spent["fail"]["count"]) == (2, 1)
        assert spent["success"]["ns"] == pytest.approx(spent["queue"]["ns"] + spent["compute_infer"]["ns"], abs=9)


def test_triton_loads_and_unloads_models(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """The repository is listed, and a client changes what is served; a configuration of its own is ignored."""
    tiny_model()
    client = Client(address(start(model_control=True)))
    broken = tiny_model(name="broken")
    broken.write_bytes(b"junk")
    tiny_model(version="2")
    index = client.get_model_repository_index()
    assert {(entry["name"], entry["version"]) for entry in index} == {("tiny", "1"), ("tiny", "2"), ("broken", "1")}
    client.load_model("tiny", config=json.dumps({"max_batch_size": 4}))
    states = {(e["name"], e["version"]): e["state"] for e in client.get_model_repository_index()}
    assert states[("tiny", "2")] == "READY"
    assert client.is_model_ready("tiny", "2")
    with pytest.raises(triton.InferenceServerException, match="cannot read the file") as caught:
        client.load_model("broken")
    assert caught.value.status() == "422"
    with pytest.raises(triton.InferenceServerException, match="cannot send files") as caught:
        client.load_model("tiny", config="{}", files={"file:1/model.onnx": broken.read_bytes()})
    assert caught.value.status() == "501"
    client.unload_model("tiny", unload_dependents=True)
    assert not client.is_model_ready("tiny")
    assert not client.is_server_ready()


def test_triton_infers_on_a_classifier(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """A classifier takes images and returns probabilities, and its configuration says so."""
    model = OnnxModel(tiny_model(name="reader", kind="classifier"))
    pixels = np.random.default_rng(1).integers(0, 256, (5, 8, 6, 1), np.uint8)
    tensor = triton.InferInput("digit", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels)
    with Client(address(start())) as client:
        assert client.get_model_config("reader")["input"][0]["data_type"] == "TYPE_UINT8"
        assert client.get_model_metadata("reader")["outputs"][0]["datatype"] == "FP32"
        found = client.infer("reader", [tensor]).as_numpy("classes")
    assert np.array_equal(found, model.run({"digit": pixels})["classes"])


def kserve_request(values: NDArray[np.float32], binary: bool, **more: Any) -> tuple[bytes, dict[str, str]]:
    """Return what kserve 0.21's InferenceRESTClient.infer sends of an InferRequest.

    kserve itself needs hundreds of megabytes, so its `InferRequest.to_rest` and `InferenceRESTClient.infer`
    (kserve/protocol/infer_type.py, kserve/inference_client.py) are followed here: `id` and `model_name` always, the
    tensor's bytes after the JSON if it was set as binary, and no content type for a request that is all JSON.
    """
    tensor: dict[str, Any] = {"name": "latent", "shape": list(values.shape), "datatype": "FP32"}
    tensor |= {"parameters": {"binary_data_size": values.nbytes}} if binary else {"data": values.ravel().tolist()}
    head = json.dumps({"id": "5e1f", "model_name": "tiny", "inputs": [tensor]} | more).encode()
    if not binary:
        return head, {}
    return head + values.tobytes(), {BINARY_HEADER.lower(): str(len(head)), "content-type": "application/octet-stream"}


def kserve_outputs(response: httpx.Response) -> dict[str, NDArray[np.uint8]]:
    """Read a response as kserve's InferResponse.from_bytes does."""
    length = int(response.headers.get(BINARY_HEADER.lower(), len(response.content)))
    head, start, found = json.loads(response.content[:length]), length, {}
    assert head["model_name"] == "tiny"
    for output in head["outputs"]:
        size = (output.get("parameters") or {}).get("binary_data_size")
        data = output["data"] if size is None else response.content[start : start + size]
        array = np.array(data, np.uint8) if size is None else np.frombuffer(data, np.uint8)
        start += size or 0
        found[output["name"]] = array.reshape(output["shape"])
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
async def test_kserve_infers(
    tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient], binary_in: bool, binary_out: bool
) -> None:
    """KServe's own client, which names the model in every body, reads what the model computes."""
    expected = OnnxModel(tiny_model()).run({"latent": LATENTS})
    outputs = [{"name": name, "parameters": {"binary_data": binary_out}} for name in ("edge", "digit")]
    more = {"outputs": outputs, "parameters": {"binary_data_output": binary_out, "custom": "x"}}
    content, headers = kserve_request(LATENTS, binary_in, **more)
    response = await connect().post("/v2/models/tiny/infer", content=content, headers=headers)
    assert response.status_code == 200
    found = kserve_outputs(response)
    assert list(found) == ["edge", "digit"]
    assert all(np.array_equal(found[name], expected[name]) for name in found)


@pytest.mark.anyio
async def test_kserve_finds_servers_and_models_ready(client_of_kserve: httpx.AsyncClient) -> None:
    """The routes that KServe's client and controllers read have the fields that they read."""
    assert (await client_of_kserve.get("/v2/health/live")).json()["live"] is True
    assert (await client_of_kserve.get("/v2/health/ready")).json()["ready"] is True
    assert (await client_of_kserve.get("/v2/models/tiny/ready")).json()["ready"] is True
    assert (await client_of_kserve.get("/v2/models")).json() == {"models": ["other", "tiny"]}


@pytest.fixture
def client_of_kserve(tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    """Return a client of an app with two models."""
    for name in ("tiny", "other"):
        tiny_model(name=name)
    return connect()


@pytest.mark.anyio
async def test_mlserver_infers(tiny_model: Callable[..., Path], connect: Callable[..., httpx.AsyncClient]) -> None:
    """What MLServer's NumpyRequestCodec makes, dumped with its nulls, is answered.

    MLServer is not installed here: the fields are those of its `InferenceRequest` (mlserver/types/dataplane.py).
    """
    expected = OnnxModel(tiny_model()).run({"latent": LATENTS})
    parameters = {"content_type": "np", "headers": None}
    tensor = {"name": "latent", "shape": [3, LATENT_DIM], "datatype": "FP32", "parameters": parameters}
    body = {
        "id": None,
        "parameters": parameters,
        "inputs": [tensor | {"data": LATENTS.ravel().tolist()}],
        "outputs": None,
    }
    response = await connect().post("/v2/models/tiny/infer", json=body)
    assert response.status_code == 200
    for output in response.json()["outputs"]:
        assert np.array_equal(np.reshape(output["data"], output["shape"]), expected[output["name"]])
