"""Validation of Kubernetes manifests by those who define their kinds; unknown fields are refused.

Core kinds: the JSON schemas of the package `kubernetes-validate`. KEDA's and the Prometheus operator's: the types of
`@kubernetes-models`, against which TypeScript checks each manifest as a literal. KServe's: the classes of its package.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

Document = dict[str, Any]
NODE_MODULES = Path(sys.prefix) / "node_modules"
KSERVE = Path(sys.prefix) / "kserve"  # apart, for its server's dependencies are not here
KUBERNETES = "1.34"  # the oldest that is supported is enough: nothing newer is used
MODELS = {"keda.sh": "keda", "monitoring.coreos.com": "prometheus-operator"}


def validate(document: Document, folder: Path) -> None:
    """Raise AssertionError if a manifest has a field that its kind lacks or a value that it refuses."""
    group = document["apiVersion"].rpartition("/")[0]
    if group == "kustomize.config.k8s.io":
        assert document.keys() == {"apiVersion", "kind", "resources"}
    elif group == "serving.kserve.io":
        validate_kserve(document)
    elif group in MODELS:
        validate_typescript(document, MODELS[group], folder)
    else:
        validate_core(document)


def validate_core(document: Document) -> None:
    """Check a manifest of Kubernetes itself."""
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise AssertionError(f"{document['kind']}: {error}") from error


def validate_typescript(document: Document, package: str, folder: Path) -> None:
    """Check a manifest against the type of its kind, as an object literal, which may have no other field."""
    if not NODE_MODULES.is_dir():
        pytest.skip(f"{NODE_MODULES} is missing: `make setup` installs it where npm's registry is reached")
    kind = document["kind"]
    (folder / "node_modules").unlink(missing_ok=True)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    (folder / "manifest.ts").write_text(
        f'import type {{ I{kind} }} from "@kubernetes-models/{package}/{document["apiVersion"]}/{kind}";\n'
        f"export const manifest: I{kind} = {json.dumps(document)};\n"
    )
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext"]
    command: list[str | Path] = [
        Path(sys.prefix) / "bin/node",
        NODE_MODULES / "typescript/bin/tsc",
        *options,
        "manifest.ts",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"{kind}: {done.stdout}"


def validate_kserve(document: Document) -> None:
    """Check a manifest of KServe against the classes of its Python package."""
    models = kserve_models()
    version = document["apiVersion"].rpartition("/")[2].capitalize()
    check_fields(document, f"{version}{document['kind']}", models, document["kind"])


def kserve_models() -> types.ModuleType:
    """Import `kserve.models` alone: the whole package imports a server and its dependencies."""
    assert KSERVE.is_dir(), f"{KSERVE} is missing: `make setup` installs it"
    package = types.ModuleType("kserve")
    package.__path__ = [str(KSERVE / "kserve")]
    sys.modules.setdefault("kserve", package)
    return importlib.import_module("kserve.models")


def check_fields(value: Any, kind: str, models: types.ModuleType, place: str) -> None:
    """Check a value against the name of a type as KServe's classes write it: `list[V1Container]`."""
    if match := re.fullmatch(r"list\[(.*)\]", kind):
        assert isinstance(value, list), place
        for number, item in enumerate(value):
            check_fields(item, match[1], models, f"{place}[{number}]")
    elif match := re.fullmatch(r"dict\(str, (.*)\)", kind):
        assert isinstance(value, dict), place
        for name, item in value.items():
            check_fields(item, match[1], models, f"{place}.{name}")
    elif kind in ("str", "int", "bool", "float"):
        assert type(value).__name__ == kind, f"{place} = {value!r} is no {kind}"
    elif model := getattr(models, kind, None):
        types_of = {json_name: model.openapi_types[name] for name, json_name in model.attribute_map.items()}
        assert value.keys() <= types_of.keys(), f"{place} has no {value.keys() - types_of.keys()}"
        for name, item in value.items():
            check_fields(item, types_of[name], models, f"{place}.{name}")
        model(local_vars_configuration=None, **{n: value.get(j) for n, j in model.attribute_map.items()})
    elif kind == "V1Container":
        validate_core({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": [value]}})
    else:
        assert kind == "V1ObjectMeta", f"{place}: nothing here knows a {kind}"
        validate_core({"apiVersion": "v1", "kind": "ConfigMap", "metadata": value})
