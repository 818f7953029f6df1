"""What paths and bodies of the Open Inference Protocol have in common."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from service.engine.model_registry import ModelRegistry
from service.engine.onnx_model import OnnxModel

TAGS: list[str | Enum] = ["inference protocol"]
MODEL_PATH = "/v2/models/{name}"
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}


def add_for_versions(
    add: Callable[..., Any], path: str, endpoint: Callable[..., Any], **options: Any
) -> None:
    """Add an endpoint below a model, and below a version of it, by `app.get` or `app.post`."""
    extra = options.pop("openapi_extra", {})
    options["tags"] = TAGS
    add(MODEL_PATH + path, openapi_extra=extra, **options)(endpoint)
    versioned = {**extra, "parameters": [_VERSION, *extra.get("parameters", ())]}
    name = f"{endpoint.__name__}_of_version"
    add(f"{MODEL_PATH}/versions/{{version}}{path}", name=name, openapi_extra=versioned, **options)(endpoint)


def named_model(registry: ModelRegistry, request: Request, name: str) -> OnnxModel:
    """Return the model that a path names, with its version or without. Raises UnknownModel and NotReady."""
    return registry.model(name, request.path_params.get("version"), place="path")


def json_body(kind: type[BaseModel], required: bool = True) -> dict[str, Any]:
    """Describe a body that the route reads itself: clients of the protocol send it without a content type."""
    schema = kind.model_json_schema()
    inlined = _inline(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": inlined}}}}


def _inline(part: Any, definitions: dict[str, Any]) -> Any:
    """Put definitions in the place of references to them."""
    if isinstance(part, list):
        return [_inline(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inline(definitions[part["$ref"].rsplit("/", 1)[1]], definitions)
    return {key: _inline(value, definitions) for key, value in part.items()}
