"""/v2: the Open Inference Protocol, version 2, and Triton's binary data; its clients work as they are."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from service import __version__
from service.engine.model_registry import ModelRegistry
from service.engine.onnx_model import OnnxModel
from service.engine.readiness import Readiness
from service.generation.generator import Generator
from service.metadata import LATENT_INPUT
from service.routes.answers import server_timing
from service.routes.openapi import Responses, problems
from service.routes.patience import TIMEOUT_PARAMETER, deadline
from service.routes.protocol_paths import TAGS, add_for_versions, json_body, named_model
from service.settings import Settings
from service.wire.inference import HEADER_LENGTH, read_inference
from service.wire.inference_answers import (
    InferAnswer,
    ModelDescription,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from service.wire.inference_schemas import InferRequest

BINARY = "application/octet-stream"
EXTENSIONS = ["binary_tensor_data", "parameters", "statistics"]


class InferenceRoutes:
    """Health, metadata and inference. Requests wait in the queue that all others wait in."""

    def __init__(
        self, registry: ModelRegistry, generator: Generator, readiness: Readiness, settings: Settings
    ) -> None:
        self._registry, self._generator, self._readiness = registry, generator, readiness
        self._settings = settings

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        app.get("/v2", tags=TAGS)(self.describe_server)
        app.get("/v2/health/live", tags=TAGS, responses=problems(503))(self.server_live)
        app.get("/v2/health/ready", tags=TAGS, responses=problems(503))(self.server_ready)
        missing = problems(404, 503)
        add_for_versions(app.get, "", self.describe_model_tensors, responses=missing)
        add_for_versions(app.get, "/ready", self.model_ready, responses=missing)
        add_for_versions(
            app.post,
            "/infer",
            self.infer,
            response_class=Response,
            responses=_INFER_RESPONSES,
            openapi_extra={**json_body(InferRequest), "parameters": [TIMEOUT_PARAMETER]},
        )

    async def describe_server(self) -> ServerMetadata:
        """Say who answers, and which extensions of the protocol there are."""
        control = ["model_repository"] if self._settings.model_control else []
        return ServerMetadata(name="cogan", version=__version__, extensions=[*EXTENSIONS, *control])

    async def server_live(self) -> ServerLive:
        """Answer 200 while the process can answer and no batch hangs, as /livez does."""
        await self._readiness.check_alive()
        return ServerLive(live=True)

    async def server_ready(self) -> ServerReady:
        """Answer 200 while a model answers, as /readyz does."""
        await self._readiness.check_ready()
        return ServerReady(ready=True)

    async def describe_model_tensors(self, request: Request, name: str) -> ModelDescription:
        """Describe a model's input and its outputs, one a domain."""
        model = named_model(self._registry, request, name)
        return ModelDescription(
            name=model.name,
            versions=[model.version],
            platform="onnx_onnxv1",
            inputs=[_input(model)],
            outputs=[
                TensorMetadata(name=d.name, datatype="UINT8", shape=[-1, d.height, d.width, d.channels])
                for d in model.metadata.domains
            ],
        )

    async def model_ready(self, request: Request, name: str) -> ModelReady:
        """Answer 200 while this model, in this version, is served, and the service not on its way out."""
        await self._readiness.check_ready()
        return ModelReady(name=named_model(self._registry, request, name).name, ready=True)

    async def infer(self, request: Request, name: str) -> Response:
        """Draw latents: FP32 [B, Z] in, UINT8 [B, H, W, C] out for every domain, as JSON or binary."""
        content = await request.body()
        model = named_model(self._registry, request, name)
        length, settings = request.headers.get(HEADER_LENGTH), self._settings
        inference = read_inference(content, length, model, settings.max_pairs)
        patience = min(settings.deadline_s, inference.timeout_s or settings.deadline_s)
        answer, seconds = await self._generator.infer(model, inference, deadline(request, patience))
        headers = {"Server-Timing": server_timing(seconds)}
        if answer.tensors is None:
            return Response(answer.head, headers=headers, media_type="application/json")
        headers[HEADER_LENGTH] = str(len(answer.head))
        return Response(answer.head + answer.tensors, headers=headers, media_type=BINARY)


def _input(model: OnnxModel) -> TensorMetadata:
    size = model.metadata.prior.latent_dim
    return TensorMetadata(name=LATENT_INPUT, datatype="FP32", shape=[-1, size])


_INFER_RESPONSES: Responses = {
    200: {
        "model": InferAnswer,
        "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
        "description": "The images",
    },
    **problems(400, 404, 408, 413, 415, 422, 429, 500, 503, 504),
}
