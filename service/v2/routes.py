"""/v2: health, metadata, inference and statistics; clients of Triton, MLServer and KServe work as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from functools import cache, partial
from typing import Any

from fastapi import FastAPI, Request, Response

from service import __version__
from service.api.docs import Responses, json_body, problems
from service.api.generate import server_timing
from service.api.options import TIMEOUT_PARAMETER, deadline
from service.engine.models import ModelRegistry
from service.engine.onnx_model import Arrays, OnnxModel, Tensor
from service.engine.request import Encoding, Job
from service.errors import Unsupported
from service.http.access import BINARY_HEADER
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.v2.schemas import (
    BatchStatistics,
    InferAnswer,
    InferenceStatistics,
    InferRequest,
    ModelConfig,
    ModelDescription,
    ModelNames,
    ModelReady,
    ModelStatistics,
    ServerLive,
    ServerMetadata,
    ServerReady,
    StatisticsAnswer,
    Tally,
    TensorConfig,
    TensorMetadata,
)
from service.v2.tensors import (
    Inference,
    InferResponse,
    read_inference,
    shared_memory_unsupported,
    write_response,
)

TAGS: list[str | Enum] = ["inference protocol"]
MODEL_PATH = "/v2/models/{name}"
BINARY = "application/octet-stream"
EXTENSIONS = ["binary_tensor_data", "parameters", "statistics", "model_configuration"]
VERSION_PARAMETER = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
SUMMARIES = ("cogan_model_request_seconds", "cogan_queue_wait_seconds", "cogan_model_run_seconds")
LAST_RUN = "cogan_model_last_run_timestamp_seconds"
Sample = tuple[str, dict[str, str], float]


class InferenceRoutes:
    """Requests of the protocol wait in the same queues as all others."""

    def __init__(self, registry: ModelRegistry, metrics: Metrics, settings: Settings) -> None:
        self._registry, self._metrics, self._settings = registry, metrics, settings
        self._encode_durations = cache(metrics.encode_duration.labels)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        get, missing = partial(app.get, tags=TAGS), problems(404, 503)
        get("/v2")(self.describe_server)
        get("/v2/health/live", responses=problems(503))(self.server_live)
        get("/v2/health/ready", responses=problems(503))(self.server_ready)
        get("/v2/models")(self.list_names)
        get("/v2/models/stats", responses=problems(503))(self.count_all)
        _add_for_versions(app.get, "", self.describe_tensors, responses=missing)
        _add_for_versions(app.get, "/config", self.describe_config, responses=missing)
        _add_for_versions(app.get, "/ready", self.model_ready, responses=missing)
        _add_for_versions(app.get, "/stats", self.count_one, responses=missing)
        _add_for_versions(
            app.post,
            "/infer",
            self.infer,
            response_class=Response,
            responses=_INFER_RESPONSES,
            openapi_extra={**json_body(InferRequest), "parameters": [TIMEOUT_PARAMETER]},
        )
        for kind in ("systemsharedmemory", "cudasharedmemory"):
            app.api_route(f"/v2/{kind}/{{action:path}}", methods=["GET", "POST"], include_in_schema=False)(
                self.shared_memory
            )
        for path in ("/v2/logging", "/v2/trace/setting", f"{MODEL_PATH}/trace/setting"):
            app.api_route(path, methods=["GET", "POST"], include_in_schema=False)(self.server_settings)

    async def describe_server(self) -> ServerMetadata:
        """Name the server and the extensions of the protocol that it has."""
        control = ["model_repository"] if self._settings.model_control else []
        return ServerMetadata(name="cogan", version=__version__, extensions=[*EXTENSIONS, *control])

    async def server_live(self) -> ServerLive:
        """Answer 200 while no batch hangs, as /livez does."""
        self._registry.check_alive()
        return ServerLive(live=True)

    async def server_ready(self) -> ServerReady:
        """Answer 200 while a model is served, as /readyz does."""
        self._registry.check_ready()
        return ServerReady(ready=True)

    async def list_names(self) -> ModelNames:
        """List the names of the served models."""
        return ModelNames(models=[model.name for model in self._registry.models])

    async def describe_tensors(self, request: Request, name: str) -> ModelDescription:
        """Describe a model's inputs and outputs."""
        model = self._model(request, name)
        return ModelDescription(
            name=model.name,
            versions=[model.version],
            platform="onnx_onnxv1",
            inputs=[_tensor(tensor) for tensor in model.inputs],
            outputs=[_tensor(tensor) for tensor in model.outputs],
        )

    async def describe_config(self, request: Request, name: str) -> ModelConfig:
        """Return the model configuration that Triton would have, as its load generators read it."""
        model = self._model(request, name)
        return ModelConfig(
            name=model.name,
            platform="onnxruntime_onnx",
            backend="onnxruntime",
            max_batch_size=min(model.max_batch, self._settings.max_pairs),
            input=[_config(tensor) for tensor in model.inputs],
            output=[_config(tensor) for tensor in model.outputs],
            version_policy={"latest": {"num_versions": 1}},
            dynamic_batching={},
        )

    async def model_ready(self, request: Request, name: str) -> ModelReady:
        """Answer 200 while this version of this model is served and the service is not shutting down."""
        self._registry.check_ready()
        return ModelReady(name=self._model(request, name).name, ready=True)

    async def infer(self, request: Request, name: str) -> Response:
        """Run a model: tensors in, tensors out, as JSON or binary data."""
        content = await request.body()
        model = self._model(request, name)
        inference = read_inference(content, request.headers.get(BINARY_HEADER), model, self._settings.max_pairs)
        longest_s = min(self._settings.deadline_s, inference.timeout_s or self._settings.deadline_s)
        encode = partial(self._encode, inference, model)
        job = Job(model, inference.size, partial(_rows, inference.inputs), encode, inference.encode_s)
        found, seconds = await self._registry.batcher(name).submit(job, deadline(request, longest_s))
        headers = {"Server-Timing": server_timing(seconds)}
        if found.tensors is None:
            return Response(found.head, headers=headers, media_type="application/json")
        headers[BINARY_HEADER] = str(len(found.head))
        return Response(found.head + found.tensors, headers=headers, media_type=BINARY)

    def _encode(self, inference: Inference, model: OnnxModel, _: Arrays, outputs: Arrays) -> Encoding[InferResponse]:
        with self._encode_durations("tensors").time():
            return (yield from write_response(inference, model, outputs))

    async def shared_memory(self, request: Request, action: str) -> Any:
        """Answer that no memory is shared: a status is empty, unregistering does nothing, registering is refused."""
        if action.endswith("/unregister") or action == "unregister":
            return {}
        if request.method == "GET":
            return []
        raise shared_memory_unsupported()

    async def server_settings(self) -> None:
        """Refuse to show or change settings of logs and traces."""
        raise Unsupported("log and trace settings are not supported; they are set by the operator")

    async def count_all(self) -> StatisticsAnswer:
        """Return what all processes have counted of every served model."""
        return await self._count([(model.name, model.version) for model in self._registry.models])

    async def count_one(self, request: Request, name: str) -> StatisticsAnswer:
        """Return what all processes have counted of one model."""
        model = self._model(request, name)
        return await self._count([(model.name, model.version)])

    async def _count(self, wanted: list[tuple[str, str]]) -> StatisticsAnswer:
        samples = await asyncio.to_thread(self._samples)
        return StatisticsAnswer(model_stats=[_statistics(name, version, samples) for name, version in wanted])

    def _samples(self) -> list[Sample]:
        found = (metric for metric in self._metrics.collect() if metric.name in (*SUMMARIES, LAST_RUN))
        return [(sample.name, sample.labels, sample.value) for metric in found for sample in metric.samples]

    def _model(self, request: Request, name: str) -> OnnxModel:
        """Return the model that a path names, with its version or without. Raises UnknownModel and NotReady."""
        return self._registry.model(name, request.path_params.get("version"), place="path")


def _add_for_versions(add: Callable[..., Any], path: str, endpoint: Callable[..., Any], **options: Any) -> None:
    """Add an endpoint below a model, and below a version of it, by `app.get` or `app.post`."""
    extra = options.pop("openapi_extra", {})
    options["tags"] = TAGS
    add(MODEL_PATH + path, openapi_extra=extra, **options)(endpoint)
    versioned = {**extra, "parameters": [VERSION_PARAMETER, *extra.get("parameters", ())]}
    name = f"{endpoint.__name__}_of_version"
    add(f"{MODEL_PATH}/versions/{{version}}{path}", name=name, openapi_extra=versioned, **options)(endpoint)


def _rows(inputs: Arrays, start: int, stop: int) -> Arrays:
    return {name: array[start:stop] for name, array in inputs.items()}


def _tensor(tensor: Tensor) -> TensorMetadata:
    return TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=[-1, *tensor.shape])


def _config(tensor: Tensor) -> TensorConfig:
    return TensorConfig(name=tensor.name, data_type=f"TYPE_{tensor.datatype}", dims=list(tensor.shape))


def _statistics(name: str, version: str, samples: list[Sample]) -> ModelStatistics:
    own = [(n, labels, v) for n, labels, v in samples if (labels["model"], labels["version"]) == (name, version)]

    def tally(metric: str, **wanted: str) -> Tally:
        of = {n: v for n, labels, v in own if n.startswith(metric) and wanted.items() <= labels.items()}
        return Tally(count=int(of.get(f"{metric}_count", 0)), ns=int(of.get(f"{metric}_sum", 0.0) * 1e9))

    requests, queue, run = SUMMARIES
    success, queued = tally(requests, outcome="success"), tally(queue)
    sizes = sorted({int(labels["rows"]) for n, labels, _ in own if n == f"{run}_count"})
    batches = {size: tally(run, rows=str(size)) for size in sizes}
    return ModelStatistics(
        name=name,
        version=version,
        last_inference=int(1e3 * next((v for n, _, v in own if n == LAST_RUN), 0.0)),
        inference_count=sum(size * batch.count for size, batch in batches.items()),
        execution_count=sum(batch.count for batch in batches.values()),
        inference_stats=InferenceStatistics(
            success=success,
            fail=tally(requests, outcome="fail"),
            queue=queued,
            compute_infer=Tally(count=success.count, ns=max(0, success.ns - queued.ns)),
        ),
        batch_stats=[BatchStatistics(batch_size=size, compute_infer=batch) for size, batch in batches.items()],
    )


_INFER_RESPONSES: Responses = {
    200: {
        "model": InferAnswer,
        "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
        "description": "The outputs",
    },
    **problems(400, 404, 408, 413, 415, 422, 429, 500, 501, 503, 504),
}
