"""A plain FastAPI endpoint, run by uvicorn.

- "Concurrency and async / await": work that blocks goes into a `def` endpoint, which runs in the thread pool.
- "Custom Response", section "JSON Performance": a Pydantic return type is serialised in Rust.
- "Server Workers": several worker processes use several processors; "FastAPI in Containers": one process a
  container. Both are measured, as one process and as one for each processor.
- uvicorn's page "Settings": with its extra `standard` it takes uvloop and httptools; the access log is off.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from tests.benchmarks.serving.peers.drawing import Drawer

app = FastAPI()
drawer = Drawer()


class Asked(BaseModel):
    """Body of a request."""

    seed: int


class Pair(BaseModel):
    """The images of one seed."""

    seed: int
    index: int
    images: dict[str, str]


class Answer(BaseModel):
    """Answer with one pair."""

    model: str
    version: str
    digest: str
    domains: list[str]
    pairs: list[Pair]


@app.post("/generate", response_model=Answer)
def generate(asked: Asked) -> dict[str, Any]:
    """Draw the images of a seed."""
    return drawer.answers([asked.seed])[0]
