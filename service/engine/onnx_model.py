"""One model file, opened and checked: latents in, images of every domain out.

Axes: B batch, Z latent, H height, W width, C channels.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.engine.sessions import ModelRefused, Provider, first_line, open_session
from service.engine.signatures import check_signature, read_metadata
from service.engine.statistics import Pace, Statistics
from service.metadata import LATENT_INPUT

Latents = NDArray[np.float32]
Images = dict[str, NDArray[np.uint8]]

MOST_PIXELS = 2**20  # of a domain in one run, whose memory grows with them
CACHED = 8  # latents whose activations a processor's caches still hold


def file_digest(path: Path) -> str:
    """Return a file's digest, as a model opened from it has it."""
    return _digest(path.read_bytes())


class OnnxModel:
    """A generator that onnxruntime runs: `run` is safe to call from several threads at once."""

    def __init__(self, path: Path, provider: Provider = "cpu", max_batch: int = 64) -> None:
        """Open the file, check it against its metadata, and answer a warm-up.

        A run has at most `max_batch` latents, and fewer of images so large that a domain would have over
        MOST_PIXELS. Raises ModelRefused, saying what is wrong with the file, and ProviderMissing.
        """
        content = path.read_bytes()
        self.provider: Provider = provider
        self.digest = _digest(content)
        self.statistics, self.pace = Statistics(), Pace()  # of whoever runs it
        self._session = open_session(content, provider)
        # onnxruntime's sessions on a GPU take one run at a time.
        self._turns = threading.Lock() if provider == "cuda" else contextlib.nullcontext()
        self.metadata = read_metadata(self._session)
        self.domains = tuple(domain.name for domain in self.metadata.domains)
        largest = max(domain.height * domain.width for domain in self.metadata.domains)
        self.max_batch = max(1, min(max_batch, MOST_PIXELS // largest))
        if self.metadata.kind != "generator":
            raise ModelRefused(f"its kind is '{self.metadata.kind}'; only a 'generator' is served")
        check_signature(self._session, self.metadata)
        self._warm_up()

    @property
    def name(self) -> str:
        """The model's name, by its metadata."""
        return self.metadata.name

    @property
    def version(self) -> str:
        """The model's version, by its metadata."""
        return self.metadata.version

    @property
    def engine(self) -> str:
        """What computes: another one may round otherwise."""
        return f"onnxruntime {ort.__version__} {self.provider}"

    def __repr__(self) -> str:
        return f"OnnxModel({self.digest})"

    def run(self, latents: Latents) -> Images:
        """Draw latents [B, Z], B at most `max_batch`: uint8 [B, H, W, C] for every domain.

        A CPU gets CACHED of them at a time. On a GPU the batch is padded to `max_batch`: one shape, so that
        the same latent gives the same bytes in whatever company it travels.
        """
        size = len(latents)
        if self.provider == "cuda" and size < self.max_batch:
            latents = np.pad(latents, ((0, self.max_batch - size), (0, 0)))
        part = len(latents) if self.provider == "cuda" else CACHED
        with self._turns:
            parts = [
                self._session.run(self.domains, {LATENT_INPUT: latents[start : start + part]})
                for start in range(0, len(latents), part)
            ]
        columns = zip(self.domains, zip(*parts, strict=True), strict=True)
        return {name: _join(column)[:size] for name, column in columns}

    def _warm_up(self) -> None:
        for size in (self.max_batch, 1):
            latents = np.zeros((size, self.metadata.prior.latent_dim), np.float32)
            try:
                images = self.run(latents)
            except Exception as error:  # onnxruntime's errors share no base class
                raise ModelRefused(f"a warm-up run of {size} latents failed: {first_line(error)}") from error
            for domain in self.metadata.domains:
                found = images[domain.name]
                expected = (size, domain.height, domain.width, domain.channels)
                if found.dtype != np.uint8 or found.shape != expected:
                    raise ModelRefused(
                        f"output '{domain.name}' is {found.dtype} {list(found.shape)} for {size} latents; "
                        f"the metadata promises uint8 {list(expected)}"
                    )


def _join(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
