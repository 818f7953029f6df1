"""The public HTTP client of Triton Inference Server works against the service as it is."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from service.engine.onnx_model import OnnxModel
from tests.conftest import LATENT_DIM
from tests.running import Service, services

LATENTS = np.random.default_rng(5).normal(size=(3, LATENT_DIM)).astype(np.float32)


@pytest.fixture
def client(tiny_model: Callable[..., Path], models_dir: Path) -> Iterator[triton.InferenceServerClient]:
    """Return a client of a running service with one model of three domains."""
    tiny_model(("digit", "edge", "ink"))
    with services(models_dir) as start, triton.InferenceServerClient(address(start())) as client:
        yield client


def address(service: Service) -> str:
    """Return host and port."""
    return str(service.url).removeprefix("http://")


def latent(values: Any = LATENTS, binary: bool = True) -> triton.InferInput:
    """Make the input."""
    tensor = triton.InferInput("latent", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    """A client learns from the service alone what to send and what to expect."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "cogan"
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


def test_images_are_those_of_the_model(client: triton.InferenceServerClient, models_dir: Path) -> None:
    """As JSON and as bytes, in and out, the images are bit for bit what the model draws."""
    model = OnnxModel(models_dir / "tiny/1/model.onnx")
    for binary_in, binary_out, version in itertools.product((True, False), (True, False), ("", "1")):
        wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("ink", "digit")]
        result = client.infer("tiny", [latent(binary=binary_in)], version, wanted, request_id="mine")
        answer = result.get_response()
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("mine", "tiny", "1")
        assert answer["parameters"] == {"digest": model.digest}
        assert [output["name"] for output in answer["outputs"]] == ["ink", "digit"]
        for name in ("ink", "digit"):
            assert np.array_equal(result.as_numpy(name), model.run(LATENTS)[name])
            assert result.as_numpy(name).dtype == np.uint8


def test_the_documents_example_runs(tiny_model: Callable[..., Path], start: Callable[..., Service]) -> None:
    """What docs/inference_protocol.md shows draws images, word for word but for the port."""
    tiny_model(name="digit_edge")
    document = (Path(__file__).parents[3] / "docs/inference_protocol.md").read_text()
    example = re.findall(r"```python\n(.*?)```", document, re.DOTALL)[0]
    program = example.replace("localhost:8000", address(start()))
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == "{'digit': (4, 8, 6, 1), 'edge': (4, 10, 9, 3)}\n"


def test_errors_are_read_by_the_client(client: triton.InferenceServerClient) -> None:
    """What is wrong arrives as the message of its exception, with the status."""
    with pytest.raises(triton.InferenceServerException, match="/inputs/0/shape/1: allowed is 8") as caught:
        client.infer("tiny", [latent(np.zeros((1, 7), np.float32))])
    assert caught.value.status() == "422"
    with pytest.raises(triton.InferenceServerException, match="no model 'nobody'") as caught:
        client.infer("nobody", [latent()])
    assert caught.value.status() == "404"
    with pytest.raises(triton.InferenceServerException, match="at most 64 pairs") as caught:
        client.infer("tiny", [latent(np.zeros((65, LATENT_DIM), np.float32))])
    assert caught.value.status() == "413"


def test_statistics_count_requests_and_runs(client: triton.InferenceServerClient) -> None:
    """Requests answered and refused, latents and runs are counted for each model."""
    for _ in range(2):
        client.infer("tiny", [latent()])
    with pytest.raises(triton.InferenceServerException, match="failed on this request"):
        client.infer(
            "tiny", [latent(np.full((1, LATENT_DIM), 60, np.float32))]
        )  # which a tiny model cannot draw
    for found in (client.get_inference_statistics("tiny", "1"), client.get_inference_statistics()):
        stats = found["model_stats"][0]
        assert (stats["name"], stats["version"], stats["inference_count"]) == ("tiny", "1", 6)
        assert stats["last_inference"] > 1_700_000_000_000
        assert stats["execution_count"] == sum(b["compute_infer"]["count"] for b in stats["batch_stats"])
        spent = stats["inference_stats"]
        assert (spent["success"]["count"], spent["fail"]["count"]) == (2, 1)
        assert spent["success"]["ns"] == pytest.approx(
            spent["queue"]["ns"] + spent["compute_infer"]["ns"], abs=9
        )


def test_models_are_loaded_and_unloaded(
    client: triton.InferenceServerClient, tiny_model: Callable[..., Path]
) -> None:
    """The repository is listed, and a client changes what is served."""
    broken = tiny_model(name="broken")
    broken.write_bytes(b"junk")
    tiny_model(version="2")
    states = {(e["name"], e["version"]): e["state"] for e in client.get_model_repository_index()}
    assert states == {
        ("tiny", "1"): "READY",
        ("tiny", "2"): "UNAVAILABLE",
        ("broken", "1"): "UNAVAILABLE",
    }
    client.load_model("tiny")
    assert client.is_model_ready("tiny", "2")
    with pytest.raises(triton.InferenceServerException, match="cannot read the file") as caught:
        client.load_model("broken")
    assert caught.value.status() == "422"
    client.unload_model("tiny")
    assert not client.is_model_ready("tiny")
    assert not client.is_server_ready()
