"""/models: what is served, with its measured quality, and what was refused."""

from __future__ import annotations

from fastapi import APIRouter

from service.generator import Generator
from service.model_repository import ModelRepository
from service.onnx_model import OnnxModel
from service.routes.documents import problems
from service.schemas import ModelCard, ModelList, RefusedModel


def models_router(generator: Generator, repository: ModelRepository, default_model: str | None) -> APIRouter:
    """Build the routes of /models."""
    router = APIRouter(tags=["models"])

    @router.get("/models", summary="Every model")
    async def list_models() -> ModelList:
        """List the served models by name, and the files that were refused, with the reasons."""
        refused = [RefusedModel(path=one.path, reason=one.reason) for one in repository.refused]
        cards = [_card(model) for model in repository.models.values()]
        return ModelList(default=default_model, models=cards, refused=refused)

    @router.get("/models/{name}", summary="One model", responses=problems(404))
    async def describe_model(name: str) -> ModelCard:
        """Describe a model: prior, domains, where it comes from, and its measured quality."""
        return _card(generator.model(name, "path"))

    return router


def _card(model: OnnxModel) -> ModelCard:
    return ModelCard(**dict(model.metadata), digest=model.digest, provider=model.provider)
