"""Whether a server draws what onnxruntime draws: speed counts only where the answer is right."""

from __future__ import annotations

import io
import json
from base64 import b64decode
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.benchmarks.serving.peers.drawing import Drawer
from tests.benchmarks.serving.servers import Server, ask

SEEDS = (7, 2**40)


def check(server: Server, drawer: Drawer) -> None:
    """Compare a server's answers with the model's own, pixel by pixel. Raises RuntimeError."""
    for seed in SEEDS:
        status, body = ask(f"{server.url}/generate", b'{"seed":%d}' % seed)
        if status != 200:
            raise RuntimeError(f"seed {seed} was answered with {status}: {body[:300]!r}")
        answer = json.loads(body)
        expected = drawer.answers([seed])[0]
        urls = answer["pairs"][0].pop("images")
        expected["pairs"][0].pop("images")
        if answer != expected:
            raise RuntimeError(f"seed {seed}: the answer is {answer}, not {expected}")
        for name, image in zip(drawer.domains, drawer.draw([seed]), strict=True):
            if not np.array_equal(_pixels(urls[name]), image[0].squeeze()):
                raise RuntimeError(f"seed {seed}: the image of '{name}' differs from onnxruntime's")


def _pixels(url: str) -> NDArray[Any]:
    kind, _, content = url.partition(",")
    if kind != "data:image/png;base64":
        raise RuntimeError(f"an image begins with {url[:40]!r}")
    return np.asarray(Image.open(io.BytesIO(b64decode(content))))
