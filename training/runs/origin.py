"""What made a run: the commit of the code, and the versions of the libraries at work."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "numpy", "lightning-fabric", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu")


def origin() -> dict[str, Any]:
    """Say what code and libraries are at work: the commit, and versions by name."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"commit": commit(), "versions": versions}


def commit() -> str:
    """Name the commit of the code, with -dirty behind it where files differ; unknown outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
