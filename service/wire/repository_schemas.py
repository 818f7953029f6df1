"""Wire types of the protocol's repository extension: which models there are, and which are loaded."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from service.wire.inference_schemas import Sent


class IndexRequest(Sent):
    """Body of /v2/repository/index."""

    ready: bool = Field(default=False, description="Whether to list served models alone.")


class NoParameters(Sent):
    """Loading takes no parameters: the folder says what there is."""


class LoadRequest(Sent):
    """Body of /load."""

    parameters: NoParameters | None = None


class UnloadParameters(Sent):
    """Parameters of /unload."""

    unload_dependents: bool = Field(default=False, description="Means nothing here: no model depends on one.")


class UnloadRequest(Sent):
    """Body of /unload."""

    parameters: UnloadParameters | None = None


class IndexEntry(BaseModel):
    """A version of a model in the repository."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(description="Why it is not ready.")
