"""Writes what was measured: raw values, a page, a plot, and what they were measured with."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks.serving import plot
from tests.benchmarks.serving.load import WRK, Sample
from tests.benchmarks.serving.peers.drawing import processors
from tests.benchmarks.serving.report import markdown

LIBRARIES = ("fastapi", "uvicorn", "litserve", "bentoml", "ray", "onnxruntime", "pillow", "numpy")


def write(
    options: argparse.Namespace, samples: list[Sample], limit: dict[str, list[float]], skipped: dict[str, str]
) -> None:
    """Write serving.json, serving.md and serving.svg."""
    results = {
        "model": f"{options.model.parent.parent.name}/{options.model.parent.name}",
        "date": time.strftime("%Y-%m-%d"),
        "repeats": options.repeats,
        "seconds": options.seconds,
        "load_generator": "client.py" if WRK is None or options.no_wrk else "wrk, open loops by client.py",
        "machine": {"processors": processors(), "processor": processor(), "load": os.getloadavg()},
        "versions": {"Python": platform.python_version()} | installed(),
        "skipped": skipped,
        "limit": limit,
        "samples": [dataclasses.asdict(sample) for sample in samples],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "serving.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.results / "serving.md").write_text(markdown(results, samples))
    plot.draw(samples, limit, options.results / "serving.svg")
    print(f"written: {options.results}/serving.json, serving.md, serving.svg")


def processor() -> str:
    """Name the processor's model."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def installed() -> dict[str, str]:
    """Return the versions of the libraries that are here."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
