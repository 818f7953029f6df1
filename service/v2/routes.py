"""/v2: health, metadata, inference, statistics, repository; clients of Triton, MLServer and KServe work as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client.samples import Sample

from service import __version__
from service.api.docs import BINARY, TIMEOUT_PARAMETER, json_body, problems
from service.api.generate import server_timing
from service.api.options import deadline, parse, parse_body, require_json
from service.api.schemas import Model
from service.engine.batcher import Encoding, Job
from service.engine.models import MODEL_FILE, ModelLoader, ModelRegistry, ModelRepository, printable
from service.engine.onnx_model import Arrays, OnnxModel, Tensor, take
from service.errors import FieldError, UnknownPath, Unsupported
from service.http.access import BINARY_HEADER, refuse_cross_site
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.v2 import schemas
from service.v2.tensors import SHARED_MEMORY, read_inference, write_response

TAGS: list[str | Enum] = ["inference protocol"]
MODEL_PATH = "/v2/models/{name}"
OCTETS = "application/octet-stream"
EXTENSIONS = ["binary_tensor_data", "parameters", "statistics", "model_configuration"]
BINARY_BODY = (
    f"JSON, or as {OCTETS} JSON, of as many bytes as the header {BINARY_HEADER} says, and behind it the binary data of "
    "the tensors."
)
VERSION_PARAMETER = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
REQUESTS, QUEUE, RUNS = "cogan_model_request_seconds", "cogan_queue_wait_seconds", "cogan_model_run_seconds"
LAST_RUN = "cogan_model_last_run_timestamp_seconds"
INFER_OPTIONS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"model": schemas.InferResponse, "content": {OCTETS: BINARY}, "description": "The outputs"},
        **problems(400, 404, 408, 413, 415, 422, 429, 500, 501, 503, 504),
    },
    "openapi_extra": {**json_body(schemas.InferRequest, about=BINARY_BODY), "parameters": [TIMEOUT_PARAMETER]},
}


class InferenceRoutes:
    """Requests of the protocol wait in the same queues as all others."""

    def __init__(self, registry: ModelRegistry, metrics: Metrics, settings: Settings) -> None:
        self._registry, self._metrics, self._settings = registry, metrics, settings

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        get = partial(app.get, tags=TAGS)
        get("/v2")(self.describe_server)
        get("/v2/health/live", responses=problems(503))(self.server_live)
        get("/v2/health/ready", responses=problems(503))(self.server_ready)
        get("/v2/models")(self.list_names)
        get("/v2/models/stats", responses=problems(503))(self.count_all)
        described: dict[str, Callable[..., Any]] = {
            "": self.describe_tensors,
            "/config": self.describe_config,
            "/ready": self.model_ready,
            "/stats": self.count_one,
        }
        for path, endpoint in described.items():
            _add_for_versions(app.get, path, endpoint, responses=problems(404, 503))
        _add_for_versions(app.post, "/infer", self.infer, **INFER_OPTIONS)
        unsupported = partial(app.api_route, methods=["GET", "POST"], include_in_schema=False)
        for kind in ("systemsharedmemory", "cudasharedmemory"):
            unsupported(f"/v2/{kind}/{{action:path}}")(self.shared_memory)
        if not self._settings.model_control:
            unsupported("/v2/repository/{action:path}")(self.model_control_off)
        for path in ("/v2/logging", "/v2/trace/setting", f"{MODEL_PATH}/trace/setting"):
            unsupported(path)(self.server_settings)

    async def describe_server(self) -> schemas.ServerMetadata:
        """Name the server and the extensions of the protocol that it has."""
        control = ["model_repository"] if self._settings.model_control else []
        return schemas.ServerMetadata(name="cogan", version=__version__, extensions=[*EXTENSIONS, *control])

    async def server_live(self) -> schemas.ServerLive:
        """Answer 200 while no batch hangs, as /livez does."""
        self._registry.check_alive()
        return schemas.ServerLive(live=True)

    async def server_ready(self) -> schemas.ServerReady:
        """Answer 200 while a model is served, as /readyz does."""
        self._registry.check_ready()
        return schemas.ServerReady(ready=True)

    async def list_names(self) -> schemas.ModelNames:
        """List the names of the served models."""
        return schemas.ModelNames(models=[model.name for model in self._registry.models])

    async def describe_tensors(self, request: Request, name: str) -> schemas.ModelDescription:
        """Describe a model's inputs and outputs."""
        model = self._model(request, name)
        return schemas.ModelDescription(
            name=model.name,
            versions=[model.version],
            platform="onnx_onnxv1",
            inputs=[_tensor(tensor) for tensor in model.inputs],
            outputs=[_tensor(tensor) for tensor in model.outputs],
        )

    async def describe_config(self, request: Request, name: str) -> schemas.ModelConfig:
        """Return the model configuration that Triton would have, as its load generators read it."""
        model = self._model(request, name)
        return schemas.ModelConfig(
            name=model.name,
            platform="onnxruntime_onnx",
            backend="onnxruntime",
            max_batch_size=min(model.max_batch, self._settings.max_pairs),
            input=[_config(tensor) for tensor in model.inputs],
            output=[_config(tensor) for tensor in model.outputs],
            version_policy={"latest": {"num_versions": 1}},
            dynamic_batching={},
        )

    async def model_ready(self, request: Request, name: str) -> schemas.ModelReady:
        """Answer 200 while this version of this model is served and the service is not shutting down."""
        self._registry.check_ready()
        return schemas.ModelReady(name=self._model(request, name).name, ready=True)

    async def infer(self, request: Request, name: str) -> Response:
        """Run a model: tensors in, tensors out, as JSON or binary data."""
        content, model = await request.body(), self._model(request, name)
        read = partial(read_inference, content, request.headers.get(BINARY_HEADER), model, self._settings.max_pairs)
        inference = await parse(content, read)
        longest_s = min(self._settings.deadline_s, inference.timeout_s or self._settings.deadline_s)

        def encode(_: Arrays, outputs: Arrays) -> Encoding[tuple[bytes, bytes | None]]:
            return self._metrics.timed("tensors", write_response(inference, model, outputs))

        job = Job(model, inference.size, partial(take, inference.inputs), encode, inference.encode_s)
        (head, tensors), seconds = await self._registry.batcher(name).submit(job, deadline(request, longest_s))
        headers = {"Server-Timing": server_timing(seconds)}
        if tensors is None:
            return Response(head, headers=headers, media_type="application/json")
        return Response(head + tensors, headers=headers | {BINARY_HEADER: str(len(head))}, media_type=OCTETS)

    async def shared_memory(self, request: Request, action: str) -> Any:
        """Answer that no memory is shared: a status is empty, unregistering does nothing, registering is refused."""
        if action.rpartition("/")[2] == "unregister":
            return {}
        if request.method == "GET":
            return []
        raise Unsupported(SHARED_MEMORY)

    async def model_control_off(self) -> None:
        """Refuse to list, load and unload models."""
        raise UnknownPath("model control is off; the operator turns it on by COGAN_MODEL_CONTROL=true")

    async def server_settings(self) -> None:
        """Refuse to show or change settings of logs and traces."""
        raise Unsupported("log and trace settings are not supported; they are set by the operator")

    async def count_all(self) -> schemas.StatisticsResponse:
        """Return what all processes have counted of every served model."""
        return await self._count(*self._registry.models)

    async def count_one(self, request: Request, name: str) -> schemas.StatisticsResponse:
        """Return what all processes have counted of one model."""
        return await self._count(self._model(request, name))

    async def _count(self, *models: OnnxModel) -> schemas.StatisticsResponse:
        found = await asyncio.to_thread(lambda: list(self._metrics.collect()))
        samples = [s for m in found if m.name in (REQUESTS, QUEUE, RUNS, LAST_RUN) for s in m.samples]
        return schemas.StatisticsResponse(model_stats=[_statistics(one.name, one.version, samples) for one in models])

    def _model(self, request: Request, name: str) -> OnnxModel:
        """Return the model that a path names, with its version or without. Raises UnknownModel and NotReady."""
        return self._registry.model(name, request.path_params.get("version"), place="path")


class ModelControlRoutes:
    """The protocol's repository extension. Versions are never edited in place: a change is a new version."""

    def __init__(self, registry: ModelRegistry, loader: ModelLoader) -> None:
        self._registry, self._loader = registry, loader

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        common = (400, 403, 408, 413, 415, 422)
        for path, endpoint, body, statuses in (
            ("index", self.list_repository, schemas.IndexRequest, common),
            ("models/{name}/load", self.load_model, schemas.ControlRequest, (*common, 404, 501)),
            ("models/{name}/unload", self.unload_model, schemas.ControlRequest, (*common, 404)),
        ):
            extra, responses = json_body(body, required=False), problems(*statuses)
            app.post(f"/v2/repository/{path}", tags=TAGS, responses=responses, openapi_extra=extra)(endpoint)

    async def list_repository(self, request: Request) -> list[schemas.IndexEntry]:
        """List every version in the models folder and in memory: served, refused or not loaded."""
        wanted = await _read(request, schemas.IndexRequest)
        reasons = {error.path: error.reason for error in self._registry.errors}
        entries = {(model.name, model.version): _ready(model.name, model.version) for model in self._registry.models}
        found = [] if wanted.ready else await asyncio.to_thread(_versions, self._loader.repository)
        for name, version in found:
            reason = reasons.get(f"{name}/{version}/{MODEL_FILE}", "not loaded")
            entry = schemas.IndexEntry(name=name, version=version, state="UNAVAILABLE", reason=reason)
            entries.setdefault((name, version), entry)
        return sorted(entries.values(), key=lambda entry: (entry.name, len(entry.version), entry.version))

    async def load_model(self, request: Request, name: str) -> schemas.IndexEntry:
        """Load the highest version of a model; the one before it answers until then.

        A version that is refused changes nothing: the response says why.
        """
        parameters = (await _read(request, schemas.ControlRequest)).parameters or {}
        if files := [key for key in parameters if key.startswith("file:")]:
            wrong = FieldError("/parameters", files[0], "no files: the models folder holds them")
            raise Unsupported("models are loaded from the models folder; a request cannot send files", [wrong])
        return _ready(name, (await self._loader.load(name)).version)

    async def unload_model(self, request: Request, name: str) -> schemas.IndexEntry:
        """Stop serving a model; what was accepted is answered."""
        await _read(request, schemas.ControlRequest)
        model = await self._loader.unload(name)
        return schemas.IndexEntry(name=name, version=model.version, state="UNAVAILABLE", reason="unloaded")


def _add_for_versions(add: Callable[..., Any], path: str, endpoint: Callable[..., Any], **options: Any) -> None:
    """Add an endpoint below a model, and below a version of it, by `app.get` or `app.post`."""
    extra = options.pop("openapi_extra", {})
    add(MODEL_PATH + path, tags=TAGS, openapi_extra=extra, **options)(endpoint)
    extra = {**extra, "parameters": [VERSION_PARAMETER, *extra.get("parameters", ())]}
    options |= {"name": f"{endpoint.__name__}_of_version", "openapi_extra": extra}
    add(f"{MODEL_PATH}/versions/{{version}}{path}", tags=TAGS, **options)(endpoint)


def _tensor(tensor: Tensor) -> schemas.TensorMetadata:
    return schemas.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=[-1, *tensor.shape])


def _config(tensor: Tensor) -> schemas.TensorConfig:
    return schemas.TensorConfig(name=tensor.name, data_type=f"TYPE_{tensor.datatype}", dims=list(tensor.shape))


def _statistics(name: str, version: str, samples: list[Sample]) -> schemas.ModelStatistics:
    own = [s for s in samples if (s.labels["model"], s.labels["version"]) == (name, version)]

    def tally(metric: str, **labels: str) -> schemas.Tally:
        values = {s.name: s.value for s in own if s.name.startswith(metric) and labels.items() <= s.labels.items()}
        return schemas.Tally(count=int(values.get(f"{metric}_count", 0)), ns=int(values.get(f"{metric}_sum", 0) * 1e9))

    success, queued = tally(REQUESTS, outcome="success"), tally(QUEUE)
    stages = schemas.InferenceStatistics(
        success=success,
        fail=tally(REQUESTS, outcome="fail"),
        queue=queued,
        compute_infer=schemas.Tally(count=success.count, ns=max(0, success.ns - queued.ns)),
    )
    sizes = sorted({int(s.labels["rows"]) for s in own if s.name == f"{RUNS}_count"})
    batches = {size: tally(RUNS, rows=str(size)) for size in sizes}
    return schemas.ModelStatistics(
        name=name,
        version=version,
        last_inference=int(1e3 * next((s.value for s in own if s.name == LAST_RUN), 0)),
        inference_count=sum(size * batch.count for size, batch in batches.items()),
        execution_count=sum(batch.count for batch in batches.values()),
        inference_stats=stages,
        batch_stats=[schemas.BatchStatistics(batch_size=size, compute_infer=batch) for size, batch in batches.items()],
    )


async def _read(request: Request, model: type[Model]) -> Model:
    """Return a request's body, which may be empty. Raises Forbidden for one that another site's page sends."""
    refuse_cross_site(request.scope)
    if "content-type" in request.headers:  # the protocol's clients may send none; browsers do with every body
        require_json(request)
    return parse_body(model, await request.body())


def _versions(repository: ModelRepository) -> list[tuple[str, str]]:
    """Return all names with their versions, also of folders that are no version."""
    paths = [path.split("/") for files in (repository.fingerprint() or {}).values() for path in files]
    return [(printable(path[0]), printable(path[1])) for path in paths if len(path) == 3 and path[2] == MODEL_FILE]


def _ready(name: str, version: str) -> schemas.IndexEntry:
    return schemas.IndexEntry(name=name, version=version, state="READY", reason="")
