"""How fast this service is beside its peers, in one run, on one model.

    make bench                                                   # everything, about 35 minutes
    .venv-bench/bin/python -m tests.benchmarks.serving --quick   # a check in under 2 minutes

Runs in an environment of its own, which has the peers (requirements.txt) and never this project; the service
runs in its own. Arms take turns: in every repeat each server is started, compared with onnxruntime, warmed
up, asked in closed loops by wrk (or client.py) and in open loops by client.py, and stopped. Server and load
share the processors, so trust ratios, and those on an idle machine. Writes raw values as JSON, a Markdown
page and a plot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.serving.agreement import check
from tests.benchmarks.serving.extras import extras
from tests.benchmarks.serving.load import DISTINCT, Load, Sample, measure
from tests.benchmarks.serving.peers.drawing import Drawer
from tests.benchmarks.serving.processes import adopt_orphans
from tests.benchmarks.serving.results import write
from tests.benchmarks.serving.servers import ALONE, OURS, ROOT, Arm, arms, serving

RESULTS = ROOT / "docs/speed"


def main() -> None:
    """Measure, and write the results."""
    options = parse()
    if (busy := os.getloadavg()[0]) > 0.5:
        print(f"The machine is busy (load {busy:.1f}): no figure of this run is to be trusted.", flush=True)
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # servers are stopped on the way
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        model = install(options.model, Path(folder))
        chosen = [arm for arm in arms(options.service_python) if options.arms in arm.name]
        skipped = {arm.name: f"{arm.module} is not installed" for arm in chosen if not arm.installed}
        for name, why in skipped.items():
            print(f"Skipped: {name}, {why}.", flush=True)
        samples: list[Sample] = []
        limit: dict[str, list[float]] = {}
        for repeat in range(options.repeats):
            turn = [arm for arm in chosen if arm.name not in skipped]
            cut = repeat % max(len(turn), 1)
            for arm in turn[cut:] + turn[:cut]:
                try:
                    samples += measure_arm(arm, model, Path(folder), repeat, options)
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    print(f"Failed: {arm.name}: {error}", flush=True)
                    skipped[arm.name] = "it failed"
            for name, rate in measure_limit(model, options.seconds).items():
                limit.setdefault(name, []).append(rate)
        order = [arm.name for arm in chosen]
        samples.sort(key=lambda sample: order.index(sample.arm))
        write(options, samples, limit, skipped)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    found = sorted((ROOT / "models").glob("digit_edge/*/model.onnx"), key=lambda path: int(path.parent.name))
    environments = (ROOT / name / "bin/python" for name in (".venv-service", ".venv"))
    service = next((path for path in environments if path.exists()), Path(sys.executable))
    parser.add_argument("--model", type=Path, default=found[-1] if found else None)
    parser.add_argument("--service-python", type=Path, default=service, help="interpreter of this service")
    parser.add_argument("--arms", default="", help="measure only arms whose names contain this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="length of one measurement")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--rates", type=float, nargs="+", default=[250, 500, 1000, 1500, 2000])
    parser.add_argument("--no-wrk", action="store_true", help="load by client.py alone")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="all of it once and shortly, as a check")
    options = parser.parse_args()
    if options.model is None:
        parser.error("there is no models/digit_edge/<version>/model.onnx; name a file by --model")
    if options.quick:
        options.repeats, options.seconds, options.connections, options.rates = 1, 1, [1, 32], [100]
    return options


def install(model: Path, folder: Path) -> Path:
    """Copy a model file to where the service looks for it: <models>/<name>/<version>/model.onnx."""
    metadata = Drawer(model).metadata
    path = folder / "models" / metadata.name / metadata.version / "model.onnx"
    path.parent.mkdir(parents=True)
    shutil.copy(model, path)
    return path


def measure_arm(arm: Arm, model: Path, scratch: Path, repeat: int, options: argparse.Namespace) -> Iterator[Sample]:
    """Take all measurements of one server. Raises RuntimeError."""
    drawer, seconds = Drawer(model), options.seconds
    fixed: dict[str, Any] = {"arm": arm.name, "repeat": repeat, "domains": len(drawer.domains)}
    fixed["use_wrk"] = not options.no_wrk
    with serving(arm, model, scratch) as server:
        check(server, drawer)
        measure(server, Load(32, max(1, seconds // 3)), what="warm-up", **fixed)
        loads = [Load(connections, seconds) for connections in options.connections]
        loads += [Load(128, seconds, rate) for rate in options.rates]
        for load in loads:
            yield report(measure(server, load, DISTINCT, what="distinct seeds", **fixed))
        if arm.name in (OURS, ALONE):
            for what, load, question in extras(server, seconds):
                yield report(measure(server, load, question, what=what, **fixed))


def report(sample: Sample) -> Sample:
    """Print a measurement and return it."""
    load = f"{sample.connections} connections" if sample.rate is None else f"rate {sample.rate:g}/s"
    rate, latency = (f"{sample.requests_per_second:7.0f}/s", f"p50 {sample.p50_ms:.2f} p99 {sample.p99_ms:.2f} ms")
    print(f"{sample.arm:22} {sample.what:16} {load:16} {rate}  {latency}  {sample.errors} failed", flush=True)
    return sample


def measure_limit(model: Path, seconds: int) -> dict[str, float]:
    """Run limit.py in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.serving.limit", str(model), str(seconds / 2)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    rates: dict[str, float] = json.loads(done.stdout)
    return rates


if __name__ == "__main__":
    main()
