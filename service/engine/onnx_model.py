"""One model file: loaded, checked against its metadata, and run by onnxruntime.

Axes: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import ProviderMissing
from service.metadata import CLASSES, LATENT, PREVIOUS, ModelMetadata, Prior, graph_digest, parse_metadata

Provider = Literal["cpu", "cuda"]
Arrays = Mapping[str, NDArray[Any]]
DataType = Literal["FP32", "UINT8"]  # as the Open Inference Protocol names them

MAX_RUN_PIXELS = 2**20  # of a domain in one run, whose memory grows with them
CPU_ROWS = 16  # rows of a run on a CPU: of 8, digits take 7% longer; of 64, too large for its caches, faces 10%
PROVIDERS: dict[Provider, tuple[str, dict[str, Any]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": (
        "CUDAExecutionProvider",
        {
            "cudnn_conv_algo_search": "HEURISTIC",  # the default measures anew for every shape
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": 0,  # the same bytes on every generation of GPU
        },
    ),
}
DTYPES: dict[DataType, tuple[type[np.generic], str]] = {
    "FP32": (np.float32, "tensor(float)"),
    "UINT8": (np.uint8, "tensor(uint8)"),
}
LFS_POINTER = b"version https://git-lfs"
# The name of an external initialiser's file as a TensorProto stores it: field 13, its length, {"location": ...}
EXTERNAL_DATA = re.compile(rb"\x6a.{1,3}\x0a\x08location\x12", re.DOTALL)


class ModelRefused(Exception):
    """A model file cannot be served; the message says why."""


class Tensor(NamedTuple):
    """An input or output of a model; its shape is without the batch axis."""

    name: str
    datatype: DataType
    shape: tuple[int, ...]


class LatencyEstimate:
    """Seconds of a row: the median of recent runs, since a run that other processes slowed down predicts nothing."""

    def __init__(self) -> None:
        self.row_s = 0.0  # 0 before the first run
        self._recent: deque[float] = deque(maxlen=9)

    def add(self, rows: int, seconds: float) -> None:
        """Take a run of `rows` rows into account."""
        self._recent.append(seconds / rows)
        self.row_s = sorted(self._recent)[len(self._recent) // 2]


class OnnxModel:
    """A generator, classifier or encoder; `run` is safe to call from several threads at once."""

    def __init__(self, path: Path, provider: Provider = "cpu", max_batch: int = 64) -> None:
        """Load the file, check it against its metadata, and do a warm-up run.

        A run has at most `max_batch` rows, and fewer of images so large that a domain would have over
        MAX_RUN_PIXELS. Raises ModelRefused, saying what is wrong with the file, and ProviderMissing.
        """
        begun, content = time.perf_counter(), path.read_bytes()
        self.provider: Provider = provider
        self.digest = file_digest(content)
        self.latency = LatencyEstimate()
        self._session = _load_session(content, provider)
        self._turns = threading.Lock() if provider == "cuda" else contextlib.nullcontext()  # one run at a time
        self.metadata, self.graph_digest = _read_metadata(self._session, content)
        self.name, self.version = self.metadata.name, self.metadata.version
        self.shapes = {domain.name: domain for domain in self.metadata.domains}
        self.domains = tuple(self.shapes)
        areas = [domain.height * domain.width for domain in self.metadata.domains]
        self.pixels = sum(areas)  # of all domains, for one row
        self.max_batch = max(1, min(max_batch, MAX_RUN_PIXELS // max(areas)))
        self.engine = f"onnxruntime {ort.__version__} {provider}"  # another one may round differently
        self.inputs, self.outputs = _tensors(self.metadata)
        _check_tensors("inputs", self.inputs, self._session.get_inputs())
        _check_tensors("outputs", self.outputs, self._session.get_outputs())
        self._warm_up()
        self.load_s = time.perf_counter() - begun

    @property
    def prior(self) -> Prior:
        """The prior of a generator's latents."""
        assert self.metadata.prior is not None, "metadata of a generator has a prior"
        return self.metadata.prior

    def run(self, inputs: Arrays) -> Arrays:
        """Return all outputs, [B, ...], of inputs [B, ...] with B at most `max_batch`.

        A CPU gets CPU_ROWS rows at a time. On a GPU the batch is padded to `max_batch`: one shape, so that the same
        row gives the same bytes in every batch.
        """
        size = len(next(iter(inputs.values())))
        step = CPU_ROWS if self.provider == "cpu" else self.max_batch
        if self.provider == "cuda" and size < self.max_batch:
            padding = {name: np.zeros((self.max_batch - size, *a.shape[1:]), a.dtype) for name, a in inputs.items()}
            inputs = concatenate([inputs, padding])
        names = [output.name for output in self.outputs]
        with self._turns:
            parts = [self._session.run(names, take(inputs, at, at + step)) for at in range(0, size, step)]
        return take(concatenate([dict(zip(names, part, strict=True)) for part in parts]), 0, size)

    def _warm_up(self) -> None:
        for size in (self.max_batch, 1):
            zeros = {t.name: np.zeros((size, *t.shape), DTYPES[t.datatype][0]) for t in self.inputs}
            try:
                found = self.run(zeros)
            except Exception as error:  # onnxruntime's errors share no base class
                raise ModelRefused(f"a warm-up run of {size} rows failed: {_first_line(error)}") from error
            for name, datatype, shape in self.outputs:
                array, dtype, expected = found[name], np.dtype(DTYPES[datatype][0]), (size, *shape)
                if array.dtype != dtype or array.shape != expected:
                    raise ModelRefused(
                        f"output '{name}' is {array.dtype} {list(array.shape)} for {size} rows; the metadata "
                        f"promises {dtype} {list(expected)}"
                    )


def concatenate(parts: Sequence[Arrays]) -> Arrays:
    """Return arrays by name, each joined from its parts [B, ...]."""
    return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def take(arrays: Arrays, start: int, stop: int) -> Arrays:
    """Return rows from `start` to `stop` of all arrays."""
    return {name: array[start:stop] for name, array in arrays.items()}


def file_digest(content: bytes) -> str:
    """Return the digest of a file, which names a model."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _tensors(metadata: ModelMetadata) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and the outputs that a model of this metadata has."""
    images = tuple(Tensor(d.name, "UINT8", (d.height, d.width, d.channels)) for d in metadata.domains)
    if metadata.kind == "classifier":
        return images, (Tensor(CLASSES, "FP32", (len(metadata.classes),)),)
    assert metadata.prior is not None, "checked by the metadata"
    latent = Tensor(LATENT, "FP32", (metadata.prior.latent_dim,))
    if metadata.kind == "generator":
        return (latent,), images
    return (*images, latent._replace(name=PREVIOUS)), (latent,)


def require_provider(provider: Provider) -> None:
    """Raise ProviderMissing if onnxruntime lacks `provider`: it would fall back silently."""
    if provider == "cuda":
        ort.preload_dlls()
    name = PROVIDERS[provider][0]
    if name not in (available := ort.get_available_providers()):
        raise ProviderMissing(
            f"COGAN_PROVIDER = {provider!r} (--provider) needs onnxruntime's {name}, but only {available} are "
            "available; install the package with the extra 'gpu' and without 'cpu'"
        )


def _load_session(content: bytes, provider: Provider) -> ort.InferenceSession:
    """Return a session of a model file. Raises ModelRefused, and ProviderMissing if it would run elsewhere."""
    if not content:
        raise ModelRefused("the file is empty; copy it again")
    if content.startswith(LFS_POINTER):
        raise ModelRefused("the file is a pointer of Git LFS, not the model; get it with `git lfs pull`")
    if EXTERNAL_DATA.search(content):
        raise ModelRefused("it has weights in other files (external data); export it as one file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # runs are parallel
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # errors are raised; its own log lines are not JSON
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(content, options, providers=[PROVIDERS[provider]])
    except Exception as error:  # onnxruntime's errors share no base class
        remedy = "; it is damaged or incomplete, copy it again" if "INVALID_PROTOBUF" in str(error) else ""
        raise ModelRefused(f"onnxruntime cannot read the file: {_first_line(error)}{remedy}") from error
    if (active := session.get_providers()[0]) != PROVIDERS[provider][0]:
        raise ProviderMissing(
            f"COGAN_PROVIDER = {provider!r}, but onnxruntime fell back to {active}; "
            "are the GPU's driver, CUDA and cuDNN installed?"
        )
    return session


def _read_metadata(session: ort.InferenceSession, content: bytes) -> tuple[ModelMetadata, str]:
    try:
        return parse_metadata(session.get_modelmeta().custom_metadata_map), graph_digest(content)
    except ValueError as error:  # a MetadataError, or onnxruntime's
        problem = "its metadata is not UTF-8: " if isinstance(error, UnicodeDecodeError) else ""
        raise ModelRefused(f"{problem}{error}") from error


def _check_tensors(what: str, expected: Sequence[Tensor], nodes: Sequence[Any]) -> None:
    """Compare what the graph declares with the metadata; open sizes are checked by the warm-up."""
    names, found = [tensor.name for tensor in expected], {node.name: node for node in nodes}
    if sorted(names) != sorted(found):
        raise ModelRefused(f"the graph's {what} are {list(found)}; the metadata promises {names}")
    for name, datatype, shape in expected:
        node, kind = found[name], DTYPES[datatype][1]
        sizes = zip(node.shape, (None, *shape), strict=False)
        fits = len(node.shape) == len(shape) + 1 and all(a == b or not isinstance(a, int) for a, b in sizes)
        if node.type != kind or not fits:
            promised = f"{kind} {['batch', *shape]}"
            raise ModelRefused(f"'{name}' is {node.type} {node.shape}; the metadata promises {promised}")


def _first_line(error: Exception) -> str:
    return f"{str(error).splitlines()[0]:.300}" if str(error) else type(error).__name__
