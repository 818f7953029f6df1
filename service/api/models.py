"""/models: what is served, with its measured quality, and what was refused."""

from __future__ import annotations

from fastapi import FastAPI

from service.api.docs import problems
from service.api.schemas import ModelCard, ModelList, RefusedModel
from service.engine.models import ModelRegistry
from service.engine.onnx_model import OnnxModel


class ModelRoutes:
    """The served models."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        app.get("/models", tags=["models"])(self.list_models)
        app.get("/models/{name}", tags=["models"], responses=problems(404, 503))(self.describe_model)

    async def list_models(self) -> ModelList:
        """List the served models by name, and the files that were refused, with the reasons."""
        return ModelList(
            default=self._registry.default,
            models=[_card(model) for model in self._registry.models],
            refused=[RefusedModel(path=one.path, reason=one.reason) for one in self._registry.errors],
        )

    async def describe_model(self, name: str) -> ModelCard:
        """Describe a model: kind, prior, domains, provenance, and its measured quality."""
        return _card(self._registry.model(name, place="path"))


def _card(model: OnnxModel) -> ModelCard:
    return ModelCard(
        **dict(model.metadata), digest=model.digest, graph_digest=model.graph_digest, provider=model.provider
    )
