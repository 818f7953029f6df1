"""Sessions of onnxruntime: what they compute on, with how many threads, and that they do as they are told."""

from __future__ import annotations

from typing import Any, Literal

import onnxruntime as ort

from service.errors import ProviderMissing

Provider = Literal["cpu", "cuda"]

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


class ModelRefused(Exception):
    """A model file cannot be served; the message says why."""


def require_provider(provider: Provider) -> None:
    """Raise ProviderMissing where onnxruntime lacks `provider`: it would fall back silently."""
    if provider == "cuda":
        ort.preload_dlls()
    name = PROVIDERS[provider][0]
    if name not in (available := ort.get_available_providers()):
        raise ProviderMissing(
            f"COGAN_PROVIDER = {provider!r} needs onnxruntime's {name}, but only {available} are there; "
            "install the package with the extra 'gpu' and without 'cpu'"
        )


def open_session(content: bytes, provider: Provider) -> ort.InferenceSession:
    """Open a model file's content. Raises ModelRefused, and ProviderMissing where it would run elsewhere."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # runs are parallel; and explicit threads are not pinned to cores
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # errors are raised; its own log lines are not JSON
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(content, options, providers=[PROVIDERS[provider]])
    except Exception as error:  # onnxruntime's errors share no base class
        raise ModelRefused(f"onnxruntime cannot read the file: {first_line(error)}") from error
    if (active := session.get_providers()[0]) != PROVIDERS[provider][0]:
        raise ProviderMissing(
            f"COGAN_PROVIDER = {provider!r}, but onnxruntime fell back to {active}; "
            "are the GPU's driver, CUDA and cuDNN there?"
        )
    return session


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return f"{str(error).splitlines()[0]:.300}" if str(error) else type(error).__name__
