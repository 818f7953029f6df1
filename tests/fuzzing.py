"""Schemathesis on a running service: every check, every operation of its OpenAPI document.

What the document cannot say is made to hold here, rule by rule, in the requests that it calls valid.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import schemathesis

from service.metadata import LATENT
from tests.conftest import CLASS_NAMES, LATENT_DIM
from tests.damaged import picture, saved

ROOT = Path(__file__).parents[1]
CONFIG = Path(__file__).with_suffix(".toml")
ALWAYS = ["--checks", "all", "--continue-on-failure", "--no-shrink", "--suppress-health-check", "all"]
GENERATOR, DOMAINS = "tiny", ["digit", "edge"]  # of the service under test


def fuzz(url: str, *options: str, limit_s: float) -> int:
    """Run schemathesis with all checks and return how many cases it made; fail with its findings."""
    program = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)]
    with tempfile.TemporaryDirectory() as folder:  # where it keeps what it learns
        ran = subprocess.run(
            [*program, "run", f"{url}/openapi.json", *ALWAYS, *options],
            cwd=folder,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.fuzzing", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    cases = re.search(r"(\d+) generated", ran.stdout)
    assert cases, ran.stdout
    return int(cases[1])


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case[Any], __: dict[str, Any]) -> None:
    """Make what should be accepted keep the rules that OpenAPI has no words for."""
    if _hurries(case.headers.get("X-Request-Timeout")):
        del case.headers["X-Request-Timeout"]  # nothing is computed in so short a time
    if case.operation.path.endswith("/unload"):
        case.path_parameters["name"] = "nobody"  # the model is needed for all other requests
    if case.meta is None or case.meta.generation.mode.is_positive:
        if case.operation.path.endswith("/infer"):
            case.path_parameters["name"] = GENERATOR  # other kinds have other inputs
        if case.operation.path == "/translate":
            _send_an_image(case)
        for request in (case.query, case.body):
            if isinstance(request, dict):
                _keep_the_rules(request)
        if case.operation.path.startswith("/shards"):
            case.path_parameters["number"] = "7"  # most are beyond the last seed
            case.query.pop("digest", None)  # it is the model's
            case.query["size"] = 3  # of a thousand, all are sent
        for request in (case.query, case.body):
            if isinstance(request, dict) and request.get("labels") and not case.operation.path.startswith("/shards"):
                request["format"] = "json"  # a picture has no labels
                request.pop("scale", None)


def _hurries(seconds: object) -> bool:
    try:
        return 0 < float(str(seconds)) < 5
    except ValueError:
        return False


def _send_an_image(case: schemathesis.Case[Any]) -> None:
    """Send a real image, as JSON: schemathesis takes a changed body with bytes for one that breaks its schema."""
    fields: dict[str, Any] = case.body if isinstance(case.body, dict) else case.query
    known = {"from": DOMAINS[0], "to": DOMAINS[: len(fields.get("to") or ())]}
    kept: dict[str, Any] = {name: known.get(name, value) for name, value in fields.items() if value is not None}
    case.media_type, case.query = "application/json", {}
    case.body = kept | {"image": f"data:image/png;base64,{b64encode(saved(picture(), 'PNG')).decode()}"}


def _keep_the_rules(request: dict[str, Any]) -> None:
    if request.get("class") is not None:
        request["class"] = CLASS_NAMES[1]  # of the model's classifier; nearly all images are of it
    if request.get("min_confidence") is not None:
        request["min_confidence"] = 0.0  # so that there are as many as are requested
    request.pop("directions", None)  # the model has none
    if request.get("scale") not in (None, 1):
        request["format"] = "png"  # pictures alone are scaled
    if request.get("domains"):  # they are the model's, whichever is served
        request["domains"] = DOMAINS[: len(request["domains"])]
    if request.get("seeds"):
        request["count"] = 1  # seeds x count is bounded
        request.pop("seed", None)  # a query has one source
    if request.get("inputs"):
        request["inputs"] = request["inputs"][:1]  # as the model has one
    for tensor in request.get("inputs") or ():
        tensor |= {
            "name": LATENT,
            "datatype": "FP32",
            "shape": [1, LATENT_DIM],
            "data": [0.0] * LATENT_DIM,
            "parameters": {},
        }
        (request.get("parameters") or {}).pop("timeout", None)  # it may be too short
    if request.get("outputs"):
        request["outputs"] = [{"name": name} for name in DOMAINS[: len(request["outputs"])]]
    for latent in [*(request.get("latents") or ()), *_given(request)]:
        latent[:] = [0.0] * LATENT_DIM  # its length is the model's
    if len(request.get("keyframes", "ab")) * int(request.get("steps", 8)) > 256:
        request |= {"steps": 2, "loop": False}  # keyframes x steps is bounded


def _given(request: dict[str, Any]) -> list[list[float]]:
    return [frame["latent"] for frame in request.get("keyframes", ()) if frame.get("latent")]
