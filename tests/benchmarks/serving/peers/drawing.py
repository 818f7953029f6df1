"""What every peer draws and answers: this service's model, latents and JSON, with PNGs by Pillow.

Each of its processes runs the network on one thread, as onnxruntime's page "Thread management" has it where
requests, not operators, are what runs at the same time; threads of several pools would only take turns.
"""

from __future__ import annotations

import io
import os
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from service.latents import Latent, draw_latent
from service.metadata import LATENT, parse_metadata

Pixels = NDArray[np.uint8]


def processors() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0))


class Drawer:
    """An open model. `draw` may be called from several threads at once."""

    def __init__(self, path: Path | None = None) -> None:
        """Open a file, by default the one that the benchmark names in BENCH_MODEL."""
        content = (path or Path(os.environ["BENCH_MODEL"])).read_bytes()
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.metadata = parse_metadata(self._session.get_modelmeta().custom_metadata_map)
        self.domains = [domain.name for domain in self.metadata.domains]
        assert self.metadata.prior is not None, "a generator has one"
        self.prior = self.metadata.prior
        self._head = {
            "model": self.metadata.name,
            "version": self.metadata.version,
            "digest": f"sha256:{sha256(content).hexdigest()}",
            "domains": self.domains,
        }

    def draw(self, seeds: Sequence[int]) -> list[Pixels]:
        """Draw image 0 of seeds: uint8 [B, H, W, C] for every domain."""
        return self.run(np.stack([self.latent(seed) for seed in seeds]))

    def latent(self, seed: int) -> Latent:
        """Return the latent [Z] of a seed's image 0."""
        return draw_latent(self.prior, seed)

    def run(self, latents: NDArray[np.float32]) -> list[Pixels]:
        """Draw latents [B, Z]: uint8 [B, H, W, C] for every domain."""
        images: list[Pixels] = self._session.run(self.domains, {LATENT: latents})
        return images

    def answer(self, seed: int, images: Sequence[Pixels]) -> dict[str, Any]:
        """Answer with images [H, W, C] of one seed, one a domain."""
        urls = {name: data_url(image) for name, image in zip(self.domains, images, strict=True)}
        return self._head | {"pairs": [{"seed": seed, "index": 0, "images": urls}]}

    def answers(self, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Draw seeds in one run, and answer each."""
        images = self.draw(seeds)
        return [self.answer(seed, [image[i] for image in images]) for i, seed in enumerate(seeds)]


def data_url(pixels: Pixels) -> str:
    """Write pixels [H, W, C] as the data URL of a PNG, by Pillow as it comes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return "data:image/png;base64," + b64encode(buffer.getvalue()).decode()
